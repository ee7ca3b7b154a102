package workload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/bench/engines"
)

// restCells are what benchmarks leave out.
func restCells() []Cell {
	mixed := func(e *engines.Engine) string {
		if !e.Mixed {
			return "its level is one of the whole store"
		}
		return ""
	}
	return []Cell{{
		Name: "beside-reads", About: "4 goroutines get random records while 4 overwrite durably",
		Level: engines.Durable, Load: plainLoad, Changes: true,
		run: func(t *trial) error { return t.beside("read", t.getRandom) },
	}, {
		Name: "beside-scans", About: "4 goroutines scan 1,000 records while 4 overwrite durably",
		Level: engines.Durable, Load: plainLoad, Changes: true,
		run: func(t *trial) error { return t.beside("scan", t.scanRandom) },
	}, {
		Name: "overwrite-long", About: "8 goroutines overwrite random records for 10 minutes (--quick: 10 seconds)",
		Any: true, Load: plainLoad, Changes: true,
		run: (*trial).overwriteLong,
	}, {
		Name: "tombstones", About: "delete the first 90 % of all records in order; then scans of 100 records from the beginning of all, which pass over what was deleted",
		Any: true, Load: plainLoad, Changes: true,
		run: (*trial).tombstones,
	}, {
		Name: "hot-transactions-durable", About: "8 goroutines add 1 to one counter, in durable transactions",
		Level: engines.Durable,
		run:   (*trial).hotTransactions,
	}, {
		Name: "hot-transactions", About: "8 goroutines add 1 to one counter, in transactions at the weakest level",
		Any: true,
		run: (*trial).hotTransactions,
	}, {
		Name: "levels-mixed", About: "4 goroutines put durably, 4 at the weakest level of the engine, into one store",
		Level: engines.Durable, Needs: mixed,
		run: (*trial).levelsMixed,
	}, {
		Name: "large-batch", About: "8 goroutines put durably while one commits batches of 50,000 records, durable, with pauses of 0.2 s",
		Level: engines.Durable,
		run:   (*trial).largeBatch,
	}, {
		Name: "snapshot-long", About: "overwrite with 4 goroutines while one snapshot stays open and is read",
		Any: true, Load: plainLoad, Changes: true,
		run: (*trial).snapshotLong,
	}}
}

// job is one kind of work in a cell that has several at once.
type job struct {
	name       string
	goroutines int
	every      int
	start      func(w *worker) (func() error, func() error, error)
}

// together runs jobs at the same time and makes a result of each, named after
// cell and job.
func (t *trial) together(length time.Duration, jobs ...job) error {
	type out struct {
		m   measured
		err error
	}
	outs := make([]chan out, len(jobs))
	for i, j := range jobs {
		outs[i] = make(chan out, 1)
		l := loop{goroutines: j.goroutines, warm: t.scale.Warm, length: length, every: j.every, start: j.start}
		go func() {
			m, err := l.run(nil)
			outs[i] <- out{m, err}
		}()
	}
	var errs []error
	for i, j := range jobs {
		o := <-outs[i]
		if errs = append(errs, o.err); o.err == nil {
			t.result(suffix(t.cell.Name, j.name), o.m)
		}
	}
	return errors.Join(errs...)
}

func (t *trial) overwriter(l engines.Level) func(w *worker) (func() error, func() error, error) {
	d, records := t.load.data(), uint64(t.load.Records)
	return func(w *worker) (func() error, func() error, error) {
		wr, err := t.store.Writer(l)
		if err != nil {
			return nil, nil, err
		}
		key, value, n := make([]byte, d.keySize), make([]byte, d.valueSize), uint32(0)
		return func() error {
			i := w.rng.below(records)
			n++
			return wr.Put(d.key(key, i), d.value(value, i, n))
		}, wr.Close, nil
	}
}

