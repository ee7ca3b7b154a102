package editlog

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

var testKind = Kind{Prefix: "LIST", File: frame.FileCatalog}

// counting is a source of salts that is the same each time.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = c.n
	}
	return len(p), nil
}

// list is a state: its edits in order. A snapshot is all of them in one.
type list []string

func (l list) snapshot() []byte {
	var b []byte
	for _, s := range l {
		b = append(append(b, s...), '\n')
	}
	return b
}

func load(fsys vfs.FS) (list, *Loaded, error) {
	var got list
	loaded, err := Load(fsys, "/", testKind, func(n uint64, edit []byte) error {
		if n == 1 {
			if len(got) != 0 {
				return errors.New("a snapshot behind edits")
			}
			for i := 0; i < len(edit); {
				j := i + slices.Index(edit[i:], '\n')
				if j < i {
					return errors.New("a snapshot that is none")
				}
				got = append(got, string(edit[i:j]))
				i = j + 1
			}
			return nil
		}
		got = append(got, string(edit))
		return nil
	})
	return got, loaded, err
}

// session is one open of an edit log.
type session struct {
	state list
	w     *Writer
}

func open(fsys vfs.FS, salt byte) (*session, error) {
	state, loaded, err := load(fsys)
	if err != nil && !errors.Is(err, ErrNone) {
		return nil, err
	}
	s := &session{state: state, w: NewWriter(fsys, "/", testKind, [16]byte{1}, loaded, &counting{salt})}
	if err != nil || loaded.Dirty {
		if err := s.w.Rotate(s.state.snapshot()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *session) add(edit string) error {
	if err := s.w.Append([]byte(edit), s.state.snapshot); err != nil {
		return err
	}
	s.state = append(s.state, edit)
	return nil
}

func TestAppendAndLoad(t *testing.T) {
	mem := vfs.NewMem()
	var want list
	for round := range 5 {
		s, err := open(mem, byte(round))
		require.NoError(t, err)
		require.Equal(t, want, s.state)
		for i := range 3 {
			require.NoError(t, s.add(fmt.Sprintf("edit %d of round %d", i, round)))
			got, loaded, err := load(mem)
			require.NoError(t, err)
			require.False(t, loaded.Dirty)
			require.Equal(t, s.state, got)
			require.Equal(t, s.w.Name(), loaded.Name)
			require.Empty(t, loaded.Others)
		}
		want = s.state
		require.NoError(t, s.w.Close())
		require.Empty(t, s.w.Name())
		require.Error(t, s.add("after close"))
		names, err := mem.List("/")
		require.NoError(t, err)
		require.Len(t, names, 1, "one file at a time")
	}
}

// TestRotationBySize: a long list begins new files of its own accord, and
// nothing is lost on the way.
func TestRotationBySize(t *testing.T) {
	mem := vfs.NewMem()
	s, err := open(mem, 0)
	require.NoError(t, err)
	names := map[string]bool{}
	for i := range 600 {
		require.NoError(t, s.add(fmt.Sprintf("edit %d", i)))
		names[s.w.Name()] = true
	}
	require.Greater(t, len(names), 2)
	got, _, err := load(mem)
	require.NoError(t, err)
	require.Equal(t, s.state, got)
	require.Less(t, mem.Used(), int64(2*rotateSize))
}

func TestNothingIsWrittenBeforeTheFirstEdit(t *testing.T) {
	mem := vfs.NewMem()
	s, err := open(mem, 0)
	require.NoError(t, err)
	require.NoError(t, s.add("one"))
	require.NoError(t, s.w.Close())
	rec := vfs.NewRecorder(mem)
	s, err = open(rec, 1)
	require.NoError(t, err)
	require.NoError(t, s.w.Close())
	for _, e := range rec.Events() {
		switch e.Call {
		case vfs.CallCreate, vfs.CallWrite, vfs.CallRemove, vfs.CallRename, vfs.CallSync, vfs.CallSyncData, vfs.CallSyncDir, vfs.CallZero:
			t.Fatalf("%s of %s", e.Call, e.Name)
		}
	}
}

func TestKindParse(t *testing.T) {
	for name, want := range map[string]uint64{"LIST-000001": 1, "LIST-1234567": 1234567, "LIST-1": 0, "LIST-000000": 0, "LIST-00001x": 0, "OTHER-000001": 0, "LIST": 0, "LIST-+00001": 0} {
		n, ok := testKind.Parse(name)
		require.Equal(t, want != 0, ok, name)
		if ok {
			require.Equal(t, want, n)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	mem := vfs.NewMem()
	s, err := open(mem, 0)
	require.NoError(t, err)
	require.NoError(t, s.add("one"))
	b := mem.Bytes(s.w.Name())
	var c *base.CorruptionError

	// A header of another file is what a crash can leave of a new one; it never
	// brings that file's edits back.
	other := vfs.NewMem()
	require.NoError(t, other.SetBytes("LIST-000005", b))
	_, _, err = load(other)
	require.ErrorIs(t, err, ErrNone, "the file of another number")
	require.NoError(t, other.SetBytes("LIST-000001", b))
	got, loaded, err := load(other)
	require.NoError(t, err)
	require.Equal(t, s.state, got)
	require.Equal(t, []string{"LIST-000005"}, loaded.Others)

	_, err = Load(mem, "/", Kind{"LIST", frame.FileManifest}, nil)
	require.ErrorIs(t, err, ErrNone, "a file of another kind")

	_, err = Load(mem, "/", testKind, func(uint64, []byte) error { return errors.New("no such tag") })
	require.ErrorAs(t, err, &c, "an edit that is not understood")
	require.Equal(t, "LIST-000001", c.File[len(c.File)-11:])
}

// script makes a list over two opens, with a rotation in each. acked is told
// of every edit that may be acted on.
func script(fsys vfs.FS, acked func(n int)) (list, error) {
	var state list
	for round := range 2 {
		s, err := open(fsys, byte(10*round))
		if err != nil {
			return state, err
		}
		acked(len(s.state))
		for i := range 2 {
			err := s.add(fmt.Sprintf("edit %d", len(s.state)+1))
			state = s.state
			if err != nil {
				return state, err
			}
			acked(len(s.state))
			if i == 0 {
				if err := s.w.Rotate(s.state.snapshot()); err != nil {
					return state, err
				}
			}
		}
		if err := s.w.Close(); err != nil {
			return state, err
		}
	}
	return state, nil
}

// checkCut opens what a power cut left: the first n edits, n at least what was
// acknowledged; and again after another open and another edit.
func checkCut(t *testing.T, disk *vfs.Mem, acked int, format string, args ...any) {
	t.Helper()
	fail := func(what string, a ...any) {
		t.Fatalf("%s: %s", fmt.Sprintf(format, args...), fmt.Sprintf(what, a...))
	}
	got, _, err := load(disk)
	if errors.Is(err, ErrNone) && acked == 0 {
		err = nil
	}
	if err != nil {
		fail("%v", err)
	}
	if len(got) < acked {
		fail("%d edits, %d were acknowledged", len(got), acked)
	}
	for i, e := range got {
		if want := fmt.Sprintf("edit %d", i+1); e != want {
			fail("edit %d is %q", i+1, e)
		}
	}
	if len(got) > 4 {
		fail("%d edits, 4 were made", len(got))
	}
	s, err := open(disk, 77)
	if err != nil {
		fail("open: %v", err)
	}
	if !slices.Equal(s.state, got) {
		fail("open shows %v, load %v", s.state, got)
	}
	if err := s.add("next"); err != nil {
		fail("append: %v", err)
	}
	again, _, err := load(disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }))
	if err != nil || !slices.Equal(again, s.state) {
		fail("after another edit: %v, %v", again, err)
	}
}

// TestEveryPowerCut cuts the power behind every change, with every set of kept
// and lost units where these are few and with many random fates where not,
// under both models of the disk.
func TestEveryPowerCut(t *testing.T) {
	mem := vfs.NewMem()
	acked, cuts := 0, 0
	changes := 0
	mem.OnIO(func(op vfs.Op) {
		changes++
		at := mem.Snapshot()
		units := at.Unsynced()
		// Sectors of one write beyond the first few are alike: take them
		// together, so that all sets of the rest can be tried.
		group := make([]int, len(units))
		groups := 0
		for i, u := range units {
			if i > 0 && u.Kind == vfs.SectorUnit && units[i-1].Kind == vfs.SectorUnit && u.Ino == units[i-1].Ino && u.Sector%8 > 1 {
				group[i] = group[i-1]
				continue
			}
			group[i] = groups
			groups++
		}
		if groups <= 10 {
			for set := range 1 << groups {
				disk := at.PowerCut(func(i int, _ vfs.Unit) vfs.Fate {
					if set>>group[i]&1 == 1 {
						return vfs.Kept
					}
					return vfs.Lost
				})
				checkCut(t, disk, acked, "change %d (%s), %d groups, set %b", changes, op.Call, groups, set)
				cuts++
			}
		}
		for _, model := range []vfs.Model{vfs.SectorAtomic, vfs.NothingAssumed, vfs.Ordered} {
			for seed := range uint64(12) {
				checkCut(t, at.PowerCutSeed(seed, model), acked, "change %d (%s), model %d, seed %d", changes, op.Call, model, seed)
				cuts++
			}
		}
	})
	state, err := script(mem, func(n int) { acked = max(acked, n) })
	require.NoError(t, err)
	require.Len(t, state, 4)
	t.Logf("%d disks behind %d changes", cuts, changes)
}

// TestEveryBit flips every bit of a file whose edits were all acted on: either
// the same state or an error, never fewer edits. A header that does not verify
// is no file at all, and who calls Load looks what else is there.
func TestEveryBit(t *testing.T) {
	mem := vfs.NewMem()
	s, err := open(mem, 0)
	require.NoError(t, err)
	require.NoError(t, s.add("edit 1"))
	require.NoError(t, s.add("edit 2"))
	name := s.w.Name()
	size := int64(len(mem.Bytes(name)))
	same, corrupt, none := 0, 0, 0
	for i := int64(0); i < size; i++ {
		for bit := range 8 {
			if i >= frame.HeaderSize && i%frame.BlockAlign >= 160 && (i*8+int64(bit))%37 != 0 {
				continue // long padding
			}
			flip := func(b []byte) { b[0] ^= 1 << bit }
			require.NoError(t, mem.Corrupt(name, i, 1, flip))
			got, _, err := load(mem)
			var c *base.CorruptionError
			switch {
			case err == nil && slices.Equal(got, s.state):
				same++
			case errors.As(err, &c) && c.Offset >= frame.BlockAlign && c.Offset <= i:
				corrupt++
			case errors.Is(err, ErrNone) && i < frame.HeaderSize:
				none++
			default:
				t.Fatalf("bit %d of byte %d: %v, %v", bit, i, got, err)
			}
			require.NoError(t, mem.Corrupt(name, i, 1, flip))
		}
	}
	t.Logf("same state %d, corruption %d, no file %d", same, corrupt, none)
	require.Equal(t, frame.HeaderSize*8, none)
}

// TestEveryError makes each call of the script fail once. The writer is
// poisoned, nothing is acknowledged behind it, and an open finds what was.
func TestEveryError(t *testing.T) {
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC} {
		for _, call := range []vfs.Call{vfs.CallCreate, vfs.CallOpen, vfs.CallRemove, vfs.CallList, vfs.CallSyncDir, vfs.CallRead, vfs.CallWrite, vfs.CallSize, vfs.CallSync, vfs.CallSyncData} {
			for k := 1; ; k++ {
				for _, after := range []bool{false, true} {
					mem := vfs.NewMem()
					in := vfs.NewInjector(mem)
					rule := in.Add(vfs.Rule{Call: call, K: k, Err: errno, Part: 100 * k, After: after})
					acked := 0
					state, err := script(in, func(n int) { acked = max(acked, n) })
					if rule.Hits() == 0 {
						require.NoError(t, err)
						require.Len(t, state, 4)
						goto next
					}
					require.ErrorIs(t, err, errno, "%s %d", call, k)
					checkCut(t, mem.Snapshot(), acked, "%s %d fails, after %v, reopen", call, k, after)
					for seed := range uint64(6) {
						checkCut(t, mem.PowerCutSeed(seed, vfs.NothingAssumed), acked, "%s %d fails, after %v, cut %d", call, k, after, seed)
					}
				}
			}
		next:
		}
	}
}

// TestPoison: behind an error every later edit is refused with the same cause.
func TestPoison(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	s, err := open(in, 0)
	require.NoError(t, err)
	require.NoError(t, s.add("edit 1"))
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Err: syscall.EIO})
	require.ErrorIs(t, s.add("edit 2"), syscall.EIO)
	in.ResetCounts()
	require.ErrorIs(t, s.add("edit 2"), syscall.EIO)
	require.ErrorIs(t, s.w.Rotate(nil), syscall.EIO)
	require.Zero(t, in.Count(vfs.CallNone), "a poisoned writer calls nothing")
	require.NoError(t, s.w.Close())
}

