package workload

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/forebaydb/forebay/bench/engines"
)

// mixture is one workload of YCSB, in hundredths.
type mixture struct {
	name                               string
	read, update, insert, scan, modify int
	latest                             bool
	about                              string
}

var ycsb = []mixture{
	{name: "a", read: 50, update: 50, about: "half reads, half updates"},
	{name: "b", read: 95, update: 5, about: "95 % reads, 5 % updates"},
	{name: "c", read: 100, about: "reads"},
	{name: "d", read: 95, insert: 5, latest: true, about: "95 % reads of what is new, 5 % inserts"},
	{name: "e", scan: 95, insert: 5, about: "95 % scans of 1 to 100 records, 5 % inserts"},
	{name: "f", read: 50, modify: 50, about: "half reads, half reads with an update of what was read"},
}

func ycsbCells() []Cell {
	var out []Cell
	for _, m := range ycsb {
		add := func(name string, goroutines int, l engines.Level, anyLevel bool) {
			out = append(out, Cell{
				Name:  name,
				About: fmt.Sprintf("YCSB %s, %s; zipfian, %d goroutines", m.name, m.about, goroutines),
				Level: l, Any: anyLevel, Load: plainLoad, Changes: m.read+m.scan < 100,
				run: func(t *trial) error { return t.ycsb(m, goroutines) },
			})
		}
		switch m.name {
		case "c": // no writes, no level
			add("ycsb-c", 8, 0, true)
		default:
			add(suffix("ycsb", m.name, engines.Buffered), 8, engines.Buffered, false)
			add(suffix("ycsb", m.name, engines.Written), 8, engines.Written, false)
		}
		if m.name == "a" {
			add("ycsb-a-durable-64", 64, engines.Durable, false)
		}
	}
	return out
}

func (t *trial) ycsb(m mixture, goroutines int) error {
	if err := t.open(goroutines); err != nil {
		return err
	}
	d, n := t.load.data(), uint64(t.load.Records)
	hot := zipfian(n)
	recent := newZipf(n)
	var next atomic.Uint64
	next.Store(n)
	onTheWay := newInserts(goroutines)
	l := loop{goroutines: goroutines, warm: t.scale.Warm, length: t.scale.Mixed, every: 1}
	if m.update+m.insert+m.modify == 0 {
		l.every = readEvery
	}
	l.start = func(w *worker) (func() error, func() error, error) {
		y, err := newYCSB(t, d)
		if err != nil {
			return nil, nil, err
		}
		op := func() error {
			p := int(w.rng.below(100))
			switch {
			case p < m.read && m.latest:
				there := onTheWay.through(&next)
				return y.get.get(there - 1 - min(there-1, recent.draw(&w.rng)))
			case p < m.read:
				return y.get.get(hot(&w.rng))
			case p < m.read+m.update:
				return y.put(hot(&w.rng))
			case p < m.read+m.update+m.insert:
				onTheWay[w.id].from.Store(next.Load())
				err := y.put(next.Add(1) - 1)
				onTheWay[w.id].from.Store(math.MaxUint64)
				return err
			case p < m.read+m.update+m.insert+m.scan:
				return y.scan.scan(hot(&w.rng), 1+int(w.rng.below(100)), n)
			}
			i := hot(&w.rng)
			if err := y.get.get(i); err != nil {
				return err
			}
			return y.put(i)
		}
		return op, y.close, nil
	}
	_, err := t.measure(t.cell.Name, l, 1, 0)
	if err == nil {
		draw := rng(1)
		err = t.verifySome(d, 1000, func(int) uint64 { return draw.below(next.Load()) })
	}
	return t.closed(err)
}

// inserts has, for each goroutine, a number that is not above that of the record
// which it is inserting.
type inserts []struct {
	from atomic.Uint64
	_    [56]byte
}

func newInserts(goroutines int) inserts {
	s := make(inserts, goroutines)
	for i := range s {
		s[i].from.Store(math.MaxUint64)
	}
	return s
}

// through returns a number below which all records are there.
func (s inserts) through(next *atomic.Uint64) uint64 {
	n := next.Load()
	for i := range s {
		n = min(n, s[i].from.Load())
	}
	return n
}

// ycsbWorker is what one goroutine of YCSB uses.
type ycsbWorker struct {
	data       dataset
	w          engines.Writer
	r          engines.Reader
	get        *getter
	scan       *scanner
	key, value []byte
	version    uint32
}

func newYCSB(t *trial, d dataset) (*ycsbWorker, error) {
	w, err := t.store.Writer(t.level)
	if err != nil {
		return nil, err
	}
	r, err := t.store.Reader()
	if err != nil {
		return nil, err
	}
	y := &ycsbWorker{data: d, w: w, r: r, key: make([]byte, d.keySize), value: make([]byte, d.valueSize)}
	y.get = &getter{data: d, r: r, key: make([]byte, d.keySize), scratch: make([]byte, d.valueSize)}
	y.get.visit = y.get.look
	y.scan = newScanner(d, r)
	return y, nil
}

func (y *ycsbWorker) put(i uint64) error {
	y.version++
	return y.w.Put(y.data.key(y.key, i), y.data.value(y.value, i, y.version))
}

func (y *ycsbWorker) close() error {
	if err := y.w.Close(); err != nil {
		return err
	}
	return y.r.Close()
}
