package eventstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/vfs"
)

// clock is one that tests move.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

var ctx = context.Background()

func openDB(t testing.TB, fs vfs.FS) *forebay.DB {
	t.Helper()
	db, err := forebay.Open("data", &forebay.Options{FS: fs, MemtableSize: 256 << 10, LogFileSize: 256 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func open(t testing.TB, db *forebay.DB, o *eventstore.Options) *eventstore.Store {
	t.Helper()
	s, err := eventstore.Open(db, "bank", o)
	require.NoError(t, err)
	return s
}

func newStore(t testing.TB, o *eventstore.Options) (*forebay.DB, *eventstore.Store) {
	t.Helper()
	db := openDB(t, vfs.NewMem())
	return db, open(t, db, o)
}

// said is an event in one line.
func said(ev eventstore.Event) string {
	if ev.Erased {
		return fmt.Sprintf("%s/%d erased", ev.Stream, ev.Version)
	}
	return fmt.Sprintf("%s/%d %s", ev.Stream, ev.Version, ev.Payload)
}

func stream(t testing.TB, s *eventstore.Store, name string, from uint64) (out []string) {
	t.Helper()
	for ev, err := range s.Stream(ctx, name, from) {
		require.NoError(t, err)
		require.Equal(t, name, ev.Stream)
		out = append(out, said(ev))
	}
	return out
}

func all(t testing.TB, s *eventstore.Store, from uint64) (out []string) {
	t.Helper()
	for ev, err := range s.All(ctx, from) {
		require.NoError(t, err)
		out = append(out, said(ev))
	}
	return out
}

func text(p string) eventstore.New { return eventstore.New{Type: "Said", Payload: []byte(p)} }

func add(t testing.TB, s *eventstore.Store, stream string, payloads ...string) eventstore.Appended {
	t.Helper()
	var events []eventstore.New
	for _, p := range payloads {
		events = append(events, text(p))
	}
	at, err := s.Append(ctx, stream, eventstore.Any, events...)
	require.NoError(t, err)
	return at
}

func verify(t testing.TB, s *eventstore.Store) eventstore.Report {
	t.Helper()
	r, err := s.Verify(ctx)
	require.NoError(t, err)
	return r
}

// account is the aggregate of the golden test.
type account struct {
	Owner   string
	Balance int
}

type amount struct{ Amount int }
type owner struct{ Owner string }

func applyAccount(a account, ev eventstore.Event) (account, error) {
	var m amount
	var o owner
	switch ev.Type {
	case "Opened", "Renamed":
		err := json.Unmarshal(ev.Payload, &o)
		a.Owner = o.Owner
		return a, err
	case "Deposited":
		err := json.Unmarshal(ev.Payload, &m)
		a.Balance += m.Amount
		return a, err
	case "Withdrawn":
		err := json.Unmarshal(ev.Payload, &m)
		a.Balance -= m.Amount
		return a, err
	}
	return a, fmt.Errorf("event of type %q", ev.Type)
}

func event(t testing.TB, typ string, payload any) eventstore.New {
	t.Helper()
	b, err := json.Marshal(payload)
	require.NoError(t, err)
	return eventstore.New{Type: typ, Payload: b}
}

// TestAlice: 1000 − 300 + 100 − 300 = 500, renamed Alicia; the state at every version and
// time; a view that is rebuilt.
func TestAlice(t *testing.T) {
	var c clock
	c.ns.Store(int64(1000 * time.Hour))
	db, s := newStore(t, &eventstore.Options{Now: c.now})
	accounts := &eventstore.Aggregate[account]{Name: "account", Apply: applyAccount}
	events := []eventstore.New{
		event(t, "Opened", owner{"Alice"}), event(t, "Deposited", amount{1000}), event(t, "Withdrawn", amount{300}),
		event(t, "Deposited", amount{100}), event(t, "Renamed", owner{"Alicia"}), event(t, "Withdrawn", amount{300}),
	}
	var times []time.Time
	for i, n := range events {
		c.advance(time.Hour)
		at, err := s.Append(ctx, "account-alice", eventstore.Exactly(uint64(i)), n)
		require.NoError(t, err)
		require.Equal(t, eventstore.Appended{First: uint64(i + 1), Last: uint64(i + 1), Offset: uint64(i), LSN: db.LastLSN()}, at)
		times = append(times, c.now())
	}
	want := []account{{"", 0}, {"Alice", 0}, {"Alice", 1000}, {"Alice", 700}, {"Alice", 800}, {"Alicia", 800}, {"Alicia", 500}}
	l, err := accounts.Load(ctx, s, "account-alice")
	require.NoError(t, err)
	require.Equal(t, want[6], l.State)
	require.Equal(t, 6, l.Applied)
	for v, w := range want {
		l, err := accounts.AtVersion(ctx, s, "account-alice", uint64(v))
		require.NoError(t, err)
		require.Equal(t, w, l.State)
		at := times[0].Add(-time.Minute)
		if v > 0 {
			at = times[v-1].Add(time.Minute)
		}
		l, err = accounts.AtTime(ctx, s, "account-alice", at)
		require.NoError(t, err)
		require.Equal(t, w, l.State)
		require.Equal(t, uint64(v), l.Version)
	}
	info, err := s.Info("account-alice")
	require.NoError(t, err)
	require.Equal(t, uint64(6), info.Version)
	require.Equal(t, uint64(1), info.First)
	require.True(t, times[5].Equal(info.Time))
	_, err = s.Info("nobody")
	require.ErrorIs(t, err, forebay.ErrNotFound)
	require.Equal(t, "bank", s.Name())
	require.Equal(t, "events/bank", s.Topic().Name())
	require.Equal(t, uint64(6), verify(t, s).Events)
}

func TestExpectedVersions(t *testing.T) {
	db, s := newStore(t, nil)
	_, err := s.Append(ctx, "a", eventstore.Exactly(1), text("x"))
	require.ErrorIs(t, err, eventstore.ErrConflict)
	require.NotErrorIs(t, err, forebay.ErrConflict)
	var ve *eventstore.VersionError
	require.ErrorAs(t, err, &ve)
	require.Equal(t, "a", ve.Stream)
	require.Zero(t, ve.Actual)
	require.Contains(t, err.Error(), "expected 1")
	_, err = s.Append(ctx, "a", eventstore.NoStream, text("1"), text("2"))
	require.NoError(t, err)
	_, err = s.Append(ctx, "a", eventstore.NoStream, text("x"))
	require.ErrorIs(t, err, eventstore.ErrConflict)
	_, err = s.Append(ctx, "a", eventstore.Exactly(2), text("3"))
	require.NoError(t, err)
	_, err = s.Append(ctx, "a", eventstore.Any, text("4"))
	require.NoError(t, err)
	at, err := s.Append(ctx, "a", eventstore.Exactly(4)) // nothing, but the version is checked
	require.NoError(t, err)
	require.Equal(t, eventstore.Appended{First: 5, Last: 4}, at)
	_, err = s.Append(ctx, "a", eventstore.Exactly(5))
	require.ErrorIs(t, err, eventstore.ErrConflict)
	require.Equal(t, []string{"a/1 1", "a/2 2", "a/3 3", "a/4 4"}, stream(t, s, "a", 0))
	require.Equal(t, []string{"a/2 2", "a/3 3", "a/4 4"}, stream(t, s, "a", 2)) // from inside of an append
	require.Empty(t, stream(t, s, "a", 5))
	require.Empty(t, stream(t, s, "none", 1))
	require.Equal(t, "any no stream 3", fmt.Sprint(eventstore.Any, " ", eventstore.NoStream, " ", eventstore.Exactly(3)))

	// One of two writers wins.
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			switch _, err := s.Append(ctx, "race", eventstore.NoStream, text("x")); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, eventstore.ErrConflict):
				lost.Add(1)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), won.Load())
	require.Equal(t, int32(15), lost.Load())

	for _, name := range []string{"", "$x", "a\x00b", strings.Repeat("n", 256), "\xff"} {
		_, err := s.Append(ctx, name, eventstore.Any, text("x"))
		require.ErrorIs(t, err, eventstore.ErrName, name)
	}
	for _, n := range []eventstore.New{
		{}, {Type: "$x"}, {Type: "x", Subject: "a\x00"}, {Type: "x", Correlation: strings.Repeat("c", 256)},
		{Type: "x", Headers: map[string]string{"": ""}}, {Type: "x", Headers: map[string]string{"h": strings.Repeat("v", 5000)}},
		{Type: "x", Headers: func() map[string]string {
			m := map[string]string{}
			for i := range 65 {
				m[fmt.Sprint(i)] = ""
			}
			return m
		}()},
	} {
		_, err := s.Append(ctx, "bad", eventstore.Any, text("good"), n)
		require.ErrorIs(t, err, eventstore.ErrName)
	}
	require.Empty(t, stream(t, s, "bad", 1))
	_, err = s.Append(ctx, "big", eventstore.Any, text("small"), eventstore.New{Type: "x", Payload: make([]byte, forebay.MaxValueSize)})
	var limit *forebay.LimitError
	require.ErrorAs(t, err, &limit)
	require.Empty(t, stream(t, s, "big", 1))
	for _, name := range []string{"", "a/b", strings.Repeat("n", 61)} {
		_, err := eventstore.Open(db, name, nil)
		require.ErrorIs(t, err, eventstore.ErrName)
	}
	var names []string
	for name, err := range s.Streams("") {
		require.NoError(t, err)
		names = append(names, name)
	}
	require.Equal(t, []string{"a", "race"}, names)
	verify(t, s)
}

