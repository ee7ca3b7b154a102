package real

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

const (
	// cutsEach is how many cuts a store goes through, on the average, and
	// cutsVolume how many a file system does before it is made anew with other
	// options.
	cutsEach   = 12
	cutsVolume = 40
	// cutMost bounds the time from an open to the cut.
	cutMost = 60 * time.Millisecond
)

// child is the child of Power.
func (c *PowerConfig) child(ctx context.Context, out io.Writer) error {
	p := &powerRun{PowerConfig: c, start: time.Now(), out: json.NewEncoder(out)}
	p.rep = PowerReport{Seed: c.Seed, Volumes: map[string]int{}, Phases: map[string]int{}}
	var systems sync.WaitGroup
	errs := make([]error, len(c.Systems))
	for i, s := range c.Systems {
		systems.Go(func() {
			t := &powered{powerRun: p, system: s, opening: 3 * time.Millisecond, rand: rand.New(rand.NewPCG(c.Seed, uint64(i)))}
			errs[i] = t.run(ctx)
		})
	}
	systems.Wait()
	p.rep.Seconds = time.Since(p.start).Seconds()
	return errors.Join(errors.Join(errs...), p.out.Encode(&p.rep))
}

// powerRun is a campaign on all file systems.
type powerRun struct {
	*PowerConfig
	start time.Time
	begun atomic.Int64

	mu  sync.Mutex // guards rep and out
	rep PowerReport
	out *json.Encoder
}

// powered is what a campaign does with one kind of file system.
type powered struct {
	*powerRun
	system string
	rand   *rand.Rand

	volume   *volume
	stores   int
	line     *line
	life     *life         // the last one
	opening  time.Duration // how long an open takes, about
	settings settings
}

func (t *powered) run(ctx context.Context) error {
	for made := 0; ; made++ {
		options := kinds[t.system].options
		v, err := newVolume(t.Dir, t.system, options[made%len(options)])
		if err != nil {
			return err
		}
		t.volume, t.line = v, nil
		more := true
		for cuts := 0; cuts < cutsVolume && more && err == nil; cuts++ {
			if more = t.begun.Add(1) <= int64(t.Cuts) && !t.broken(); more {
				err = errors.Join(ctx.Err(), t.round())
			}
		}
		if err == nil {
			err = t.last()
		}
		err = errors.Join(err, v.close(), os.Remove(v.dir))
		if err != nil || !more {
			return err
		}
	}
}

// last judges the store after the last cut of a file system.
func (t *powered) last() error {
	if t.line == nil || t.broken() {
		return nil
	}
	if err := t.volume.mount(); err != nil {
		return err
	}
	v := t.look()
	t.mu.Lock()
	t.rep.add(t.named(v))
	t.mu.Unlock()
	return t.volume.unmount()
}

// named adds to a problem where it was met.
func (t *powered) named(v verdict) verdict {
	if v.problem != "" {
		v.problem = fmt.Sprintf("%v, store %d, life %d, cut in %v: %s; %s", t.volume, t.stores, t.life.number, t.life.last, v.problem, &t.settings)
	}
	return v
}

// broken says whether a problem was found.
func (t *powered) broken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rep.Problem != ""
}

func (t *powered) store() string {
	return filepath.Join(t.volume.dir, fmt.Sprintf("store-%d", t.stores))
}

// round mounts the file system, judges what the last life has left, goes on with
// the store, and cuts the power.
func (t *powered) round() error {
	if err := t.volume.mount(); err != nil {
		return err
	}
	v, err := verdict{}, error(nil)
	if t.line != nil {
		v = t.look()
	}
	if t.line == nil || t.rand.IntN(cutsEach) == 0 {
		err = t.renew()
	}
	if err == nil && v.problem == "" {
		t.life = newLife(t.life.number + 1)
		err = t.live(&v)
	}
	return errors.Join(err, t.volume.unmount(), t.report(t.named(v)))
}

