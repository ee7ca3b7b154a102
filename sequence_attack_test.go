package forebay

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

func atkOpen(t *testing.T, o Options) *DB {
	t.Helper()
	db, err := Open("data", &o)
	require.NoError(t, err)
	return db
}

func atkSeq(t *testing.T, db *DB) *Sequence {
	t.Helper()
	s, err := db.Sequence("s")
	require.NoError(t, err)
	return s
}

func atkFill(t *testing.T, db *DB, n int, level Level) {
	t.Helper()
	for i := range n {
		b := db.NewBatch()
		require.NoError(t, b.Put(fmt.Appendf(nil, "fill %d", i), make([]byte, 1000)))
		require.NoError(t, db.Apply(b, level))
	}
}

// Recount stops at the entry of nothing.
func TestAttackSequenceRecountBehindTrimOfAll(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10}
	db := atkOpen(t, o)
	s := atkSeq(t, db)
	hit := uint64(0)
	for try := 0; try < 3000 && hit == 0; try++ {
		_, err := s.Append([]byte("old"))
		require.NoError(t, err)
		done := make(chan uint64)
		go func() {
			for range try % 50 * 100 {
			}
			at, _ := s.Append([]byte("must not be lost"))
			done <- at
		}()
		require.NoError(t, s.Trim(^uint64(0)))
		at := <-done
		first, next, err := s.Bounds()
		require.NoError(t, err)
		if first != at || next != at+1 {
			continue
		}
		for it, err := range s.Read(context.Background(), at) {
			require.NoError(t, err)
			if it.LSN < db.LastLSN() {
				hit = at
			}
		}
	}
	if hit == 0 {
		t.Skip("race not met")
	}
	require.NoError(t, db.Close())
	db = atkOpen(t, o)
	defer func() { db.Close() }()
	s = atkSeq(t, db)
	time.Sleep(50 * time.Millisecond) // recount
	atkFill(t, db, 300, Durable)
	require.NoError(t, db.Checkpoint(context.Background()))
	first, next, err := s.Bounds()
	require.NoError(t, err)
	require.Equal(t, [2]uint64{hit, hit + 1}, [2]uint64{first, next})
	n := 0
	for it, err := range s.Read(context.Background(), hit) {
		require.NoError(t, err)
		require.Equal(t, "must not be lost", string(it.Value))
		n++
	}
	require.Equal(t, 1, n, "the index names the item, and it is gone")
}

// DropSequence lets files go before the drop is durable.
func TestAttackSequenceDropSequenceBelowDurable(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10, DefaultLevel: Buffered, MarkDelay: -1}
	db := atkOpen(t, o)
	s := atkSeq(t, db)
	b := db.NewBatch()
	require.NoError(t, b.Append(s, []byte("item")))
	require.NoError(t, db.Apply(b, Durable))
	atkFill(t, db, 300, Durable)
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, db.DropSequence("s"))
	o.FS = fs.Snapshot() // the process is killed
	again := atkOpen(t, o)
	defer again.Close()
	defer db.Close()
	names, err := again.Sequences()
	require.NoError(t, err)
	if len(names) == 0 {
		return // the drop has survived
	}
	n := 0
	for _, err := range atkSeq(t, again).Read(context.Background(), 0) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 1, n, "the sequence is there, its durable item is not")
}

// What is durable and not visible yet is passed over.
func TestAttackSequenceFollowBetweenDurableAndVisible(t *testing.T) {
	for _, what := range []string{"follow", "key of the item's commit"} {
		t.Run(what, func(t *testing.T) {
			db := atkOpen(t, Options{FS: vfs.NewMem(), MemtableSize: 128 << 20, MemoryLimit: 512 << 20})
			defer db.Close()
			s := atkSeq(t, db)
			_, err := s.Append([]byte("0"))
			require.NoError(t, err)
			lsn := db.LastLSN() + 1
			b := db.NewBatch()
			for i := range 200_000 {
				require.NoError(t, b.Put(fmt.Appendf(nil, "k%d", i*7919%1000003), nil))
			}
			require.NoError(t, b.Append(s, []byte("1")))
			c, err := db.Submit(b, Durable)
			require.NoError(t, err)
			for db.DurableLSN() < lsn {
			}
			if what == "follow" {
				_, next, err := s.Bounds()
				require.NoError(t, err)
				if next != 1 {
					t.Skip("window missed")
				}
				pos, err := s.seek(context.Background(), 1) // what Follow(ctx, 1) does first
				require.NoError(t, err)
				require.NoError(t, c.Wait(context.Background()))
				t.Logf("Follow(1) starts behind LSN %d; item 1 is in LSN %d", pos.LSN, lsn)
				require.Less(t, pos.LSN, lsn)
				return
			}
			for it, err := range s.Read(context.Background(), 1) {
				require.NoError(t, err)
				require.Equal(t, uint64(1), it.Offset)
				_, err = db.Get([]byte("k0"))
				require.NoError(t, err, "the item is shown, the key of its commit is not")
			}
			require.NoError(t, c.Wait(context.Background()))
		})
	}
}

