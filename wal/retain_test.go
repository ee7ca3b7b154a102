package wal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// numbers returns the numbers of the log's files on disk.
func numbers(t *testing.T, fs vfs.FS) (out []uint64) {
	t.Helper()
	names, err := fs.List("db")
	require.NoError(t, err)
	for _, name := range names {
		if n, ok := wal.ParseFileName(name); ok {
			out = append(out, n)
		}
	}
	return out
}

func live(l *wal.Log) (out []uint64) {
	for _, f := range l.Files() {
		out = append(out, f.Number)
	}
	return out
}

// files appends until a log has n files.
func files(t *testing.T, l *wal.Log, n int, keep uint64) {
	t.Helper()
	for len(l.Files()) < n {
		r := &wal.Request{Records: []wal.Record{{Data: []byte(longRecord(int(l.LastLSN()) + 1)), Keep: keep}}}
		require.NoError(t, l.Commit(r))
	}
}

func TestFileName(t *testing.T) {
	for _, n := range []uint64{1, 999999, 1000000, 1 << 53} {
		got, ok := wal.ParseFileName(wal.FileName(n))
		require.True(t, ok)
		require.Equal(t, n, got)
	}
	for _, name := range []string{"", ".log", "1.log", "000000.log", "00000a.log", "+00001.log", "-00001.log", "000001.LOG", "000001.log.bak", "0000001.log"} {
		_, ok := wal.ParseFileName(name)
		require.False(t, ok, name)
	}
}

func TestRotation(t *testing.T) {
	o := testOptions(vfs.NewMem())
	l, _ := openAll(t, o)
	files(t, l, 5, 0)
	all := l.Files()
	first := wal.LSN(1)
	for i, f := range all {
		require.Equal(t, first, f.First)
		require.GreaterOrEqual(t, f.Last, f.First)
		require.Equal(t, i < len(all)-1, f.Closed)
		first = f.Last + 1
	}
	require.Equal(t, []int64{16 << 10, 64 << 10, 64 << 10}, []int64{all[0].Size, all[1].Size, all[2].Size}, "files grow with use")
	s := l.Stats()
	require.Equal(t, 5, s.Files)
	require.Equal(t, int64(l.LastLSN()), s.Records)
	require.NoError(t, l.Close())
	// Numbers, and epochs, go on.
	l, _ = openAll(t, o)
	put(t, l, wal.Durable, "x")
	last := l.Files()[5]
	require.Equal(t, uint64(6), last.Number)
	require.Equal(t, uint64(2), last.Epoch)
	require.NoError(t, l.Close())
}

// TestSparesAndRecycling: with spares the leader makes no file itself, and
// files that left the log are used again, under another number.
func TestSparesAndRecycling(t *testing.T) {
	rec := vfs.NewRecorder(vfs.NewMem())
	o := testOptions(rec)
	o.NoSpares, o.FirstFileSize, o.FileSize = false, 32<<10, 32<<10
	l, _ := openAll(t, o)
	for i := range 600 {
		put(t, l, wal.Durable, longRecord(i+1))
		if i%10 == 0 {
			time.Sleep(100 * time.Microsecond) // for the background
		}
		require.NoError(t, l.TruncateFront(l.DurableLSN()))
	}
	renamed, created := 0, 0
	for _, e := range rec.Events() {
		switch {
		case e.Call == vfs.CallRename:
			renamed++
		case e.Call == vfs.CallCreate && strings.HasSuffix(e.Name, ".log"):
			created++
		}
	}
	require.Greater(t, renamed, 5, "of %d created", created)
	// A recycled file holds stale frames; none of them counts.
	rec2, err := wal.Inspect("db", o)
	require.NoError(t, err)
	require.Equal(t, wal.LSN(600), rec2.Last)
	require.NoError(t, l.Close())
	require.Equal(t, live(l), numbers(t, rec), "no spare is left")
	l, got := openAll(t, o)
	require.Equal(t, longRecord(600), got[len(got)-1])
	require.NoError(t, l.Close())
}

