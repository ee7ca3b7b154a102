package workload

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/forebaydb/forebay/bench/engines"
)

// readEvery: reads take a microsecond and do not stall.
const readEvery = 16

func readCells() []Cell {
	var out []Cell
	add := func(name, about string, run func(t *trial) error) {
		out = append(out, Cell{Name: name, About: about, Any: true, Load: plainLoad, run: run})
	}
	for _, g := range []int{1, 8} {
		add(suffix("readrandom", g), fmt.Sprintf("get random records, %d goroutines", g),
			func(t *trial) error { return t.gets(g, uniform, false) })
		add(suffix("readmissing", g), fmt.Sprintf("get keys that are not there, between those that are, %d goroutines", g),
			func(t *trial) error { return t.gets(g, uniform, true) })
		add(suffix("readhot", g), fmt.Sprintf("get records, some far more often (zipfian, theta 0.99), %d goroutines", g),
			func(t *trial) error { return t.gets(g, zipfian, false) })
	}
	add("scan-forward", "read all records in order, keys and values", func(t *trial) error { return t.scans(false) })
	add("scan-reverse", "read all records in reverse order, keys and values", func(t *trial) error { return t.scans(true) })
	for _, g := range []int{1, 8} {
		add(suffix("seek100", g), fmt.Sprintf("open an iterator, seek a random record, and read 100, %d goroutines", g),
			func(t *trial) error { return t.seeks(g, 100) })
	}
	return out
}

// chooser makes a function that draws records below n.
type chooser func(n uint64) func(r *rng) uint64

func uniform(n uint64) func(r *rng) uint64 {
	return func(r *rng) uint64 { return r.below(n) }
}

// zipfian spreads the hot records over the whole range.
func zipfian(n uint64) func(r *rng) uint64 {
	z, perm := newZipf(n), newPermutation(n)
	return func(r *rng) uint64 { return perm.at(z.draw(r)) }
}

func (t *trial) gets(goroutines int, choose chooser, missing bool) error {
	if err := t.open(goroutines); err != nil {
		return err
	}
	d, draw := t.load.data(), choose(uint64(t.load.Records))
	l := t.readLoop(goroutines)
	l.start = func(w *worker) (func() error, func() error, error) {
		r, err := t.store.Reader()
		if err != nil {
			return nil, nil, err
		}
		g := &getter{data: d, r: r, key: make([]byte, d.keySize), scratch: make([]byte, d.valueSize)}
		g.visit = g.look
		if missing {
			return func() error { return g.miss(draw(&w.rng)) }, r.Close, nil
		}
		return func() error { return g.get(draw(&w.rng)) }, r.Close, nil
	}
	_, err := t.measure(t.cell.Name, l, 1, d.recordBytes())
	return t.closed(err)
}

func (t *trial) readLoop(goroutines int) loop {
	return loop{goroutines: goroutines, warm: t.scale.Warm + t.scale.Read/3, length: t.scale.Read, every: readEvery}
}

// getter gets records and looks whether they are the right ones.
type getter struct {
	data         dataset
	r            engines.Reader
	key, scratch []byte
	visit        func([]byte)
	want         uint64
	n            uint64
	bad          error
}

func (g *getter) look(v []byte) {
	g.n++
	if g.n&1023 == 0 {
		g.bad = g.data.check(g.want, v, g.scratch)
	} else if !g.data.looksRight(g.want, v) {
		g.bad = fmt.Errorf("record %d: the value is of another record", g.want)
	}
}

// get gets a record, which must be there.
func (g *getter) get(i uint64) error {
	found, err := g.try(i)
	if err == nil && !found {
		return fmt.Errorf("record %d is not there", i)
	}
	return err
}

// try gets a record and says whether it is there.
func (g *getter) try(i uint64) (bool, error) {
	g.want = i
	found, err := g.r.Get(g.data.key(g.key, i), g.visit)
	if err == nil {
		err = g.bad
	}
	return found, err
}

