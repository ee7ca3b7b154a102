package eventstore_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/vfs"
)

// journal is an aggregate that has all payloads.
func journal(every uint64) *eventstore.Aggregate[string] {
	return &eventstore.Aggregate[string]{
		Name: "journal", SnapshotEvery: every,
		Apply: func(s string, ev eventstore.Event) (string, error) {
			if ev.Erased {
				return s + "[erased]", nil
			}
			if string(ev.Payload) == "poison" {
				return s, errors.New("cannot")
			}
			return s + string(ev.Payload), nil
		},
	}
}

func counter(every uint64) *eventstore.Aggregate[uint64] {
	return &eventstore.Aggregate[uint64]{
		Name: "counter", SnapshotEvery: every,
		Apply:  func(n uint64, ev eventstore.Event) (uint64, error) { return n + 1, nil },
		Encode: func(n uint64) ([]byte, error) { return binary.BigEndian.AppendUint64(nil, n), nil },
		Decode: func(b []byte) (uint64, error) { return binary.BigEndian.Uint64(b), nil },
	}
}

// TestSnapshotOfThousands: 10,000 events with a snapshot at 9,000 apply exactly 1,000, and
// without it all, to the same state.
func TestSnapshotOfThousands(t *testing.T) {
	_, s := newStore(t, nil)
	c := counter(9000)
	fill := func(n int) {
		for range n / 100 {
			events := make([]eventstore.New, 100)
			for i := range events {
				events[i] = text("x")
			}
			_, err := s.Append(ctx, "a", eventstore.Any, events...)
			require.NoError(t, err)
		}
	}
	fill(9500)
	l, err := c.Load(ctx, s, "a")
	require.NoError(t, err)
	require.NoError(t, l.SnapshotErr)
	require.Equal(t, 9500, l.Applied)
	fill(500)
	l, err = c.Load(ctx, s, "a")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[uint64]{State: 10_000, Version: 10_000, Time: l.Time, Snapshot: 9000, Applied: 1000}, l)
	l, err = c.AtVersion(ctx, s, "a", 9001)
	require.NoError(t, err)
	require.Equal(t, 1, l.Applied)
	l, err = c.AtVersion(ctx, s, "a", 9000)
	require.NoError(t, err)
	require.Equal(t, uint64(9000), l.State)
	require.Zero(t, l.Applied)
	l, err = c.AtVersion(ctx, s, "a", 8999)
	require.NoError(t, err)
	require.Equal(t, 8999, l.Applied)
	other := counter(9000)
	other.Schema = 2 // what another program saved does not count
	l, err = other.Load(ctx, s, "a")
	require.NoError(t, err)
	require.Equal(t, 10_000, l.Applied)
	l, err = other.Load(ctx, s, "a")
	require.NoError(t, err)
	require.Equal(t, 1000, l.Applied)
	require.NoError(t, other.DropSnapshots(ctx, s))
	l, err = c.AtTime(ctx, s, "a", time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Equal(t, 10_000, l.Applied)
	require.Equal(t, uint64(10_000), l.State)
}

// TestStatesAgainstAModel: at every version and time, with snapshots and without, by
// random appends on a clock that goes back, too.
func TestStatesAgainstAModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var c clock
	_, s := newStore(t, &eventstore.Options{Now: c.now})
	type seen struct {
		state string
		at    time.Time
	}
	model := map[string][]seen{}
	agg := journal(5)
	agg.Keep = 3
	names := []string{"a", "b", "aa", "a-b", "ä"}
	for i := range 300 {
		c.ns.Add(int64(r.IntN(3000)-1000) * int64(time.Millisecond))
		name := names[r.IntN(len(names))]
		had := model[name]
		var events []eventstore.New
		for range r.IntN(4) + 1 {
			p := fmt.Sprintf("%d;", r.IntN(1000))
			events = append(events, text(p))
			last := seen{at: time.Unix(-1<<40, 0)}
			if len(had) > 0 {
				last = had[len(had)-1]
			}
			at := c.now()
			if at.Before(last.at) {
				at = last.at
			}
			had = append(had, seen{last.state + p, at})
		}
		expected := eventstore.Exactly(uint64(len(model[name])))
		if r.IntN(10) == 0 {
			_, err := s.Append(ctx, name, eventstore.Exactly(uint64(len(had))), events...)
			require.ErrorIs(t, err, eventstore.ErrConflict, i)
		}
		_, err := s.Append(ctx, name, expected, events...)
		require.NoError(t, err)
		model[name] = had
		look := names[r.IntN(len(names))]
		h := model[look]
		if r.IntN(3) == 0 {
			l, err := agg.Load(ctx, s, look)
			require.NoError(t, err)
			require.NoError(t, l.SnapshotErr)
			require.Equal(t, uint64(len(h)), l.Version)
			if len(h) > 0 {
				require.Equal(t, h[len(h)-1].state, l.State)
			}
		}
		if v := r.IntN(len(h) + 1); v > 0 {
			l, err := agg.AtVersion(ctx, s, look, uint64(v))
			require.NoError(t, err)
			require.Equal(t, h[v-1].state, l.State)
		}
		at := c.now().Add(time.Duration(-r.IntN(30000)) * time.Millisecond)
		want, version := "", uint64(0)
		for v, x := range h {
			if !x.at.After(at) {
				want, version = x.state, uint64(v+1)
			}
		}
		l, err := agg.AtTime(ctx, s, look, at)
		require.NoError(t, err)
		require.Equal(t, want, l.State)
		require.Equal(t, version, l.Version)
		if r.IntN(40) == 0 {
			require.NoError(t, agg.DropSnapshots(ctx, s))
		}
	}
	verify(t, s)
}

