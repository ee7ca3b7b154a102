package damage

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says what Run does. The zero Config is everything.
type Config struct {
	// BitStep and SectorStep take every n-th bit and sector; 0 means each.
	BitStep, SectorStep int64
	// Swaps bounds the pairs of sectors that change places, by chance, in each
	// store; 0 means a quarter of a million, negative no bound.
	Swaps int
	// Seed decides which, where there are more.
	Seed uint64
	// Kinds are the damages wanted, Stores the stores; none means all.
	Kinds  []Kind
	Stores []string
	// Workers is how many stores are open at a time; 0 means one a processor.
	Workers int
}

func (c *Config) step(n int64) int64 { return max(n, 1) }

func (c *Config) wants(k Kind) bool { return len(c.Kinds) == 0 || slices.Contains(c.Kinds, k) }

// Run builds the stores of an engine, makes every damage, and reports. When ctx
// ends it returns what it has and ctx's error.
func Run(ctx context.Context, sub Subject, cfg Config) (*Report, error) {
	if cfg.Swaps == 0 {
		cfg.Swaps = 250_000
	}
	if cfg.Workers <= 0 {
		cfg.Workers = runtime.GOMAXPROCS(0)
	}
	begin := time.Now()
	stores, err := sub.Build()
	if err != nil {
		return nil, fmt.Errorf("damage: build a store of %s: %w", sub.Name(), err)
	}
	rep := newReport(sub, &cfg)
	for _, s := range stores {
		if len(cfg.Stores) > 0 && !slices.Contains(cfg.Stores, s.Name) {
			continue
		}
		if err := Intact(sub, s); err != nil {
			return nil, err
		}
		p := newPlan(sub, s, &cfg)
		rep.store(p)
		if err = p.run(ctx, sub, rep); err != nil {
			break
		}
	}
	rep.finish(time.Since(begin))
	return rep, err
}

// Intact checks that an undamaged store reads as it should.
func Intact(sub Subject, s *Store) error {
	r := &Reading{past: s.history()}
	c := &Copy{Store: s, Image: s.Image}
	err := open(sub, c, r)
	if err == nil && !r.whole() {
		r = &Reading{past: r.past, keep: true}
		if err = open(sub, c, r); err == nil {
			_, how := r.judge(c)
			err = fmt.Errorf("it shows something else than it was given: %s", how)
		}
	}
	if err != nil {
		return fmt.Errorf("damage: store %s of %s, undamaged: %w", s.Name, sub.Name(), err)
	}
	return nil
}

// chunk is how many damages a worker takes at a time.
const chunk = 64

func (p *plan) run(ctx context.Context, sub Subject, rep *Report) error {
	work := make(chan []Fault, p.cfg.Workers)
	var wg sync.WaitGroup
	for range p.cfg.Workers {
		wg.Go(func() {
			for faults := range work {
				t := tally{}
				for _, f := range faults {
					if ctx.Err() != nil {
						break
					}
					res, ok := Judge(sub, p.s, f)
					t.add(p, f, res, ok)
				}
				rep.merge(t)
			}
		})
	}
	batch := make([]Fault, 0, chunk)
	for f := range p.faults() {
		if batch = append(batch, f); len(batch) == chunk {
			work <- batch
			batch = make([]Fault, 0, chunk)
		}
		if ctx.Err() != nil {
			break
		}
	}
	work <- batch
	close(work)
	wg.Wait()
	return ctx.Err()
}

// Replay makes the damage of a line "store/fault" again.
func Replay(sub Subject, line string) (Result, error) {
	name, fault, _ := strings.Cut(line, "/")
	f, err := ParseFault(fault)
	if err != nil {
		return Result{}, err
	}
	stores, err := sub.Build()
	if err != nil {
		return Result{}, err
	}
	for _, s := range stores {
		if s.Name != name {
			continue
		}
		res, ok := Judge(sub, s, f)
		if !ok {
			return res, fmt.Errorf("damage: %s changes nothing in store %s of %s", fault, name, sub.Name())
		}
		return res, nil
	}
	return Result{}, fmt.Errorf("damage: %s has no store %q", sub.Name(), name)
}
