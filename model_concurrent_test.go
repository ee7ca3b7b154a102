package forebay_test

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

const (
	modelOwners = 6
	crowdSize   = 4000 // operations of one crowd
)

// TestModelConcurrent does random operations from several goroutines at once.
// Each owns some keys, and knows exactly what they are; of the keys of the others
// it knows that they are in one of their owner's states, and in none before what
// was acknowledged. Beside them the store is checkpointed, compacted, copied,
// closed, and opened as a crash leaves it.
func TestModelConcurrent(t *testing.T) {
	seed, left := modelSeedNow(), modelCount()
	if *modelOpsFlag == 0 {
		left /= 2
	}
	t.Logf("-model.seed=%d", seed)
	counts, begin := map[string]int{}, time.Now()
	for i := uint64(0); left > 0; i++ {
		w := newCrowd(seed+i<<32, min(left, crowdSize))
		left -= crowdSize
		w.counts = counts
		if text := w.run(); text != "" {
			t.Fatalf("go test -run 'TestModelConcurrent$' . -args -model.seed=%d\n%s", seed+i<<32, text)
		}
	}
	t.Log(modelTable(counts, time.Since(begin)))
}

func newCrowd(seed uint64, n int) *modelCrowd {
	w := &modelCrowd{modelWorld: newModelWorld(seed, nil)}
	w.left.Store(int64(n))
	for i := range modelOwners {
		r := &modelRand{rand.New(rand.NewPCG(seed, uint64(100+i)))}
		s := modelState{spaces: map[string]modelSpace{"": {}, "own": {}}}
		w.owners = append(w.owners, &modelOwner{w: w, id: i, name: fmt.Sprintf("own%02d", i), r: r, hist: []modelState{s}})
	}
	return w
}

// guarded runs fn and notes how it fails.
func (w *modelCrowd) guarded(fn func()) (ok bool) {
	defer func() {
		p := recover()
		if ok = p == nil; ok {
			return
		}
		text := fmt.Sprintf("panic: %v\n%s", p, debug.Stack())
		if f, is := p.(modelFailure); is {
			text = f.text
		}
		w.mu.Lock()
		if w.failed == "" {
			w.failed = text
		}
		w.mu.Unlock()
		w.left.Store(0)
	}()
	fn()
	return
}

func (w *modelCrowd) run() string {
	stop := time.AfterFunc(4*time.Minute, func() {
		debug.SetTraceback("all")
		panic("a concurrent program hangs")
	})
	defer stop.Stop()
	defer w.abandon()
	if !w.guarded(func() { w.start(); w.meet(); w.pin() }) {
		return w.failed
	}
	var wg sync.WaitGroup
	for _, o := range w.owners {
		wg.Go(func() {
			for w.left.Add(-1) >= 0 && w.guarded(func() {
				w.open.RLock()
				defer w.open.RUnlock()
				w.count(o.step())
			}) {
			}
		})
	}
	seed := w.deck.Uint64() // who replaces the store uses the deck's draws from here on
	for i := range 2 {
		r := &modelRand{rand.New(rand.NewPCG(seed, uint64(i)))}
		wg.Go(func() {
			for w.left.Load() > 0 && w.guarded(func() { w.disturb(r, i) }) {
				time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
			}
		})
	}
	wg.Wait()
	if w.failed == "" {
		w.guarded(func() {
			w.changes()
			w.must(w.verify(), "verify")
			w.look(w.db, func(i int) int { return w.owners[i].now().acked }, "the end")
		})
	}
	return w.failed
}

// meet gives each owner a handle of its keyspace, behind an open.
func (w *modelCrowd) meet() {
	for _, o := range w.owners {
		ks, err := w.db.Keyspace(o.name)
		w.must(err, "keyspace "+o.name)
		o.ks = ks
	}
}

// look finds each owner in an open store.
func (w *modelCrowd) look(db *forebay.DB, least func(i int) int, what string) (at []int) {
	w.must(db.View(func(s *forebay.Snapshot) error {
		m, err := w.read(s, false)
		w.must(err, what)
		at = w.find(m, least, what)
		return nil
	}), what)
	return at
}

// disturb does something beside the owners. Number 0 alone replaces the store.
func (w *modelCrowd) disturb(r *modelRand, who int) {
	if who == 0 && r.oneIn(6) {
		w.replace(r)
		return
	}
	w.open.RLock()
	defer w.open.RUnlock()
	switch k := r.IntN(20); {
	case k < 4:
		w.must(w.db.Checkpoint(background), "checkpoint")
		w.count("checkpoint")
	case k < 6:
		w.must(w.db.Compact(background), "compact")
		w.count("compact")
	case k < 7:
		w.must(w.verify(), "verify")
		w.count("verify")
	case k < 9:
		w.backup()
	case k < 13:
		w.snapshot(r)
	case k < 16 && who == 0:
		w.changes()
	case k < 17:
		w.db.Stats()
		w.must(w.db.Sync(background), "sync")
		w.count("sync")
	default:
		w.probe(r)
	}
}

