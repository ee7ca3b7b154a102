package forebay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

func items(t *testing.T, s *forebay.Sequence, from uint64) (out []string) {
	t.Helper()
	next := from
	for it, err := range s.Read(context.Background(), from) {
		require.NoError(t, err)
		require.Equal(t, next, it.Offset)
		next++
		out = append(out, string(it.Value))
	}
	return out
}

func TestSequence(t *testing.T) {
	fs := vfs.NewMem()
	open := func() *forebay.DB {
		db, err := forebay.Open("data", &forebay.Options{FS: fs})
		require.NoError(t, err)
		return db
	}
	db := open()
	s, err := db.Sequence("events")
	require.NoError(t, err)
	require.Empty(t, items(t, s, 0))
	for i := range 10 {
		at, err := s.Append(fmt.Appendf(nil, "e%d", i))
		require.NoError(t, err)
		require.Equal(t, uint64(i), at)
	}
	b := db.NewBatch()
	require.NoError(t, b.Put([]byte("k"), []byte("v")))
	for i := 10; i < 15; i++ {
		require.NoError(t, b.Append(s, fmt.Appendf(nil, "e%d", i)))
	}
	require.NoError(t, db.Apply(b, forebay.Durable))
	want := []string{"e0", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8", "e9", "e10", "e11", "e12", "e13", "e14"}
	check := func() {
		t.Helper()
		for from := range len(want) {
			require.Equal(t, want[from:], items(t, s, uint64(from)))
		}
		require.Empty(t, items(t, s, uint64(len(want))))
		require.Empty(t, items(t, s, ^uint64(0)))
		first, next, err := s.Bounds()
		require.NoError(t, err)
		require.Zero(t, first)
		require.Equal(t, uint64(len(want)), next)
	}
	check()
	again, err := db.Sequence("events")
	require.NoError(t, err)
	require.Same(t, s, again)
	for range 3 {
		require.NoError(t, db.Close())
		db = open()
		s, err = db.Sequence("events")
		require.NoError(t, err)
		check()
		at, err := s.Append([]byte("more"))
		require.NoError(t, err)
		require.Equal(t, uint64(len(want)), at)
		want = append(want, "more")
		check()
		require.NoError(t, db.Checkpoint(context.Background()))
		check()
		require.NoError(t, db.Compact(context.Background()))
		check()
	}
	require.NoError(t, db.Close())
}

// TestSequencesBesideEachOther: offsets without gaps, in the order of commits, whoever
// appends; and one who follows meets each once.
func TestSequencesBesideEachOther(t *testing.T) {
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem(), MemtableSize: 64 << 10, LogFileSize: 64 << 10})
	require.NoError(t, err)
	defer db.Close()
	var seqs [3]*forebay.Sequence
	for i := range seqs {
		seqs[i], err = db.Sequence(fmt.Sprint("s", i))
		require.NoError(t, err)
	}
	const writers, each = 8, 300
	var wg, readers sync.WaitGroup
	for _, s := range seqs {
		readers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			next, lsn := uint64(0), uint64(0)
			last := map[int]int{}
			for it, err := range s.Follow(ctx, 0) {
				if err != nil {
					t.Error(err)
					return
				}
				var w, i int
				if _, err := fmt.Sscan(string(it.Value), &w, &i); err != nil || it.Offset != next || it.LSN < lsn || last[w] != i {
					t.Errorf("item %d of LSN %d: %q (%v)", it.Offset, it.LSN, it.Value, err)
				}
				next, lsn, last[w] = next+1, it.LSN, i+1
				if next == writers*each {
					return
				}
			}
		})
	}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				b := db.NewBatch()
				for _, s := range seqs {
					if err := b.Append(s, fmt.Appendf(nil, "%d %d", w, i)); err != nil {
						t.Error(err)
					}
				}
				if err := db.Apply(b, forebay.Durable); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	readers.Wait()
}

