package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
)

// byStream is a projection with a row for each stream: its payloads, one behind the other.
func byStream(name string, schema uint32) eventstore.ProjectionOptions {
	return eventstore.ProjectionOptions{Name: name, Schema: schema, Batch: 7, Apply: func(rows forebay.Space, ev eventstore.Event) error {
		had, err := rows.Get([]byte(ev.Stream))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		p := string(ev.Payload)
		if ev.Erased {
			p = "[erased]"
		}
		if err := rows.Put([]byte(ev.Stream), append(had, p...)); err != nil {
			return err
		}
		if strings.HasPrefix(p, "poison") { // behind what it wrote
			return fmt.Errorf("cannot apply %s", p)
		}
		return nil
	}}
}

func rows(t testing.TB, p *eventstore.Projection) (out map[string]string, next uint64) {
	t.Helper()
	out = map[string]string{}
	require.NoError(t, p.View(func(r forebay.Reader, at uint64) error {
		next = at
		for e, err := range r.Range(nil, nil) {
			require.NoError(t, err)
			out[string(e.Key)] = string(e.Value)
		}
		return nil
	}))
	return out, next
}

func deadLetters(t testing.TB, p *eventstore.Projection) (out []uint64) {
	t.Helper()
	for l, err := range p.DeadLetters() {
		require.NoError(t, err)
		require.NotEmpty(t, l.Reason)
		out = append(out, l.Offset)
	}
	return out
}

func projection(t testing.TB, s *eventstore.Store, o eventstore.ProjectionOptions) *eventstore.Projection {
	t.Helper()
	p, err := s.Projection(o)
	require.NoError(t, err)
	return p
}

func catchUp(t testing.TB, p *eventstore.Projection) int {
	t.Helper()
	n, err := p.CatchUp(ctx)
	require.NoError(t, err)
	return n
}

func TestProjection(t *testing.T) {
	_, s := newStore(t, nil)
	for i := range 50 {
		add(t, s, fmt.Sprint("s", i%3), fmt.Sprint(i, ";"))
	}
	p := projection(t, s, byStream("p", 1))
	require.Equal(t, "p", p.Name())
	require.Equal(t, 50, catchUp(t, p))
	require.Zero(t, catchUp(t, p))
	got, next := rows(t, p)
	require.Equal(t, uint64(50), next)
	require.Len(t, got, 3)
	require.True(t, strings.HasPrefix(got["s1"], "1;4;7;"))
	add(t, s, "s0", "more")
	st, err := p.Status()
	require.NoError(t, err)
	require.Equal(t, eventstore.Status{Generation: 1, Next: 50, Schema: 1, Lag: 1}, st)
	again := projection(t, s, byStream("p", 1))
	require.Equal(t, 1, catchUp(t, again))

	done, cancel := context.WithCancel(ctx)
	ended := make(chan error, 2)
	for range 2 { // each event is applied by one of the two
		go func() { ended <- p.Run(done) }()
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 50 {
				add(t, s, fmt.Sprint("w", w), fmt.Sprint(i, ";"))
			}
		})
	}
	wg.Wait()
	for {
		if _, next := rows(t, p); next == 251 {
			break
		}
		_, err := p.CatchUp(ctx)
		require.NoError(t, err)
	}
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)
	got, _ = rows(t, p)
	for w := range 4 {
		want := ""
		for i := range 50 {
			want += fmt.Sprint(i, ";")
		}
		require.Equal(t, want, got[fmt.Sprint("w", w)])
	}
	for _, bad := range []eventstore.ProjectionOptions{{Name: "x"}, {Name: "a/b", Apply: byStream("", 0).Apply}, {Name: "x", Apply: byStream("", 0).Apply, Batch: -1}} {
		_, err := s.Projection(bad)
		require.ErrorIs(t, err, eventstore.ErrName)
	}
}

