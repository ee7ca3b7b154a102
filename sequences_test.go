package forebay_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// The tests of this file are the sequences of docs/recovery.md, by number: each
// broke a plainer rule on paper before anything was built. go run ./sabotage
// takes their rules out one by one and looks that something finds it.

// logOptions: small files, nothing that depends on time.
func logOptions(fs vfs.FS) *wal.Options {
	return &wal.Options{FS: fs, FirstFileSize: 64 << 10, FileSize: 64 << 10, MarkDelay: -1, NoSpares: true}
}

func storeOptions(fs vfs.FS) *forebay.Options {
	return &forebay.Options{FS: fs, MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 32 << 10}
}

// record is what commit n of a log holds: about a sector, so that records do
// not share one.
func record(n int) string { return fmt.Sprintf("record %d %s", n, strings.Repeat("x", 700)) }

func openLog(t *testing.T, o *wal.Options) (*wal.Log, []string) {
	t.Helper()
	l, got, err := tryOpenLog(o)
	require.NoError(t, err)
	return l, got
}

func tryOpenLog(o *wal.Options) (*wal.Log, []string, error) {
	var got []string
	c := *o
	c.OnRecord = func(_ wal.LSN, _ uint64, rec []byte) error {
		got = append(got, strings.TrimRight(string(rec), "x "))
		return nil
	}
	l, err := wal.Open("db", &c)
	return l, got, err
}

func appendLog(t *testing.T, l *wal.Log, level wal.Level, recs ...string) {
	t.Helper()
	for _, s := range recs {
		require.NoError(t, l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte(s)}}, Level: level}))
	}
}

func records(from, to int) (out []string) {
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint("record ", i))
	}
	return out
}

// appendRecords appends records from to to.
func appendRecords(t *testing.T, l *wal.Log, level wal.Level, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		appendLog(t, l, level, record(i))
	}
}

// frames reads the frames of a log file.
func frames(t *testing.T, mem *vfs.Mem, name string) (out []frame.Frame) {
	t.Helper()
	b := mem.Bytes(name)
	head, err := frame.DecodeFileHeader(b)
	require.NoError(t, err)
	f, err := mem.Open(name, vfs.ReadOnly)
	require.NoError(t, err)
	defer f.Close()
	r := frame.NewReader(f, int64(len(b)), head)
	for {
		fr, end, err := r.Next()
		require.NoError(t, err)
		if end != nil {
			return out
		}
		fr.Payload = nil
		out = append(out, *fr)
	}
}

// frameOf returns the frame that holds record lsn.
func frameOf(t *testing.T, mem *vfs.Mem, name string, lsn uint64) frame.Frame {
	t.Helper()
	for _, fr := range frames(t, mem, name) {
		if fr.Kind == frame.KindData && lsn >= fr.First && lsn < fr.Next() {
			return fr
		}
	}
	require.Fail(t, "no such record", "%d in %s", lsn, name)
	return frame.Frame{}
}

// cutLosing cuts the power: what is unsynced of the file in [from, to) is lost,
// all else is kept.
func cutLosing(mem *vfs.Mem, name string, from, to int64) *vfs.Mem {
	// The first sector may hold the end of what came before: it is kept.
	from = (from + vfs.SectorSize - 1) &^ (vfs.SectorSize - 1)
	return mem.PowerCut(func(_ int, u vfs.Unit) vfs.Fate {
		if u.Kind == vfs.SectorUnit && u.Name == name && (u.Sector+u.Sectors)*vfs.SectorSize > from && u.Sector*vfs.SectorSize < to {
			return vfs.Lost
		}
		return vfs.Kept
	})
}

func loseAll(int, vfs.Unit) vfs.Fate { return vfs.Lost }

func keepAll(int, vfs.Unit) vfs.Fate { return vfs.Kept }

func both(t *testing.T, fn func(t *testing.T, o func(vfs.FS) *wal.Options)) {
	for _, align := range []int64{0, 4096} {
		t.Run(fmt.Sprint("align ", align), func(t *testing.T) {
			fn(t, func(fs vfs.FS) *wal.Options {
				o := logOptions(fs)
				o.Align = align
				return o
			})
		})
	}
}

