package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/forebaydb/forebay/bench/engines"
)

// turnCells compare an engine with the disk within seconds: a disk drifts by more
// from one minute to the next than what they are about.
func turnCells() []Cell {
	return []Cell{{
		Name: "durable-turns-1",
		About: "put new records, each durable, 1 goroutine, by turns of a quarter of a second with writes and syncs of the same size " +
			"without an engine; each round is a pair",
		Level: engines.Durable,
		Needs: ofHome,
		run:   (*trial).turns,
	}}
}

// turn is one of those who take turns.
type turn struct {
	name   string // behind the cell's; "": the engine as it is by default
	engine string
	op     func() error
	close  func() error
	rates  []float64 // of each round
	ops    int64
	spent  time.Duration
}

// turns has the engine with three of its ways of writing, and the four ways of the
// machine, take turns. Who comes first goes round, so that nobody is always behind
// the same one.
func (t *trial) turns() (err error) {
	const rounds = 60
	each := t.scale.Write / (2 * rounds)
	var all []*turn
	defer func() {
		for _, x := range all {
			err = errors.Join(err, x.close())
		}
	}()
	for _, way := range []struct{ name, sync string }{{"", ""}, {"direct", engines.Direct}, {"direct-dsync", engines.DirectDSync}} {
		x, err := t.turnOfEngine(way.name, way.sync)
		if err != nil {
			return err
		}
		all = append(all, x)
	}
	for _, way := range []struct {
		name        string
		size, flags int
		sync        bool
	}{
		{"limit-fdatasync", logRecord, 0, true},
		{"limit-dsync", logRecord, unix.O_DSYNC, false},
		{"limit-direct", 4096, unix.O_DIRECT, true},
		{"limit-direct-dsync", 4096, unix.O_DIRECT | unix.O_DSYNC, false},
	} {
		f, err := zeroed(filepath.Join(t.Dir, way.name), t.scale.LimitBytes, way.flags)
		if err != nil {
			return err
		}
		all = append(all, &turn{name: way.name, engine: machineName, close: f.Close, op: t.syncing(f, way.size, way.sync)})
	}
	for round := range rounds + 1 {
		for i := range all {
			x := all[(i+round)%len(all)]
			n, took, err := x.take(each)
			if err != nil {
				return fmt.Errorf("%s %s: %w", x.engine, x.name, err)
			}
			if round > 0 { // the first warms up
				x.rates, x.ops, x.spent = append(x.rates, float64(n)/took.Seconds()), x.ops+n, x.spent+took
			}
		}
	}
	for _, x := range all {
		name := t.cell.Name
		if x.name != "" {
			name = suffix(name, x.name)
		}
		r := t.add(name, median(x.rates), "ops/s")
		r.Engine, r.OpsPerS, r.Ops, r.Seconds, r.Rounds = x.engine, r.Value, x.ops, x.spent.Seconds(), slices.Clone(x.rates)
		if x.engine == machineName {
			r.Level, r.Promise = "", ""
		}
	}
	return nil
}

func (x *turn) take(length time.Duration) (n int64, took time.Duration, err error) {
	for began := time.Now(); took < length; took = time.Since(began) {
		if err := x.op(); err != nil {
			return 0, 0, err
		}
		n++
	}
	return n, took, nil
}

func (t *trial) turnOfEngine(name, sync string) (*turn, error) {
	dir := filepath.Join(t.Dir, "store-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := t.engine.Open(dir, engines.Config{
		Level: t.level, Memtable: t.scale.Memtable, Cache: t.scale.Cache, Sync: sync,
	})
	if err != nil {
		return nil, err
	}
	w, err := s.Writer(t.level)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	d, perm, n := plain, newPermutation(manyRecords), uint64(0)
	key, value := make([]byte, d.keySize), make([]byte, d.valueSize)
	return &turn{
		name: name, engine: t.Engine,
		op: func() error {
			i := perm.at(n)
			n++
			return w.Put(d.key(key, i), d.value(value, i, 0))
		},
		close: func() error { return errors.Join(w.Close(), s.Close()) },
	}, nil
}