func (t *trial) getRandom(w *worker) (func() error, func() error, error) {
	d, records := t.load.data(), uint64(t.load.Records)
	r, err := t.store.Reader()
	if err != nil {
		return nil, nil, err
	}
	g := &getter{data: d, r: r, key: make([]byte, d.keySize), scratch: make([]byte, d.valueSize)}
	g.visit = g.look
	return func() error { return g.get(w.rng.below(records)) }, r.Close, nil
}

func (t *trial) scanRandom(w *worker) (func() error, func() error, error) {
	records := uint64(t.load.Records)
	r, err := t.store.Reader()
	if err != nil {
		return nil, nil, err
	}
	s := newScanner(t.load.data(), r)
	return func() error { return s.scan(w.rng.below(records), 1000, records) }, r.Close, nil
}

func (t *trial) beside(name string, start func(w *worker) (func() error, func() error, error)) error {
	if err := t.open(8); err != nil {
		return err
	}
	return t.closed(t.together(t.scale.Mixed,
		job{name, 4, 1, start},
		job{"write", 4, 1, t.overwriter(t.level)}))
}

func (t *trial) overwriteLong() error {
	if err := t.open(8); err != nil {
		return err
	}
	d := t.load.data()
	l := loop{goroutines: 8, warm: t.scale.Warm, length: t.scale.Long, every: 1, start: t.overwriter(t.level)}
	r, err := t.measure(t.cell.Name, l, 1, d.recordBytes())
	if err != nil {
		return t.closed(err)
	}
	p999, worst := r.P999, r.WorstSecond
	tail := t.add(t.cell.Name+"-p99.9", p999, "µs")
	tail.Lower = true
	if worst != nil {
		t.add(t.cell.Name+"-worst-second", *worst, "ops in a second")
	}
	return t.closed(nil)
}

func (t *trial) tombstones() error {
	if err := t.open(1); err != nil {
		return err
	}
	d, records := t.load.data(), uint64(t.load.Records)
	w, err := t.store.Writer(t.level)
	if err != nil {
		return t.closed(err)
	}
	gone, key := records/10*9, make([]byte, d.keySize)
	began := time.Now()
	for i := range gone {
		if err := w.Delete(d.key(key, i)); err != nil {
			return t.closed(errors.Join(err, w.Close()))
		}
	}
	took := time.Since(began)
	if err := w.Close(); err != nil {
		return t.closed(err)
	}
	r := t.add(t.cell.Name+"-delete", float64(gone)/took.Seconds(), "ops/s")
	r.Ops, r.Seconds, r.OpsPerS = int64(gone), took.Seconds(), r.Value
	l := loop{goroutines: 1, length: t.scale.Read, every: 1, start: func(*worker) (func() error, func() error, error) {
		r, err := t.store.Reader()
		if err != nil {
			return nil, nil, err
		}
		first, bad := false, error(nil)
		visit := func(k, v []byte) {
			if first && !d.looksRight(gone, v) {
				bad = fmt.Errorf("the first record that is left is not %d but has the key %q", gone, k)
			}
			first = false
		}
		return func() error {
			first = true
			_, err := r.Scan(nil, 100, false, visit)
			return errors.Join(err, bad)
		}, r.Close, nil
	}}
	_, err = t.measure(t.cell.Name+"-scan", l, 100, 100*d.recordBytes())
	return t.closed(err)
}