func TestSequence1LaterGroupKept(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		l, _ := openLog(t, o(mem))
		appendLog(t, l, wal.Durable, record(1))
		appendLog(t, l, wal.Written, record(2), record(3))
		lost := frameOf(t, mem, "db/000001.log", 2)
		l, got := openLog(t, o(cutLosing(mem, "db/000001.log", lost.Offset, lost.End)))
		require.Equal(t, records(1, 1), got)
		require.Equal(t, wal.Torn, l.Recovery().Verdict)
	})
}

func TestSequence1LaterFileKept(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		opts := o(mem)
		opts.Policy = wal.SyncNever
		l, _ := openLog(t, opts)
		appendLog(t, l, wal.Durable, record(1))
		n := 1
		for len(l.Files()) < 3 {
			n++
			appendLog(t, l, wal.Written, record(n))
		}
		files := l.Files()
		last := int(files[0].Last)
		require.Greater(t, last, 3)
		// The tail of the first file is lost, the two after it are kept.
		lost := frameOf(t, mem, "db/000001.log", uint64(last))
		l, got := openLog(t, o(cutLosing(mem, "db/000001.log", lost.Offset, 1<<40)))
		require.Equal(t, records(1, last-1), got)
		require.Equal(t, uint64(last-1), l.LastLSN())
		// The other way round: the whole middle file is lost, its link too.
		l, got = openLog(t, o(cutLosing(mem, "db/000002.log", 0, 1<<40)))
		require.Equal(t, records(1, last), got)
		appendLog(t, l, wal.Durable, "a new one")
		require.NoError(t, l.Close())
	})
}

func TestSequence2StaleGroupAfterIdenticalRetry(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		l, _ := openLog(t, o(mem))
		appendLog(t, l, wal.Durable, record(1))
		appendLog(t, l, wal.Written, record(2), record(3))
		lost := frameOf(t, mem, "db/000001.log", 2)
		mem = cutLosing(mem, "db/000001.log", lost.Offset, lost.End)
		l, got := openLog(t, o(mem))
		require.Equal(t, records(1, 1), got)
		appendLog(t, l, wal.Written, record(2)) // byte for byte
		for _, choose := range []func(int, vfs.Unit) vfs.Fate{keepAll, loseAll} {
			_, got := openLog(t, o(mem.PowerCut(choose)))
			require.NotEmpty(t, got)
			require.Equal(t, records(1, len(got)), got)
			require.LessOrEqual(t, len(got), 2, "record 3 of a past that was cut off")
		}
	})
}

func TestSequence3TruncateBackThenTornWrite(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		l, _ := openLog(t, o(mem))
		appendRecords(t, l, wal.Durable, 1, 8)
		require.NoError(t, l.TruncateBack(4))
		// Cut at once, and after the next write was torn.
		_, got := openLog(t, o(mem.PowerCut(loseAll)))
		require.Equal(t, records(1, 4), got)
		appendLog(t, l, wal.Written, record(5))
		for seed := uint64(0); seed < 64; seed++ {
			_, got := openLog(t, o(mem.PowerCutSeed(seed, vfs.SectorAtomic)))
			require.GreaterOrEqual(t, len(got), 4, "seed %d", seed)
			require.LessOrEqual(t, len(got), 5, "seed %d", seed)
			require.Equal(t, records(1, len(got)), got, "seed %d", seed)
		}
	})
}

func TestSequence4SyncErrorReopenPowerCut(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		in := vfs.NewInjector(mem)
		l, _ := openLog(t, o(in))
		appendLog(t, l, wal.Durable, record(1))
		in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", K: 1, Err: syscall.EIO})
		err := l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte(record(2))}}})
		require.ErrorIs(t, err, wal.ErrUnknown)
		require.ErrorIs(t, err, syscall.EIO)
		require.ErrorIs(t, l.Commit(&wal.Request{}), wal.ErrPoisoned)
		require.ErrorIs(t, l.Close(), syscall.EIO)
		// The pages are clean now and reads show them.
		l, got := openLog(t, o(mem))
		require.Equal(t, records(1, 2), got)
		require.Equal(t, uint64(2), l.DurableLSN())
		_, got = openLog(t, o(mem.PowerCut(loseAll)))
		require.Equal(t, records(1, 2), got)
	})
}