func TestExecute(t *testing.T) {
	_, s := newStore(t, nil)
	c := counter(10)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				l, at, err := c.Execute(ctx, s, "a", func(n, version uint64) ([]eventstore.New, error) {
					if n != version {
						return nil, errors.New("not the same")
					}
					return []eventstore.New{text(fmt.Sprint(n))}, nil
				})
				if err != nil || l.State != at.Last || at.First != at.Last {
					t.Error(err, l, at)
				}
			}
		})
	}
	wg.Wait()
	got := stream(t, s, "a", 1)
	require.Len(t, got, 160)
	for i, line := range got { // each decision was by the state before it
		require.Equal(t, fmt.Sprintf("a/%d %d", i+1, i), line)
	}
	fail := errors.New("no")
	_, _, err := c.Execute(ctx, s, "a", func(uint64, uint64) ([]eventstore.New, error) { return nil, fail })
	require.ErrorIs(t, err, fail)
	_, at, err := c.Execute(ctx, s, "a", func(uint64, uint64) ([]eventstore.New, error) { return nil, nil })
	require.NoError(t, err)
	require.Equal(t, uint64(160), at.Last)

	j := journal(0)
	add(t, s, "p", "fine", "poison")
	_, err = j.Load(ctx, s, "p")
	var failed *eventstore.EventError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, uint64(2), failed.Version)
	_, err = (&eventstore.Aggregate[int]{Name: "x"}).Load(ctx, s, "p")
	require.ErrorIs(t, err, eventstore.ErrName)
	j.Name = "a/b"
	_, err = j.Load(ctx, s, "p")
	require.ErrorIs(t, err, eventstore.ErrName)
	require.Error(t, j.DropSnapshots(ctx, s))
}

// TestUpcasters: v1 → v2 → v3, with a rename, on all reads.
func TestUpcasters(t *testing.T) {
	o := &eventstore.Options{Upcasters: []eventstore.Upcaster{
		{Type: "Named", From: 1, To: 2, Up: func(ev eventstore.Event) (eventstore.Event, error) {
			if string(ev.Payload) == "bad" {
				return ev, errors.New("cannot be brought up")
			}
			ev.Payload = []byte("v2(" + string(ev.Payload) + ")")
			return ev, nil
		}},
		{Type: "Named", From: 2, To: 3, Up: func(ev eventstore.Event) (eventstore.Event, error) {
			ev.Type, ev.Payload, ev.Stream = "Renamed", []byte("v3("+string(ev.Payload)+")"), "elsewhere"
			return ev, nil
		}},
	}}
	db, s := newStore(t, o)
	for schema := range uint32(4) {
		_, err := s.Append(ctx, "a", eventstore.Any, eventstore.New{Type: "Named", Schema: schema, Payload: []byte("x")})
		require.NoError(t, err)
	}
	want := []string{"a/1 v3(v2(x))", "a/2 v3(v2(x))", "a/3 v3(x)", "a/4 x"}
	require.Equal(t, want, stream(t, s, "a", 1))
	require.Equal(t, want, all(t, s, 0))
	l, err := journal(0).Load(ctx, s, "a")
	require.NoError(t, err)
	require.Equal(t, "v3(v2(x))v3(v2(x))v3(x)x", l.State)
	for ev, err := range s.All(ctx, 0) {
		require.NoError(t, err)
		require.Equal(t, uint32(3), ev.Schema)
		require.Equal(t, ev.Version < 4, ev.Type == "Renamed")
	}
	plain := open(t, db, nil) // what is stored is as it was
	require.Equal(t, []string{"a/1 x", "a/2 x", "a/3 x", "a/4 x"}, stream(t, plain, "a", 1))
	_, err = s.Append(ctx, "b", eventstore.Any, eventstore.New{Type: "Named", Payload: []byte("bad")})
	require.NoError(t, err)
	for _, err := range s.Stream(ctx, "b", 1) {
		var failed *eventstore.EventError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, "b", failed.Stream)
		require.Contains(t, err.Error(), "cannot be brought up")
	}
	require.NotEmpty(t, verify(t, s))
	up := o.Upcasters[0].Up
	for _, bad := range [][]eventstore.Upcaster{
		{{Type: "x", From: 1, To: 2}}, {{From: 1, To: 2, Up: up}}, {{Type: "x", From: 2, To: 2, Up: up}}, {{Type: "x", To: 2, Up: up}, {Type: "x", From: 1, To: 3, Up: up}},
	} {
		_, err := eventstore.Open(db, "bank", &eventstore.Options{Upcasters: bad})
		require.ErrorIs(t, err, eventstore.ErrName)
	}
}