// A reader comes over what is gone to a file that has nothing durable.
func TestAttackSequenceReadOverGapToBufferedFile(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, MemtableSize: 256 << 10, LogFileSize: 1 << 20, MarkDelay: -1}
	db := atkOpen(t, o)
	s := atkSeq(t, db)
	_, err := s.Append([]byte("item"))
	require.NoError(t, err)
	for range 3 {
		atkFill(t, db, 1500, Durable)
		require.NoError(t, db.Checkpoint(context.Background()))
	}
	require.NoError(t, db.Close())
	db = atkOpen(t, o)
	defer func() { db.Close() }()
	s = atkSeq(t, db)
	t.Logf("%+v", db.log.Files())
	b := db.NewBatch()
	require.NoError(t, b.Put([]byte("a"), nil))
	require.NoError(t, db.Apply(b, Buffered))
	n := 0
	for _, err := range s.Read(context.Background(), 0) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 1, n)
}

type atkCtx struct {
	context.Context
	n  int
	do func()
}

func (c *atkCtx) Err() error {
	if c.n++; c.n == 3 {
		c.do()
	}
	return nil
}

// Verify beside DropSequence tells of damage.
func TestAttackSequenceVerifyBesideDrop(t *testing.T) {
	db := atkOpen(t, Options{FS: vfs.NewMem(), MemtableSize: 64 << 10, LogFileSize: 64 << 10})
	defer db.Close()
	s := atkSeq(t, db)
	for range 5 {
		_, err := s.Append([]byte("item"))
		require.NoError(t, err)
		atkFill(t, db, 200, Durable)
	}
	require.NoError(t, db.Checkpoint(context.Background()))
	var done Verified
	err := s.verify(&atkCtx{Context: context.Background(), do: func() { require.NoError(t, db.DropSequence("s")) }}, &done)
	var bad *CorruptionError
	require.False(t, errors.As(err, &bad) && !errors.Is(err, ErrKeyspaceDropped), "%v", err)
}

// A log full of items cannot be trimmed.
func TestAttackSequenceTrimOfFullLog(t *testing.T) {
	fs := vfs.NewMem()
	o := Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10, MaxLogBytes: 1 << 20}
	db := atkOpen(t, o)
	s := atkSeq(t, db)
	for range 4000 { // what a sequence holds does not count, once it is settled
		_, err := s.Append(make([]byte, 1000))
		if errors.Is(err, ErrFull) { // it is not yet
			require.NoError(t, db.Checkpoint(context.Background()))
			continue
		}
		require.NoError(t, err)
	}
	require.Greater(t, db.Stats().Log.FileBytes, int64(3<<20))
	require.NoError(t, db.Close())
	db = atkOpen(t, o)
	s = atkSeq(t, db)
	defer func() { db.Close() }()
	require.NoError(t, s.Trim(^uint64(0)))
	require.NoError(t, db.Checkpoint(context.Background()))
	require.Less(t, db.Stats().Log.FileBytes, int64(1<<20))
}

// How much log there is when nothing is settled.
func TestAttackSequenceLogBytesBeforeCheckpoint(t *testing.T) {
	db := atkOpen(t, Options{FS: vfs.NewMem(), MemtableSize: 64 << 10, LogFileSize: 1 << 20})
	defer db.Close()
	s := atkSeq(t, db)
	for range 400 {
		_, err := s.Append(make([]byte, 100<<10))
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return db.LastLSN()-db.log.Floor() < 30 }, time.Minute, time.Millisecond)
	require.Greater(t, db.Stats().Checkpoints, int64(20))
}
