package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/forebaydb/forebay/bench/engines"
)

// task is what a child process is told to do.
type task struct {
	Cell   string `json:"cell,omitempty"`
	Load   *load  `json:"load,omitempty"` // make this load in Dir, in place of a cell
	Engine string `json:"engine"`
	Dir    string `json:"dir"`
	Scale  Scale  `json:"scale"`
	// Part is for cells that need a process of their own within.
	Part string `json:"part,omitempty"`
	// Profile, if not "", is where a CPU profile of the counted part goes.
	Profile string `json:"profile,omitempty"`
}

// Child does the task that in has, and writes results to out as JSON lines.
func Child(in io.Reader, out io.Writer) error {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		return fmt.Errorf("a cell is started by run alone: %w", err)
	}
	results, err := t.do()
	enc := json.NewEncoder(out)
	for i := range results {
		err = errors.Join(err, enc.Encode(&results[i]))
	}
	return err
}

func (k *task) do() (results []Result, err error) {
	// A crash of one engine costs one cell, and says where.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	t := &trial{task: *k, scale: k.Scale}
	if k.Engine != "" {
		if t.engine, err = engines.Find(k.Engine); err != nil {
			return nil, err
		}
	}
	if k.Load != nil {
		t.load = *k.Load
		return nil, t.makeLoad()
	}
	for _, c := range Cells() {
		if c.Name != k.Cell {
			continue
		}
		t.cell = &c
		if c.Load != nil {
			t.load = c.Load(k.Scale)
		}
		if t.engine != nil {
			t.level = c.levelOf(t.engine)
		}
		t.peak = watchMemory()
		defer t.peak.stop()
		err := c.run(t)
		return t.results, err
	}
	return nil, fmt.Errorf("there is no cell %q", k.Cell)
}

// trial is one run of a cell with an engine.
type trial struct {
	task
	cell    *Cell
	engine  *engines.Engine
	level   engines.Level
	scale   Scale
	load    load
	peak    *peak
	store   engines.Store
	results []Result
}

// open opens the store of the trial's directory for so many goroutines.
func (t *trial) open(goroutines int) error {
	s, err := t.openAt(t.Dir, t.level, goroutines)
	t.store = s
	return err
}

func (t *trial) openAt(dir string, l engines.Level, goroutines int) (engines.Store, error) {
	return t.engine.Open(dir, engines.Config{
		Level: l, Memtable: t.scale.Memtable, Cache: t.scale.Cache, Goroutines: goroutines, Compressed: t.cell != nil && t.cell.Compressed,
	})
}

// memtable returns the size of a memtable in bytes.
func (t *trial) memtable() int64 {
	if t.scale.Memtable != 0 {
		return t.scale.Memtable
	}
	return engines.DefaultMemtable
}

// counted are counters around the counted part of a load.
type counted struct {
	syncs, flushes, written int64 // -1: not known
}

func (t *trial) counters() counted {
	c := counted{syncs: -1, flushes: deviceFlushes(t.Dir), written: writtenBytes()}
	if t.store != nil {
		c.syncs = t.store.Stats().Syncs
	}
	return c
}

// measure runs a loop and makes a result of it.
func (t *trial) measure(name string, l loop, recordsPerOp int64, bytesPerOp int64) (*Result, error) {
	var from, to counted
	profiled := func() {}
	m, err := l.run(func(begin bool) {
		if begin {
			from, profiled = t.counters(), t.startProfile()
			return
		}
		profiled()
		to = t.counters()
	})
	if err != nil {
		return nil, err
	}
	r := t.result(name, m)
	r.OfferedPerS = l.rate
	r.RecordsPerS = r.OpsPerS * float64(recordsPerOp)
	r.MBPerS = r.OpsPerS * float64(bytesPerOp) / 1e6
	perOp := func(from, to int64) *float64 {
		if from < 0 || m.ops == 0 {
			return nil
		}
		f := float64(to-from) / float64(m.ops)
		return &f
	}
	r.SyncsPerOp, r.FlushesPerOp = perOp(from.syncs, to.syncs), perOp(from.flushes, to.flushes)
	r.WrittenBytes = to.written - from.written
	return r, nil
}

// result adds a result with the figures of a measurement.
func (t *trial) result(name string, m measured) *Result {
	r := t.add(name, 0, "ops/s")
	r.Ops, r.Seconds, r.TimedEvery, r.WorstSecond = m.ops, m.elapsed.Seconds(), m.every, m.worst
	r.OpsPerS = m.rate()
	r.Value = r.OpsPerS
	us := func(q float64) float64 { return float64(m.hist.ValueAtQuantile(q)) / 1e3 }
	r.P50, r.P95, r.P99, r.P999, r.Max = us(50), us(95), us(99), us(99.9), float64(m.hist.Max())/1e3
	return r
}