func secret(subject, p string) eventstore.New {
	return eventstore.New{Type: "Said", Subject: subject, Payload: []byte(p)}
}

// onDisk says whether any file has a text.
func onDisk(t *testing.T, fs *vfs.Mem, what string) bool {
	t.Helper()
	names, err := fs.List("data")
	require.NoError(t, err)
	for _, name := range names {
		if strings.Contains(string(fs.Bytes("data/"+name)), what) {
			return true
		}
	}
	return false
}

func TestForget(t *testing.T) {
	fs := vfs.NewMem()
	db := openDB(t, fs)
	s := open(t, db, nil)
	_, err := s.Append(ctx, "a", eventstore.Any, text("open"), secret("bob", "secret-of-bob"), secret("eve", "of-eve"), secret("bob", ""))
	require.NoError(t, err)
	require.Equal(t, []string{"a/1 open", "a/2 secret-of-bob", "a/3 of-eve", "a/4 "}, stream(t, s, "a", 1))
	require.False(t, onDisk(t, fs, "secret-of-bob"))
	j := journal(2)
	l, err := j.Load(ctx, s, "a")
	require.NoError(t, err)
	require.NoError(t, l.SnapshotErr)
	l, err = j.Load(ctx, s, "a")
	require.NoError(t, err)
	require.Equal(t, uint64(4), l.Snapshot)
	require.Equal(t, uint64(2), verify(t, s).Sealed-verify(t, s).Erased-1)

	require.NoError(t, s.Forget(ctx, "bob"))
	require.NoError(t, s.Forget(ctx, "bob"))
	require.NoError(t, s.Forget(ctx, "stranger"))
	want := []string{"a/1 open", "a/2 erased", "a/3 of-eve", "a/4 erased"}
	require.Equal(t, want, stream(t, s, "a", 1))
	require.Equal(t, append(want, "$forgotten/1 ", "$forgotten/2 "), all(t, s, 0))
	l, err = j.Load(ctx, s, "a")
	require.NoError(t, err)
	require.Zero(t, l.Snapshot)
	require.Equal(t, "open[erased]of-eve[erased]", l.State)
	rep := verify(t, s) // the chain is whole
	require.Equal(t, uint64(2), rep.Erased)
	require.Equal(t, uint64(1), rep.Sealed)
	_, err = s.Append(ctx, "a", eventstore.Any, text("x"), secret("bob", "again"))
	require.ErrorIs(t, err, eventstore.ErrForgotten)
	require.NoError(t, db.Update(func(tx *forebay.Tx) error { // a transaction goes on behind that
		_, err := s.AppendTx(tx, "a", eventstore.Any, secret("new", "x"), secret("bob", "again"))
		require.ErrorIs(t, err, eventstore.ErrForgotten)
		_, err = s.AppendTx(tx, "a", eventstore.Exactly(4), text("5"))
		return err
	}))
	require.NoError(t, s.Readmit(ctx, "bob"))
	require.NoError(t, s.Readmit(ctx, "eve"))
	_, err = s.Append(ctx, "a", eventstore.Any, secret("bob", "new"))
	require.NoError(t, err)
	require.Equal(t, append(want, "a/5 5", "a/6 new"), stream(t, s, "a", 1))
	require.ErrorIs(t, s.Forget(ctx, ""), eventstore.ErrName)
	require.ErrorIs(t, s.Readmit(ctx, ""), eventstore.ErrName)
	_, err = s.Rewrap(ctx)
	require.ErrorIs(t, err, eventstore.ErrNoMasterKey)
	require.NoError(t, db.Close())
	s = open(t, openDB(t, fs), nil)
	require.Equal(t, append(want, "a/5 5", "a/6 new"), stream(t, s, "a", 1))
}

