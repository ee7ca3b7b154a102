package forebay_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// modelWorld is a store under test and all that the model knows of it.
type modelWorld struct {
	deck  *modelRand // draws options at each open
	trace func(string)
	mem   *vfs.Mem
	dir   string
	align int64 // Options.LogAlign of all opens
	apart bool  // the log has a directory of its own
	db    *forebay.DB
	level forebay.Level // the default one of this open

	now modelState
	// hist has the states that a crash may lead to, or a snapshot may show:
	// those from lost on.
	hist []modelState
	// durable and written are the last LSNs that a power cut, and a crash of the
	// process, must not take.
	durable, written uint64
	// waiting are commits that were ordered and not awaited.
	waiting []modelWait

	handles []modelHandle
	snaps   []modelSnap
	iters   []*modelIter
	pins    map[string]modelPin
	backups int
}

type modelWait struct {
	c     *forebay.Commit
	level forebay.Level
	lsn   uint64
}

// modelHandle is a keyspace; gen tells it from another with the same name.
type modelHandle struct {
	ks   *forebay.Keyspace
	name string
	gen  uint64
}

type modelSnap struct {
	s     *forebay.Snapshot
	state modelState
	dead  bool // the store was closed since
}

type modelPin struct {
	pos   forebay.Position
	state modelState
}

func newModelWorld(seed uint64, trace func(string)) *modelWorld {
	r := &modelRand{rand.New(rand.NewPCG(seed, 9))}
	w := &modelWorld{deck: r, trace: trace, mem: vfs.NewMem(), dir: "db", now: emptyModel(), pins: map[string]modelPin{}}
	if r.oneIn(3) {
		w.align = 4096
	}
	w.apart = r.oneIn(4)
	w.hist = []modelState{w.now}
	return w
}

// fail ends the run of the deck.
func (w *modelWorld) fail(format string, args ...any) {
	panic(modelFailure{fmt.Sprintf(format, args...)})
}

func (w *modelWorld) must(err error, what string) {
	if err != nil {
		w.fail("%s: %v", what, err)
	}
}

func (w *modelWorld) mustBe(err, want error, what string) {
	if !errors.Is(err, want) {
		w.fail("%s: error is %v, want %v", what, err, want)
	}
}

func (w *modelWorld) say(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf(format, args...))
	}
}

// options draws how the store is opened.
func (w *modelWorld) options(mem *vfs.Mem, dir string) *forebay.Options {
	r := w.deck
	o := &forebay.Options{
		FS: mem, LogAlign: w.align, MemoryLimit: 1 << 20,
		MemtableSize: 4 << (10 + r.IntN(3)), LogFileSize: 16 << (10 + 2*r.IntN(2)),
		Compression:  forebay.Compression(r.IntN(4)),
		DefaultLevel: forebay.Level(r.IntN(3)),
		Sync: []forebay.SyncPolicy{forebay.SyncGroup, forebay.SyncEach, forebay.SyncNever,
			forebay.SyncInterval(time.Millisecond), forebay.SyncBytes(5000)}[r.IntN(5)],
		Mechanism: forebay.Mechanism(r.IntN(2)),
		MarkDelay: []time.Duration{-1, 0, time.Millisecond}[r.IntN(3)],
	}
	if w.align == 4096 && r.oneIn(3) {
		o.Mechanism = forebay.DirectDSync
	}
	if w.apart {
		o.LogDir = path.Join(dir, "log")
	}
	return o
}

// open opens w.dir of w.mem.
func (w *modelWorld) open() {
	o := w.options(w.mem, w.dir)
	db, err := forebay.Open(w.dir, o)
	w.must(err, "open")
	w.db, w.level = db, o.DefaultLevel
	w.handles = nil
}

func (w *modelWorld) start() { w.open() }

// abandon lets go of everything.
func (w *modelWorld) abandon() {
	w.closeReaders()
	if w.db != nil {
		w.db.Close()
		w.db = nil
	}
}

func (w *modelWorld) closeReaders() {
	for _, it := range w.iters {
		it.it.Close()
	}
	for _, s := range w.snaps {
		s.s.Close()
	}
	w.iters, w.snaps = nil, nil
}