// TestStaleFramesNeverVerify cuts the power while recycled files are written:
// whatever is lost shows stale frames of an earlier use.
func TestStaleFramesNeverVerify(t *testing.T) {
	for seed := uint64(0); seed < 60; seed++ {
		mem := vfs.NewMem()
		o := testOptions(mem)
		o.NoSpares, o.FirstFileSize, o.FileSize = false, 16<<10, 16<<10
		l, _ := openAll(t, o)
		durable := wal.LSN(0)
		for i := range 60 + int(seed) {
			level := wal.Level((i + int(seed)) % 2)
			lsn := put(t, l, level, longRecord(i+1))
			if level == wal.Durable {
				durable = lsn
			}
			require.NoError(t, l.TruncateFront(l.DurableLSN()))
		}
		cut := mem.PowerCutSeed(seed, vfs.SectorAtomic)
		o = testOptions(cut)
		var last wal.LSN
		o.OnRecord = func(lsn wal.LSN, _ uint64, rec []byte) error {
			if string(rec) != longRecord(int(lsn)) {
				return errors.New("a stale record")
			}
			last = lsn
			return nil
		}
		l, err := wal.Open("db", o)
		require.NoError(t, err, "seed %d", seed)
		require.GreaterOrEqual(t, max(last, l.Floor()), durable, "seed %d", seed)
		require.NoError(t, l.Close())
	}
}

func TestTruncateFront(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openAll(t, testOptions(fs))
	files(t, l, 4, 0)
	all := l.Files()
	require.ErrorIs(t, l.TruncateFront(l.LastLSN()+1), wal.ErrRange)
	require.NoError(t, l.TruncateFront(all[1].Last-1))
	require.Equal(t, all[0].Last, l.Floor(), "whole files alone")
	require.NoError(t, l.TruncateFront(all[1].Last))
	require.Equal(t, []uint64{3, 4}, live(l))
	require.Equal(t, []uint64{3, 4}, numbers(t, fs))
	require.NoError(t, l.TruncateFront(l.LastLSN()))
	require.Equal(t, []uint64{4}, live(l), "the current file stays")
	require.ErrorIs(t, l.TruncateBack(1), wal.ErrRange)
	require.NoError(t, l.Close())
	l, got := openAll(t, testOptions(fs))
	require.Len(t, got, int(l.LastLSN()-l.Floor()))
	require.NoError(t, l.Close())
}

func TestPins(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openAll(t, testOptions(fs))
	files(t, l, 6, 0)
	all := l.Files()
	require.NoError(t, l.Pin("backup", all[2].First))
	require.NoError(t, l.Pin("replica", all[3].Last))
	require.NoError(t, l.TruncateFront(l.LastLSN()))
	require.Equal(t, []uint64{3, 4, 5, 6}, live(l))
	require.True(t, l.Files()[0].Retained)
	require.ErrorIs(t, l.Release(3), wal.ErrRange, "a pin holds it")
	require.ErrorIs(t, l.Release(6), wal.ErrRange, "it is not below the floor")
	require.ErrorIs(t, l.Release(77), wal.ErrRange)
	// Retained files can be read, and go on into those above the floor.
	tail := newTail(t, l, wal.Position{Epoch: 1, LSN: all[2].First - 1})
	for lsn := all[2].First; lsn <= l.DurableLSN(); lsn++ {
		_, rec := next(t, tail, lsn)
		require.Equal(t, longRecord(int(lsn)), rec)
	}
	require.NoError(t, tail.Close())
	require.NoError(t, l.Close())

	l, got := openAll(t, testOptions(fs))
	require.Len(t, got, int(l.LastLSN()-l.Floor()), "retained files are not replayed")
	require.Equal(t, map[string]wal.LSN{"backup": all[2].First, "replica": all[3].Last}, l.Pins())
	require.Equal(t, all[2].Last, l.Files()[0].Last)
	tail = newTail(t, l, wal.Position{Epoch: 1, LSN: all[2].First - 1})
	_, rec := next(t, tail, all[2].First)
	require.Equal(t, longRecord(int(all[2].First)), rec)
	require.NoError(t, tail.Close())
	require.NoError(t, l.Unpin("backup"))
	require.Equal(t, []uint64{4, 5, 6}, live(l))
	require.NoError(t, l.Pin("replica", all[4].First)) // moves
	require.Equal(t, []uint64{5, 6}, live(l))
	require.NoError(t, l.Unpin("replica"))
	require.NoError(t, l.Unpin("never there"))
	require.Equal(t, []uint64{6}, live(l))
	require.Equal(t, []uint64{6}, numbers(t, fs))
	require.NoError(t, l.Close())
}

