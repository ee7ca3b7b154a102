package forebay_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

func TestOutcome(t *testing.T) {
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem()})
	require.NoError(t, err)
	defer db.Close()
	s, err := db.Sequence("s")
	require.NoError(t, err)
	other, err := db.Sequence("other")
	require.NoError(t, err)
	_, err = s.Append([]byte("first"))
	require.NoError(t, err)

	for name, update := range map[string]func(fn func(tx *forebay.Tx) error) error{
		"Update": db.Update,
		"UpdateLevel": func(fn func(tx *forebay.Tx) error) error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			return db.UpdateLevel(ctx, forebay.Durable, fn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			next := s.Next()
			var got []forebay.Outcome
			done := func(o forebay.Outcome) { got = append(got, o) }
			require.NoError(t, update(func(tx *forebay.Tx) error {
				tx.OnDone(done)
				return errors.Join(tx.Put([]byte("k"), []byte(name)), tx.Append(s, []byte("a")), tx.Append(s, []byte("b")))
			}))
			require.Len(t, got, 1)
			require.NoError(t, got[0].Err)
			require.Equal(t, db.LastLSN(), got[0].LSN)
			first, n := got[0].Appended(s)
			require.Equal(t, next, first)
			require.Equal(t, 2, n)
			require.Equal(t, next+2, s.Next())
			_, n = got[0].Appended(other)
			require.Zero(t, n)

			// A function that fails, and one that writes nothing.
			got = nil
			fail := errors.New("no")
			require.ErrorIs(t, update(func(tx *forebay.Tx) error { tx.OnDone(done); return errors.Join(tx.Append(s, nil), fail) }), fail)
			require.NoError(t, update(func(tx *forebay.Tx) error { tx.OnDone(done); return nil }))
			require.Len(t, got, 2)
			require.ErrorIs(t, got[0].Err, fail)
			_, n = got[0].Appended(s)
			require.Zero(t, n)
			require.Equal(t, forebay.Outcome{}, got[1])

			// A conflict, told once for each attempt, through those that run alone.
			got = nil
			tries := 0
			require.NoError(t, update(func(tx *forebay.Tx) error {
				tx.OnDone(done)
				if _, err := tx.Get([]byte("k")); err != nil {
					return err
				}
				if tries++; tries < 12 {
					return forebay.ErrConflict
				}
				return tx.Put([]byte("k"), fmt.Append(nil, tries))
			}))
			require.Len(t, got, tries)
			for i, o := range got {
				if i < tries-1 {
					require.ErrorIs(t, o.Err, forebay.ErrConflict)
				} else {
					require.NoError(t, o.Err)
				}
			}

			got = nil
			require.Panics(t, func() {
				_ = update(func(tx *forebay.Tx) error { tx.OnDone(done); panic("oh") })
			})
			require.Len(t, got, 1)
			require.Error(t, got[0].Err)
		})
	}
}

// TestOutcomeBehindTheWait: who does not wait for his commit is told of it when it is
// there.
func TestOutcomeBehindTheWait(t *testing.T) {
	in := vfs.NewInjector(vfs.NewMem())
	db, err := forebay.Open("data", &forebay.Options{FS: in})
	require.NoError(t, err)
	defer db.Close()
	s, err := db.Sequence("s")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	gate := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "*.log", Gate: gate})
	told := make(chan forebay.Outcome, 1)
	go func() {
		<-gate.Arrived()
		cancel()
	}()
	require.ErrorIs(t, db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		tx.OnDone(func(o forebay.Outcome) { told <- o })
		return tx.Append(s, []byte("x"))
	}), context.Canceled)
	require.Empty(t, told)
	gate.Release()
	o := <-told
	require.NoError(t, o.Err)
	first, n := o.Appended(s)
	require.Zero(t, first)
	require.Equal(t, 1, n)
	require.Equal(t, db.LastLSN(), o.LSN)
}

func TestCommitOfASequence(t *testing.T) {
	ctx := context.Background()
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem(), DefaultLevel: forebay.Buffered})
	require.NoError(t, err)
	defer db.Close()
	s, err := db.Sequence("s")
	require.NoError(t, err)
	other, err := db.Sequence("other")
	require.NoError(t, err)
	b := db.NewBatch()
	_, n := b.Appended(s)
	require.Zero(t, n)
	var lsns []uint64
	for i := range 20 {
		b.Reset()
		for j := range i%3 + 1 {
			require.NoError(t, b.Append(s, fmt.Appendf(nil, "%d.%d", i, j)))
		}
		next := s.Next()
		if i%2 == 0 {
			require.NoError(t, db.Apply(b, forebay.Buffered))
		} else {
			c, err := db.Submit(b, forebay.Buffered)
			require.NoError(t, err)
			require.NoError(t, c.Wait(ctx))
		}
		first, n := b.Appended(s)
		require.Equal(t, next, first)
		require.Equal(t, i%3+1, n)
		_, n = b.Appended(other)
		require.Zero(t, n)
		lsns = append(lsns, db.LastLSN())
		require.NoError(t, db.Put([]byte("k"), nil))
	}
	read := func(s *forebay.Sequence, lsn uint64) (out []string, err error) {
		for it, err := range s.Commit(ctx, lsn) {
			if err != nil {
				return out, err
			}
			require.Equal(t, lsn, it.LSN)
			out = append(out, string(it.Value))
		}
		return out, nil
	}
	at := 0
	for i, lsn := range lsns {
		got, err := read(s, lsn)
		require.NoError(t, err)
		require.Len(t, got, i%3+1)
		require.Equal(t, fmt.Sprintf("%d.0", i), got[0])
		at += len(got)
	}
	require.Equal(t, s.Next(), uint64(at))
	for _, lsn := range []uint64{0, lsns[0] + 1, db.LastLSN(), db.LastLSN() + 1, ^uint64(0)} {
		_, err = read(s, lsn)
		require.ErrorIs(t, err, forebay.ErrNotFound, "%d", lsn)
	}
	_, err = read(other, lsns[0])
	require.ErrorIs(t, err, forebay.ErrNotFound)
	require.NoError(t, s.Trim(3))
	_, err = read(s, lsns[0])
	require.ErrorIs(t, err, forebay.ErrNotFound, "it is in the log, and not in the sequence")
	_, err = read(s, lsns[2])
	require.NoError(t, err)
}

func BenchmarkSequenceCommit(b *testing.B) {
	db, err := forebay.Open(b.TempDir(), nil)
	require.NoError(b, err)
	defer db.Close()
	s, err := db.Sequence("s")
	require.NoError(b, err)
	var lsns []uint64
	ba := db.NewBatch()
	for i := range 100_000 {
		ba.Reset()
		require.NoError(b, ba.Append(s, fmt.Appendf(nil, "an event of about a hundred bytes, number %60d", i)))
		require.NoError(b, db.Apply(ba, forebay.Buffered))
		lsns = append(lsns, db.LastLSN())
	}
	require.NoError(b, db.Sync(context.Background()))
	i := 0
	for b.Loop() {
		i += 7919
		for _, err := range s.Commit(context.Background(), lsns[i%len(lsns)]) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
