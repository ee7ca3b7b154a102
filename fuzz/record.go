package fuzz

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"

	"github.com/forebaydb/forebay/vfs"
)

// bounds are what a crash must respect: after a power cut lo ≤ n ≤ hi, after a
// crash of the process kill ≤ n ≤ hi.
type bounds struct{ lo, kill, hi uint64 }

// cut is the disk between one I/O and the next.
type cut struct {
	disk *vfs.Mem
	op   vfs.Op // the I/O before it
	life int
	bounds
	hist    *history
	backups []backup
	did     features
}

// recording is a workload that was run.
type recording struct {
	w    *Workload
	cuts []*cut
	// offset is how many cuts of the base come before these; begin is where each
	// step begins, by its place in the first life, and end where that closes.
	offset int
	begin  []int
	end    int
	// What there was in the end.
	disk *vfs.Mem
	hist *history
	did  features
	// broken says what went wrong while nothing had failed yet, or in the opens
	// between lives.
	broken []*Violation
}

// recorder runs a workload and keeps a cut after each I/O.
//
// What was acknowledged before an I/O returned can rest on earlier I/Os alone,
// so that the hook of an I/O also tells the lower bound of the cut before it.
type recorder struct {
	x    *explorer
	w    *Workload
	out  *recording
	disk *vfs.Mem
	life int
	skip int // steps of the first life that the base has done
	// before is the disk of the life before anything opened it.
	before *vfs.Mem

	mu      sync.Mutex // guards all below
	open    *store     // nil while there is none
	outside bounds     // hold while there is none
	acked   bounds     // lo and kill by acknowledgements
	hist    *history
	err     error
	first   int // index in out.cuts of the life's first cut
	// backups are those begun, and did what the store has gone through: neither is
	// changed in place.
	backups []backup
	did     features
	made    int // backups
	// compactions of the open store at the last look; the workload's goroutine.
	compactions int64
}

// record runs the workload.
func (x *explorer) record(w *Workload) *recording {
	x.w = w
	r := &recorder{x: x, w: w, out: &recording{w: w}, disk: vfs.NewMem(), hist: &history{}}
	if b := x.base; b != nil {
		n := uint64(len(b.hist.commits))
		r.disk, r.hist, r.did, r.skip = b.disk.Snapshot(), b.hist.prefix(n), b.did, b.steps
		r.outside, r.out.offset = bounds{n, n, n}, b.cuts
	}
	var redo []commit
	for i := range w.lives {
		r.life, r.first = i, len(r.out.cuts)
		r.before = r.disk.Snapshot()
		r.disk.OnIO(r.onIO)
		ok := r.live(&w.lives[i], redo)
		r.disk.OnIO(nil)
		if !ok || i == len(w.lives)-1 {
			break
		}
		var err error
		if redo, err = r.crash(&w.lives[i]); err != nil {
			break
		}
	}
	r.out.disk, r.out.hist, r.out.did = r.disk, r.hist, r.did
	return r.out
}

// now returns the bounds of this moment; mu is held.
func (r *recorder) now() bounds {
	if r.open == nil {
		return r.outside
	}
	b := bounds{lo: max(r.acked.lo, r.open.DurableLSN()), hi: r.open.Last()}
	b.kill = max(b.lo, r.acked.kill)
	return b
}

// onIO is the hook of the file system.
func (r *recorder) onIO(op vfs.Op) {
	snap := r.disk.Snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.seal()
	r.out.cuts = append(r.out.cuts, &cut{disk: snap, op: op, life: r.life, bounds: b, hist: r.hist, backups: r.backups, did: r.did})
}

// seal raises the lower bounds of the last cut to those of now; mu is held.
func (r *recorder) seal() bounds {
	b := r.now()
	if n := len(r.out.cuts); n > r.first {
		c := r.out.cuts[n-1]
		c.lo, c.kill, c.backups = max(c.lo, b.lo), max(c.kill, b.kill), r.backups
	}
	return b
}

// settings returns those of one open; ids and salts are never used twice.
func (r *recorder) settings(open int) Settings {
	s := r.w.Settings
	s.Rand = newRand(mix(mix(r.w.Seed, uint64(r.life)), uint64(open)))
	return s
}

// live runs one life. It returns false when the life broke something.
func (r *recorder) live(l *life, redo []commit) bool {
	skip := 0
	if r.life == 0 {
		skip = r.skip
	}
	st, err := r.openStore(r.settings(skip))
	if err != nil {
		if st != nil {
			st.Close()
		}
		return r.fail("open", err)
	}
	for _, c := range redo {
		if c.how == bySubmit {
			c.how = byApply
		}
		if err == nil {
			err = r.commit(st, c)
		}
	}
	for i := skip; i < len(l.steps) && err == nil; i++ {
		r.x.quiesce(r.disk)
		r.begins()
		if l.steps[i].kind == stepReopen {
			if err = r.closeStore(st); err == nil {
				st, err = r.openStore(r.settings(i + 1))
			}
			continue
		}
		if err = r.step(st, &l.steps[i]); err == nil {
			r.x.quiesce(r.disk)
			r.note(st, &l.steps[i])
		}
	}
	r.x.quiesce(r.disk)
	r.ends()
	if err == nil {
		err = r.verify(st)
	}
	if st != nil {
		if cerr := r.closeStore(st); err == nil {
			err = cerr
		}
	}
	if err == nil {
		err = r.err
	}
	if ferr := r.hist.finish(); err == nil {
		err = ferr
	}
	if err != nil {
		return r.fail("workload", err)
	}
	return true
}