// TestKeepCounts: a file stays until its records' bytes have been given back,
// and any file may go, not only the oldest.
func TestKeepCounts(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openAll(t, testOptions(fs))
	files(t, l, 5, 10)
	all := l.Files()
	require.NoError(t, l.TruncateFront(l.LastLSN()))
	require.Len(t, l.Files(), 5)
	require.Equal(t, uint64(10*(all[1].Last-all[1].First+1)), l.Files()[1].Keep)
	for lsn := all[1].First; lsn <= all[1].Last; lsn++ {
		require.Len(t, l.Files(), 5)
		require.NoError(t, l.Unkeep(lsn, 10))
	}
	require.Equal(t, []uint64{1, 3, 4, 5}, live(l))
	require.NoError(t, l.Unkeep(all[2].First, 1<<60), "more than there is")
	require.Equal(t, []uint64{1, 4, 5}, live(l))
	require.NoError(t, l.Release(1))
	require.Equal(t, []uint64{4, 5}, live(l))
	var c *wal.CompactedError
	_, err := l.NewTail(wal.Position{Epoch: 1, LSN: 1})
	require.ErrorAs(t, err, &c)
	require.Equal(t, all[3].First, c.Oldest)
	require.NoError(t, l.Close())
	l, _ = openAll(t, testOptions(fs))
	require.Equal(t, []uint64{4, 5}, live(l))
	require.Equal(t, all[3].Keep, l.Files()[0].Keep)
	require.NoError(t, l.Close())
}

// TestUnkeepInTheCurrentFile: bytes given back while their file is still written
// are not forgotten when it closes.
func TestUnkeepInTheCurrentFile(t *testing.T) {
	l, _ := openAll(t, testOptions(vfs.NewMem()))
	for lsn := wal.LSN(1); len(l.Files()) < 3; lsn++ {
		require.NoError(t, l.Commit(&wal.Request{Records: []wal.Record{{Data: []byte(longRecord(int(lsn))), Keep: 10}}}))
		require.NoError(t, l.Unkeep(lsn, 10))
	}
	require.NoError(t, l.TruncateFront(l.LastLSN()))
	require.Equal(t, []uint64{3}, live(l))
	require.NoError(t, l.Close())
}

// archive collects what the hook is given.
type archive struct {
	fs    vfs.FS
	mu    sync.Mutex
	files map[string][]byte // by number and salt
	calls int
	fail  func(call int, f wal.ArchiveFile) error
}

func (a *archive) hook(_ context.Context, f wal.ArchiveFile) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if a.fail != nil {
		if err := a.fail(a.calls, f); err != nil {
			return err
		}
	}
	b, err := vfs.ReadFile(a.fs, f.Path, 1<<20)
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%d-%x", f.Number, f.Salt)
	if old, ok := a.files[key]; ok && !bytes.Equal(old, b) {
		return errors.New("the file has changed")
	}
	a.files[key] = b
	return nil
}

func (a *archive) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.files)
}

// TestArchive: each closed file reaches the hook, in spite of errors and of a
// crash, and stays until it has.
func TestArchive(t *testing.T) {
	fs := vfs.NewMem()
	a := &archive{fs: fs, files: map[string][]byte{}}
	a.fail = func(call int, f wal.ArchiveFile) error {
		if call%3 == 1 {
			return errors.New("no room in the archive")
		}
		if f.Last < f.First || f.Hash == 0 {
			t.Errorf("%+v", f)
		}
		return nil
	}
	o := testOptions(fs)
	o.Archive = a.hook
	l, _ := openAll(t, o)
	files(t, l, 5, 0)
	require.NoError(t, l.TruncateFront(l.LastLSN()))
	require.Eventually(t, func() bool { return a.count() == 4 && len(l.Files()) == 1 }, 5*time.Second, time.Millisecond)
	require.Positive(t, l.Stats().ArchiveErrors)

	// A hook that does not come back holds the files; Close ends its context.
	a.mu.Lock()
	a.fail = func(int, wal.ArchiveFile) error { return errors.New("the archive is away") }
	a.mu.Unlock()
	files(t, l, 3, 0)
	require.NoError(t, l.TruncateFront(l.LastLSN()))
	require.Len(t, l.Files(), 3)
	require.NoError(t, l.Close())
	a.mu.Lock()
	a.fail = nil
	a.mu.Unlock()
	l, _ = openAll(t, o)
	for range 100 {
		put(t, l, wal.Durable, longRecord(1))
	}
	require.NoError(t, l.TruncateFront(l.LastLSN()))
	require.Eventually(t, func() bool { return len(l.Files()) == 1 }, 5*time.Second, time.Millisecond)
	require.Equal(t, int(l.Files()[0].Number)-1, a.count(), "every closed file")
	require.NoError(t, l.Close())
}

