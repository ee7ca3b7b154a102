package eventstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/topic"
	"github.com/forebaydb/forebay/vfs"
)

func archive(t testing.TB, s *eventstore.Store, before uint64) ([]byte, eventstore.ArchiveInfo) {
	t.Helper()
	var b bytes.Buffer
	info, err := s.Archive(ctx, &b, before)
	require.NoError(t, err)
	return b.Bytes(), info
}

// TestArchiveAndRetain: events go to archives and out of the store, the chain goes on, and
// the streams know where they begin.
func TestArchiveAndRetain(t *testing.T) {
	var c clock
	fs := vfs.NewMem()
	db := openDB(t, fs)
	s := open(t, db, &eventstore.Options{Now: c.now})
	var want []string
	for i := range 300 {
		name := fmt.Sprint("s", i%7)
		_, err := s.Append(ctx, name, eventstore.Any, text(fmt.Sprint(i)), secret("bob", "x"))
		require.NoError(t, err)
		want = append(want, fmt.Sprintf("%s/%d %d", name, i/7*2+1, i), fmt.Sprintf("%s/%d x", name, i/7*2+2))
		c.advance(time.Second)
	}
	add(t, s, "last", "y")
	heads := map[string]eventstore.StreamHead{}
	var archived []string
	readArchive := func(b []byte) {
		for ev, err := range s.ReadArchive(ctx, bytes.NewReader(b)) {
			require.NoError(t, err)
			archived = append(archived, said(ev))
		}
	}
	first, info := archive(t, s, 101) // inside of a commit
	require.Equal(t, uint64(100), info.Next)
	require.Equal(t, uint64(100), info.Events)
	got, err := eventstore.VerifyArchive(bytes.NewReader(first), heads)
	require.NoError(t, err)
	require.Equal(t, info, got)
	readArchive(first)
	out, err := s.Retain(ctx, eventstore.Retention{Before: info.Next})
	require.NoError(t, err)
	require.Equal(t, uint64(100), out.First)
	require.Equal(t, uint64(100), out.Events)
	require.NotZero(t, out.Bytes)
	require.False(t, out.Held)
	verify(t, s)

	for _, err := range s.All(ctx, 99) {
		require.ErrorIs(t, err, eventstore.ErrRetained)
		var gone *eventstore.RetainedError
		require.ErrorAs(t, err, &gone)
		require.Equal(t, uint64(100), gone.First)
		require.Contains(t, err.Error(), "offset 100")
	}
	require.Equal(t, want[100:], all(t, s, 100)[:500])
	info0, err := s.Info("s0")
	require.NoError(t, err)
	require.Equal(t, heads["s0"], eventstore.StreamHead{Version: info0.First - 1, Hash: info0.Prev})
	for _, err := range s.Stream(ctx, "s0", 1) {
		require.ErrorIs(t, err, eventstore.ErrRetained)
		require.Contains(t, err.Error(), "s0")
	}
	_, err = journal(0).Load(ctx, s, "s0")
	require.ErrorIs(t, err, eventstore.ErrRetained)
	require.NotEmpty(t, stream(t, s, "s0", info0.First))

	second, info := archive(t, s, 1<<62)
	require.Equal(t, uint64(100), info.First)
	require.Equal(t, uint64(601), info.Next)
	_, err = eventstore.VerifyArchive(bytes.NewReader(second), map[string]eventstore.StreamHead{})
	require.ErrorIs(t, err, eventstore.ErrDamaged) // the first one is missing
	_, err = eventstore.VerifyArchive(bytes.NewReader(second), nil)
	require.NoError(t, err)
	_, err = eventstore.VerifyArchive(bytes.NewReader(second), heads)
	require.NoError(t, err)
	readArchive(second)
	require.Equal(t, append(want, "last/1 y"), archived)
	out, err = s.Retain(ctx, eventstore.Retention{Before: 1 << 62})
	require.NoError(t, err)
	require.Equal(t, uint64(601), out.First)
	require.Empty(t, all(t, s, 601))
	verify(t, s)
	for _, err := range s.Stream(ctx, "s0", 3) {
		require.ErrorIs(t, err, eventstore.ErrRetained)
	}
	at := add(t, s, "s0", "goes on") // behind a stream of which nothing is left
	require.Equal(t, heads["s0"].Version+1, at.First)
	require.Equal(t, uint64(601), at.Offset)
	require.NoError(t, db.Close())
	s = open(t, openDB(t, fs), nil)
	require.Equal(t, []string{fmt.Sprintf("s0/%d goes on", at.First)}, all(t, s, 601))
	require.Equal(t, []string{fmt.Sprintf("s0/%d goes on", at.First)}, stream(t, s, "s0", at.First))
	verify(t, s)
	require.NoError(t, s.Forget(ctx, "bob")) // archives, too
	archived = nil
	readArchive(first)
	require.Equal(t, "s0/2 erased", archived[1])
}