// TestDeadLetters: an event that fails leaves nothing behind but its dead letter, and its
// neighbours are applied; what fails once among others is tried by itself.
func TestDeadLetters(t *testing.T) {
	_, s := newStore(t, nil)
	for i := range 40 {
		payload := fmt.Sprint(i, ";")
		if i == 0 || i%9 == 8 || i == 16 || i == 39 {
			payload = fmt.Sprint("poison", i)
		}
		add(t, s, "a", payload)
	}
	o := byStream("p", 1)
	o.Attempts = 3
	fix := false
	calls := map[uint64]int{}
	apply := o.Apply
	o.Apply = func(rows forebay.Space, ev eventstore.Event) error {
		calls[ev.Offset]++
		err := apply(rows, ev)
		if fix {
			return nil
		}
		return err
	}
	p := projection(t, s, o)
	require.Equal(t, 40, catchUp(t, p))
	bad := []uint64{0, 8, 16, 17, 26, 35, 39}
	require.Equal(t, bad, deadLetters(t, p))
	for _, at := range bad {
		require.GreaterOrEqual(t, calls[at], 3)
		require.LessOrEqual(t, calls[at], 5)
	}
	for l, err := range p.DeadLetters() {
		require.NoError(t, err)
		require.Equal(t, 3, l.Attempts)
		require.Equal(t, uint64(1), l.Generation)
		require.Contains(t, l.Reason, "cannot apply poison0")
		require.False(t, l.Time.IsZero())
		break
	}
	got, _ := rows(t, p)
	require.NotContains(t, got["a"], "poison")
	require.Contains(t, got["a"], "36;37;38;")
	var failed *eventstore.EventError
	require.ErrorAs(t, p.Redrive(ctx, 8), &failed)
	require.ErrorIs(t, p.Redrive(ctx, 9), forebay.ErrNotFound)
	fix = true
	require.NoError(t, p.Redrive(ctx, 8))
	got, _ = rows(t, p)
	require.True(t, strings.HasSuffix(got["a"], "poison8"))
	require.NoError(t, p.Discard(ctx, 16))
	require.ErrorIs(t, p.Discard(ctx, 16), forebay.ErrNotFound)
	require.Equal(t, []uint64{0, 17, 26, 35, 39}, deadLetters(t, p))

	// They are of their generation, and go with it.
	require.NoError(t, p.Rebuild(ctx))
	require.Empty(t, deadLetters(t, p))
	st, err := p.Status()
	require.NoError(t, err)
	require.Equal(t, uint64(2), st.Generation)

	stop := byStream("stop", 1)
	stop.OnFail = eventstore.Stop
	p = projection(t, s, stop)
	_, err = p.CatchUp(ctx)
	require.ErrorAs(t, err, &failed)
	require.Zero(t, failed.Offset)
	require.ErrorAs(t, p.Run(ctx), &failed)
	require.ErrorAs(t, p.Rebuild(ctx), &failed)
}

// TestDeadLettersOfUpcasters: they are brought up where they can be, and one that cannot
// be is a dead letter, until it can.
func TestDeadLettersOfUpcasters(t *testing.T) {
	fail := true
	_, s := newStore(t, &eventstore.Options{Upcasters: []eventstore.Upcaster{{Type: "Said", From: 1, To: 2, Up: func(ev eventstore.Event) (eventstore.Event, error) {
		if fail && string(ev.Payload) == "b" {
			return ev, errors.New("no")
		}
		ev.Payload = []byte(strings.ToUpper(string(ev.Payload)))
		return ev, nil
	}}}})
	add(t, s, "a", "a", "b", "c")
	p := projection(t, s, byStream("p", 1))
	require.Equal(t, 3, catchUp(t, p))
	got, _ := rows(t, p)
	require.Equal(t, "AC", got["a"])
	require.Equal(t, []uint64{1}, deadLetters(t, p))
	require.Error(t, p.Redrive(ctx, 1))
	fail = false
	require.NoError(t, p.Redrive(ctx, 1))
	got, _ = rows(t, p)
	require.Equal(t, "ACB", got["a"])
}

// TestLargeRows: a batch whose rows are more than one commit may have is split.
func TestLargeRows(t *testing.T) {
	_, s := newStore(t, nil)
	add(t, s, "a", "0", "1", "2", "3")
	o := byStream("p", 1)
	o.Apply = func(rows forebay.Space, ev eventstore.Event) error {
		n, err := strconv.Atoi(string(ev.Payload))
		if err != nil {
			return err
		}
		for i := range 3 {
			size := 9 << 20 // three events are too much
			if n == 2 {
				size = 30 << 20 // this one by itself
			}
			if err := rows.Put(fmt.Append(nil, n, "-", i), make([]byte, size)); err != nil {
				return err
			}
		}
		return nil
	}
	p := projection(t, s, o)
	require.Equal(t, 4, catchUp(t, p))
	require.Equal(t, []uint64{2}, deadLetters(t, p))
	got, _ := rows(t, p)
	require.Len(t, got, 9)
}

