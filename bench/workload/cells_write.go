package workload

import (
	"fmt"

	"github.com/forebaydb/forebay/bench/engines"
)

// manyRecords is the number of different records of loads that run for a time.
const manyRecords = 1 << 28

func writeCells() []Cell {
	var out []Cell
	for _, g := range []int{1, 8, 64, 256} {
		out = append(out, Cell{
			Name:  suffix("durable-put", g),
			About: fmt.Sprintf("put new records in a random order, each durable, %d goroutines; then open loop at 30, 60 and 90 %%", g),
			Level: engines.Durable,
			run: func(t *trial) error {
				return t.puts(puts{goroutines: g, batch: 1, data: plain, open: true})
			},
		})
	}
	for _, b := range []struct{ batch, goroutines int }{{1000, 1}, {100, 8}} {
		out = append(out, Cell{
			Name:  suffix("durable-batch", b.batch, b.goroutines),
			About: fmt.Sprintf("batches of %d new records, each durable, %d goroutines; then open loop", b.batch, b.goroutines),
			Level: engines.Durable,
			run: func(t *trial) error {
				return t.puts(puts{goroutines: b.goroutines, batch: b.batch, data: plain, open: true})
			},
		})
	}
	for _, l := range []engines.Level{engines.Buffered, engines.Written} {
		out = append(out, Cell{
			Name:  suffix("fillseq", l),
			About: "put new records in the order of their keys, 1 goroutine",
			Level: l,
			run: func(t *trial) error {
				return t.puts(puts{goroutines: 1, batch: 1, data: plain, inOrder: true})
			},
		}, Cell{
			Name:  suffix("fillrandom", l),
			About: "put new records in a random order, 1 goroutine",
			Level: l,
			run: func(t *trial) error {
				return t.puts(puts{goroutines: 1, batch: 1, data: plain})
			},
		})
	}
	for _, l := range []engines.Level{engines.Buffered, engines.Written} {
		for _, g := range []int{1, 8} {
			out = append(out, Cell{
				Name:  suffix("overwrite", g, l),
				About: fmt.Sprintf("put random ones of the records that are there, %d goroutines", g),
				Level: l, Load: plainLoad, Changes: true,
				run: func(t *trial) error {
					return t.puts(puts{goroutines: g, batch: 1, data: plain, over: t.load.Records})
				},
			})
		}
	}
	return out
}

// puts is a load of writes alone.
type puts struct {
	goroutines int
	batch      int
	data       dataset
	inOrder    bool  // else in a random order
	over       int64 // records that are there and are overwritten; 0: new ones
	open       bool  // an open loop follows
}

// putState is what one worker of puts has come to.
type putState struct {
	n int64
	_ [56]byte
}

func (t *trial) puts(p puts) error {
	if err := t.open(p.goroutines); err != nil {
		return err
	}
	perm, state := newPermutation(manyRecords), make([]putState, p.goroutines)
	record := func(id int, n int64) uint64 {
		i := uint64(n)*uint64(p.goroutines) + uint64(id)
		switch {
		case p.inOrder:
			return i
		case p.over > 0:
			return mix(i) % uint64(p.over)
		}
		return perm.at(i % manyRecords)
	}
	l := t.writeLoop(p.goroutines, p.data)
	enough := l.enough
	l.enough = func(ops int64) bool { return enough(ops * int64(p.batch)) }
	l.most /= int64(p.batch)
	if p.open { // at the rate of durable puts ten memtables may take minutes
		l.enough = nil
	}
	l.start = func(w *worker) (func() error, func() error, error) {
		wr, err := t.store.Writer(t.level)
		if err != nil {
			return nil, nil, err
		}
		key, value := make([]byte, p.data.keySize), make([]byte, p.data.valueSize)
		st := &state[w.id]
		at := func(i int) ([]byte, []byte) {
			r := record(w.id, st.n+int64(i))
			return p.data.key(key, r), p.data.value(value, r, uint32(st.n))
		}
		if p.batch == 1 {
			return func() error {
				if err := wr.Put(at(0)); err != nil {
					return err
				}
				st.n++
				return nil
			}, wr.Close, nil
		}
		return func() error {
			if err := wr.Batch(p.batch, at); err != nil {
				return err
			}
			st.n += int64(p.batch)
			return nil
		}, wr.Close, nil
	}
	perOp := int64(p.batch) * p.data.recordBytes()
	r, err := t.measure(t.cell.Name, l, int64(p.batch), perOp)
	if err != nil {
		return t.closed(err)
	}
	r.UserBytes = r.Ops * perOp
	if closed := r.OpsPerS; p.open {
		if err := t.openLoops(l, closed, int64(p.batch), perOp); err != nil {
			return t.closed(err)
		}
	}
	draw := rng(1)
	err = t.verifySome(p.data, 1000, func(int) uint64 {
		id := int(draw.below(uint64(p.goroutines)))
		if state[id].n == 0 {
			id = 0
		}
		return record(id, int64(draw.below(uint64(max(state[id].n, 1)))))
	})
	return t.closed(err)
}

// openLoops runs a loop again with arrivals at shares of the rate that it had as
// a closed one, so that an engine that makes writers wait for others cannot hide
// what that costs when there are no others.
func (t *trial) openLoops(l loop, closed float64, records, bytes int64) error {
	l.warm, l.length, l.limit, l.enough = 0, t.scale.Open, t.scale.Open, nil
	for _, share := range []int{30, 60, 90} {
		l.rate = closed * float64(share) / 100
		r, err := t.measure(fmt.Sprintf("%s-open%d", t.cell.Name, share), l, records, bytes)
		if err != nil {
			return err
		}
		// What counts at a given rate is how long one waits.
		r.Value, r.Unit, r.Lower = r.P99, "µs p99", true
	}
	return nil
}