// TestFlippedBits: no bit of an archive can be changed, nor can it end anywhere else.
func TestFlippedBits(t *testing.T) {
	_, s := newStore(t, nil)
	add(t, s, "a", "1", "2")
	add(t, s, "b", "3")
	b, info := archive(t, s, 3)
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			_, err := eventstore.VerifyArchive(bytes.NewReader(bad), nil)
			require.ErrorIs(t, err, eventstore.ErrDamaged, "byte %d bit %d", i, bit)
		}
		_, err := eventstore.VerifyArchive(bytes.NewReader(b[:i]), nil)
		require.ErrorIs(t, err, eventstore.ErrDamaged, i)
	}
	_, err := eventstore.VerifyArchive(bytes.NewReader(append(bytes.Clone(b), 0)), nil)
	require.ErrorIs(t, err, eventstore.ErrDamaged)
	_, err = eventstore.VerifyArchive(io.MultiReader(bytes.NewReader(b), iotest.ErrReader(io.ErrClosedPipe)), nil)
	require.ErrorIs(t, err, io.ErrClosedPipe)
	got, err := eventstore.VerifyArchive(iotest.OneByteReader(bytes.NewReader(b)), nil)
	require.NoError(t, err)
	require.Equal(t, info, got)
	_, err = s.Archive(ctx, failing{}, 3)
	require.ErrorIs(t, err, io.ErrShortWrite)
	done, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range s.ReadArchive(done, bytes.NewReader(b)) {
		require.ErrorIs(t, err, context.Canceled)
	}
	for range s.ReadArchive(ctx, bytes.NewReader(b)) {
		break
	}
	empty, info := archive(t, s, 0)
	require.Zero(t, info.Events)
	_, err = eventstore.VerifyArchive(bytes.NewReader(empty), nil)
	require.NoError(t, err)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func FuzzVerifyArchive(f *testing.F) {
	_, s := newStore(f, nil)
	add(f, s, "a", "1", "2")
	b, _ := archive(f, s, 2)
	f.Add(b)
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := eventstore.VerifyArchive(bytes.NewReader(b), map[string]eventstore.StreamHead{}); err != nil {
			require.ErrorIs(t, err, eventstore.ErrDamaged)
		}
	})
}