// TestNoRoom: an edit without room on the disk, or without a file for it, is
// refused; the next that has room is taken, and a load finds that one alone.
func TestNoRoom(t *testing.T) {
	for _, call := range []vfs.Call{vfs.CallCreate, vfs.CallZero, vfs.CallMark} {
		after := call == vfs.CallMark // the call that fails has made the file all the same
		if after {
			call = vfs.CallCreate
		}
		for k := 1; k <= 4; k++ {
			mem := vfs.NewMem()
			s, err := open(mem, 0)
			require.NoError(t, err)
			require.NoError(t, s.w.Close())
			in := vfs.NewInjector(mem)
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.ENOSPC, Part: 5000, After: after})
			var want list
			refused := 0
			s, err = open(in, 1)
			require.NoError(t, err)
			for i := range 6 {
				edit := fmt.Sprintf("edit %d", i)
				if err := s.add(edit); err != nil {
					require.ErrorIs(t, err, syscall.ENOSPC)
					require.NoError(t, s.w.Err())
					refused++
					continue
				}
				want = append(want, edit)
				if i == 3 { // the edit after it wants another file, and does without if it must
					s.w.rotateAt = 0
				}
				for seed := range uint64(4) {
					got, _, err := load(mem.PowerCutSeed(seed, vfs.NothingAssumed))
					require.NoError(t, err, "%s %d", call, k)
					require.Equal(t, want, got, "%s %d", call, k)
				}
			}
			if call == vfs.CallZero || k <= 2 {
				require.Equal(t, 1, rule.Hits())
			}
			require.LessOrEqual(t, refused, 1, "what failed once is not in the way for ever")
			require.NoError(t, s.w.Close())
		}
	}
}

