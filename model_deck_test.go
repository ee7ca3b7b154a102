package forebay_test

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A deck is a program: a seed for how the store is configured, and steps. A
// step has all it needs in its own seed, and takes the rest from the state of
// the model when it runs, so that any part of a deck is a deck.
type modelDeck struct {
	seed  uint64
	steps []modelStep
}

type modelStep struct {
	op   string
	seed uint32
}

func (s modelStep) rand() *modelRand {
	return &modelRand{rand.New(rand.NewPCG(uint64(s.seed), 77))}
}

// modelRand makes keys, values and choices.
type modelRand struct{ *rand.Rand }

func (r *modelRand) oneIn(n int) bool { return r.IntN(n) == 0 }

// makeDeck draws n steps. Each deck likes some operations more than others.
func makeDeck(seed uint64, n int) modelDeck {
	r := rand.New(rand.NewPCG(seed, 3))
	weights, sum := make([]float64, len(modelOps)), 0.0
	for i, o := range modelOps {
		weights[i] = float64(o.weight) * (0.25 + 1.5*r.Float64())
		sum += weights[i]
	}
	d := modelDeck{seed: seed, steps: make([]modelStep, 0, n)}
	for range n {
		x, i := r.Float64()*sum, 0
		for ; i < len(weights)-1 && x >= weights[i]; i++ {
			x -= weights[i]
		}
		d.steps = append(d.steps, modelStep{modelOps[i].name, r.Uint32()})
	}
	return d
}

// String is what -model.program takes.
func (d modelDeck) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", d.seed)
	for _, s := range d.steps {
		fmt.Fprintf(&b, ",%s.%d", s.op, s.seed)
	}
	return b.String()
}

func parseDeck(s string) (d modelDeck, err error) {
	parts := strings.Split(s, ",")
	if d.seed, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return d, err
	}
	for _, p := range parts[1:] {
		op, seed, _ := strings.Cut(p, ".")
		if !slices.ContainsFunc(modelOps, func(o modelAction) bool { return o.name == op }) {
			return d, fmt.Errorf("there is no operation %q", op)
		}
		n, err := strconv.ParseUint(seed, 10, 32)
		if err != nil {
			return d, err
		}
		d.steps = append(d.steps, modelStep{op, uint32(n)})
	}
	return d, nil
}

// modelFailure is what a step panics with when the store is not as the model.
type modelFailure struct{ text string }

// run plays a deck on a new store. It returns what failed, "" if nothing did,
// and at which step.
func (d modelDeck) run(trace func(string), counts map[string]int) (failure string, at int) {
	w := newModelWorld(d.seed, trace)
	name := "open"
	defer func() {
		switch p := recover().(type) {
		case nil:
		case modelFailure:
			failure = fmt.Sprintf("step %d (%s): %s", at, name, p.text)
		default:
			failure = fmt.Sprintf("step %d (%s): panic: %v\n%s", at, name, p, debug.Stack())
		}
		w.abandon()
	}()
	w.start()
	for i, s := range d.steps {
		at, name = i, s.op
		w.say("  %s.%d", s.op, s.seed)
		k := slices.IndexFunc(modelOps, func(o modelAction) bool { return o.name == s.op })
		stop := watchdog(d, i)
		modelOps[k].do(w, s.rand())
		w.settled()
		stop()
		if counts != nil {
			counts[s.op]++
		}
	}
	at, name = len(d.steps), "end"
	defer watchdog(d, at)()
	w.finish()
	return "", at
}

// watchdog ends the program, with all stacks, when a step hangs.
func watchdog(d modelDeck, at int) (stop func() bool) {
	return time.AfterFunc(2*time.Minute, func() {
		debug.SetTraceback("all")
		d.steps = d.steps[:min(at+1, len(d.steps))]
		panic(fmt.Sprintf("step %d hangs: -model.program=%s", at, d))
	}).Stop
}

// shrink returns the shortest deck found in the time that still fails, by
// removing chunks and then single steps (delta debugging).
func (d modelDeck) shrink(failure string, at int, budget time.Duration) (modelDeck, string) {
	end := time.Now().Add(budget)
	steps := slices.Clone(d.steps[:min(at+1, len(d.steps))])
	fails := func(steps []modelStep) bool {
		for range 2 { // the background has a will of its own
			text, at := modelDeck{d.seed, steps}.run(nil, nil)
			if text != "" {
				failure = text
				d.steps = steps[:min(at+1, len(steps))]
				return true
			}
		}
		return false
	}
	d.steps = steps
	for size := len(steps) / 2; size >= 1; size /= 2 {
		for again := true; again; {
			again = false
			for from := len(d.steps) - size; from > -size && time.Now().Before(end); from -= size {
				if from >= len(d.steps) {
					continue
				}
				lo, hi := max(from, 0), min(from+size, len(d.steps))
				less := append(slices.Clone(d.steps[:lo]), d.steps[hi:]...)
				if fails(less) && size == 1 {
					again = true
				}
			}
		}
	}
	return d, failure
}