// finish compares all at the end of a deck.
func (w *modelWorld) finish() {
	w.await()
	w.must(w.verify(), "verify")
	w.compareAll(w.db, w.now, true)
	for _, s := range w.snaps {
		if !s.dead {
			w.compareSnapshot(s, true)
		}
	}
	w.closeReaders()
	w.must(w.db.Close(), "close")
	w.closed()
	w.open()
	w.compareAll(w.db, w.now, true)
}

// closed notes that the store was closed in order: all is durable.
func (w *modelWorld) closed() {
	w.durable, w.written = w.now.lsn, w.now.lsn
	w.forget()
}

// committed notes a commit that has returned.
func (w *modelWorld) committed(level forebay.Level, ops []modelOp) {
	w.order(ops)
	w.acked(level, w.now.lsn)
}

// order notes that a commit has got its place.
func (w *modelWorld) order(ops []modelOp) {
	w.now = w.now.apply(w.now.lsn+1, ops)
	w.hist = append(w.hist, w.now)
	for _, o := range ops {
		w.say("    @%d %s", w.now.lsn, o)
	}
}

func (w *modelWorld) acked(level forebay.Level, lsn uint64) {
	if level != forebay.Buffered {
		w.written = max(w.written, lsn)
	}
	if level == forebay.Durable {
		w.synced(lsn)
	}
}

// synced notes that all up to lsn is durable.
func (w *modelWorld) synced(lsn uint64) {
	w.durable = max(w.durable, lsn)
	w.written = max(w.written, lsn)
	w.forget()
}

// forget drops states that no crash leads to and no snapshot shows.
func (w *modelWorld) forget() {
	if n := int(w.durable - w.hist[0].lsn); n > 64 {
		w.hist = append([]modelState(nil), w.hist[n:]...)
	}
}

// at returns S(lsn).
func (w *modelWorld) at(lsn uint64) modelState {
	if lsn < w.hist[0].lsn || lsn > w.now.lsn {
		w.fail("LSN %d is not in [%d, %d]", lsn, w.hist[0].lsn, w.now.lsn)
	}
	return w.hist[lsn-w.hist[0].lsn]
}

// settled is called after each step.
func (w *modelWorld) settled() {
	if last := w.db.LastLSN(); last != w.now.lsn && (len(w.waiting) == 0 || last > w.now.lsn) {
		w.fail("the last LSN is %d, want %d", last, w.now.lsn)
	}
	d := w.db.DurableLSN()
	if d < w.durable || d > w.now.lsn {
		w.fail("the durable LSN is %d, and must be in [%d, %d]", d, w.durable, w.now.lsn)
	}
}

// await waits for all that was submitted.
func (w *modelWorld) await() {
	for _, c := range w.waiting {
		w.must(c.c.Wait(background), "wait")
		if c.c.LSN() != c.lsn {
			w.fail("a submitted commit has LSN %d, want %d", c.c.LSN(), c.lsn)
		}
		w.acked(c.level, c.lsn)
	}
	w.waiting = nil
}

// space draws a keyspace that exists, with its handle.
func (w *modelWorld) space(r *modelRand) (name string, ks modelKeys) {
	names := w.now.names()
	if r.oneIn(2) || len(names) == 0 {
		return "", w.db
	}
	name = names[r.IntN(len(names))]
	return name, w.handle(name).ks
}

// modelKeys is what a store and a keyspace have in common.
type modelKeys interface {
	modelReader
	Put(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(lo, hi []byte) error
}

// handle returns a handle of a keyspace that exists.
func (w *modelWorld) handle(name string) modelHandle {
	gen := w.now.spaces[name].gen
	for _, h := range w.handles {
		if h.name == name && h.gen == gen {
			return h
		}
	}
	ks, err := w.db.Keyspace(name)
	w.must(err, "keyspace "+name)
	h := modelHandle{ks, name, gen}
	if w.handles = append(w.handles, h); len(w.handles) > 12 {
		w.handles = w.handles[1:]
	}
	return h
}