// TestTrim: what is trimmed takes its log files along, also when the store was closed
// in between; the rest is there, over the holes.
func TestTrim(t *testing.T) {
	fs := vfs.NewMem()
	opts := &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10}
	db, err := forebay.Open("data", opts)
	require.NoError(t, err)
	defer func() { db.Close() }()
	a, err := db.Sequence("a")
	require.NoError(t, err)
	b, err := db.Sequence("b")
	require.NoError(t, err)
	item := make([]byte, 1000)
	for i := range 2000 {
		s := a
		if i/200%2 == 1 { // some files are of the one, some of the other
			s = b
		}
		_, err := s.Append(append(item, fmt.Sprint(i)...))
		require.NoError(t, err)
	}
	logBytes := func() (n int64) {
		require.NoError(t, db.Checkpoint(context.Background()))
		require.NoError(t, db.Compact(context.Background()))
		return db.Stats().Log.FileBytes
	}
	before := logBytes()
	require.Greater(t, before, int64(2000*1000))
	require.NoError(t, a.Trim(900))
	first, next, err := a.Bounds()
	require.NoError(t, err)
	require.Equal(t, [2]uint64{900, 1000}, [2]uint64{first, next})
	for _, err := range a.Read(context.Background(), 899) {
		require.ErrorIs(t, err, forebay.ErrNotFound)
	}
	check := func() {
		require.Len(t, items(t, a, 900), 100)
		require.Len(t, items(t, b, 0), 1000)
		require.Len(t, items(t, b, 500), 500)
	}
	check()
	half := logBytes()
	require.Less(t, half, before*2/3)
	require.NoError(t, db.Close())
	db, err = forebay.Open("data", opts)
	require.NoError(t, err)
	a, err = db.Sequence("a")
	require.NoError(t, err)
	b, err = db.Sequence("b")
	require.NoError(t, err)
	check()
	require.NoError(t, b.Trim(1000))
	require.Empty(t, items(t, b, 1000))
	at, err := b.Append([]byte("x"))
	require.NoError(t, err)
	t.Log(at)
	require.Equal(t, uint64(1000), at, "offsets go on")
	// What was given back before the store was closed is counted in the background.
	require.Eventually(t, func() bool { return logBytes() < before/5 }, time.Minute, time.Millisecond)
	require.NoError(t, b.Trim(1001))
	require.NoError(t, b.Trim(1001))
	require.NoError(t, b.Trim(5000))
	for range 2 {
		first, next, err := b.Bounds()
		require.NoError(t, err)
		require.Equal(t, [2]uint64{1001, 1001}, [2]uint64{first, next})
		require.Empty(t, items(t, b, 1001))
		for _, err := range b.Read(context.Background(), 1000) {
			require.ErrorIs(t, err, forebay.ErrNotFound)
		}
		require.NoError(t, db.Close())
		db, err = forebay.Open("data", opts)
		require.NoError(t, err)
		b, err = db.Sequence("b")
		require.NoError(t, err)
	}
	at, err = b.Append([]byte("y"))
	require.NoError(t, err)
	require.Equal(t, uint64(1001), at)
	require.Equal(t, []string{"y"}, items(t, b, 1001))
}

// TestChangesOfSequences: who follows the store is told of all that is done to them.
func TestChangesOfSequences(t *testing.T) {
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem()})
	require.NoError(t, err)
	defer db.Close()
	s, err := db.Sequence("s")
	require.NoError(t, err)
	b := db.NewBatch()
	require.NoError(t, b.Append(s, []byte("x")))
	require.NoError(t, b.Put([]byte("k"), nil))
	require.NoError(t, b.Append(s, []byte("y")))
	require.NoError(t, db.Apply(b, forebay.Durable))
	_, err = s.Append([]byte("z"))
	require.NoError(t, err)
	require.NoError(t, s.Trim(2))
	require.NoError(t, s.Trim(3))
	names, err := db.Sequences()
	require.NoError(t, err)
	require.Equal(t, []string{"s"}, names)
	names, err = db.Keyspaces()
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, db.DropSequence("s"))
	_, err = s.Append([]byte("late"))
	require.ErrorIs(t, err, forebay.ErrKeyspaceDropped)
	var got []string
	for c, err := range db.Changes(context.Background(), forebay.Position{}) {
		require.NoError(t, err)
		for _, op := range c.Ops {
			got = append(got, fmt.Sprintf("%d %s %s%s %d %s", c.LSN, op.Kind, op.Sequence, op.Key, op.Offset, op.Value))
		}
	}
	require.Equal(t, []string{
		"1 create sequence s 0 ", "2 put k 0 ", "2 append s 0 x", "2 append s 1 y", "3 append s 2 z",
		"4 trim s 2 ", "5 trim s 2 ", "5 trim s 3 ", "6 drop sequence s 0 ",
	}, got)
}