// renew begins a new store.
func (t *powered) renew() error {
	for _, dir := range []string{t.store(), t.store() + "-copy"} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	t.stores++
	t.settings = newSettings(t.rand, mechanisms(t.volume.dir))
	t.settings.Boast = t.Boast
	t.line, t.life = newLine(t.settings.Seed), newLife(0)
	return nil
}

// live opens the store and writes to it until the power is cut, sometimes while it
// is being opened.
func (t *powered) live(v *verdict) error {
	l := t.life
	var mu sync.Mutex // guards l
	tell := func(r report) { mu.Lock(); l.note(r); mu.Unlock() }
	cut, mains := make(chan error, 1), &outage{FS: vfs.OS()}
	shut := func() {
		mu.Lock()
		l.last = l.fell()
		mu.Unlock()
		mains.off.Store(true)
		cut <- t.volume.cut()
	}
	upTo := func(d time.Duration) time.Duration { return time.Duration(t.rand.Int64N(int64(d))) }
	inOpen := t.rand.IntN(3) == 0
	if inOpen {
		time.AfterFunc(upTo(t.opening*5/4), shut)
	}
	ph := &phases{FS: mains, tell: tell}
	opts := t.settings.options(ph)
	opts.OnEvent = ph.event
	tell(report{kind: sayOpening})
	start := time.Now()
	db, err := forebay.Open(t.store(), opts)
	if err != nil {
		if !mains.off.Load() {
			v.say("it does not open: %v (%s)", err, t.volume.room())
		}
		if inOpen {
			return <-cut
		}
		return t.volume.cut()
	}
	t.opening += (time.Since(start) - t.opening) / 8
	n := db.LastLSN()
	if n != t.line.base {
		v.say("it was opened at LSN %d, and was at %d", n, t.line.base)
	}
	tell(report{kind: sayOpened, lsn: n})
	if !inOpen {
		time.AfterFunc(upTo(cutMost), shut)
	}
	stop := make(chan struct{})
	var early sync.WaitGroup
	seed := t.rand.Uint64()
	early.Go(func() { keepEarly(stop, t.store(), seed) })
	w := &load{settings: t.settings, life: l.number, db: db, tell: tell, phases: ph, scratch: t.store() + "-copy"}
	if err = w.start(); err == nil {
		err = w.run(context.Background())
	}
	if !mains.off.Load() {
		v.say("before the cut: %v", err)
	}
	cerr := <-cut
	close(stop)
	early.Wait()
	if err == nil || !legal(err) {
		v.say("without power: %v", err)
	}
	// What it says now of what is durable must hold, too.
	l.note(report{kind: sayDurable, lsn: db.DurableLSN()})
	_ = db.Close() // it says the same, or nil where there was nothing left to write
	return cerr
}

// look judges the store after a cut, mostly by an open that changes nothing, so
// that the next life meets what the cut has left.
func (t *powered) look() (v verdict) {
	opts := t.settings.options(nil)
	opts.ReadOnly = t.rand.IntN(openEach) != 0
	db, err := forebay.Open(t.store(), opts)
	if errors.Is(err, fs.ErrNotExist) && opts.ReadOnly {
		return t.line.compare(t.life, powerCut, 0, &found{state: state{}}) // it was not made yet
	}
	if err != nil {
		v.say("it does not open: %v", err)
		return v
	}
	if v, err = t.line.judge(t.life, powerCut, db); err != nil {
		v.say("it cannot be read: %v", err)
	}
	if !opts.ReadOnly {
		if _, err := db.Verify(context.Background()); err != nil {
			v.say("it does not verify: %v", err)
		}
	}
	if err := db.Close(); err != nil {
		v.say("it does not close: %v", err)
	}
	return v
}

// report adds a cut to the report, and tells of it.
func (t *powered) report(v verdict) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rep.Cuts++
	t.rep.Volumes[t.volume.String()]++
	t.rep.Phases[t.life.last.String()]++
	if t.life.number == 1 {
		t.rep.Stores++
	}
	t.rep.add(v)
	t.rep.Seconds = time.Since(t.start).Seconds()
	return t.out.Encode(&t.rep)
}
