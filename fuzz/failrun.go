package fuzz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// failer makes the runs of Fail, one after the other.
type failer struct {
	ctx   context.Context
	cfg   *FailConfig
	rep   *FailReport
	start time.Time
	made  int // faults so far, those that were left out included
}

// noFault is a fault that no run meets.
var noFault = fault{call: vfs.CallMark, k: 1}

// workload makes all runs of a workload; false: a bound was met.
func (f *failer) workload(w *Workload) bool {
	r, ok := f.run(w, noFault)
	if !ok || len(r.wrongs) > 0 && f.cfg.only == nil {
		return false // nothing can be said of a disk that fails
	}
	f.rep.Calls += int64(r.calls[vfs.CallNone])
	list := faults(r.calls)
	if f.cfg.only != nil {
		list = []fault{*f.cfg.only}
	}
	for _, one := range list {
		f.made++
		if every := max(f.cfg.Every, 1); f.cfg.only == nil && (f.made+f.cfg.First)%every != 0 {
			continue
		}
		if f.full() {
			return false
		}
		r, ok := f.run(w, one)
		if !ok {
			return false
		}
		f.rep.Runs++
		f.rep.outcomes[one.call][r.outcome()]++
	}
	return true
}

func (f *failer) full() bool {
	most := f.cfg.MaxViolations
	if most == 0 {
		most = 20
	}
	return f.ctx.Err() != nil || len(f.rep.Violations) >= most || f.cfg.Budget > 0 && time.Since(f.start) > f.cfg.Budget
}

// run makes one run; false: it hangs, or has left behind what it should not.
func (f *failer) run(w *Workload, one fault) (*failRun, bool) {
	r := &failRun{f: f, w: w, fault: one, disk: vfs.NewMem(), led: newLedger()}
	r.in = vfs.NewInjector(r.disk)
	r.rule = r.in.Add(one.rule(w))
	r.teller, _ = f.cfg.Engine.(FailureTeller)
	if f.cfg.Progress != nil {
		f.cfg.Progress(r.line(""))
	}
	bubble := f.cfg.Bubble
	if bubble == nil {
		bubble = func(f func()) { f() }
	}
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		bubble(r.run)
	}()
	hang := f.cfg.Hang
	if hang == 0 {
		hang = 30 * time.Second
	}
	timer := time.NewTimer(hang)
	defer timer.Stop()
	kind, detail := "", ""
	select {
	case p := <-done:
		if p != nil { // the bubble found that all wait, or that some are left
			kind, detail = "waits for ever, or leaves goroutines behind", fmt.Sprint(p)
		}
	case <-timer.C:
		stacks := make([]byte, 1<<16)
		kind, detail = "hangs", fmt.Sprintf("for %v, at %v\n%s", hang, r.at.Load(), stacks[:runtime.Stack(stacks, true)])
	}
	if kind != "" {
		f.rep.Violations = append(f.rep.Violations, &Violation{Kind: kind, Detail: detail, Replay: r.line(""), Workload: w.String()})
		return r, false
	}
	f.rep.Violations = append(f.rep.Violations, r.wrongs...)
	f.rep.States += r.states
	f.rep.Refusals += r.refused
	f.rep.Lost += r.lost
	return r, true
}

// failRun is one run of a workload, with one fault.
type failRun struct {
	f      *failer
	w      *Workload
	fault  fault
	disk   *vfs.Mem
	in     *vfs.Injector
	rule   *vfs.Armed
	teller FailureTeller
	at     atomic.Value // string: what is being done

	st       *store // nil while there is none
	led      *ledger
	backups  []failBackup
	opens    int
	trains   int
	repaired bool
	calls    callCounts // until the repair
	// strict: the disk was well when the store was opened.
	strict bool
	// sick: the store takes no commits until it is opened again; dying is how many
	// steps it has been asked for more.
	sick  bool
	dying int

	// What was seen: any error, a poison, an open that failed.
	saw, poison, shut bool
	open              atomic.Int64 // handles
	states            int64
	refused, lost     int64
	wrongs            []*Violation
}

// failBackup is a directory that a backup was made in, or was to be.
type failBackup struct {
	dir  string
	done bool
	ws   map[uint64]world // of the states it may hold
}

func (r *failRun) outcome() outcome {
	switch {
	case r.rule.Hits() == 0:
		return missed
	case r.shut:
		return shut
	case r.poison:
		return poisoned
	case r.saw:
		return inPlace
	}
	return harmless
}