// begins notes where a step of the first life begins, and ends where the life
// closes.
func (r *recorder) begins() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life == 0 {
		r.out.begin = append(r.out.begin, len(r.out.cuts))
	}
}

func (r *recorder) ends() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life == 0 {
		r.out.end = len(r.out.cuts)
	}
}

func (r *recorder) fail(kind string, err error) bool {
	v := &Violation{Kind: kind, Clause: clauseOf(kind), Detail: fmt.Sprintf("life %d: %v", r.life, err), Replay: replayID(r.w), Workload: r.w.String()}
	if kind == "open" {
		v.Disk = r.before
	}
	r.out.broken = append(r.out.broken, v)
	if r.hist.finish() != nil || kind != "open" {
		r.out.cuts = r.out.cuts[:r.first]
	}
	return false
}

// openStore opens the store; what it then shows bounds all that follows.
func (r *recorder) openStore(s Settings) (*store, error) {
	if err := r.hist.finish(); err != nil {
		return nil, err
	}
	st, n, err := r.x.open(r.x.under(r.disk), s, r.hist, r.outside.kill, r.outside.hi)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < r.outside.kill || n > r.outside.hi {
		err = fmt.Errorf("opened with LSN %d, bounds are %d to %d", n, r.outside.kill, r.outside.hi)
		return st, err
	}
	if n < uint64(len(r.hist.commits)) {
		r.hist = r.hist.prefix(n)
	}
	r.acked = bounds{lo: n, kill: n}
	r.open, r.compactions = st, 0
	r.seal()
	if k := len(r.out.cuts); k > r.first {
		r.out.cuts[k-1].hi = n
	}
	return st, nil
}

func (r *recorder) closeStore(st *store) error {
	if err := st.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := st.Last()
	r.outside = bounds{last, last, last}
	r.open = nil
	r.seal()
	return nil
}

// crash makes the disk of the next life from a cut of this one, and returns
// what the next life does again.
func (r *recorder) crash(l *life) ([]commit, error) {
	cuts := r.out.cuts[r.first:]
	if len(cuts) == 0 {
		return nil, nil // a life without any I/O: the next finds what this one found
	}
	c := cuts[int(l.at*float64(len(cuts)))]
	r.outside = c.bounds
	if l.kill {
		r.disk = c.disk.Snapshot()
	} else {
		r.disk = r.x.cutBySeed(c.disk, l.seed)
		r.outside.kill = c.lo
	}
	r.open = nil
	r.hist, r.did = c.hist, c.did
	r.backups = nil
	for _, b := range c.backups {
		if b.done {
			r.backups = append(r.backups, b)
		}
	}
	// What the next life finds is known before it begins: the open is the same.
	st, n, err := r.x.open(r.x.under(r.disk.Snapshot()), r.settings(1000), c.hist, r.outside.kill, r.outside.hi)
	if err != nil {
		return nil, nil // the next life reports it
	}
	st.Close()
	if !l.redo || n > uint64(len(c.hist.commits)) {
		return nil, nil
	}
	rest := c.hist.commits[n:]
	return rest[:min(len(rest), 4)], nil
}

// verify compares the live store with the history.
func (r *recorder) verify(st *store) error {
	if err := r.hist.finish(); err != nil {
		return err
	}
	n := st.Last()
	if n != uint64(len(r.hist.commits)) {
		return fmt.Errorf("last LSN is %d after %d commits", n, len(r.hist.commits))
	}
	sum := uint64(0)
	if err := st.Scan(func(space int, k, v []byte) { sum += pairHash(space, k, v) }); err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	if sum != r.hist.hashes[n] {
		return fmt.Errorf("the live store is not S(%d): %s", n, r.hist.diff(contents(st)))
	}
	return nil
}

func contents(st *store) map[string]string {
	got := map[string]string{}
	_ = st.Scan(func(space int, k, v []byte) { got[keyName(space, k)] = string(v) }) // an error has been reported
	return got
}

// lockedRand is a source of ids and salts that repeats.
type lockedRand struct {
	mu  sync.Mutex
	src *rand.ChaCha8
}

func newRand(seed uint64) io.Reader {
	var key [32]byte
	for i := range key {
		key[i] = byte(mix(seed, uint64(i)))
	}
	return &lockedRand{src: rand.NewChaCha8(key)}
}

func (l *lockedRand) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.src.Read(p)
}
