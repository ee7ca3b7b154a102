package fuzz

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// Failure says what an error of a store means.
type Failure uint8

// What errors mean.
const (
	// Unknown: the commit may be there or not.
	Unknown Failure = iota
	// Refused: the commit is not there, or nothing was changed; a later call may
	// do better.
	Refused
	// Poisoned: as Refused, and nothing is committed until the store is opened
	// again.
	Poisoned
	// Improper: no error for a disk that fails: it says that stored bytes are
	// damaged, say.
	Improper
)

// FailureTeller is an Engine that knows what its errors mean. Each of them wraps
// the error of the disk behind it, and after one that is Unknown the store is
// poisoned. Without it every error is Unknown, and the store is opened again
// after each.
type FailureTeller interface {
	// Failure sorts an error, which is not nil, of any call.
	Failure(err error) Failure
}

// FailConfig says which calls Fail makes fail.
type FailConfig struct {
	// Engine under test; nil: Forebay.
	Engine Engine
	// Workloads are texts (ParseWorkload) of which the first life is run, and
	// Seeds those of workloads that are drawn; without any: FailWorkloads.
	Workloads []string
	Seeds     []uint64
	// Every is to make one run in so many, 0 is all; First is the first of them.
	Every, First int
	// Cuts is how many power cuts by seed follow each crash beside those that lose
	// and keep all; 0: 2.
	Cuts int
	// Budget bounds the time, 0: no bound; the report says whether it ended the
	// run.
	Budget time.Duration
	// MaxViolations ends the run when so many were found; 0: 20.
	MaxViolations int
	// Hang is how long, by the real clock, one run may take; 0: 30 s. One that
	// takes longer is reported and ends everything, because it goes on.
	Hang time.Duration
	// Bubble and Settle are those of Config.
	Bubble func(f func())
	Settle func()
	// Progress, if not nil, is called before each run with the line that makes it
	// again, for whoever looks for what ended the process.
	Progress func(line string)

	only *fault // the one that Replay makes
	cut  string // the one crash of it that is looked at
}

// FailWorkloads are the workloads of Fail without any: each goes through a part
// of what a store does, with few calls. Together they do everything.
var FailWorkloads = []string{
	"| d{a=20} w{b=30} b{c=10} sync d{-a} w{b=40 c=50} d{a=10} w{-c}",
	"policy=never | w{a=20} b{b=700} w*{c=30} pipeline[d{a=5} w{b=6} d{c=7}] b{d=9} sync w{-a}",
	"align=4096 nothing-assumed | d{a=20} w{b=3000} b{c=10} sync d{-a} pipeline[d{d=5} d{e=6}]",
	"mechanism=dsync | d{a=20} w{b=300} d{c=10} checkpoint d{a=9} reopen d{b=7}",
	"mechanism=direct align=4096 | d{a=20} w{b=300} d{c=10} checkpoint d{a=9}",
	"level=w | d{+s1/} d{s1/a=20 b=30} d&{s2/x=10 y=10} w{s1/b=5 s2/x=6} d{-s1/} d{-[a,z)} d{+s1/} d{s1/a=1}",
	"| d{a=100 b=9} checkpoint d{b=100 -a} checkpoint d{-[a,c) c=9} compact d{d=1} reopen d{e=5} checkpoint",
	"logdir=true | d{a=100} checkpoint d{b=100} reopen d{c=9} compact",
	"table=4096 | d{a=3000} d{b=3000} w{c=3000} d{a=2000} d{b=2500} compact w{d=3000} d{-[a,c)} checkpoint",
	"table=1048576 | d{a=6000} d{b=6000} w{c=6000} checkpoint d{a=6000} d{b=6000} d{c=6000} checkpoint d{a=5000} w{b=6000} d{c=6000} reopen d{d=6000}",
	"compression=zstd | d{a=100} checkpoint d{b=100} backup d{c=3} w{-a} backup",
	"mark=1ms policy=interval | w{a=20} idle d{b=30} idle d&{a=4 c=5} idle reopen idle",
}

// fault is what is done to one run: the k-th call of a kind fails in a way.
type fault struct {
	call vfs.Call // CallNone: of every kind
	k    int
	way  int // in ways
	// forever: all that follow it fail too, of that kind.
	forever bool
}