// TestRebuild: blue/green, beside a Run and readers, who never go back.
func TestRebuild(t *testing.T) {
	db, s := newStore(t, nil)
	for i := range 200 {
		add(t, s, fmt.Sprint("s", i%5), fmt.Sprint(i, ";"))
	}
	blue := projection(t, s, byStream("p", 1))
	require.Equal(t, 200, catchUp(t, blue))
	before, _ := rows(t, blue)

	done, cancel := context.WithCancel(ctx)
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- blue.Run(done) }()
	var wg sync.WaitGroup
	var stop atomic.Bool
	wg.Go(func() {
		for i := 0; !stop.Load() && i < 2000; i++ {
			add(t, s, "more", "x")
		}
	})
	wg.Go(func() {
		last := uint64(0)
		for !stop.Load() {
			_, next := rows(t, blue)
			if next < last {
				t.Errorf("rows went back from %d to %d", last, next)
			}
			last = next
		}
	})
	upper := byStream("p", 2)
	apply := upper.Apply
	upper.Apply = func(rows forebay.Space, ev eventstore.Event) error {
		ev.Payload = []byte("<" + string(ev.Payload) + ">")
		return apply(rows, ev)
	}
	green := projection(t, s, upper)
	_, err := green.CatchUp(ctx)
	require.ErrorIs(t, err, eventstore.ErrSchema)
	require.ErrorIs(t, green.Run(ctx), eventstore.ErrSchema)
	require.NoError(t, green.Rebuild(ctx))
	stop.Store(true)
	add(t, s, "end", "x")
	require.ErrorIs(t, <-ran, eventstore.ErrSchema) // the old program's rows are gone
	wg.Wait()
	catchUp(t, green)
	got, _ := rows(t, green)
	for name, want := range before {
		require.Equal(t, "<"+strings.ReplaceAll(strings.TrimSuffix(want, ";"), ";", ";><")+";>", got[name])
	}
	names, err := db.Keyspaces()
	require.NoError(t, err)
	require.NotContains(t, names, "events/bank/rows/p/1")
	require.Contains(t, names, "events/bank/rows/p/2")

	// One that is ended goes on; one of another schema is given up.
	half, cut := context.WithCancel(ctx)
	defer cut()
	upper.Apply = func(rows forebay.Space, ev eventstore.Event) error {
		if ev.Offset == 100 {
			cut()
		}
		return apply(rows, ev)
	}
	again := projection(t, s, upper)
	require.ErrorIs(t, again.Rebuild(half), context.Canceled)
	st, err := again.Status()
	require.NoError(t, err)
	require.Equal(t, uint64(3), st.Building)
	require.NotZero(t, st.BuildingNext)
	require.NoError(t, green.AbandonRebuild(ctx))
	require.ErrorIs(t, green.AbandonRebuild(ctx), eventstore.ErrNoRebuild)
	half2, cut2 := context.WithCancel(ctx)
	defer cut2()
	cut = cut2
	require.ErrorIs(t, again.Rebuild(half2), context.Canceled)
	third := projection(t, s, byStream("p", 3))
	require.NoError(t, third.Rebuild(ctx))
	st, err = third.Status()
	require.NoError(t, err)
	require.Equal(t, uint64(5), st.Generation)
	require.Zero(t, st.Building)
	require.Zero(t, st.Lag)
	got, _ = rows(t, third)
	for name, want := range before {
		require.Equal(t, want, got[name])
	}
	names, err = db.Keyspaces()
	require.NoError(t, err)
	for _, gone := range []string{"2", "3", "4"} {
		require.NotContains(t, names, "events/bank/rows/p/"+gone)
	}
}

// TestForgetBesideAProjection: rows are not committed behind the erasure of what is in
// them, and the projection is told.
func TestForgetBesideAProjection(t *testing.T) {
	_, s := newStore(t, nil)
	_, err := s.Append(ctx, "a", eventstore.Any, text("1"), secret("bob", "2"))
	require.NoError(t, err)
	o := byStream("p", 1)
	apply := o.Apply
	forget := make(chan error, 1)
	once := sync.OnceFunc(func() {
		go func() { forget <- s.Forget(ctx, "bob") }()
		require.NoError(t, <-forget) // between its read and its commit
	})
	var told []string
	o.Apply = func(rows forebay.Space, ev eventstore.Event) error {
		if ev.Type == eventstore.Forgotten {
			told = append(told, ev.Subject)
			return nil
		}
		if ev.Version == 2 {
			once()
		}
		return apply(rows, ev)
	}
	p := projection(t, s, o)
	require.Equal(t, 3, catchUp(t, p))
	got, _ := rows(t, p)
	require.Equal(t, "1[erased]", got["a"])
	require.Equal(t, []string{"bob"}, told)
}