func FuzzLoad(f *testing.F) {
	mem := vfs.NewMem()
	s, err := open(mem, 0)
	require.NoError(f, err)
	require.NoError(f, s.add("edit 1"))
	good := mem.Bytes(s.w.Name())
	h, err := frame.DecodeFileHeader(good)
	require.NoError(f, err)
	// Small alignment makes small seeds.
	h.Align = frame.FrameAlign
	var b frame.Builder
	b.Reset(&h, frame.CodecNone, h.Start(), 0)
	b.Record(1, 0, []byte("snapshot\n"), 0, 0)
	b.Mark(2, 1, 0)
	b.Record(2, 0, []byte("edit"), 1, 0)
	b.Mark(3, 2, 0)
	small := append(h.Encode(), b.Bytes()...)
	f.Add(small, []byte(nil))
	f.Add(small[:len(small)-1], small)
	f.Add(small, small)
	f.Add([]byte("x"), []byte("y"))
	f.Fuzz(func(t *testing.T, older, newer []byte) {
		mem := vfs.NewMem()
		require.NoError(t, mem.SetBytes("LIST-000001", older))
		require.NoError(t, mem.SetBytes("LIST-000002", newer))
		var got list
		var loaded *Loaded
		var err error
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, loaded, err = load(mem)
		runtime.ReadMemStats(&after)
		// A window of a reader for each file, and what the fuzzing engine needs.
		if n := len(older) + len(newer); after.TotalAlloc-before.TotalAlloc > uint64(64*n+4<<20) {
			t.Fatalf("%d bytes allocated for %d", after.TotalAlloc-before.TotalAlloc, n)
		}
		if err != nil {
			return
		}
		if loaded.Records == 0 || loaded.Size > int64(max(len(older), len(newer))) {
			t.Fatalf("%+v", loaded)
		}
		// What was loaded can be gone on from.
		s, err := open(mem, 9)
		require.NoError(t, err)
		require.Equal(t, got, s.state)
		require.NoError(t, s.add("next"))
		again, _, err := load(mem)
		require.NoError(t, err)
		require.Equal(t, s.state, again)
	})
}