// ways are how a call fails, by name.
var ways = []struct {
	name  string
	err   error
	short bool // a few bytes are moved first
	late  bool // what was asked is done first
	calls []vfs.Call
}{
	{name: "EIO", err: syscall.EIO},
	{name: "ENOSPC", err: syscall.ENOSPC},
	{name: "EINTR", err: syscall.EINTR},
	{name: "short", err: syscall.EIO, short: true, calls: []vfs.Call{vfs.CallRead, vfs.CallWrite, vfs.CallZero}},
	{name: "late", err: syscall.EIO, late: true, calls: []vfs.Call{
		vfs.CallCreate, vfs.CallRemove, vfs.CallRename, vfs.CallMkdir, vfs.CallSyncDir, vfs.CallWrite, vfs.CallZero, vfs.CallSync, vfs.CallSyncData}},
	{name: "EMFILE", err: syscall.EMFILE, calls: []vfs.Call{vfs.CallCreate, vfs.CallOpen, vfs.CallLock, vfs.CallList}},
}

// rule returns the fault as an Injector knows it, for a workload.
func (f fault) rule(w *Workload) vfs.Rule {
	way := ways[f.way]
	r := vfs.Rule{Call: f.call, K: f.k, Forever: f.forever, Err: way.err, After: way.late}
	if way.short {
		if r.Part = 60; w.Settings.Mechanism == directDSync || w.Settings.Mechanism == direct {
			r.Part = vfs.DirectAlign
		}
	}
	return r
}

// Those of Settings.Mechanism that move whole blocks.
const (
	directDSync = 2
	direct      = 4
)

// String is the fault in a replay line.
func (f fault) String() string {
	s := fmt.Sprintf("%s#%d %s once", f.call, f.k, ways[f.way].name)
	if f.forever {
		s = strings.TrimSuffix(s, "once") + "forever"
	}
	return s
}

func parseFault(s string) (f fault, err error) {
	words := strings.Fields(s)
	if len(words) != 3 {
		return f, fmt.Errorf("fuzz: a fault is like \"write#3 EIO once\", not %q", s)
	}
	kind, k, _ := strings.Cut(words[0], "#")
	for f.call = vfs.CallNone; f.call.String() != kind; f.call++ {
		if f.call >= vfs.CallMark {
			return f, fmt.Errorf("fuzz: %q is no kind of call", kind)
		}
	}
	if f.k, err = strconv.Atoi(k); err != nil {
		return f, fmt.Errorf("fuzz: fault %q: %w", s, err)
	}
	for f.way = range ways {
		if ways[f.way].name == words[1] {
			f.forever = words[2] == "forever"
			return f, nil
		}
	}
	return f, fmt.Errorf("fuzz: %q is no way to fail", words[1])
}

// callCounts are how many calls of each kind there were, and of all.
type callCounts [vfs.CallMark]int

// faults lists those of a run of so many calls.
func faults(counts callCounts) (out []fault) {
	for call := vfs.CallNone; call < vfs.CallMark; call++ {
		for way, w := range ways {
			if call == vfs.CallNone && (w.calls != nil || w.err == syscall.EINTR) {
				continue // once is once, of every kind; a disk that dies
			}
			if w.calls != nil && !slices.Contains(w.calls, call) {
				continue
			}
			for k := 1; k <= counts[call]; k++ {
				if call != vfs.CallNone {
					out = append(out, fault{call: call, k: k, way: way})
				}
				if !w.late {
					out = append(out, fault{call: call, k: k, way: way, forever: true})
				}
			}
		}
	}
	return out
}

// outcome is what became of a run.
type outcome uint8

const (
	missed   outcome = iota // the call was not made this time
	harmless                // nobody saw an error
	inPlace                 // errors, but then all went on without a reopen
	poisoned                // no more commits until a reopen, which did
	shut                    // an open failed, and did not any more when the disk was well
	numOutcomes
)

var outcomeNames = [numOutcomes]string{"not met", "harmless", "in place", "poisoned", "not opened"}

// FailReport is what Fail did.
type FailReport struct {
	Workloads int
	// Calls is how many calls of the disk the workloads make without a fault, Runs
	// how many runs with one there were, States how many crash states of them were
	// opened.
	Calls, Runs, States int64
	// Refusals counts the commits that were refused with the state unchanged, and
	// Lost those of which nobody knows.
	Refusals, Lost int64
	// Complete: no bound ended the run.
	Complete   bool
	Violations []*Violation
	Seconds    float64

	outcomes [vfs.CallMark + 1][numOutcomes]int64 // by kind of call
}

// Table is the report as a table: for each kind of call how its faults ended.
func (r *FailReport) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-11s %8s", "call", "runs")
	for _, name := range outcomeNames {
		fmt.Fprintf(&b, " %10s", name)
	}
	row := func(name string, n [numOutcomes]int64) {
		all := int64(0)
		for _, v := range n {
			all += v
		}
		if all == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%-11s %8d", name, all)
		for _, v := range n {
			fmt.Fprintf(&b, " %10d", v)
		}
	}
	var sum [numOutcomes]int64
	for call, n := range r.outcomes {
		name := vfs.Call(call).String()
		if call == int(vfs.CallNone) {
			name = "all"
		}
		row(name, n)
		for i, v := range n {
			sum[i] += v
		}
	}
	row("sum", sum)
	fmt.Fprintf(&b, "\n%d workloads of %d calls, %d runs, %d crash states; %d commits refused, %d unknown; %d violations in %.1f s\n",
		r.Workloads, r.Calls, r.Runs, r.States, r.Refusals, r.Lost, len(r.Violations), r.Seconds)
	return b.String()
}