func (r *failRun) line(cut string) string {
	s := r.fault.String()
	if cut != "" {
		s += " cut=" + cut
	}
	return s + " of " + r.w.String()
}

// wrong reports a violation.
func (r *failRun) wrong(disk *vfs.Mem, cut, kind, format string, args ...any) {
	if len(r.wrongs) < 3 {
		detail := fmt.Sprintf(format, args...)
		r.wrongs = append(r.wrongs, &Violation{Kind: kind, Detail: detail, Replay: r.line(cut), Workload: r.w.String(), Disk: disk})
	}
}

// well says that no call will fail any more.
func (r *failRun) well() bool {
	return r.repaired || r.fault == noFault || !r.fault.forever && r.rule.Hits() > 0
}

// repair makes the disk well.
func (r *failRun) repair() {
	r.rule.Remove()
	r.repaired = true
	for call := range r.calls {
		r.calls[call] = r.in.Count(vfs.Call(call))
	}
}

func (r *failRun) quiesce() {
	if r.f.cfg.Settle != nil {
		r.f.cfg.Settle()
	}
}

func (r *failRun) settings() Settings {
	s := r.w.Settings
	r.opens++
	s.Rand = newRand(mix(r.w.Seed, uint64(r.opens)))
	return s
}

// run is the whole of it.
func (r *failRun) run() {
	defer func() {
		if p := recover(); p != nil {
			r.wrong(nil, "", "panic", "%v at %v\n%s", p, r.at.Load(), debug.Stack())
		}
	}()
	before := runtime.NumGoroutine()
	r.openStore()
	first := true
	steps := r.w.lives[0].steps
	for i := 0; i < len(steps) && r.st != nil && len(r.wrongs) == 0 && r.led.unsure < maxUnsure; i++ {
		r.at.Store(steps[i].String())
		r.step(&steps[i])
		r.quiesce()
		r.look()
		if r.rule.Hits() > 0 && first { // whoever saw it
			first = false
			r.crash("hit")
		}
		// Once it is asked for more although it takes nothing.
		if r.sick && r.st != nil {
			if r.dying++; r.dying > 1 || i == len(steps)-1 {
				r.reopen()
			}
		}
	}
	if len(r.wrongs) > 0 {
		r.leave()
		return
	}
	r.crash("end")
	r.repair()
	if r.st != nil && !r.sick {
		r.inPlace()
	}
	if r.st != nil {
		r.closeStore()
	}
	r.crash("closed")
	r.openStore()
	if r.st != nil {
		r.at.Store("audit")
		if a, ok := r.f.cfg.Engine.(Auditor); ok {
			if err := a.Audit(r.disk, r.st.Store); err != nil {
				r.wrong(nil, "", "stray files", "%v", err)
			}
		}
		_ = r.commit(commit{ops: []Op{{Key: []byte("last"), Value: []byte{1}}}}, 0)
		r.look()
	}
	r.leave()
	r.leftovers(before)
}

// maxUnsure commits of which nobody knows end a run: the states double with each.
const maxUnsure = 10

func (r *failRun) leave() {
	if r.st != nil {
		r.closeStore()
	}
}

// leftovers looks for goroutines and handles that nobody needs any more.
func (r *failRun) leftovers(before int) {
	r.at.Store("end")
	for wait := time.Microsecond; runtime.NumGoroutine() > before && wait < 2*time.Second; wait *= 2 {
		r.quiesce()
		time.Sleep(wait)
	}
	if runtime.NumGoroutine() > before {
		// Some are the runtime's own, which the stacks do not show.
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if n := bytes.Count(stacks, []byte("\n\ngoroutine ")) + 1 - before; n > 0 {
			r.wrong(nil, "", "goroutines are left", "%d of them:\n%s", n, stacks)
		}
	}
	if n := r.open.Load(); n != 0 {
		r.wrong(nil, "", "files are left open", "%d of them", n)
	}
}

// erred judges an error, and says what it means.
func (r *failRun) erred(what any, err error) Failure {
	r.saw = true
	if r.strict {
		r.wrong(nil, "", "an error on a healthy disk", "%v: %v", what, err)
	}
	meaning := Unknown
	if r.teller != nil {
		meaning = r.teller.Failure(err)
		if meaning == Improper || !r.caused(err) {
			r.wrong(nil, "", "an improper error", "%v: %v, for %v", what, err, ways[r.fault.way].err)
		}
	}
	return meaning
}