func TestArchiveHangs(t *testing.T) {
	o := testOptions(vfs.NewMem())
	began := make(chan struct{})
	var once sync.Once
	o.Archive = func(ctx context.Context, _ wal.ArchiveFile) error {
		once.Do(func() { close(began) })
		<-ctx.Done()
		return ctx.Err()
	}
	o.MaxBytes = 300 << 10
	l, _ := openAll(t, o)
	var err error
	for i := 0; err == nil && i < 5000; i++ {
		_, err = l.Append([]byte(longRecord(i)))
		require.NoError(t, l.TruncateFront(l.DurableLSN()))
	}
	require.ErrorIs(t, err, wal.ErrFull)
	<-began
	require.NoError(t, l.Err(), "full is no poison")
	require.NoError(t, l.Close())
}

// TestTruncateBackAgainAndAgain cuts to 6, to 4 and to 2, with every kind of end
// between the cuts: the log never shows what was cut.
func TestTruncateBackAgainAndAgain(t *testing.T) {
	type end struct {
		name string
		cut  func(t *testing.T, l *wal.Log, mem *vfs.Mem) *vfs.Mem
	}
	ends := []end{
		{"goes on", nil},
		{"closed", func(t *testing.T, l *wal.Log, mem *vfs.Mem) *vfs.Mem { require.NoError(t, l.Close()); return mem }},
		{"killed", func(_ *testing.T, _ *wal.Log, mem *vfs.Mem) *vfs.Mem { return mem.Snapshot() }},
		{"all lost", func(_ *testing.T, _ *wal.Log, mem *vfs.Mem) *vfs.Mem {
			return mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
		}},
		{"some lost", func(_ *testing.T, _ *wal.Log, mem *vfs.Mem) *vfs.Mem { return mem.PowerCutSeed(3, vfs.SectorAtomic) }},
	}
	for _, frames := range []bool{false, true} { // a frame a record, or one for all
		for _, align := range []int64{0, 4096} {
			for _, e := range ends {
				for _, between := range []int{0, 1, 3} { // records appended between the cuts
					t.Run(fmt.Sprintf("%v/%d/%s/%d", frames, align, e.name, between), func(t *testing.T) {
						mem := vfs.NewMem()
						options := func() *wal.Options { o := testOptions(mem); o.Align = align; return o }
						l, _ := openAll(t, options())
						want := many("old", 1, 8)
						if frames {
							for _, s := range want {
								put(t, l, wal.Durable, s)
							}
						} else {
							batch(t, l, wal.Durable, want...)
						}
						next := 0
						for _, to := range []int{6, 4, 2} {
							require.NoError(t, l.TruncateBack(wal.LSN(to)))
							want = want[:to]
							if e.cut != nil {
								mem = e.cut(t, l, mem)
								var got []string
								l, got = openAll(t, options())
								require.Equal(t, want, got)
							}
							require.Equal(t, wal.LSN(to), l.LastLSN())
							require.Equal(t, wal.LSN(to), l.DurableLSN())
							for range between {
								next++
								s := fmt.Sprint("new ", next)
								require.Equal(t, wal.LSN(len(want)+1), put(t, l, wal.Durable, s))
								want = append(want, s)
							}
							if e.cut != nil {
								mem = e.cut(t, l, mem)
								var got []string
								l, got = openAll(t, options())
								require.Equal(t, want, got)
							}
						}
						require.NoError(t, l.Close())
						l, got := openAll(t, options())
						require.Equal(t, want, got)
						require.NoError(t, l.Close())
					})
				}
			}
		}
	}
}

