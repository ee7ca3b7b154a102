package real

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/forebaydb/forebay"
)

// KillConfig configures Kill.
type KillConfig struct {
	// Child are the arguments with which this program runs Child.
	Child []string
	// Dir is where a directory for the stores is made; "": in memory, where there is
	// a place for that: what a killed process has written the system still has.
	Dir string
	// Kills is how many processes are killed.
	Kills int
	// Seed decides about settings, commits and moments. How far a process has come
	// at its moment is up to the machine.
	Seed uint64
	// Progress is called after each kill, if it is not nil, on Kill's goroutine.
	Progress func(*KillReport)

	boast bool
	// faults are the arguments of strace, with itself, under which children run;
	// those are not killed then.
	faults func(r *rand.Rand) []string
}

// KillReport is what Kill found.
type KillReport struct {
	Seed  uint64 `json:"seed"`
	Kills int    `json:"kills"`
	// Phases says in which phase of the store's work how many kills fell.
	Phases map[string]int `json:"phases"`
	// Again is how many fell in the recovery of what a kill in a recovery had left.
	Again int `json:"recovery_again"`
	Result
	// Recovery is the longest time in ms that a child took to open a store.
	Recovery float64 `json:"longest_recovery_ms"`
}

// Result is what a campaign found in the stores.
type Result struct {
	// Stores that were made. Each is used for several crashes.
	Stores int `json:"stores"`
	// Promised commits were acknowledged at a level that survives; Lost of them
	// were not there.
	Promised int `json:"acknowledged"`
	Lost     int `json:"lost"`
	// InFlight were there, whole, and not acknowledged. Dropped were acknowledged
	// at a level that promises nothing, and are gone.
	InFlight int `json:"in_flight"`
	Dropped  int `json:"dropped"`
	// Problem is what was wrong, "" when nothing was. The campaign ends with it,
	// and Store is then what is left of the store.
	Problem string  `json:"problem,omitempty"`
	Store   string  `json:"store,omitempty"`
	Seconds float64 `json:"seconds"`
}

func (r *Result) add(v verdict) {
	r.Promised += v.promised
	r.Lost += v.lost
	r.InFlight += v.flight
	r.Dropped += v.dropped
	if r.Problem == "" {
		r.Problem = v.problem
	}
}

const (
	// killsEach is how many kills a store goes through, on the average.
	killsEach = 20
	// openEach is how many kills are judged by an open that changes nothing, for
	// one by an open that recovers; so recoveries meet what a killed recovery has
	// left.
	openEach = 8
	// lifeMost bounds the time from an open to the kill.
	lifeMost = 60 * time.Millisecond
)

// killer is one campaign.
type killer struct {
	KillConfig
	rand *rand.Rand
	rep  *KillReport
	dir  string // of all stores

	line     *line
	settings settings
	lives    int
	fell     phase         // the last kill
	opening  time.Duration // how long an open takes, about
}

// Kill kills processes that write to a store, one after the other, and judges the
// store after each. It ends at the first problem, with a nil error. An error says
// that it could not go on, or that ctx ended.
func Kill(ctx context.Context, cfg KillConfig) (*KillReport, error) {
	start := time.Now()
	k := &killer{KillConfig: cfg, rand: rand.New(rand.NewPCG(cfg.Seed, 0)), opening: 3 * time.Millisecond}
	k.rep = &KillReport{Seed: cfg.Seed, Phases: map[string]int{}}
	dir, err := makePlace(cfg.Dir, "forebay-kill-")
	if err != nil {
		return nil, err
	}
	k.dir = dir
	for k.rep.Kills < cfg.Kills && k.rep.Problem == "" && err == nil {
		if err = ctx.Err(); err == nil {
			err = k.round(ctx)
		}
		k.rep.Seconds = time.Since(start).Seconds()
		if cfg.Progress != nil {
			cfg.Progress(k.rep)
		}
	}
	if k.rep.Problem != "" {
		k.rep.Store = k.store()
		return k.rep, err
	}
	return k.rep, errors.Join(err, os.RemoveAll(dir))
}

func (k *killer) store() string { return filepath.Join(k.dir, fmt.Sprintf("store-%d", k.rep.Stores)) }

// round is one life of a store, that ends in a kill, and a look at what it left.
func (k *killer) round(ctx context.Context) error {
	if k.line == nil || k.rand.IntN(killsEach) == 0 {
		if err := os.RemoveAll(k.store()); err != nil {
			return err
		}
		k.rep.Stores++
		k.settings = newSettings(k.rand, mechanisms(k.dir))
		k.settings.Boast = k.boast
		k.line = newLine(k.settings.Seed)
		k.lives, k.fell = 0, phaseStart
	}
	k.lives++
	l := newLife(k.lives)
	if err := k.live(ctx, l); err != nil || k.rep.Problem != "" {
		return err
	}
	k.rep.Kills++
	l.last = l.fell()
	k.rep.Phases[l.last.String()]++
	if l.last == phaseOpen && k.fell == phaseOpen {
		k.rep.Again++
	}
	k.fell = l.last
	if l.opened && l.shown != k.line.base {
		k.rep.Problem = fmt.Sprintf("life %d found the store at LSN %d; before it was at %d", l.number, l.shown, k.line.base)
		return nil
	}
	return k.look(l, k.rand.IntN(openEach) != 0)
}

