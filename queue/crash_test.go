package queue_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

var (
	flagSeed  = flag.Uint64("queue.seed", 1, "first seed of TestCrash")
	flagSeeds = flag.Int("queue.seeds", 0, "seeds of TestCrash; 0: a few")
)

// ledger is what the world outside knows of messages: a crash may take back nothing of it.
type ledger struct {
	mu       sync.Mutex
	asked    map[string]bool // enqueue was called
	enqueued map[string]bool // … and has returned
	done     map[string]bool // acknowledged durably
	purged   map[string]bool // Purge was called
	faulty   bool            // the disk fails
}

func (l *ledger) copy() *ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := newLedger()
	for from, to := range map[*map[string]bool]map[string]bool{&l.asked: out.asked, &l.enqueued: out.enqueued, &l.done: out.done, &l.purged: out.purged} {
		for k := range *from {
			to[k] = true
		}
	}
	return out
}

func newLedger() *ledger {
	return &ledger{asked: map[string]bool{}, enqueued: map[string]bool{}, done: map[string]bool{}, purged: map[string]bool{}}
}

func (l *ledger) note(set map[string]bool, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	set[name] = true
}

// crashOptions make everything happen often.
func crashOptions() (*queue.Options, *queue.GroupOptions) {
	return &queue.Options{Priorities: 2}, &queue.GroupOptions{Window: 8, MaxDeliveries: 3, Backoff: 1, MaxBackoff: 2, Lease: 20 * time.Millisecond}
}

func crashStore(fs vfs.FS, later time.Duration) (*forebay.DB, *queue.Queue[[]byte], *queue.Group[[]byte], error) {
	db, err := forebay.Open("data", &forebay.Options{FS: fs, MemtableSize: 32 << 10, LogFileSize: 32 << 10, MarkDelay: -1})
	if err != nil {
		return nil, nil, nil, err
	}
	o, og := crashOptions()
	o.Now = func() time.Time { return time.Now().Add(later) }
	q, err := queue.Open(db, "q", queue.Bytes{}, o)
	if err != nil {
		return nil, nil, nil, errors.Join(err, db.Close())
	}
	g, err := q.Group("g", og)
	if err != nil {
		return nil, nil, nil, errors.Join(err, q.Close(), db.Close())
	}
	return db, q, g, nil
}

// effect does what a message is for, in the transaction that acknowledges it.
func effect(db *forebay.DB, m *queue.Message[[]byte]) error {
	return db.Update(func(tx *forebay.Tx) error {
		if err := m.AckTx(tx); err != nil {
			return err
		}
		key := append([]byte("done "), m.Value...)
		if has, err := tx.Has(key); err != nil || has {
			return errors.Join(err, fmt.Errorf("%s: the effect comes twice", m.Value))
		}
		return tx.Put(key, nil)
	})
}