// TestTruncateBackAtEveryChange (docs/recovery.md, sequence 3, and more): a power
// cut behind each change of a truncation and of the commit behind it shows the
// state before, the state cut, or that with the new record.
func TestTruncateBackAtEveryChange(t *testing.T) {
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	for i := 1; i <= 8; i++ {
		put(t, l, wal.Durable, fmt.Sprintf("old %d %0700d", i, i))
	}
	old := func(n int) (out []string) {
		for i := 1; i <= n; i++ {
			out = append(out, fmt.Sprintf("old %d %0700d", i, i))
		}
		return out
	}
	stage := 0 // 0: cutting, 1: cut, 2: the new record is durable
	check := func(disk *vfs.Mem, format string, args ...any) {
		t.Helper()
		l, got := openAll(t, testOptions(disk))
		ok := stage == 0 && fmt.Sprint(got) == fmt.Sprint(old(8)) ||
			stage < 2 && fmt.Sprint(got) == fmt.Sprint(old(4)) ||
			fmt.Sprint(got) == fmt.Sprint(append(old(4), "new 5"))
		if !ok {
			t.Fatalf("stage %d, %s: %.60q", stage, fmt.Sprintf(format, args...), got)
		}
		require.NoError(t, l.Close())
	}
	changes := 0
	mem.OnIO(func(op vfs.Op) {
		changes++
		at := mem.Snapshot()
		check(at.Snapshot(), "kill behind change %d (%s %s)", changes, op.Call, op.Name)
		check(at.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }), "all lost behind change %d (%s %s)", changes, op.Call, op.Name)
		for seed := range uint64(8) {
			check(at.PowerCutSeed(seed, vfs.SectorAtomic), "seed %d behind change %d (%s %s)", seed, changes, op.Call, op.Name)
		}
	})
	require.NoError(t, l.TruncateBack(4))
	stage = 1
	put(t, l, wal.Durable, "new 5")
	stage = 2
	mem.OnIO(nil)
	require.Greater(t, changes, 8)
}

func TestTruncateBackRange(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openAll(t, testOptions(fs))
	require.NoError(t, l.TruncateBack(0), "an empty log")
	require.ErrorIs(t, l.TruncateBack(1), wal.ErrRange)
	files(t, l, 3, 0)
	n := l.LastLSN()
	require.NoError(t, l.TruncateBack(n), "nothing to cut")
	require.ErrorIs(t, l.TruncateBack(n+1), wal.ErrRange)
	require.NoError(t, l.TruncateFront(n))
	floor := l.Floor()
	require.ErrorIs(t, l.TruncateBack(floor-1), wal.ErrRange)
	require.NoError(t, l.TruncateBack(floor), "all that is left")
	require.Equal(t, floor, l.LastLSN())
	require.Empty(t, l.Files())
	require.NoError(t, l.Close())
	l, got := openAll(t, testOptions(fs))
	require.Empty(t, got)
	require.Equal(t, floor+1, put(t, l, wal.Durable, "on"))
	require.NoError(t, l.Close())
	l, got = openAll(t, testOptions(fs))
	require.Equal(t, []string{"on"}, got)
	require.NoError(t, l.Close())
}

// TestTruncateBackBesideCommits: a cut has one place among the commits.
func TestTruncateBackBesideCommits(t *testing.T) {
	fs := vfs.NewMem()
	l, _ := openAll(t, testOptions(fs))
	batch(t, l, wal.Durable, many("base", 1, 5)...)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 30 {
				put(t, l, wal.Level(i%2), fmt.Sprint(w, " ", i))
			}
		})
	}
	for range 20 {
		require.NoError(t, l.TruncateBack(5))
		time.Sleep(50 * time.Microsecond)
	}
	wg.Wait()
	last := l.LastLSN()
	require.NoError(t, l.Close())
	_, got := openAll(t, testOptions(fs))
	require.Len(t, got, int(last))
	require.Equal(t, many("base", 1, 5), got[:5])
}