// caused says whether the fault can be what an error is about: what was done
// although the call said that it was not can be in the way of its repetition.
func (r *failRun) caused(err error) bool {
	w := ways[r.fault.way]
	return errors.Is(err, w.err) || w.late && (errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist))
}

// failed takes down an error of a call that writes.
func (r *failRun) failed(what any, err error) Failure {
	meaning := r.erred(what, err)
	if meaning == Unknown || meaning == Poisoned {
		r.sick, r.poison = true, true
	}
	return meaning
}

// openStore opens the store, with the fault still there and then without. What it
// shows is what it has from then on.
func (r *failRun) openStore() {
	r.at.Store("open")
	r.sick, r.dying = false, 0
	for try := 0; r.st == nil; try++ {
		well := r.well()
		st, err := r.f.cfg.Engine.Open(&handles{FS: r.in, open: func(n int) { r.open.Add(int64(n)) }}, r.settings())
		switch {
		case err == nil:
			r.st, r.strict = newStore(st), well
		case well:
			r.wrong(r.disk.Snapshot(), "", "open fails on a healthy disk", "%v", err)
			return
		default:
			r.strict = false
			r.shut = true
			r.erred("open", err)
			if try > 0 {
				r.crash("shut")
				r.repair()
			}
		}
	}
	r.at.Store("scan after open")
	ws := r.led.after(r.led.kill)
	sum, err := scan(r.st)
	if err == nil {
		w, ok := ws[sum]
		if !ok {
			r.wrong(nil, "", "a wrong state after an open", "%s", nearest(ws, contents(r.st)))
		}
		ws = map[uint64]world{sum: w}
	} else {
		r.erred("scan", err)
	}
	r.led.rebase(ws)
}

func (r *failRun) closeStore() {
	r.at.Store("close")
	err := r.st.Store.Close()
	r.st = nil
	if err == nil {
		r.led.settled()
		return
	}
	r.failed("close", err)
}

// reopen closes a store and opens it again.
func (r *failRun) reopen() {
	r.closeStore()
	r.openStore()
	r.quiesce()
}

// inPlace checks that a store that was refused something does all again once the
// disk is well.
func (r *failRun) inPlace() {
	c := commit{ops: []Op{{Key: []byte("again"), Value: []byte{2}}}}
	calls := []func() error{func() error { return r.commit(c, 0) }}
	for _, s := range []step{{kind: stepSync}, {kind: stepCheckpoint}, {kind: stepCompact}} {
		if call := r.settler(&s); call != nil {
			calls = append(calls, func() error { return r.settle(&s, call) })
		}
	}
	for i, call := range calls {
		for wait := 10 * time.Millisecond; ; wait *= 2 {
			err := call()
			if err == nil {
				break
			}
			if r.sick {
				return
			}
			if wait > 20*time.Second {
				r.wrong(nil, "", "refuses for ever", "call %d of those after the repair: %v", i, err)
				return
			}
			time.Sleep(wait)
		}
	}
	r.quiesce()
	r.look()
}

// step does one step.
func (r *failRun) step(s *step) {
	switch s.kind {
	case stepCommit:
		_ = r.commit(s.commits[0][0], 0)
	case stepPipeline:
		r.pipeline(s.commits[0])
	case stepReopen:
		r.reopen()
	case stepIdle:
		time.Sleep(3 * markDelay)
	case stepBackup:
		r.backup()
	default:
		_ = r.settle(s, r.settler(s))
	}
}

// settler returns the call of a step after which all is durable, nil where the
// store has none.
func (r *failRun) settler(s *step) func() error {
	switch {
	case s.kind == stepSync && r.st.syncer != nil:
		return r.st.syncer.Sync
	case s.kind == stepCheckpoint && r.st.checkpoint != nil:
		return r.st.checkpoint.Checkpoint
	case s.kind == stepCompact && r.st.compacter != nil:
		return r.st.compacter.Compact
	}
	return nil
}

func (r *failRun) settle(s *step, call func() error) error {
	err := call()
	if err != nil {
		r.failed(s, err)
	} else {
		r.led.settled()
	}
	return err
}

func (r *failRun) backup() {
	b := failBackup{dir: fmt.Sprintf("backup%d", len(r.backups)+1), ws: r.led.now()}
	_, err := r.st.backups.Backup(b.dir)
	if b.done = err == nil; b.done {
		r.led.settled()
	} else {
		r.failed("backup", err)
	}
	r.backups = append(r.backups, b)
}

