package eventstore_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/vfs"
)

var crashSeed = flag.Uint64("events.seed", 0, "play one life of TestCrash again")

// lived is what one event of a life is.
type lived struct {
	stream, typ, subject string
	version              uint64
}

// acks is what a life may count on.
type acks struct {
	events    int // appended and acknowledged
	floor     uint64
	forgotten int // of life.forgets
}

// life is one that ends in power cuts.
type life struct {
	r       *rand.Rand
	mem     *vfs.Mem
	s       *eventstore.Store
	p       *eventstore.Projection
	tried   []lived // in the order of their commits
	version map[string]uint64
	forgets []string
	gone    map[string]bool

	mu   sync.Mutex // guards what the hook reads, and cuts
	acks acks
	cuts []cut
	left int // changes of the disk until the next cut
}

type cut struct {
	mem  *vfs.Mem
	acks acks
}

// counting is a projection that does not look into payloads: it counts the events of
// each stream, and notes the first that it saw.
func counting() eventstore.ProjectionOptions {
	return eventstore.ProjectionOptions{Name: "count", Batch: 5, Apply: func(rows forebay.Space, ev eventstore.Event) error {
		if has, err := rows.Has([]byte("$first")); err != nil {
			return err
		} else if !has {
			if err := rows.Put([]byte("$first"), binary.BigEndian.AppendUint64(nil, ev.Offset)); err != nil {
				return err
			}
		}
		n := uint64(0)
		v, err := rows.Get([]byte(ev.Stream))
		if err == nil {
			n = binary.BigEndian.Uint64(v)
		} else if !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		if err := rows.Put([]byte(ev.Stream), binary.BigEndian.AppendUint64(nil, n+1)); err != nil {
			return err
		}
		if ev.Type == "Poison" {
			return errors.New("poison")
		}
		return nil
	}}
}

func (l *life) hook(vfs.Op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left--; l.left > 0 {
		return
	}
	l.left = 1 + l.r.IntN(16)
	seed := l.r.Uint64()
	var image *vfs.Mem
	if seed%4 == 0 {
		image = l.mem.Snapshot() // the process alone
	} else {
		image = l.mem.PowerCutSeed(seed, vfs.SectorAtomic)
	}
	l.cuts = append(l.cuts, cut{image, l.acks})
}

func (l *life) ack(change func(*acks)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.acks)
}

func (l *life) open(t *testing.T, mem *vfs.Mem) (*forebay.DB, *eventstore.Store) {
	db, err := forebay.Open("data", &forebay.Options{FS: mem, MemtableSize: 16 << 10, LogFileSize: 16 << 10, MarkDelay: -1})
	require.NoError(t, err)
	s, err := eventstore.Open(db, "bank", nil)
	require.NoError(t, err)
	return db, s
}

func (l *life) try(stream, typ, subject string) {
	l.version[stream]++
	l.tried = append(l.tried, lived{stream, typ, subject, l.version[stream]})
}

func (l *life) step(t *testing.T, r *rand.Rand, db *forebay.DB, agg *eventstore.Aggregate[uint64]) {
	name := fmt.Sprint("s", r.IntN(5))
	switch r.IntN(14) {
	default: // one append, or several in one transaction
		type part struct {
			stream string
			events []eventstore.New
		}
		parts := []part{}
		for range 1 + r.IntN(2)*r.IntN(3) {
			p := part{stream: fmt.Sprint("s", r.IntN(5))}
			for range 1 + r.IntN(3) {
				n := eventstore.New{Type: "T", Payload: make([]byte, r.IntN(400))}
				if r.IntN(9) == 0 {
					n.Type = "Poison"
				}
				if subject := fmt.Sprint("u", r.IntN(6)); r.IntN(3) == 0 && !l.gone[subject] {
					n.Subject = subject
				}
				p.events = append(p.events, n)
			}
			parts = append(parts, p)
		}
		for _, p := range parts {
			for _, n := range p.events {
				l.try(p.stream, n.Type, n.Subject)
			}
		}
		require.NoError(t, db.Update(func(tx *forebay.Tx) error {
			for _, p := range parts {
				if _, err := l.s.AppendTx(tx, p.stream, eventstore.Any, p.events...); err != nil {
					return err
				}
			}
			return nil
		}))
		l.ack(func(a *acks) { a.events = len(l.tried) })
	case 0, 1, 2:
		_, err := l.p.CatchUp(ctx)
		require.NoError(t, err)
	case 3:
		_, err := agg.Load(ctx, l.s, name)
		if !errors.Is(err, eventstore.ErrRetained) {
			require.NoError(t, err)
		}
	case 4:
		subject := fmt.Sprint("u", r.IntN(6))
		if l.gone[subject] {
			return
		}
		l.gone[subject] = true
		l.try("$forgotten", eventstore.Forgotten, subject)
		l.forgets = append(l.forgets, subject)
		require.NoError(t, l.s.Forget(ctx, subject))
		l.ack(func(a *acks) { a.events, a.forgotten = len(l.tried), len(l.forgets) })
	case 5:
		require.NoError(t, l.p.Rebuild(ctx))
	case 6:
		out, err := l.s.Retain(ctx, eventstore.Retention{MaxEvents: uint64(20 + r.IntN(60))})
		require.NoError(t, err)
		l.ack(func(a *acks) { a.floor = out.First })
	case 7:
		require.NoError(t, db.Checkpoint(ctx))
	case 8:
		for d, err := range l.p.DeadLetters() {
			require.NoError(t, err)
			if r.IntN(2) == 0 {
				require.NoError(t, l.p.Discard(ctx, d.Offset))
				break
			}
		}
	}
}