func TestSequence5CheckpointOfUnsyncedCommits(t *testing.T) {
	for _, level := range []forebay.Level{forebay.Buffered, forebay.Written} {
		t.Run(level.String(), func(t *testing.T) {
			mem := vfs.NewMem()
			db, err := forebay.Open("db", storeOptions(mem))
			require.NoError(t, err)
			for i := range 10 {
				b := db.NewBatch()
				require.NoError(t, b.Put([]byte{byte(i)}, []byte("v")))
				require.NoError(t, db.Apply(b, level))
			}
			require.NoError(t, db.Checkpoint(context.Background()))
			require.Equal(t, uint64(10), db.DurableLSN())
			for _, choose := range []func(int, vfs.Unit) vfs.Fate{loseAll, keepAll} {
				db, err := forebay.Open("db", storeOptions(mem.PowerCut(choose)))
				require.NoError(t, err)
				for i := range 10 {
					v, err := db.Get([]byte{byte(i)})
					require.NoError(t, err)
					require.Equal(t, "v", string(v))
				}
				require.NoError(t, db.Put([]byte("next"), nil))
				require.Equal(t, uint64(11), db.LastLSN())
				require.NoError(t, db.Close())
			}
		})
	}
}

func TestSequence6ManifestEditDamagedAfterRecycling(t *testing.T) {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", storeOptions(mem))
	require.NoError(t, err)
	for i := range 200 {
		require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i), []byte(record(i))))
	}
	require.NoError(t, db.Checkpoint(context.Background()))
	var copied *vfs.Mem
	var name string
	var last frame.Frame
	// Files are recycled and compactions end beside this, and an edit that has no
	// mark behind it yet may be torn.
	require.Eventually(t, func() bool {
		copied = mem.Snapshot()
		names, err := copied.List("db")
		require.NoError(t, err)
		for _, n := range names {
			if strings.HasPrefix(n, "MANIFEST-") {
				name = filepath.Join("db", n)
			}
		}
		proven := false
		for _, fr := range frames(t, copied, name) {
			if proven = fr.Kind != frame.KindData; !proven {
				last = fr
			}
		}
		return proven
	}, 10*time.Second, time.Millisecond)
	require.NoError(t, db.Close())
	for _, off := range []int64{last.Offset, last.Offset + frame.FrameHeaderSize, last.Offset + frame.FrameHeaderSize + int64(last.Stored), last.End - 1} {
		damaged := copied.Snapshot()
		require.NoError(t, damaged.Corrupt(name, off, 1, func(b []byte) { b[0] ^= 4 }))
		_, err = forebay.Open("db", storeOptions(damaged))
		var c *forebay.CorruptionError
		require.ErrorAs(t, err, &c)
		require.Equal(t, name, c.File)
		require.Equal(t, last.Offset, c.Offset)
	}
}

func TestSequence7TailerOfALostFuture(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		l, _ := openLog(t, o(mem))
		appendRecords(t, l, wal.Durable, 1, 8)
		require.NoError(t, l.Close())
		// With and without a close mark before, the lost record was number 9.
		l, _ = openLog(t, o(mem))
		appendLog(t, l, wal.Written, record(9))
		seen := wal.Position{Epoch: l.EpochAt(9), LSN: 9}
		mem = mem.PowerCut(loseAll)
		l, got := openLog(t, o(mem))
		require.Len(t, got, 8)
		_, err := l.NewTail(seen)
		require.ErrorIs(t, err, wal.ErrDiverged)
		appendLog(t, l, wal.Durable, "another record 9")
		_, err = l.NewTail(seen)
		require.ErrorIs(t, err, wal.ErrDiverged)
		_, err = l.NewTail(wal.Position{Epoch: l.EpochAt(8), LSN: 8})
		require.NoError(t, err)
		require.NoError(t, l.Close())
	})
}

// TestSequence8FlippedBitBelowAMark flips bits below a mark: each is detected,
// with file and offset. (Package fuzz/damage has all bits of larger stores.)
func TestSequence8FlippedBitBelowAMark(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		l, _ := openLog(t, o(mem))
		appendRecords(t, l, wal.Durable, 1, 3)
		require.NoError(t, l.Close())
		all := frames(t, mem, "db/000001.log")
		mark := all[len(all)-1]
		require.Equal(t, frame.KindMark, mark.Kind)
		for off := int64(0); off < mark.Offset; off++ {
			if opts := o(nil); opts.Align == 4096 && off%7 != 0 {
				continue // mostly padding
			}
			damaged := mem.Snapshot()
			require.NoError(t, damaged.Corrupt("db/000001.log", off, 1, func(b []byte) { b[0] ^= 1 << (off % 8) }))
			_, got, err := tryOpenLog(o(damaged))
			if off >= frame.HeaderSize && off < all[0].Offset {
				require.NoError(t, err) // padding of the header: nothing is kept there
				require.Equal(t, records(1, 3), got)
				continue
			}
			var c *wal.CorruptionError
			require.ErrorAs(t, err, &c, "offset %d", off)
			require.Equal(t, "db/000001.log", c.File)
			require.LessOrEqual(t, c.Offset, off)
		}
	})
}