// TestProvenHasAName kills the process behind every change, and then cuts the
// power: what an open took for proven, and so left as it was, must still be there,
// its name included.
func TestProvenHasAName(t *testing.T) {
	mem := vfs.NewMem()
	proven := 0
	mem.OnIO(func(op vfs.Op) {
		killed := mem.Snapshot()
		want, loaded, err := load(killed)
		if err != nil || loaded.Dirty {
			return
		}
		proven++
		for _, f := range []vfs.Fate{vfs.Lost, vfs.Kept} {
			disk := killed.PowerCut(func(_ int, u vfs.Unit) vfs.Fate {
				if u.Kind == vfs.SectorUnit {
					return f
				}
				return vfs.Lost
			})
			got, _, err := load(disk)
			require.NoError(t, err, "behind %s, %v", op.Call, f)
			require.Equal(t, want, got)
		}
	})
	_, err := script(mem, func(int) {})
	require.NoError(t, err)
	require.Positive(t, proven)
}

// shrunk is a file that became shorter after its size was asked for.
type shrunk struct {
	vfs.File
	to int64
}

func (f shrunk) ReadAt(p []byte, off int64) (int, error) {
	if n := f.to - off; n < int64(len(p)) {
		got, _ := f.File.ReadAt(p[:max(n, 0)], off)
		return got, io.EOF
	}
	return f.File.ReadAt(p, off)
}