func (w *modelCrowd) backup() {
	before := w.bounds()
	dir := fmt.Sprintf("backup%d", w.copy.Add(1))
	_, err := w.db.Backup(background, dir)
	w.must(err, "backup")
	o := &forebay.Options{FS: w.mem, MemtableSize: 8 << 10, MemoryLimit: 1 << 20}
	db, err := forebay.Open(dir, o)
	w.must(err, "open of a backup")
	w.look(db, func(i int) int { return before[i].acked }, "backup")
	w.must(db.Close(), "close of a backup")
	w.remove(dir)
	w.count("backup")
}

// snapshot reads a snapshot again and again; it must stay as it is.
func (w *modelCrowd) snapshot(r *modelRand) {
	before := w.bounds()
	s, err := w.db.Snapshot()
	w.must(err, "snapshot")
	defer s.Close()
	first, err := w.read(s, false)
	w.must(err, "snapshot")
	w.find(first, func(i int) int { return before[i].acked }, "snapshot")
	for range 1 + r.IntN(4) {
		time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
		if r.oneIn(3) {
			w.must(w.db.Checkpoint(background), "checkpoint")
		}
		again, err := w.read(s, r.oneIn(2))
		w.must(err, "snapshot")
		for name, sp := range first.spaces {
			if d := differ(sp.entries, again.spaces[name].entries); d != "" {
				w.fail("the snapshot @%d has changed in %q: %s", s.LSN(), name, d)
			}
		}
	}
	w.count("snapshot")
}

// pin begins to follow the changes from here.
func (w *modelCrowd) pin() {
	w.must(w.db.Sync(background), "sync")
	pos := w.db.Position()
	w.must(w.db.Pin("follower", pos.LSN), "pin")
	w.must(w.db.View(func(s *forebay.Snapshot) error {
		if s.LSN() != pos.LSN {
			w.fail("the position is %v behind a sync, and a view has LSN %d", pos, s.LSN())
		}
		m, err := w.read(s, false)
		m.lsn = 0 // no entry has one
		w.pins["follower"] = modelPin{pos, m}
		return err
	}), "view")
}

// changes follows to the durable end.
func (w *modelCrowd) changes() {
	before := w.bounds()
	p := w.pins["follower"]
	for c, err := range w.db.Changes(background, p.pos) {
		w.must(err, "changes")
		if c.LSN != p.pos.LSN+1 {
			w.fail("changes: LSN %d behind %d", c.LSN, p.pos.LSN)
		}
		p.pos, p.state = c.Position, p.state.apply(0, w.replayed(c.Ops))
	}
	p.state.lsn = p.pos.LSN
	w.find(p.state, func(i int) int { return before[i].durable }, "changes")
	w.must(w.db.Pin("follower", p.pos.LSN), "pin")
	w.pins["follower"] = p
	w.count("changes")
}

// cutNow is what a crash leaves while others write, and what must be in it.
func (w *modelCrowd) cutNow(r *modelRand) (*vfs.Mem, func(i int) int) {
	before := w.bounds()
	if r.oneIn(3) {
		return w.mem.Snapshot(), func(i int) int { return before[i].written }
	}
	return w.powerCut(r), func(i int) int { return before[i].durable }
}

func (w *modelCrowd) probe(r *modelRand) {
	mem, least := w.cutNow(r)
	o := &forebay.Options{FS: mem, MemtableSize: 8 << 10, MemoryLimit: 1 << 20, LogAlign: w.align, ReadOnly: r.oneIn(3)}
	if w.apart {
		o.LogDir = w.dir + "/log"
	}
	db, err := forebay.Open(w.dir, o)
	w.must(err, "open of a copy")
	w.look(db, least, "copy")
	w.must(db.Close(), "close of a copy")
	w.count("probe")
}

// replace closes the store and opens it, or what a crash leaves of it.
func (w *modelCrowd) replace(r *modelRand) {
	crash := r.oneIn(2)
	mem, least := w.mem, func(i int) int { return w.owners[i].now().acked }
	if crash {
		w.open.RLock() // the others write on
		mem, least = w.cutNow(r)
		w.open.RUnlock()
	}
	w.open.Lock()
	defer w.open.Unlock()
	w.must(w.db.Close(), "close")
	w.mem = mem
	w.modelWorld.open()
	at := w.look(w.db, least, "reopened store")
	for i, o := range w.owners {
		o.mu.Lock()
		o.hist = o.hist[:at[i]-o.base+1]
		o.acked, o.written, o.durable = at[i], at[i], at[i]
		o.mu.Unlock()
	}
	w.meet()
	if p := w.pins["follower"]; w.db.Pins()["follower"] > p.pos.LSN {
		w.fail("the pin is at %d, want %d", w.db.Pins()["follower"], p.pos.LSN)
	}
	if crash {
		w.count("crash")
	} else {
		w.count("reopen")
	}
}
