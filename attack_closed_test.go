package forebay

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// failing calls everything that returns an error, on a store and on what was made
// from it while it was open.
type failing struct {
	name  string
	write bool
	call  func() error
}

func endOf[T any](seq iter.Seq2[T, error]) (err error) {
	for _, err = range seq {
		if err != nil {
			return err
		}
	}
	return err
}

func calls(db *DB, ks *Keyspace, s *Snapshot, it *Iterator) []failing {
	ctx := context.Background()
	key, value := []byte("key"), []byte("value")
	batch := func() *Batch {
		b := db.NewBatch()
		b.Put(key, value)
		if ks != nil {
			b.In(ks).Put(key, value)
		}
		return b
	}
	second := func(_ any, err error) error { return err }
	list := []failing{
		{"Apply", true, func() error { return db.Apply(batch(), Durable) }},
		{"Apply of nothing", true, func() error { return db.Apply(db.NewBatch(), Buffered) }},
		{"Submit", true, func() error { return second(db.Submit(batch(), Buffered)) }},
		{"Backup", true, func() error { return second(db.Backup(ctx, "copy")) }},
		{"Changes", true, func() error { return endOf(db.Changes(ctx, Position{})) }},
		{"Follow", true, func() error { return endOf(db.Follow(ctx, Position{})) }},
		{"Follow the end", true, func() error { return endOf(db.Follow(ctx, db.Position())) }},
		{"Checkpoint", true, func() error { return db.Checkpoint(ctx) }},
		{"Compact", true, func() error { return db.Compact(ctx) }},
		{"Put", true, func() error { return db.Put(key, value) }},
		{"Delete", true, func() error { return db.Delete(key) }},
		{"DeleteRange", true, func() error { return db.DeleteRange(nil, nil) }},
		{"DropKeyspace", true, func() error { return db.DropKeyspace("space") }},
		{"Pin", true, func() error { return db.Pin("pin", 0) }},
		{"Unpin", true, func() error { return db.Unpin("pin") }},
		{"Sync", true, func() error { return db.Sync(ctx) }},
		{"Update", true, func() error { return db.Update(func(tx *Tx) error { return tx.Put(key, value) }) }},
		{"Update that reads", true, func() error { return db.Update(func(tx *Tx) error { return second(tx.Get(key)) }) }},
		{"Update that does nothing", true, func() error { return db.Update(func(tx *Tx) error { return nil }) }},
		{"Update that ranges", true, func() error {
			return db.Update(func(tx *Tx) error { return endOf(tx.Range(nil, nil)) })
		}},
		{"Get", false, func() error { return second(db.Get(key)) }},
		{"GetFunc", false, func() error { return db.GetFunc(key, func([]byte) error { return nil }) }},
		{"Has", false, func() error { return second(db.Has(key)) }},
		{"Keyspace, a new one", false, func() error { return second(db.Keyspace("another")) }},
		{"Keyspaces", false, func() error { return second(db.Keyspaces()) }},
		{"NewIterator", false, func() error {
			it := db.NewIterator(nil)
			defer it.Close()
			it.First()
			return it.Err()
		}},
		{"Range", false, func() error { return endOf(db.Range(nil, nil)) }},
		{"RangeReverse", false, func() error { return endOf(db.RangeReverse(nil, nil)) }},
		{"Prefix", false, func() error { return endOf(db.Prefix(key)) }},
		{"PrefixReverse", false, func() error { return endOf(db.PrefixReverse(key)) }},
		{"Snapshot", false, func() error { return second(db.Snapshot()) }},
		{"View", false, func() error { return db.View(func(*Snapshot) error { return nil }) }},
		{"Verify", false, func() error { return second(db.Verify(ctx)) }},
	}
	if ks != nil {
		list = append(list, []failing{
			{"Keyspace.Put", true, func() error { return ks.Put(key, value) }},
			{"Keyspace.Delete", true, func() error { return ks.Delete(key) }},
			{"Keyspace.DeleteRange", true, func() error { return ks.DeleteRange(nil, nil) }},
			{"Keyspace.Get", false, func() error { return second(ks.Get(key)) }},
			{"Keyspace.Range", false, func() error { return endOf(ks.Range(nil, nil)) }},
			{"Snapshot.Get", false, func() error { return second(s.Get(key)) }},
			{"Snapshot.Range", false, func() error { return endOf(s.Range(nil, nil)) }},
			{"Snapshot.Keyspace", false, func() error { return second(s.Keyspace("space")) }},
			{"Snapshot.Keyspaces", false, func() error { return second(s.Keyspaces()) }},
			{"Iterator.First", false, func() error { it.First(); return it.Err() }},
			{"Iterator.Last", false, func() error { it.Last(); return it.Err() }},
			{"Iterator.SeekGE", false, func() error { it.SeekGE(key); return it.Err() }},
			{"Iterator.SeekLT", false, func() error { it.SeekLT(key); return it.Err() }},
			{"Iterator.Next", false, func() error { it.Next(); return it.Err() }},
			{"Iterator.Prev", false, func() error { it.Prev(); return it.Err() }},
		}...)
	}
	return list
}

// what cannot fail must not panic.
func harmless(db *DB) {
	db.DurableLSN()
	db.LastLSN()
	db.Pins()
	db.Position()
	db.Recovery()
	st := db.Stats()
	st.SpaceAmplification()
	st.WriteAmplification()
	db.NewBatch()
}