func TestMetadata(t *testing.T) {
	_, s := newStore(t, nil)
	id := eventstore.ID{1, 2, 3}
	_, err := s.Append(ctx, "a", eventstore.Any, eventstore.New{ID: id, Type: "T", Schema: 7, Headers: map[string]string{"who": "me", "k": ""}, Payload: []byte("p")})
	require.NoError(t, err)
	var first eventstore.Event
	for ev, err := range s.Stream(ctx, "a", 1) {
		require.NoError(t, err)
		first = ev
	}
	require.Equal(t, id, first.ID)
	require.Equal(t, "01020300000000000000000000000000", first.ID.String())
	require.Equal(t, uint32(7), first.Schema)
	require.Equal(t, map[string]string{"who": "me", "k": ""}, first.Headers)
	_, err = s.Append(ctx, "a", eventstore.Any, text("2").CausedBy(first))
	require.NoError(t, err)
	var second eventstore.Event
	for ev, err := range s.Stream(ctx, "a", 2) {
		require.NoError(t, err)
		second = ev
		_, err = s.Append(ctx, "b", eventstore.Any, text("3").CausedBy(ev)) // inside of an iteration
		require.NoError(t, err)
		require.NotEqual(t, eventstore.Hash{}, ev.Prev)
		require.NotEqual(t, ev.Prev, ev.Hash())
	}
	require.Equal(t, id.String(), second.Correlation)
	require.Equal(t, id.String(), second.Causation)
	require.Equal(t, uint32(1), second.Schema)
	for ev, err := range s.All(ctx, 2) {
		require.NoError(t, err)
		require.Equal(t, id.String(), ev.Correlation)
		require.Equal(t, second.ID.String(), ev.Causation)
	}
}

