// Package serial runs random histories of concurrent transactions, snapshots and
// plain writes against a store, and has porcupine decide whether there is one
// order of them, which agrees with the order in time, in which each of them saw
// what it saw: strict serializability.
package serial

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// Shape says how a history is made. All of it follows from the seed; how
// goroutines are scheduled does not.
type Shape struct {
	Seed       uint64
	Goroutines int
	Ops        int // of all goroutines together
	Keys       int
	Slow       time.Duration // of a sync, at most
	// Hostile: two goroutines have transactions that read everything and take
	// their time, all others overwrite.
	Hostile bool
	Cancel  bool // contexts end at random
	Cut     bool // the power is cut at random; all is durable
	Level   forebay.Level
	Mixed   bool // levels of single operations differ
}

// Random returns a shape.
func Random(seed uint64) Shape {
	r := rand.New(rand.NewPCG(seed, 1))
	s := Shape{Seed: seed, Goroutines: 4 + r.IntN(13), Keys: 3 + r.IntN(6), Ops: 30 + r.IntN(51)}
	if r.IntN(3) > 0 {
		s.Slow = time.Duration(r.IntN(200)) * time.Microsecond
	}
	s.Hostile, s.Cancel, s.Mixed = r.IntN(8) == 0, r.IntN(8) == 0, r.IntN(4) == 0
	if s.Cut = !s.Mixed && r.IntN(3) == 0; s.Cut {
		return s
	}
	if r.IntN(4) == 0 {
		s.Level = []forebay.Level{forebay.Written, forebay.Buffered}[r.IntN(2)]
	}
	return s
}

// Count is how often things happened.
type Count struct {
	Histories, Ops, Updates, Attempts, Failed, Cancelled, Maybe int64
	Conflicts, Turns, Alone, Checkpoints, Undecided             int64
	// Cuts of the power, and commits under way that one took.
	Cuts, Lost int64
}

// Add adds d to c.
func (c *Count) Add(d Count) {
	for _, p := range [][2]*int64{
		{&c.Histories, &d.Histories}, {&c.Ops, &d.Ops}, {&c.Updates, &d.Updates}, {&c.Attempts, &d.Attempts},
		{&c.Failed, &d.Failed}, {&c.Cancelled, &d.Cancelled}, {&c.Maybe, &d.Maybe}, {&c.Conflicts, &d.Conflicts},
		{&c.Turns, &d.Turns}, {&c.Alone, &d.Alone}, {&c.Checkpoints, &d.Checkpoints}, {&c.Undecided, &d.Undecided},
		{&c.Cuts, &d.Cuts}, {&c.Lost, &d.Lost},
	} {
		*p[0] += *p[1]
	}
}

// Violation is a history that no order explains.
type Violation struct {
	Shape   Shape
	History []porcupine.Operation
	info    porcupine.LinearizationInfo
}

func (v *Violation) Error() string {
	s := fmt.Sprintf("seed %d (%+v): %d operations are not serializable:\n", v.Shape.Seed, v.Shape, len(v.History))
	for _, o := range v.History {
		s += fmt.Sprintf("%9d %9d  %2d  %v\n", o.Call/1000, o.Return/1000, o.ClientId, o.Input)
	}
	return s
}

// Render writes the history as a page for a browser.
func (v *Violation) Render(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return porcupine.Visualize(model, v.info, f)
}

// run is a history under way.
type run struct {
	shape Shape
	db    *forebay.DB
	other *forebay.Keyspace
	start time.Time
	next  atomic.Uint32 // the last value that was written
	ended atomic.Int64  // operations
	mu    sync.Mutex    // guards the rest
	ops   []porcupine.Operation
	count Count
	err   error

	// where each operation that writes is in the log.
	where map[*op]uint64
	// disk is what a power cut left, between two moments.
	disk          *vfs.Mem
	before, after time.Duration
}

// Run makes one history and checks it.
func Run(shape Shape) (Count, error) {
	r := &run{shape: shape, start: time.Now()}
	mem := vfs.NewMem()
	fsys := vfs.FS(mem)
	if shape.Slow > 0 {
		fsys = &slowSync{FS: fsys, max: shape.Slow, seed: shape.Seed}
	}
	var err error
	r.db, err = forebay.Open("db", &forebay.Options{FS: fsys, MemtableSize: 4 << 10, MemoryLimit: 1 << 20, LogFileSize: 64 << 10, DefaultLevel: shape.Level, MarkDelay: -1})
	if err != nil {
		return r.count, err
	}
	defer r.db.Close()
	if r.other, err = r.db.Keyspace("other"); err != nil {
		return r.count, err
	}
	// All of the log is wanted in the end.
	if err := r.db.Pin("lab", 0); err != nil {
		return r.count, err
	}
	var cutting sync.WaitGroup
	if shape.Cut {
		cutting.Go(func() { r.cut(mem) })
	}
	r.history()
	cutting.Wait()
	st := r.db.Stats()
	r.count.Histories, r.count.Ops = 1, int64(len(r.ops))
	r.count.Conflicts, r.count.Turns, r.count.Alone, r.count.Checkpoints = st.Conflicts, st.Turns, st.Alone, st.Checkpoints
	if r.err != nil {
		return r.count, fmt.Errorf("seed %d: %w", shape.Seed, r.err)
	}
	if st.Snapshots != 0 {
		return r.count, fmt.Errorf("seed %d: %d snapshots were left", shape.Seed, st.Snapshots)
	}
	if err := r.order(); err != nil {
		return r.count, fmt.Errorf("seed %d: %w", shape.Seed, err)
	}
	if err := r.check(r.ops); err != nil || r.disk == nil {
		return r.count, err
	}
	return r.count, r.recover()
}