func TestAttackAfterClose(t *testing.T) {
	for _, how := range []string{"close", "shutdown"} {
		db := open(t, small(vfs.NewMem()))
		ks, err := db.Keyspace("space")
		require.NoError(t, err)
		require.NoError(t, ks.Put([]byte("key"), []byte("value")))
		require.NoError(t, db.Put([]byte("key"), bytes.Repeat([]byte("value"), 9000)))
		require.NoError(t, db.Checkpoint(context.Background()))
		require.NoError(t, db.Put([]byte("kez"), []byte("value")))
		s, err := db.Snapshot()
		require.NoError(t, err)
		it := db.NewIterator(nil)
		require.True(t, it.First())
		if how == "close" {
			require.NoError(t, db.Close())
		} else {
			require.NoError(t, db.Shutdown(context.Background()))
		}
		require.ErrorIs(t, db.Close(), ErrClosed)
		require.ErrorIs(t, db.Shutdown(context.Background()), ErrClosed)
		for _, c := range calls(db, ks, s, it) {
			done := make(chan error, 1)
			go func() { done <- c.call() }()
			select {
			case err := <-done:
				require.ErrorIs(t, err, ErrClosed, "%s after %s", c.name, how)
			case <-time.After(5 * time.Second):
				t.Fatalf("%s hangs after %s", c.name, how)
			}
		}
		harmless(db)
		require.NoError(t, it.Close())
		require.NoError(t, it.Close())
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
	}
}

func TestAttackReadOnlyRefusesWrites(t *testing.T) {
	mem := vfs.NewMem()
	db := open(t, small(mem))
	ks, err := db.Keyspace("space")
	require.NoError(t, err)
	require.NoError(t, ks.Put([]byte("key"), []byte("value")))
	require.NoError(t, db.Put([]byte("key"), bytes.Repeat([]byte("value"), 9000)))
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, db.Put([]byte("kez"), []byte("value")))
	require.NoError(t, db.Close())

	in := vfs.NewInjector(mem)
	for _, c := range []vfs.Call{vfs.CallCreate, vfs.CallWrite, vfs.CallZero, vfs.CallSync, vfs.CallSyncData, vfs.CallSyncDir, vfs.CallRename, vfs.CallRemove, vfs.CallMkdir, vfs.CallLock} {
		in.Add(vfs.Rule{Call: c, Forever: true, Err: errors.New("a write")})
	}
	o := small(in)
	o.ReadOnly = true
	db = open(t, o)
	twin := open(t, o)
	_, err = Open("db", small(mem))
	require.ErrorIs(t, err, ErrLocked)
	ks, err = db.Keyspace("space")
	require.NoError(t, err)
	s, err := db.Snapshot()
	require.NoError(t, err)
	it := db.NewIterator(nil)
	defer it.Close()
	for _, c := range calls(db, ks, s, it) {
		err := c.call()
		switch {
		case c.write:
			require.ErrorIs(t, err, ErrReadOnly, c.name)
		case c.name == "Keyspace, a new one":
			require.ErrorIs(t, err, ErrNoKeyspace)
		default:
			require.NoError(t, err, c.name)
		}
	}
	harmless(db)
	require.NoError(t, twin.Close())
	require.NoError(t, s.Close())
	require.NoError(t, db.Close())
	for _, c := range calls(db, ks, s, it) {
		if err := c.call(); !c.write {
			require.ErrorIs(t, err, ErrClosed, c.name)
		} else {
			require.True(t, errors.Is(err, ErrClosed) || errors.Is(err, ErrReadOnly), c.name)
		}
	}
	harmless(db)
}

// TestAttackCloseWakesWhoWaitsForMemory: two Checkpoints of the caller's own have
// frozen all memtables that may wait, and Close ends both before they settle one.
// Nobody else settles them: Close has to tell the writer.
func TestAttackCloseWakesWhoWaitsForMemory(t *testing.T) {
	db := open(t, &Options{FS: vfs.NewMem()})
	db.checkMu.Lock()
	ended := make(chan error, 3)
	for i := range maxFrozen {
		require.NoError(t, db.Put([]byte("key"), nil))
		go func() { ended <- db.Checkpoint(context.Background()) }()
		require.Eventually(t, func() bool { return len(db.view.Load().frozen) > i }, time.Minute, time.Millisecond)
	}
	go func() { ended <- db.Put([]byte("waits"), nil) }()
	select {
	case err := <-ended:
		t.Fatalf("nobody was to end yet: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	require.NoError(t, db.refuse())
	db.checkMu.Unlock()
	for range cap(ended) {
		select {
		case err := <-ended:
			require.ErrorIs(t, err, ErrClosed)
		case <-time.After(10 * time.Second):
			t.Fatal("the writer waits for ever")
		}
	}
	require.NoError(t, db.close())
}

// TestAttackClosedIsNotPoisoned: whoever asks, a moment after Close, whether memtables
// can be settled is told that the store is closed, and poisons nothing.
func TestAttackClosedIsNotPoisoned(t *testing.T) {
	db := open(t, &Options{FS: vfs.NewMem()})
	require.NoError(t, db.Close())
	require.ErrorIs(t, db.stuck(), ErrClosed)
	require.NoError(t, db.log.Err())
}