func (t *trial) hotTransactions() error {
	const goroutines = 8
	if err := t.open(goroutines); err != nil {
		return err
	}
	tr, ok := t.store.(engines.Transactor)
	if !ok {
		return t.closed(nil)
	}
	key := plain.key(make([]byte, KeySize), 0)
	add := func(old []byte) []byte {
		n := uint64(0)
		if len(old) == 8 {
			n = binary.BigEndian.Uint64(old)
		}
		return binary.BigEndian.AppendUint64(nil, n+1)
	}
	var conflicts, calls atomic.Int64
	l := loop{goroutines: goroutines, warm: t.scale.Warm, length: t.scale.Mixed, every: 1,
		start: func(*worker) (func() error, func() error, error) {
			return func() error {
				n, err := tr.Transform(t.level, key, add)
				conflicts.Add(int64(n))
				calls.Add(1)
				return err
			}, nil, nil
		}}
	r, err := t.measure(t.cell.Name, l, 1, 0)
	if err != nil {
		return t.closed(err)
	}
	r.Note = fmt.Sprintf("%.3g conflicts a transaction", float64(conflicts.Load())/float64(calls.Load()))
	rd, err := t.store.Reader()
	if err != nil {
		return t.closed(err)
	}
	got := uint64(0)
	_, err = rd.Get(key, func(v []byte) { got = binary.BigEndian.Uint64(v) })
	if err == nil && got != uint64(calls.Load()) {
		err = fmt.Errorf("the counter is %d after %d transactions", got, calls.Load())
	}
	return t.closed(errors.Join(err, rd.Close()))
}

func (t *trial) levelsMixed() error {
	if err := t.open(8); err != nil {
		return err
	}
	t.load = load{manyRecords, KeySize, plain.valueSize}
	weak := t.engine.Weakest()
	return t.closed(t.together(t.scale.Mixed,
		job{"durable", 4, 1, t.overwriter(engines.Durable)},
		job{weak.String(), 4, 1, t.overwriter(weak)}))
}

func (t *trial) largeBatch() error {
	const pause = 200 * time.Millisecond
	batch := int(min(50_000, t.scale.Records))
	if err := t.open(9); err != nil {
		return err
	}
	t.load = load{manyRecords, KeySize, plain.valueSize}
	big := func(w *worker) (func() error, func() error, error) {
		wr, err := t.store.Writer(t.level)
		if err != nil {
			return nil, nil, err
		}
		d, key, value := plain, make([]byte, KeySize), make([]byte, plain.valueSize)
		return func() error {
			err := wr.Batch(batch, func(int) ([]byte, []byte) {
				i := w.rng.below(manyRecords)
				return d.key(key, i), d.value(value, i, 0)
			})
			time.Sleep(pause)
			return err
		}, wr.Close, nil
	}
	err := t.together(t.scale.Mixed, job{"small", 8, 1, t.overwriter(t.level)}, job{"large", 1, 1, big})
	for i := range t.results {
		r := &t.results[i]
		r.WorstSecond = nil
		if r.Cell == suffix(t.cell.Name, "large") {
			r.Value *= float64(batch)
			r.Unit, r.RecordsPerS = "records/s", r.Value
			r.Note = "latencies include the pause of 0.2 s"
		}
	}
	return t.closed(err)
}

func (t *trial) snapshotLong() error {
	if err := t.open(5); err != nil {
		return err
	}
	s, ok := t.store.(engines.Snapshotter)
	if !ok {
		return t.closed(nil)
	}
	snap, err := s.Snapshot()
	if err != nil {
		return t.closed(err)
	}
	d, records := t.load.data(), uint64(t.load.Records)
	look := func(w *worker) (func() error, func() error, error) {
		sc := newScanner(d, snap)
		old := sc.visit
		sc.visit = func(k, v []byte) {
			// In the snapshot every value has the version of the load.
			if old(k, v); binary.BigEndian.Uint32(v[8:]) != 0 {
				sc.bad = fmt.Errorf("the snapshot has a value that was written after it: %q", k)
			}
		}
		return func() error { return sc.scan(w.rng.below(records), 1000, records) }, nil, nil
	}
	err = t.together(t.scale.Mixed, job{"write", 4, 1, t.overwriter(t.level)}, job{"scan", 1, 1, look})
	if err == nil {
		r := t.add(suffix(t.cell.Name, "space"), float64(onDisk(t.Dir))/float64(t.load.Records*d.recordBytes()), "× user bytes")
		r.Lower = true
	}
	return t.closed(errors.Join(err, snap.Close()))
}