func (r *run) history() {
	stop := make(chan struct{})
	var background, clients sync.WaitGroup
	background.Go(func() { r.settle(stop) })
	rng := rand.New(rand.NewPCG(r.shape.Seed, 2))
	first := &client{run: r, id: 0, rng: rng}
	for range rng.IntN(4) {
		first.batch()
	}
	for g := range r.shape.Goroutines {
		c := &client{run: r, id: g + 1, rng: rand.New(rand.NewPCG(r.shape.Seed, uint64(10+g)))}
		clients.Go(func() {
			n := r.shape.Ops / r.shape.Goroutines
			if r.shape.Hostile && !c.calm() { // for as long as the transactions take
				n = max(3*n, 15)
			}
			for range n {
				c.operation()
			}
		})
	}
	clients.Wait()
	close(stop)
	background.Wait()
	first.all()
}

// settle makes checkpoints and compactions at random.
func (r *run) settle(stop chan struct{}) {
	rng := rand.New(rand.NewPCG(r.shape.Seed, 3))
	ctx := context.Background()
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rng.IntN(2000)) * time.Microsecond):
		}
		var err error
		if rng.IntN(4) == 0 {
			err = r.db.Compact(ctx)
		} else {
			err = r.db.Checkpoint(ctx)
		}
		if err != nil {
			r.fail(err)
			return
		}
	}
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errors.Join(r.err, err)
}

// note puts an operation that began at call into the history.
func (r *run) note(client int, o *op, call time.Duration) {
	end := int64(time.Since(r.start))
	if o.maybe {
		end = math.MaxInt64 // it may take place at any time
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if o.maybe {
		r.count.Maybe++
		client = 100 + len(r.ops) // its client goes on
	}
	r.ended.Add(1)
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: o, Call: int64(call), Return: end})
}

// patience is how long porcupine may take for one history.
const patience = 10 * time.Second

func (r *run) check(ops []porcupine.Operation) error {
	switch porcupine.CheckOperationsTimeout(model, ops, patience) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		r.count.Undecided++
		return nil
	}
	v := &Violation{Shape: r.shape, History: shrink(ops)}
	_, v.info = porcupine.CheckOperationsVerbose(model, v.History, patience)
	return v
}

// order finds the operations in the log. What is abandoned and not there is taken
// out of the history.
func (r *run) order() error {
	if err := r.db.Sync(context.Background()); err != nil {
		return err
	}
	lsns := map[uint32]uint64{}
	for change, err := range r.db.Changes(context.Background(), forebay.Position{}) {
		if err != nil {
			return err
		}
		for _, o := range change.Ops {
			if o.Kind == forebay.OpPut {
				val := binary.BigEndian.Uint32(o.Value)
				if lsns[val] != 0 {
					return fmt.Errorf("value %d is in commits %d and %d", val, lsns[val], change.LSN)
				}
				lsns[val] = change.LSN
			}
		}
	}
	where := map[*op]uint64{}
	r.where = where
	keep := r.ops[:0]
	for _, p := range r.ops {
		o := p.Input.(*op)
		var lsn uint64
		for val := range o.survivors() {
			switch at := lsns[val]; {
			case o.failed && at != 0:
				return fmt.Errorf("%v: it failed, and is commit %d", o, at)
			case o.failed, o.maybe && at == 0:
			case at == 0:
				return fmt.Errorf("%v: it is not in the log", o)
			case lsn != 0 && lsn != at:
				return fmt.Errorf("%v: it is in commits %d and %d", o, lsn, at)
			default:
				lsn = at
			}
		}
		if o.maybe && lsn == 0 {
			continue
		}
		if keep = append(keep, p); lsn != 0 {
			where[o] = lsn
		}
	}
	r.ops = keep
	writers := slices.SortedFunc(maps.Keys(where), func(a, b *op) int { return cmp.Compare(where[a], where[b]) })
	for i, o := range writers {
		if i > 0 && where[o] == where[writers[i-1]] {
			return fmt.Errorf("%v and %v are one commit", writers[i-1], o)
		}
		o.place = i + 1
	}
	return nil
}

// shrink leaves out operations that only read as long as the rest stays a
// violation. To leave out one that writes might make a violation.
func shrink(ops []porcupine.Operation) []porcupine.Operation {
	end := time.Now().Add(5 * time.Second)
	for i := len(ops) - 1; i >= 0 && time.Now().Before(end); i-- {
		if ops[i].Input.(*op).writes() {
			continue
		}
		less := append(append([]porcupine.Operation(nil), ops[:i]...), ops[i+1:]...)
		if porcupine.CheckOperationsTimeout(model, less, time.Second) == porcupine.Illegal {
			ops = less
		}
	}
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return ops
}