// TestFileThatShrinks: an end of file where there was none is an error of the disk,
// not the end of the header.
func TestFileThatShrinks(t *testing.T) {
	mem := vfs.NewMem()
	s, err := open(mem, 0)
	require.NoError(t, err)
	require.NoError(t, s.add("edit 1"))
	f, err := mem.Open(s.w.Name(), vfs.ReadOnly)
	require.NoError(t, err)
	for _, to := range []int64{0, 1, frame.HeaderSize - 1} {
		_, _, err = ReadHeader(shrunk{f, to}, "name")
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.NotErrorIs(t, err, frame.ErrNoHeader)
	}
	_, _, err = ReadHeader(shrunk{f, frame.HeaderSize}, "name")
	require.NoError(t, err)
}

// TestEveryReadOfALoadFails: a read that fails is no end of the edits.
func TestEveryReadOfALoadFails(t *testing.T) {
	mem := vfs.NewMem()
	s, err := open(mem, 0)
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, s.add(fmt.Sprintf("edit %d", i)+string(make([]byte, 300<<10)))) // more than a reader's window
	}
	require.NoError(t, mem.SetBytes("LIST-000009", []byte("left over")))
	require.NoError(t, mem.SetBytes(s.w.Name(), append(mem.Bytes(s.w.Name()), make([]byte, 8192)...))) // where a proof might be
	for _, call := range []vfs.Call{vfs.CallList, vfs.CallOpen, vfs.CallSize, vfs.CallRead} {
		for k := 1; ; k++ {
			in := vfs.NewInjector(mem)
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
			got, _, err := load(in)
			if rule.Hits() == 0 {
				require.NoError(t, err)
				require.Equal(t, s.state, got)
				require.True(t, call != vfs.CallRead || k > 4, "%d reads", k)
				break
			}
			require.ErrorIs(t, err, syscall.EIO, "%s %d", call, k)
			var c *base.CorruptionError
			require.False(t, errors.As(err, &c))
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, syscall.EIO }

// TestNoSalt: a file without a random salt is not begun.
func TestNoSalt(t *testing.T) {
	mem := vfs.NewMem()
	w := NewWriter(mem, "/", testKind, [16]byte{1}, nil, failing{})
	require.ErrorIs(t, w.Rotate(nil), syscall.EIO)
	require.ErrorIs(t, w.Err(), syscall.EIO)
	names, err := mem.List("/")
	require.NoError(t, err)
	require.Empty(t, names)
}