// commit does a commit with the keyspaces that it needs, and takes down what was
// said of it.
func (r *failRun) commit(c commit, train int) error {
	if c.ops[0].Kind == Create {
		spaces, err := r.st.spaces()
		if err != nil {
			r.erred("keyspaces", err)
		}
		if err != nil || slices.Contains(spaces, c.ops[0].Space) {
			return err
		}
	}
	if err := r.ensure(c); err != nil {
		return err
	}
	return r.do(c, train)
}

func (r *failRun) do(c commit, train int) (err error) {
	st, l := r.st, c.level
	switch {
	case c.ops[0].Kind == Create:
		l = r.w.Settings.Level
		_, err = st.spacer.Create(c.ops[0].Space)
	case c.ops[0].Kind == Drop:
		l = r.w.Settings.Level
		_, err = st.spacer.Drop(c.ops[0].Space)
	case c.how == bySubmit:
		var wait func() (uint64, error)
		if wait, err = st.submitter.Submit(c.ops, c.level); err == nil {
			_, err = wait()
		}
	case c.how == byUpdate:
		_, c.seen, err = st.updater.Update(c.ops, c.level)
	default:
		_, err = st.Store.Apply(c.ops, c.level)
	}
	r.told(c, l, train, err)
	return err
}

// ensure makes the keyspaces that a commit needs.
func (r *failRun) ensure(c commit) error {
	if c.how == byUpdate || c.ops[0].Kind == Create || !slices.ContainsFunc(c.ops, func(op Op) bool { return op.Space > 0 }) {
		return nil
	}
	spaces, err := r.st.spaces()
	if err != nil {
		r.erred("keyspaces", err)
		return err
	}
	for _, op := range c.ops {
		if op.Space == 0 || slices.Contains(spaces, op.Space) {
			continue
		}
		spaces = append(spaces, op.Space)
		if err := r.do(commit{ops: []Op{{Kind: Create, Space: op.Space}}}, 0); err != nil {
			return err
		}
	}
	return nil
}

func (r *failRun) pipeline(cs []commit) {
	for _, c := range cs {
		if r.ensure(c) != nil {
			return
		}
	}
	r.trains++
	waits := make([]func() (uint64, error), len(cs))
	errs := make([]error, len(cs))
	for i, c := range cs {
		waits[i], errs[i] = r.st.submitter.Submit(c.ops, c.level)
	}
	for i, c := range cs {
		if errs[i] == nil {
			_, errs[i] = waits[i]()
		}
		r.told(c, c.level, r.trains, errs[i])
	}
}

// told takes down what was said of a commit.
func (r *failRun) told(c commit, l Level, train int, err error) {
	switch {
	case err == nil:
		if r.sick && r.teller != nil {
			r.wrong(nil, "", "an acknowledgement behind a poison", "%s", c)
		}
		r.led.acked(c, l, train)
		if len(r.led.now()) == 0 {
			r.wrong(nil, "", "an acknowledgement of what cannot be", "%s", c)
		}
	case errors.Is(err, ErrNoSpace):
		r.refused++
	case r.failed(c, err) == Unknown:
		r.led.unknown(c, train)
		r.lost++
	default:
		r.refused++
	}
}

// look reads all that the store shows.
func (r *failRun) look() {
	if r.st == nil {
		return
	}
	ws := r.led.now()
	sum, err := scan(r.st)
	if err != nil {
		r.erred("scan", err)
		return
	}
	w, ok := ws[sum]
	if !ok {
		r.wrong(nil, "", "a wrong state is shown", "%s", nearest(ws, contents(r.st)))
		return
	}
	r.gets(r.st, w, ws, func(name string, err error) { r.erred("get "+name, err) }, func(name string) {
		r.wrong(nil, "", "get differs from scan", "%s", name)
	})
}

// gets finds each key of one state, and none that only others have.
func (r *failRun) gets(st *store, w world, ws map[uint64]world, erred func(name string, err error), differs func(name string)) {
	if st.getter == nil {
		return
	}
	get := func(name, want string, there bool) {
		space, key := spaceOf(name)
		if key == "" {
			return
		}
		if v, ok, err := st.getter.Get(space, []byte(key)); err != nil {
			erred(name, err)
		} else if ok != there || string(v) != want {
			differs(name)
		}
	}
	for name, want := range w.live {
		get(name, want, true)
	}
	for _, other := range ws {
		for name := range other.live {
			if _, ok := w.live[name]; !ok {
				get(name, "", false)
			}
		}
	}
}