// TestWhatRetainLeaves: by each bound, and never what somebody needs.
func TestWhatRetainLeaves(t *testing.T) {
	var c clock
	_, s := newStore(t, &eventstore.Options{Now: c.now})
	for i := range 3000 {
		payload := fmt.Sprint(i)
		if i == 1500 {
			payload = "poison"
		}
		add(t, s, fmt.Sprint("s", i%11), payload)
		c.advance(time.Minute)
	}
	retain := func(r eventstore.Retention) eventstore.Retained {
		out, err := s.Retain(ctx, r)
		require.NoError(t, err)
		first, _, err := s.Topic().Bounds()
		require.NoError(t, err)
		require.Equal(t, first, out.First)
		floor, err := s.First()
		require.NoError(t, err)
		require.Equal(t, first, floor)
		verify(t, s)
		return out
	}
	require.Zero(t, retain(eventstore.Retention{}).First)
	require.Equal(t, uint64(200), retain(eventstore.Retention{MaxEvents: 2800}).First)
	require.Equal(t, uint64(400), retain(eventstore.Retention{MaxAge: 2600 * time.Minute}).First)
	var size uint64
	for a, err := range s.Topic().Sequence().Appends(400) {
		require.NoError(t, err)
		size += a.Bytes
	}
	require.InDelta(t, 500, retain(eventstore.Retention{MaxBytes: size * 25 / 26}).First, 3)

	p := projection(t, s, byStream("p", 1)) // begins with what there is
	_, from := rows(t, p)
	require.InDelta(t, 500, from, 3)
	all := eventstore.Retention{Before: 1 << 62}
	require.True(t, retain(all).Held)
	catchUp(t, p)
	r := retain(all)
	require.Equal(t, uint64(1500), r.First) // a dead letter has it
	require.True(t, r.Held)
	require.NoError(t, p.Discard(ctx, 1500))
	reader, err := s.Topic().Reader("r")
	require.NoError(t, err)
	require.Equal(t, uint64(1500), retain(all).First)
	require.NoError(t, s.Topic().DropReader(reader.Name()))
	// A generation that is being built needs what it has not read.
	done, cancel := context.WithCancel(ctx)
	o := byStream("p", 1)
	apply := o.Apply
	o.Apply = func(rows forebay.Space, ev eventstore.Event) error {
		if ev.Offset == 2000 {
			cancel()
		}
		return apply(rows, ev)
	}
	require.ErrorIs(t, projection(t, s, o).Rebuild(done), context.Canceled)
	r = retain(all)
	require.Equal(t, uint64(1500), r.First) // its dead letters, too
	require.True(t, r.Held)
	require.NoError(t, p.AbandonRebuild(ctx))
	r = retain(all)
	require.Equal(t, uint64(3000), r.First)
	require.False(t, r.Held)
	require.NoError(t, p.Rebuild(ctx)) // of nothing
	got, next := rows(t, p)
	require.Empty(t, got)
	require.Equal(t, uint64(3000), next)
}