// look looks at what a cut has left.
func (l *life) look(t *testing.T, c cut) {
	db, s := l.open(t, c.mem)
	defer func() { require.NoError(t, db.Close()) }()
	report, err := s.Verify(ctx)
	require.NoError(t, err)
	floor, err := s.First()
	require.NoError(t, err)
	require.GreaterOrEqual(t, floor, c.acks.floor)
	at := floor
	for ev, err := range s.All(ctx, floor) {
		require.NoError(t, err)
		require.Equal(t, at, ev.Offset)
		require.Equal(t, l.tried[at], lived{ev.Stream, ev.Type, ev.Subject, ev.Version})
		at++
	}
	require.GreaterOrEqual(t, at, uint64(c.acks.events), "an acknowledged event is gone")
	require.Equal(t, at-floor, report.Events)
	for i, subject := range l.forgets[:c.acks.forgotten] {
		_, err := s.Append(ctx, "probe", eventstore.Any, secret(subject, "x"))
		require.ErrorIs(t, err, eventstore.ErrForgotten, i)
	}
	agg := counter(4)
	for name := range l.version {
		info, err := s.Info(name)
		if errors.Is(err, forebay.ErrNotFound) || name == "$forgotten" {
			continue
		}
		require.NoError(t, err)
		if loaded, err := agg.Load(ctx, s, name); !errors.Is(err, eventstore.ErrRetained) {
			require.NoError(t, err)
			require.Equal(t, info.Version, loaded.State)
		}
	}
	p, err := s.Projection(counting())
	require.NoError(t, err)
	l.checkRows(t, p)
	_, err = p.CatchUp(ctx)
	require.NoError(t, err)
	l.checkRows(t, p)
	require.NoError(t, p.Rebuild(ctx))
	l.checkRows(t, p)
	_, err = s.Append(ctx, "probe", eventstore.Any, text("x"))
	require.NoError(t, err)
	_, err = s.Retain(ctx, eventstore.Retention{MaxEvents: 10})
	require.NoError(t, err)
	_, err = s.Verify(ctx)
	require.NoError(t, err)
}

// checkRows looks that rows and dead letters are the fold of the events up to the
// checkpoint. A poisoned event is a dead letter, or was discarded: it is in no row.
func (l *life) checkRows(t *testing.T, p *eventstore.Projection) {
	require.NoError(t, p.View(func(rows forebay.Reader, next uint64) error {
		want, got := map[string]uint64{}, map[string]uint64{}
		first := next
		for e, err := range rows.Range(nil, nil) {
			require.NoError(t, err)
			if n := binary.BigEndian.Uint64(e.Value); string(e.Key) == "$first" {
				first = n
			} else {
				got[string(e.Key)] = n
			}
		}
		for _, ev := range l.tried[min(first, uint64(len(l.tried))):min(next, uint64(len(l.tried)))] {
			if ev.typ != "Poison" {
				want[ev.stream]++
			}
		}
		require.Equal(t, want, got)
		return nil
	}))
	for d, err := range p.DeadLetters() {
		require.NoError(t, err)
		require.Equal(t, "Poison", l.tried[d.Offset].typ)
	}
}

// TestCrash cuts the power at random changes of the disk, with all there is going on
// before: every acknowledged append is there, whole; heads and index are the events;
// rows are the fold of the events up to their checkpoint; nothing is remembered again.
func TestCrash(t *testing.T) {
	lives, steps := 12, 60
	if testing.Short() {
		lives = 4
	}
	if long() {
		lives = 1000
	}
	seed := uint64(time.Now().UnixNano())
	if *crashSeed != 0 {
		seed, lives = *crashSeed, 1
	}
	states := 0
	for i := range lives {
		seed := seed + uint64(i)
		ok := t.Run("", func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("again: -events.seed=%d", seed)
				}
			}()
			r := rand.New(rand.NewPCG(seed, 1))
			l := &life{r: rand.New(rand.NewPCG(seed, 2)), mem: vfs.NewMem(), version: map[string]uint64{}, gone: map[string]bool{}, left: 1}
			db, s := l.open(t, l.mem)
			l.s = s
			var err error
			l.p, err = s.Projection(counting())
			require.NoError(t, err)
			l.mem.OnIO(l.hook)
			agg := counter(4)
			for range steps {
				l.step(t, r, db, agg)
			}
			l.mem.OnIO(nil)
			require.NoError(t, db.Close())
			for _, c := range l.cuts {
				l.look(t, c)
			}
			states += len(l.cuts)
		})
		if !ok {
			break
		}
	}
	t.Logf("%d states", states)
}