// add adds a result with one figure. It is valid until the next call.
func (t *trial) add(name string, value float64, unit string) *Result {
	r := Result{Cell: name, Engine: t.Engine, Quick: t.scale.Quick, Value: value, Unit: unit}
	if t.engine != nil {
		r.Level, r.Promise = t.level.String(), t.engine.Promise[t.level]
	}
	if t.peak != nil {
		most := t.peak.soFar()
		r.PeakAnon, r.PeakFile, r.BeforeAnon = most.anon, most.file, t.peak.before.anon
	}
	t.results = append(t.results, r)
	return &t.results[len(t.results)-1]
}

// makeLoad makes a load: its records in a random order, in batches of 100 at the
// engine's weakest level, settled and closed, and then all of them read back.
func (t *trial) makeLoad() error {
	t.level = t.engine.Weakest()
	if err := t.open(1); err != nil {
		return err
	}
	if err := t.fill(t.load, 100); err != nil {
		return errors.Join(err, t.store.Close())
	}
	if err := t.store.Settle(context.Background()); err != nil {
		return errors.Join(err, t.store.Close())
	}
	if err := t.store.Close(); err != nil {
		return err
	}
	if err := t.open(1); err != nil {
		return err
	}
	return errors.Join(t.verifyLoad(t.load), t.store.Close())
}

// fill writes a load in batches; of 1 record each it is a put.
func (t *trial) fill(l load, batch int64) error {
	w, err := t.store.Writer(t.level)
	if err != nil {
		return err
	}
	d, perm := l.data(), newPermutation(uint64(l.Records))
	key, value := make([]byte, d.keySize), make([]byte, d.valueSize)
	for from := int64(0); from < l.Records; from += batch {
		at := func(i int) ([]byte, []byte) {
			r := perm.at(uint64(from) + uint64(i))
			return d.key(key, r), d.value(value, r, 0)
		}
		if batch == 1 {
			err = w.Put(at(0))
		} else {
			err = w.Batch(int(min(batch, l.Records-from)), at)
		}
		if err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}

// verifyLoad reads a load back: every record must be there, in order and right.
func (t *trial) verifyLoad(l load) error {
	r, err := t.store.Reader()
	if err != nil {
		return err
	}
	d := l.data()
	key, scratch := make([]byte, d.keySize), make([]byte, d.valueSize)
	i, bad := uint64(0), error(nil)
	n, err := r.Scan(nil, int(l.Records)+1, false, func(k, v []byte) {
		if bad == nil && string(k) != string(d.key(key, i)) {
			bad = fmt.Errorf("key %d of the scan is %q, not %q", i, k, key)
		}
		if bad == nil {
			bad = d.check(i, v, scratch)
		}
		i++
	})
	if err == nil && bad == nil && int64(n) != l.Records {
		bad = fmt.Errorf("the store has %d records, not %d", n, l.Records)
	}
	return errors.Join(err, bad, r.Close())
}

// verifySome reads records back that were written, at whatever version: which
// gives the n-th.
func (t *trial) verifySome(d dataset, n int, which func(n int) uint64) error {
	r, err := t.store.Reader()
	if err != nil {
		return err
	}
	key, scratch := make([]byte, d.keySize), make([]byte, d.valueSize)
	for k := range n {
		i, bad := which(k), error(nil)
		found, err := r.Get(d.key(key, i), func(v []byte) { bad = d.check(i, v, scratch) })
		if err == nil && !found {
			err = fmt.Errorf("record %d was acknowledged and is not there", i)
		}
		if err = errors.Join(err, bad); err != nil {
			return errors.Join(err, r.Close())
		}
	}
	return r.Close()
}

// writeLoop is a loop of writes: as long as loads run.
func (t *trial) writeLoop(goroutines int, d dataset) loop {
	s := t.scale
	return loop{
		goroutines: goroutines, length: s.Write, limit: s.WriteLimit, warm: min(s.Warm, s.Write/4), every: 1,
		enough: func(ops int64) bool {
			return ops*int64(goroutines)*d.recordBytes() >= int64(s.Checkpoints)*t.memtable()
		},
		most: s.MostBytes / int64(goroutines) / d.recordBytes(),
	}
}

// closed closes the store, and returns err with what that gives.
func (t *trial) closed(err error) error {
	return errors.Join(err, t.store.Close())
}