func TestSequence8LastFrameCutAtEveryByte(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		l, _ := openLog(t, o(mem))
		appendRecords(t, l, wal.Durable, 1, 3)
		last := frameOf(t, mem, "db/000001.log", 3)
		used := last.Offset + frame.FrameOverhead + int64(last.Stored)
		whole := mem.Bytes("db/000001.log")
		for n := last.Offset; n <= last.End; n++ {
			for _, how := range []string{"short file", "zeros"} {
				b := append([]byte(nil), whole[:n]...)
				if how == "zeros" {
					b = append(b, make([]byte, int64(len(whole))-n)...)
				}
				damaged := mem.Snapshot()
				require.NoError(t, damaged.SetBytes("db/000001.log", b))
				_, got, err := tryOpenLog(o(damaged))
				require.NoError(t, err, "%s from %d", how, n)
				want := 2
				if n == last.End || how == "zeros" && (n >= used || allZero(whole[n:used])) {
					want = 3
				}
				require.Equal(t, records(1, want), got, "%s from %d", how, n)
			}
		}
	})
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func TestSequence8UnusedSpareAndMissingFile(t *testing.T) {
	mem := vfs.NewMem()
	o := logOptions(mem)
	o.NoSpares = false
	l, _ := openLog(t, o)
	n := 0
	for len(l.Files()) < 3 {
		n++
		appendLog(t, l, wal.Durable, record(n))
	}
	for i := 0; i < 12; i++ { // past the half of the file, where a spare is made
		n++
		appendLog(t, l, wal.Durable, record(n))
	}
	// A copy while the log is open, its spare listed or not: no refusal.
	for i := 0; i < 20; i++ {
		_, got := openLog(t, logOptions(mem.PowerCut(loseAll)))
		require.Equal(t, records(1, n), got)
		n++
		appendLog(t, l, wal.Durable, record(n))
	}
	require.NoError(t, l.Close())
	for _, f := range l.Files() {
		damaged := mem.Snapshot()
		require.NoError(t, damaged.Remove("db/"+f.Name))
		_, _, err := tryOpenLog(logOptions(damaged))
		var c *wal.CorruptionError
		require.ErrorAs(t, err, &c)
		require.Equal(t, "db/"+f.Name, c.File)
		require.Contains(t, c.Reason, "missing")
	}
}

// TestSequence9CrashInsideOpen cuts an open that copies records forward after
// each of its I/Os, with each unit lost or kept alone, and in particular with
// the link kept and its copies lost.
func TestSequence9CrashInsideOpen(t *testing.T) {
	both(t, func(t *testing.T, o func(vfs.FS) *wal.Options) {
		mem := vfs.NewMem()
		l, _ := openLog(t, o(mem))
		appendRecords(t, l, wal.Durable, 1, 3)
		mem = mem.PowerCut(loseAll)
		var cuts []*vfs.Mem
		opening := mem.Snapshot()
		opening.OnIO(func(vfs.Op) { cuts = append(cuts, opening.Snapshot()) })
		_, got := openLog(t, o(opening))
		require.Equal(t, records(1, 3), got)
		require.Greater(t, len(cuts), 5)
		for i, cut := range cuts {
			units := cut.Unsynced()
			for k := -2; k < len(units); k++ {
				for _, only := range []bool{true, false} {
					state := cut.PowerCut(func(j int, _ vfs.Unit) vfs.Fate {
						switch {
						case k == -2 || k >= 0 && (j == k) == only:
							return vfs.Kept
						}
						return vfs.Lost
					})
					_, got, err := tryOpenLog(o(state))
					require.NoError(t, err, "cut %d, unit %d", i, k)
					require.Equal(t, records(1, 3), got, "cut %d, unit %d, only %v", i, k, only)
				}
			}
		}
	})
}

func TestOpenErrorsNameWhatToDo(t *testing.T) {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", storeOptions(mem))
	require.NoError(t, err)
	_, err = forebay.Open("db", storeOptions(mem))
	require.True(t, errors.Is(err, forebay.ErrLocked))
	require.NoError(t, db.Close())
}