// Fail runs each workload once to count the calls that it makes of the disk, and
// then for each call, each way to fail (EIO, ENOSPC, EINTR, a part of the bytes
// and then EIO, EIO although all was done, out of file descriptors), once or for
// ever from then on, once more; and for each call with a disk that dies at it.
// The workload goes on after errors, and opens a store that is poisoned again,
// with the fault still there and then without. Then there are crashes: right
// behind the step that met the fault, at the end, and after a Close: of the process, and of
// the power with all that is unsynced lost, kept, or by seed.
//
// All must be well then: each of these states opens on a healthy disk, shows a
// legal state, and takes a durable commit that outlives one more power cut. A
// state is legal if it is one of the first commits, in order: each that was
// acknowledged, any of those of which an error leaves open whether they are there,
// whole, and none that was refused; and not fewer than the crash must leave.
// While it runs reads show only such states too, errors are of the right kind
// (FailureTeller), nothing hangs, and after the last Close no goroutine and no
// open file is left.
func Fail(ctx context.Context, cfg FailConfig) (FailReport, error) {
	rep := FailReport{Complete: true}
	if cfg.Engine == nil {
		cfg.Engine = Forebay{}
	}
	base := Config{Engine: cfg.Engine, Bubble: cfg.Bubble, Settle: cfg.Settle}
	if err := prepare(&base); err != nil {
		return rep, err
	}
	p := base.powers
	p.Writers = false
	var ws []*Workload
	for _, seed := range cfg.Seeds {
		ws = append(ws, newWorkload(seed, vfs.Model(seed%2), false, p))
	}
	if cfg.Workloads == nil && cfg.Seeds == nil {
		cfg.Workloads = FailWorkloads
	}
	for _, text := range cfg.Workloads {
		w, err := ParseWorkload(text)
		if err != nil {
			return rep, err
		}
		w.lives = w.lives[:1]
		p.limit(w)
		ws = append(ws, w)
	}
	start := time.Now()
	f := &failer{ctx: ctx, cfg: &cfg, rep: &rep, start: start}
	for _, w := range ws {
		w.lives, w.Concurrent = w.lives[:1], false
		w.lives[0] = life{steps: w.lives[0].steps}
		rep.Workloads++
		if !f.workload(w) {
			rep.Complete = false
			break
		}
	}
	rep.Seconds = time.Since(start).Seconds()
	return rep, nil
}

// ReplayFail makes the run of a violation of Fail again, from its Replay line, and
// looks at the one crash of it that the line names.
func ReplayFail(ctx context.Context, cfg FailConfig, line string) (FailReport, error) {
	head, text, ok := strings.Cut(line, " of ")
	head, cut, _ := strings.Cut(head, " cut=")
	if !ok {
		return FailReport{}, fmt.Errorf("fuzz: a replay line is like \"write#3 EIO once of | d{k=1}\", not %q", line)
	}
	f, err := parseFault(head)
	if err != nil {
		return FailReport{}, err
	}
	cfg.Workloads, cfg.Seeds, cfg.only, cfg.cut = []string{text}, nil, &f, cut
	return Fail(ctx, cfg)
}

// handles counts what a store has open: io.Closers of all kinds.
type handles struct {
	vfs.FS
	open func(n int)
}

type handle struct {
	vfs.File
	h *handles
}

type lockHandle struct {
	io.Closer
	h *handles
}

func (h *handles) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	h.open(1)
	return &handle{f, h}, nil
}

func (h *handles) lock(c io.Closer, err error) (io.Closer, error) {
	if err != nil {
		return nil, err
	}
	h.open(1)
	return &lockHandle{c, h}, nil
}

func (h *handles) Create(name string, m vfs.Mode) (vfs.File, error) {
	return h.file(h.FS.Create(name, m))
}
func (h *handles) Open(name string, m vfs.Mode) (vfs.File, error) { return h.file(h.FS.Open(name, m)) }
func (h *handles) Lock(name string) (io.Closer, error)            { return h.lock(h.FS.Lock(name)) }
func (h *handles) LockShared(name string) (io.Closer, error)      { return h.lock(h.FS.LockShared(name)) }
func (f *handle) Close() error                                    { f.h.open(-1); return f.File.Close() }
func (l *lockHandle) Close() error                                { l.h.open(-1); return l.Closer.Close() }