// work drives the queue until the store's power is gone.
func (l *ledger) work(ctx context.Context, db *forebay.DB, q *queue.Queue[[]byte], g *queue.Group[[]byte], seed uint64, life int) error {
	var all sync.WaitGroup
	errs := make([]error, 8)
	say := func(i int, err error) bool { // true: it is over
		if err == nil || errors.Is(err, queue.ErrStaleLease) || errors.Is(err, forebay.ErrNotFound) {
			return false
		}
		if failed := errors.Is(err, forebay.ErrUnknown) || errors.Is(err, forebay.ErrPoisoned) || errors.Is(err, syscall.EIO); ctx.Err() == nil && !(failed && l.faulty) {
			errs[i] = err
		}
		return true
	}
	for i := range 3 {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				m := queue.Meta{Priority: r.IntN(2)}
				if r.IntN(3) == 0 {
					m.Key = fmt.Sprint(r.IntN(3))
				}
				if r.IntN(4) == 0 {
					m.Delay = time.Duration(r.IntN(20)) * time.Millisecond
				}
				name := fmt.Sprintf("%d/%d/%d", life, i, n)
				if r.IntN(4) == 0 {
					m.DedupeID = name
				}
				l.note(l.asked, name)
				var err error
				if r.IntN(3) == 0 { // with something else, all or nothing
					err = db.Update(func(tx *forebay.Tx) error {
						return errors.Join(q.EnqueueTx(ctx, tx, []byte(name), &m), tx.Put([]byte("in "+name), nil))
					})
				} else {
					_, err = q.Enqueue(context.Background(), []byte(name), &m)
				}
				if say(i, err) {
					return
				}
				l.note(l.enqueued, name)
				for s, err := g.Stats(ctx); !l.faulty && ctx.Err() == nil && err == nil && s.Pending > 200; s, err = g.Stats(ctx) {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	for i := 3; i < 7; i++ {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for {
				ms, err := g.Receive(ctx, 1+r.IntN(3))
				if err != nil {
					say(i, err)
					return
				}
				for _, m := range ms {
					name := string(m.Value)
					switch r.IntN(10) {
					case 0:
						err = m.Nack(context.Background(), errors.New("no"))
					case 1:
						err = m.NackAfter(context.Background(), []time.Duration{0, time.Millisecond, 10 * time.Second}[r.IntN(20)/9], errors.New("later"))
					case 2:
						err = m.Kill(context.Background(), errors.New("dead"))
					case 3: // it is forgotten
					case 4, 5:
						if r.IntN(2) == 0 {
							time.Sleep(25 * time.Millisecond)
						}
						fallthrough
					default:
						if err = effect(db, m); err == nil {
							l.note(l.done, name)
						}
					}
					if say(i, err) {
						return
					}
				}
			}
		})
	}
	all.Go(func() {
		r := rand.New(rand.NewPCG(seed, 7))
		for ctx.Err() == nil {
			for d, err := range g.DeadLetters() {
				if say(7, err) {
					return
				}
				switch r.IntN(4) {
				case 0:
					l.note(l.purged, string(d.Payload))
					err = g.Purge(context.Background(), d.ID)
				case 1, 2:
					err = g.Redrive(context.Background(), d.ID)
				}
				if say(7, err) {
					return
				}
			}
			if r.IntN(20) == 0 && say(7, db.Checkpoint(ctx)) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	all.Wait()
	return errors.Join(errs...)
}

// check opens what a crash has left, and looks that each message is in one place: done,
// dead or pending, and that nothing which anybody was told is missing.
func (l *ledger) check(db *forebay.DB, g *queue.Group[[]byte], later *ledger) error {
	where := map[string]string{}
	found := func(name, place string) error {
		if old, ok := where[name]; ok {
			return fmt.Errorf("%s is %s and %s", name, old, place)
		}
		where[name] = place
		return nil
	}
	done, dead := int64(0), int64(0)
	for e, err := range db.Prefix([]byte("done ")) {
		if err = errors.Join(err, found(string(e.Key[5:]), "done")); err != nil {
			return err
		}
		done++
	}
	for d, err := range g.DeadLetters() {
		if err = errors.Join(err, found(string(d.Payload), "dead")); err != nil {
			return err
		}
		dead++
	}
	first, err := g.Stats(context.Background())
	if err != nil {
		return err
	}
	if first.Dead != dead || first.Done < done || first.Enqueued != first.Done+first.Dead+first.Pending {
		return fmt.Errorf("%+v with %d done, %d dead", first, done, dead)
	}
	// All that is pending comes, and nothing else. What was delivered too often is dead
	// then, and what waits is made not to.
	for {
		s, err := g.Stats(context.Background())
		if err != nil {
			return err
		}
		if s.Pending == 0 {
			break
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		ms, err := g.Receive(ctx, 100)
		cancel()
		if err != nil {
			return fmt.Errorf("%+v: %w", s, err)
		}
		for _, m := range ms {
			if err := errors.Join(found(string(m.Value), "pending"), effect(db, m)); err != nil {
				return err
			}
		}
	}
	pending := int64(0)
	for d, err := range g.DeadLetters() {
		if err != nil {
			return err
		}
		if where[string(d.Payload)] == "" {
			where[string(d.Payload)] = "pending, and then dead"
			pending++
		}
	}
	for _, place := range where {
		if place == "pending" {
			pending++
		}
	}
	if pending != first.Pending {
		return fmt.Errorf("%d were pending, not %+v", pending, first)
	}
	for name := range l.done {
		if where[name] != "done" {
			return fmt.Errorf("%s was done, and is %q", name, where[name])
		}
	}
	for name := range l.enqueued {
		if where[name] == "" && !later.purged[name] {
			return fmt.Errorf("%s is lost", name)
		}
	}
	for name := range where {
		if !later.asked[name] {
			return fmt.Errorf("%s was never enqueued", name)
		}
	}
	for e, err := range db.Prefix([]byte("in ")) {
		if name := string(e.Key[3:]); err != nil || where[name] == "" && !later.purged[name] {
			return errors.Join(err, fmt.Errorf("%s: half of a commit", name))
		}
	}
	return nil
}

// cut is what a crash leaves, and what was known before and behind it.
type cut struct {
	mem           *vfs.Mem
	before, after *ledger
}

// cut has crashes at moments of the disk: behind a change some way on, and behind each of
// the next ones.
func (l *ledger) cut(mem *vfs.Mem, r *rand.Rand) (out []cut) {
	for range 4 {
		skip, take := r.IntN(60), 1+r.IntN(5)
		full := make(chan struct{})
		mem.OnIO(func(vfs.Op) {
			if skip--; skip >= 0 || take <= 0 {
				return
			}
			c := cut{before: l.copy()}
			if r.IntN(4) == 0 {
				c.mem = mem.Snapshot() // the process alone
			} else {
				c.mem = mem.PowerCutSeed(r.Uint64(), vfs.SectorAtomic)
			}
			c.after = l.copy()
			out = append(out, c)
			if take--; take == 0 {
				close(full)
			}
		})
		select {
		case <-full:
		case <-time.After(30 * time.Second): // the disk is not used any more
		}
		mem.OnIO(nil)
	}
	return out
}

// TestCrash cuts the power of stores at work, at random moments, many times in each life;
// looks at each state that is left; and goes on from one of them.
func TestCrash(t *testing.T) {
	seeds := *flagSeeds
	if seeds == 0 {
		if seeds = 4; testing.Short() {
			seeds = 1
		}
	}
	for seed := *flagSeed; seed < *flagSeed+uint64(seeds); seed++ {
		r := rand.New(rand.NewPCG(seed, 100))
		l := newLedger()
		mem := vfs.NewMem()
		for life := range 3 {
			db, q, g, err := crashStore(mem, 0)
			require.NoError(t, err, "seed %d, life %d", seed, life)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- l.work(ctx, db, q, g, seed, life) }()
			cuts := l.cut(mem, r)
			cancel()
			require.NoError(t, <-ended, "seed %d, life %d", seed, life)
			require.NoError(t, q.Close())
			require.NoError(t, db.Close())
			last := cuts[len(cuts)-1]
			mem, l = last.mem.Snapshot(), last.before
			for name := range last.after.asked { // it may be there
				l.asked[name] = true
			}
			for name := range last.after.purged {
				l.purged[name] = true
			}
			for i, c := range cuts {
				db, q, g, err := crashStore(c.mem, time.Hour) // nothing waits any more
				require.NoError(t, err, "seed %d, life %d, cut %d", seed, life, i)
				require.NoError(t, c.before.check(db, g, c.after), "seed %d, life %d, cut %d", seed, life, i)
				require.NoError(t, q.Close())
				require.NoError(t, db.Close())
			}
		}
	}
}

// TestFaults lets one call of the disk fail under a queue at work, and then cuts the
// power: what was acknowledged by then is there.
func TestFaults(t *testing.T) {
	n := 40
	if testing.Short() {
		n = 8
	}
	for seed := *flagSeed; seed < *flagSeed+uint64(n); seed++ {
		r := rand.New(rand.NewPCG(seed, 200))
		mem := vfs.NewMem()
		disk := vfs.NewInjector(mem)
		db, q, g, err := crashStore(disk, 0)
		require.NoError(t, err)
		l := newLedger()
		l.faulty = true
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		disk.Add(vfs.Rule{Call: []vfs.Call{vfs.CallSync, vfs.CallSyncData, vfs.CallWrite}[r.IntN(3)], K: 1 + r.IntN(100), Err: syscall.EIO, After: r.IntN(2) == 0})
		require.NoError(t, l.work(ctx, db, q, g, seed, 0), "seed %d", seed)
		cancel()
		_ = q.Close() // they say what had failed
		_ = db.Close()
		mem = mem.PowerCutSeed(r.Uint64(), vfs.SectorAtomic)
		db, q, g, err = crashStore(mem, time.Hour)
		require.NoError(t, err, "seed %d", seed)
		require.NoError(t, l.check(db, g, l), "seed %d", seed)
		require.NoError(t, q.Close())
		require.NoError(t, db.Close())
	}
}