// TestForgetBesideALoad: a snapshot is not saved behind the erasure of what is in it,
// neither by a load that has read it before, nor by one that began with an older one.
func TestForgetBesideALoad(t *testing.T) {
	_, s := newStore(t, nil)
	_, err := s.Append(ctx, "a", eventstore.Any, secret("bob", "1"), text("2"))
	require.NoError(t, err)
	for round := range 2 {
		j := journal(2)
		plain := j.Apply
		forget := true
		j.Apply = func(state string, ev eventstore.Event) (string, error) {
			if forget && ev.Version == uint64(2+2*round) {
				forget = false
				require.NoError(t, s.Forget(ctx, "bob")) // between its read and its save
			}
			return plain(state, ev)
		}
		l, err := j.Load(ctx, s, "a")
		require.NoError(t, err)
		require.ErrorIs(t, l.SnapshotErr, eventstore.ErrForgotten)
		l, err = j.Load(ctx, s, "a")
		require.NoError(t, err)
		require.Zero(t, l.Snapshot)
		require.Contains(t, l.State, "[erased]")
		require.NotContains(t, l.State, "1")
		if round == 0 { // now it begins with a snapshot that has a payload
			require.NoError(t, s.Readmit(ctx, "bob"))
			s = open(t, openDB(t, vfs.NewMem()), nil)
			_, err = s.Append(ctx, "a", eventstore.Any, secret("bob", "1"), text("2"))
			require.NoError(t, err)
			l, err := journal(2).Load(ctx, s, "a")
			require.NoError(t, err)
			require.NoError(t, l.SnapshotErr)
			add(t, s, "a", "3", "4")
		}
	}
}

// TestMasterKeys: who has the disk and not the old master key cannot read what was
// forgotten before Rewrap.
func TestMasterKeys(t *testing.T) {
	fs := vfs.NewMem()
	db := openDB(t, fs)
	one, two := eventstore.MasterKey{ID: 1, Key: [32]byte{1}}, eventstore.MasterKey{ID: 2, Key: [32]byte{2}}
	with := func(keys ...eventstore.MasterKey) *eventstore.Options {
		return &eventstore.Options{MasterKeys: keys}
	}
	plain := open(t, db, nil)
	_, err := plain.Append(ctx, "a", eventstore.Any, secret("plain", "0"))
	require.NoError(t, err)
	s := open(t, db, with(one))
	want := []string{"a/1 0"}
	for i := range 600 {
		p := fmt.Sprint(i)
		_, err = s.Append(ctx, "a", eventstore.Any, secret("s"+p, p))
		require.NoError(t, err)
		want = append(want, fmt.Sprintf("a/%d %d", i+2, i))
	}
	require.Equal(t, want, stream(t, s, "a", 1))
	old := fs.Snapshot()
	require.NoError(t, s.Forget(ctx, "s7"))
	want[8] = "a/9 erased"
	s = open(t, db, with(two, one))
	require.Equal(t, want, stream(t, s, "a", 1))
	n, err := s.Rewrap(ctx)
	require.NoError(t, err)
	require.Equal(t, 600, n)
	n, err = s.Rewrap(ctx)
	require.NoError(t, err)
	require.Zero(t, n)
	s = open(t, db, with(two))
	require.Equal(t, want, stream(t, s, "a", 1))
	for _, o := range []*eventstore.Options{with(two), nil} { // of the old disk, with what there is now
		was := open(t, openDB(t, old.Snapshot()), o)
		for _, err := range was.Stream(ctx, "a", 9) {
			require.ErrorIs(t, err, eventstore.ErrNoMasterKey)
		}
	}
	for _, keys := range [][]eventstore.MasterKey{{{}}, {one, one}} {
		_, err := eventstore.Open(db, "bank", with(keys...))
		require.ErrorIs(t, err, eventstore.ErrName)
	}
	wrong := two
	wrong.Key[0]++
	for _, err := range open(t, db, with(wrong)).Stream(ctx, "a", 1) {
		require.ErrorIs(t, err, eventstore.ErrDamaged)
	}
}

// TestTooManySubjects: a snapshot does not grow with them without a bound.
func TestTooManySubjects(t *testing.T) {
	_, s := newStore(t, nil)
	events := make([]eventstore.New, 4097)
	for i := range events {
		events[i] = secret(fmt.Sprint("s", i), "x")
	}
	_, err := s.Append(ctx, "a", eventstore.Any, events[:4096]...)
	require.NoError(t, err)
	l, err := counter(4096).Load(ctx, s, "a")
	require.NoError(t, err)
	require.NoError(t, l.SnapshotErr)
	require.NoError(t, s.Forget(ctx, "s4000"))
	_, err = s.Append(ctx, "a", eventstore.Any, events[4096:]...)
	require.NoError(t, err)
	require.NoError(t, s.Readmit(ctx, "s4000"))
	_, err = s.Append(ctx, "a", eventstore.Any, events[4000])
	require.NoError(t, err)
	l, err = counter(4098).Load(ctx, s, "a")
	require.NoError(t, err)
	require.ErrorIs(t, l.SnapshotErr, eventstore.ErrSubjects)
	require.Equal(t, uint64(4098), l.State)
}