// miss gets a key that is just behind that of a record.
func (g *getter) miss(i uint64) error {
	k := g.data.key(g.key, i)
	k[len(k)-1] |= 0x40 // a letter in place of the last digit
	found, err := g.r.Get(k, g.visit)
	if err == nil && found {
		return fmt.Errorf("there is a key %q, which nobody wrote", k)
	}
	return err
}

// sum is what a scan makes of the records that it visits: it touches both ends
// of keys and values.
type sum uint64

func (s *sum) add(key, value []byte) {
	*s += sum(binary.BigEndian.Uint64(key[len(key)-8:]) ^ binary.BigEndian.Uint64(value) + binary.LittleEndian.Uint64(value[len(value)-8:]))
}

// sumOf returns what a scan of a load must give.
func sumOf(l load) sum {
	var s sum
	d := l.data()
	key, value := make([]byte, d.keySize), make([]byte, d.valueSize)
	for i := range uint64(l.Records) {
		s.add(d.key(key, i), d.value(value, i, 0))
	}
	return s
}

// scans reads everything again and again; an operation is one record.
func (t *trial) scans(reverse bool) error {
	if err := t.open(1); err != nil {
		return err
	}
	return t.closed(t.scanOpen(reverse))
}

func (t *trial) scanOpen(reverse bool) error {
	r, err := t.store.Reader()
	if err != nil {
		return err
	}
	want, records := sumOf(t.load), t.load.Records
	op := func() error {
		var got sum
		n, err := r.Scan(nil, math.MaxInt, reverse, got.add)
		if err == nil && (int64(n) != records || got != want) {
			err = fmt.Errorf("a scan gave %d records with sum %x, not %d with %x", n, got, records, want)
		}
		return err
	}
	l := loop{goroutines: 1, warm: time.Nanosecond, length: t.scale.Read, every: 1,
		start: func(*worker) (func() error, func() error, error) { return op, r.Close, nil }}
	res, err := t.measure(t.cell.Name, l, records, records*t.load.data().recordBytes())
	if err != nil {
		return err
	}
	res.Value, res.Unit, res.WorstSecond = res.RecordsPerS, "records/s", nil
	res.Note = "an operation, and its latency, is one scan of all records"
	return nil
}

func (t *trial) seeks(goroutines, length int) error {
	if err := t.open(goroutines); err != nil {
		return err
	}
	d, records := t.load.data(), uint64(t.load.Records)
	l := t.readLoop(goroutines)
	l.every = 2
	l.start = func(w *worker) (func() error, func() error, error) {
		r, err := t.store.Reader()
		if err != nil {
			return nil, nil, err
		}
		s := newScanner(d, r)
		return func() error { return s.scan(w.rng.below(records), length, records) }, r.Close, nil
	}
	_, err := t.measure(t.cell.Name, l, int64(length), int64(length)*d.recordBytes())
	return t.closed(err)
}

// scanner does short scans and looks whether they begin where they must.
type scanner struct {
	data  dataset
	r     engines.Reader
	key   []byte
	visit func(k, v []byte)
	first bool
	want  uint64
	sum   sum
	bad   error
}

func newScanner(d dataset, r engines.Reader) *scanner {
	s := &scanner{data: d, r: r, key: make([]byte, d.keySize)}
	s.visit = func(k, v []byte) {
		if s.first {
			if s.first = false; string(k) != string(s.key) || !s.data.looksRight(s.want, v) {
				s.bad = fmt.Errorf("a seek of %q came to %q", s.key, k)
			}
		}
		s.sum.add(k, v)
	}
	return s
}

// scan reads length records from record i on, of at least so many that are there.
func (s *scanner) scan(i uint64, length int, records uint64) error {
	s.first, s.want = true, i
	n, err := s.r.Scan(s.data.key(s.key, i), length, false, s.visit)
	if err == nil {
		err = s.bad
	}
	if least := min(uint64(length), records-i); err == nil && uint64(n) < least {
		err = fmt.Errorf("a scan from record %d gave %d records, not %d", i, n, least)
	}
	return err
}