// TestAppendTx: all of it or nothing, several appends to one stream, beside keys.
func TestAppendTx(t *testing.T) {
	db, s := newStore(t, nil)
	add(t, s, "a", "0")
	fail := errors.New("no")
	for _, cause := range []error{fail, nil} {
		err := db.Update(func(tx *forebay.Tx) error {
			at, err := s.AppendTx(tx, "a", eventstore.Exactly(1), text("1"), text("2"))
			require.NoError(t, err)
			require.Equal(t, eventstore.Appended{First: 2, Last: 3}, at)
			_, err = s.AppendTx(tx, "a", eventstore.Exactly(1), text("x"))
			require.ErrorIs(t, err, eventstore.ErrConflict) // and goes on
			_, err = s.AppendTx(tx, "b", eventstore.NoStream, text("1"))
			require.NoError(t, err)
			_, err = s.AppendTx(tx, "a", eventstore.Exactly(3), text("3"))
			require.NoError(t, err)
			return errors.Join(cause, tx.Put([]byte("k"), []byte("v")))
		})
		require.Equal(t, cause == nil, err == nil)
		if cause != nil {
			require.Equal(t, []string{"a/1 0"}, all(t, s, 0))
		}
	}
	want := []string{"a/1 0", "a/2 1", "a/3 2", "b/1 1", "a/4 3"}
	require.Equal(t, want, all(t, s, 0))
	require.Equal(t, want[2:], all(t, s, 2)) // from inside of a commit
	require.Equal(t, []string{"a/1 0", "a/2 1", "a/3 2", "a/4 3"}, stream(t, s, "a", 1))
	require.Equal(t, []string{"a/3 2", "a/4 3"}, stream(t, s, "a", 3))
	require.Equal(t, []string{"b/1 1"}, stream(t, s, "b", 1))

	// A part of an append cannot be committed, whatever the function makes of the error:
	// here what fits into the transaction ends between two events.
	half := make([]byte, 24<<20)
	err := db.Update(func(tx *forebay.Tx) error {
		require.NoError(t, tx.Put([]byte("big"), half))
		_, err := s.AppendTx(tx, "c", eventstore.Any, eventstore.New{Type: "T", Payload: half}, eventstore.New{Type: "T", Payload: half})
		var limit *forebay.LimitError
		require.ErrorAs(t, err, &limit)
		return nil
	})
	var limit *forebay.LimitError
	require.ErrorAs(t, err, &limit)
	require.Empty(t, stream(t, s, "c", 1))
	_, err = db.Get([]byte("big"))
	require.ErrorIs(t, err, forebay.ErrNotFound)
	verify(t, s)
}