// TestBackupOfSequences: a copy made while items are appended and taken out has exactly
// those that are in it by its index, and goes on from there.
func TestBackupOfSequences(t *testing.T) {
	fs := vfs.NewMem()
	opts := &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10, DefaultLevel: forebay.Buffered}
	db, err := forebay.Open("data", opts)
	require.NoError(t, err)
	defer db.Close()
	var seqs [2]*forebay.Sequence
	for i := range seqs {
		seqs[i], err = db.Sequence(fmt.Sprint("s", i))
		require.NoError(t, err)
	}
	done := make(chan struct{})
	var writers sync.WaitGroup
	pad := make([]byte, 500)
	for i, s := range seqs {
		writers.Go(func() {
			for n := uint64(0); ; n++ {
				select {
				case <-done:
					return
				default:
				}
				b := db.NewBatch()
				if err := errors.Join(b.Append(s, fmt.Appendf(nil, "%d %s", n, pad)), b.Put(fmt.Append(nil, "k", i), fmt.Append(nil, n))); err != nil {
					t.Error(err)
				}
				if err := db.Apply(b, forebay.Buffered); err != nil {
					t.Error(err)
				}
				if n%300 == 299 && i == 0 {
					if err := s.Trim(n - 50); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		dir := fmt.Sprint("copy", round)
		info, err := db.Backup(context.Background(), dir)
		require.NoError(t, err)
		again, err := forebay.Open(dir, opts)
		require.NoError(t, err)
		for range 2 { // as it was made, and opened again
			for i := range seqs {
				s, err := again.Sequence(fmt.Sprint("s", i))
				require.NoError(t, err)
				first, next, err := s.Bounds()
				require.NoError(t, err)
				at := first
				for it, err := range s.Read(context.Background(), first) {
					require.NoError(t, err)
					require.Equal(t, at, it.Offset)
					require.Equal(t, fmt.Sprint(at), string(it.Value[:len(it.Value)-len(pad)-1]))
					at++
				}
				require.Equal(t, next, at, "%+v", info)
				v, err := again.Get(fmt.Append(nil, "k", i))
				if next > 0 {
					require.NoError(t, err)
					require.Equal(t, fmt.Sprint(next-1), string(v))
				}
				offset, err := s.Append(fmt.Appendf(nil, "%d %s", next, pad))
				require.NoError(t, err)
				require.Equal(t, next, offset)
				require.NoError(t, again.Put(fmt.Append(nil, "k", i), fmt.Append(nil, next)))
			}
			require.NoError(t, again.Close())
			again, err = forebay.Open(dir, opts)
			require.NoError(t, err)
		}
		require.NoError(t, again.Close())
	}
	close(done)
	writers.Wait()
}

// TestVerifyReadsSequences: each item is read, and one that is damaged, or missing, is
// told, whatever else is whole.
func TestVerifyReadsSequences(t *testing.T) {
	fs := vfs.NewMem()
	opts := &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10}
	db, err := forebay.Open("data", opts)
	require.NoError(t, err)
	defer func() { db.Close() }()
	s, err := db.Sequence("s")
	require.NoError(t, err)
	for i := range 600 {
		b := db.NewBatch()
		require.NoError(t, b.Put(fmt.Append(nil, i%50), make([]byte, 200)))
		if i%3 == 0 {
			require.NoError(t, b.Append(s, fmt.Appendf(nil, "item %d %0500d", i, i)))
			require.NoError(t, b.Append(s, []byte("a second one")))
		}
		require.NoError(t, db.Apply(b, forebay.Durable))
	}
	_, err = s.Append([]byte("last"))
	require.NoError(t, err)
	require.NoError(t, db.Compact(context.Background()))
	require.NoError(t, s.Trim(100))
	v, err := db.Verify(context.Background())
	require.NoError(t, err)
	require.Equal(t, uint64(301), v.Items)
	require.Greater(t, v.ItemBytes, uint64(150*500))

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = db.Verify(ctx)
	require.ErrorIs(t, err, context.Canceled)

	// The third file of the log, of which only the items count any more.
	names, err := fs.List("data")
	require.NoError(t, err)
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".log") })
	slices.Sort(names)
	f, err := fs.Open("data/"+names[2], vfs.ReadWrite)
	require.NoError(t, err)
	at := bytes.Index(fs.Bytes("data/"+names[2]), []byte("item "))
	require.Positive(t, at)
	_, err = f.WriteAt([]byte("I"), int64(at))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = db.Verify(context.Background())
	var bad *forebay.CorruptionError
	require.ErrorAs(t, err, &bad)
	require.Contains(t, bad.File, names[2])
	for _, err = range s.Read(context.Background(), 100) {
		if err != nil {
			break
		}
	}
	require.ErrorAs(t, err, &bad)

	ro, err := forebay.Open("copy", opts)
	require.NoError(t, err)
	_, err = ro.Sequence("s")
	require.NoError(t, err)
	require.NoError(t, ro.Close())
	only := *opts
	only.ReadOnly = true
	ro, err = forebay.Open("copy", &only)
	require.NoError(t, err)
	defer ro.Close()
	s, err = ro.Sequence("s")
	require.NoError(t, err)
	for _, err := range s.Read(context.Background(), 0) {
		require.ErrorIs(t, err, forebay.ErrReadOnly)
	}
	_, err = s.Append(nil)
	require.ErrorIs(t, err, forebay.ErrReadOnly)
	_, err = ro.Sequence("another")
	require.ErrorIs(t, err, forebay.ErrNoKeyspace)
	_, err = ro.Sequence("")
	require.Error(t, err)
	_, err = ro.Keyspace("\x00sequence/s")
	require.Error(t, err)
	require.ErrorIs(t, s.Trim(1), forebay.ErrReadOnly)
}