// look opens what is left, and judges it.
func (k *killer) look(l *life, readOnly bool) error {
	opts := k.settings.options(nil)
	opts.ReadOnly = readOnly
	db, err := forebay.Open(k.store(), opts)
	if errors.Is(err, fs.ErrNotExist) && readOnly {
		// The store was not made yet.
		k.rep.add(k.line.compare(l, processCrash, 0, &found{state: state{}}))
		return nil
	}
	if err != nil {
		k.rep.Problem = fmt.Sprintf("after life %d it does not open: %v; %s", l.number, err, &k.settings)
		return nil
	}
	v, err := k.line.judge(l, processCrash, db)
	if err != nil {
		v.say("it cannot be read: %v", err)
	}
	if !readOnly {
		if _, err := db.Verify(context.Background()); err != nil {
			v.say("it does not verify: %v", err)
		}
	}
	if err := db.Close(); err != nil {
		v.say("it does not close: %v", err)
	}
	if v.problem != "" {
		v.problem = fmt.Sprintf("after life %d, killed in %v: %s; %s", l.number, l.last, v.problem, &k.settings)
	}
	k.rep.add(v)
	return nil
}

// aim is when a child is to be killed: so long after a phase has begun.
type aim struct {
	phase phase
	delay time.Duration
}

func (k *killer) aim() aim {
	upTo := func(d time.Duration) time.Duration { return time.Duration(k.rand.Int64N(int64(d))) }
	switch n := k.rand.IntN(100); {
	case n < 40:
		return aim{phaseOpen, upTo(k.opening)}
	case n < 54:
		return aim{phaseCheckpoint, upTo(2 * time.Millisecond)}
	case n < 68:
		return aim{phaseCompaction, upTo(2 * time.Millisecond)}
	case n < 75:
		return aim{phaseLog, upTo(time.Millisecond)}
	case n < 82:
		return aim{phaseBackup, upTo(4 * time.Millisecond)}
	}
	return aim{phaseWrite, upTo(lifeMost / 2)}
}

// live runs a child, notes what it says, and kills it. One under which calls fail
// ends by itself.
func (k *killer) live(ctx context.Context, l *life) error {
	o := &loadOrder{Settings: k.settings, Life: l.number, Dir: k.store(), Scratch: k.store() + "-copy"}
	var under []string
	if k.faults != nil {
		under, o.Faults = k.faults(k.rand), 4*lifeMost
	}
	cmd, err := command(ctx, under, k.Child)
	if err != nil {
		return err
	}
	told, err := json.Marshal(order{Load: o})
	if err != nil {
		return err
	}
	var complaint bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(told), &complaint
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a child: %w", err)
	}
	if k.faults != nil {
		k.follow(l, stdout, aim{}, func(time.Duration) {})
	} else {
		k.follow(l, stdout, k.aim(), func(d time.Duration) {
			time.AfterFunc(d, func() { _ = cmd.Process.Kill() }) // fails only when it has ended by itself
		})
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case o.Faults > 0 && err == nil:
	case err == nil || complaint.Len() > 0:
		k.rep.Problem = fmt.Sprintf("a child ended by itself: %s (%v); %s %q", bytes.TrimSpace(complaint.Bytes()), err, &k.settings, under)
	}
	return nil
}

// follow reads what a child says until its end, and calls kill with the time that
// is left to it.
func (k *killer) follow(l *life, stdout io.Reader, a aim, kill func(time.Duration)) {
	var opening time.Time
	aimed := false
	for in := bufio.NewReaderSize(stdout, 64<<10); ; {
		r, err := readReport(in)
		if err != nil {
			return // the end: Wait tells which
		}
		l.note(r)
		hit := false
		switch r.kind {
		case sayOpening:
			opening = time.Now()
			hit = a.phase == phaseOpen
		case sayOpened:
			took := time.Since(opening)
			if took > k.opening { // so that it goes to the median
				k.opening += k.opening / 16
			} else {
				k.opening -= k.opening / 16
			}
			k.rep.Recovery = max(k.rep.Recovery, took.Seconds()*1e3)
			hit = a.phase == phaseWrite
			kill(lifeMost) // if nothing else does
		case sayPhase:
			hit = r.phase == a.phase && l.opened
		}
		if hit && !aimed {
			aimed = true
			kill(a.delay)
		}
	}
}