// TestFollow: a follower sees every event once, in order, whoever appends. The long run:
// FOREBAY_LONG=1.
func TestFollow(t *testing.T) {
	total := 20_000
	if testing.Short() {
		total = 4_000
	}
	if long() {
		total = 1_000_000
	}
	_, s := newStore(t, nil)
	const appenders = 64
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			for i := range total / appenders {
				name := fmt.Sprintf("own-%d", a)
				expected := eventstore.Exactly(uint64(i))
				if _, err := s.Append(ctx, name, expected, text(fmt.Sprint(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done, cancel := context.WithCancel(ctx)
	defer cancel()
	versions := map[string]uint64{}
	next, lsn := uint64(0), uint64(0)
	for ev, err := range s.Follow(done, 0) {
		require.NoError(t, err)
		require.Equal(t, next, ev.Offset)
		require.Greater(t, ev.LSN, lsn)
		require.Equal(t, versions[ev.Stream]+1, ev.Version)
		versions[ev.Stream], lsn = ev.Version, ev.LSN
		if next++; next == uint64(total/appenders*appenders) {
			break
		}
	}
	wg.Wait()
	cancel()
	for ev, err := range s.Follow(done, next) {
		require.Zero(t, ev)
		require.ErrorIs(t, err, context.Canceled)
		break
	}
}

// TestNearAndFar: a stream is read over what lies between its commits, near or far, in
// parts of its index, from any version.
func TestNearAndFar(t *testing.T) {
	db, s := newStore(t, nil)
	var want []string
	for i := range 1200 {
		gap := 0
		switch {
		case i%400 == 399: // too far to be read over
			gap = 1500
		case i%50 == 0:
			gap = 70
		case i%7 == 0:
			gap = i % 5
		}
		for k := range gap {
			if k%2 == 0 && k < 100 {
				add(t, s, "b", "x")
			} else {
				require.NoError(t, db.Put([]byte("k"), nil))
			}
		}
		add(t, s, "a", fmt.Sprint(i))
		want = append(want, fmt.Sprintf("a/%d %d", i+1, i))
	}
	for _, from := range []int{0, 1, 49, 50, 51, 511, 512, 513, 1199} {
		require.Equal(t, want[from:], stream(t, s, "a", uint64(from+1)))
	}
	n := 0
	for range s.Stream(ctx, "a", 1) {
		if n++; n == 700 {
			break
		}
	}
	done, cancel := context.WithCancel(ctx)
	defer cancel()
	for ev, err := range s.Stream(done, "a", 1) {
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
			break
		}
		require.Less(t, ev.Version, uint64(600))
		cancel()
	}
}

// TestLevels: events below Durable are in no follower's hands, and a stream makes durable
// what it shows.
func TestLevels(t *testing.T) {
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem(), MarkDelay: -1})
	require.NoError(t, err)
	defer db.Close()
	s := open(t, db, &eventstore.Options{Level: forebay.Buffered})
	for i := range 10 { // near each other, and not durable
		add(t, s, "a", fmt.Sprint(i))
	}
	require.Less(t, db.DurableLSN(), db.LastLSN())
	require.Empty(t, all(t, s, 0))
	require.Len(t, stream(t, s, "a", 1), 10)
	require.Equal(t, db.DurableLSN(), db.LastLSN())
	require.Len(t, all(t, s, 0), 10)
	add(t, s, "a", "more")
	verify(t, s)
	p := projection(t, s, byStream("p", 1))
	require.Equal(t, 11, catchUp(t, p))
	st, err := p.Status()
	require.NoError(t, err)
	require.Zero(t, st.Lag)
}

// TestFormat: what doc.go says is what is stored.
func TestFormat(t *testing.T) {
	var c clock
	c.ns.Store(0x0102030405060708)
	db, s := newStore(t, &eventstore.Options{Now: c.now})
	_, err := s.Append(ctx, "a", eventstore.NoStream, eventstore.New{ID: eventstore.ID([]byte("0123456789abcdef")), Type: "Said", Schema: 300,
		Correlation: "c", Causation: "d", Headers: map[string]string{"k": "", "h": "v"}, Payload: []byte("pay")})
	require.NoError(t, err)
	at := "\x08\x07\x06\x05\x04\x03\x02\x01"
	want := "\x01\x00" + "0123456789abcdef" + at + strings.Repeat("\x00", 32) +
		"\x01" + "\x01a" + "\x04Said" + "\xac\x02" + "\x01c" + "\x01d" + "\x00" + "\x02" + "\x01h\x01v" + "\x01k\x00" + "pay"
	for it, err := range s.Topic().Sequence().Read(ctx, 0) {
		require.NoError(t, err)
		require.Equal(t, at+want, string(it.Value))
	}
	main, err := db.Keyspace("events/bank")
	require.NoError(t, err)
	head, err := main.Get([]byte("ha"))
	require.NoError(t, err)
	hash := sha256.Sum256([]byte(want))
	require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x01"+"\x01\x02\x03\x04\x05\x06\x07\x08"+string(hash[:]), string(head))
	entry, err := main.Get([]byte("ia\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	require.NoError(t, err)
	require.Equal(t, "\x01", string(entry))
	_, err = s.Append(ctx, "a", eventstore.Any, secret("bob", "pay"))
	require.NoError(t, err)
	for it, err := range s.Topic().Sequence().Read(ctx, 1) {
		require.NoError(t, err)
		rest, ok := strings.CutPrefix(string(it.Value[8:]), "\x01\x01")
		require.True(t, ok)
		require.Equal(t, at+string(hash[:])+"\x02"+"\x01a"+"\x04Said"+"\x01"+"\x00\x00"+"\x03bob", rest[16:16+8+32+15])
		require.Len(t, rest[16+8+32+15:], 16+1+12+len("pay")+16)
	}
}