// TestReindex: a salvage gives other LSNs to commits; reads say so, and Reindex mends it.
func TestReindex(t *testing.T) {
	fs := vfs.NewMem()
	db := openDB(t, fs)
	s := open(t, db, nil)
	for i := range 60 {
		require.NoError(t, db.Put([]byte("k"), nil))
		require.NoError(t, db.Update(func(tx *forebay.Tx) error {
			for _, name := range []string{"a", "b", "a"} {
				if _, err := s.AppendTx(tx, name, eventstore.Any, text(fmt.Sprint(i)), text("-")); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	_, err := s.Retain(ctx, eventstore.Retention{Before: 60})
	require.NoError(t, err)
	info, err := s.Info("a")
	require.NoError(t, err)
	wantA, wantB, want := stream(t, s, "a", info.First), stream(t, s, "b", 21), all(t, s, 60)
	require.Len(t, wantA, 200)
	require.NoError(t, db.Close())
	_, err = check.Salvage(ctx, &check.Config{FS: fs, Dir: "data"}, "saved")
	require.NoError(t, err)
	db, err = forebay.Open("saved", &forebay.Options{FS: fs})
	require.NoError(t, err)
	defer db.Close()
	s = open(t, db, nil)
	if _, err := s.Verify(ctx); err == nil {
		t.Log("the salvage kept all LSNs")
	}
	require.NoError(t, s.Reindex(ctx))
	require.Equal(t, wantA, stream(t, s, "a", info.First))
	require.Equal(t, wantA[37:], stream(t, s, "a", info.First+37))
	require.Equal(t, wantB, stream(t, s, "b", 21))
	require.Equal(t, want, all(t, s, 60))
	require.Equal(t, uint64(300), verify(t, s).Events)
	add(t, s, "a", "more", "and more")
	require.Equal(t, append(wantA, "a/241 more", "a/242 and more"), stream(t, s, "a", info.First))
	verify(t, s)
}

// TestDamagedKeys: what others have done to the keyspace is said, and heads, index and
// what is left of the stream can be made again.
func TestDamagedKeys(t *testing.T) {
	db, s := newStore(t, nil)
	add(t, s, "a", "1")
	add(t, s, "a", "2", "3")
	add(t, s, "b", "4")
	main, err := db.Keyspace("events/bank")
	require.NoError(t, err)
	var keys []forebay.Entry
	for e, err := range main.Range(nil, nil) {
		require.NoError(t, err)
		keys = append(keys, forebay.Entry{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value)})
	}
	require.Len(t, keys, 5)
	seen := func() {
		_, err := s.Verify(ctx)
		require.Error(t, err)
		require.True(t, errors.Is(err, eventstore.ErrDamaged) || errors.Is(err, eventstore.ErrIndex), err)
		require.NoError(t, s.Reindex(ctx))
		verify(t, s)
		require.Equal(t, []string{"a/1 1", "a/2 2", "a/3 3"}, stream(t, s, "a", 1))
	}
	for _, e := range keys {
		require.NoError(t, main.Delete(e.Key))
		for _, err := range s.Stream(ctx, "a", 1) { // an error, or what is right
			if err != nil {
				require.ErrorIs(t, err, eventstore.ErrIndex)
			}
		}
		seen()
		for _, bad := range [][]byte{nil, {1}, {1, 0x80}, append(bytes.Clone(e.Value), 77), {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
			if e.Key[0] == 'i' && len(bad) == 1 { // right again
				continue
			}
			require.NoError(t, main.Put(e.Key, bad))
			seen()
		}
	}
	require.NoError(t, main.Put(append([]byte("ic\x00"), 0, 0, 0, 0, 0, 0, 0, 1), []byte{1})) // of no event
	seen()
	require.NoError(t, main.Put([]byte("hc"), keysValue(keys, "ha"))) // a head of no event
	seen()
	// Items that are no events.
	require.NoError(t, db.Update(func(tx *forebay.Tx) error { return tx.Append(s.Topic().Sequence(), []byte("x")) }))
	_, err = s.Verify(ctx)
	require.ErrorIs(t, err, eventstore.ErrDamaged)
	for ev, err := range s.All(ctx, 4) {
		require.Zero(t, ev)
		require.ErrorIs(t, err, eventstore.ErrDamaged)
	}
	p := projection(t, s, byStream("p", 1))
	_, err = p.CatchUp(ctx)
	require.ErrorIs(t, err, eventstore.ErrDamaged) // nothing goes past it
	require.ErrorIs(t, s.Reindex(ctx), eventstore.ErrDamaged)
}

func keysValue(keys []forebay.Entry, key string) []byte {
	for _, e := range keys {
		if string(e.Key) == key {
			return e.Value
		}
	}
	return nil
}

// TestForgedEnvelopes: no length is believed, and nothing panics.
func TestForgedEnvelopes(t *testing.T) {
	db, s := newStore(t, nil)
	_, err := s.Append(ctx, "a", eventstore.Any, eventstore.New{Type: "T", Headers: map[string]string{"h": "v"}, Subject: "bob", Payload: []byte("p")})
	require.NoError(t, err)
	var item []byte
	for it, err := range s.Topic().Sequence().Read(ctx, 0) {
		require.NoError(t, err)
		item = bytes.Clone(it.Value)
	}
	at := uint64(1)
	for i := 8; i < len(item); i++ {
		for _, to := range []byte{item[i] ^ 1, 0xff, 0x80, 0} {
			bad := bytes.Clone(item)
			bad[i] = to
			if bytes.Equal(bad, item) {
				continue
			}
			require.NoError(t, db.Update(func(tx *forebay.Tx) error { return tx.Append(s.Topic().Sequence(), bad) }))
			for ev, err := range s.All(ctx, at) {
				// What decodes does not open: the payload is bound to all of it.
				if err == nil {
					require.True(t, ev.Erased || len(ev.Payload) > 1, "byte %d", i)
				} else {
					require.ErrorIs(t, err, eventstore.ErrDamaged, "byte %d", i)
				}
				break
			}
			at++
		}
	}
	var _ topic.Appender = (*forebay.Tx)(nil)
}
