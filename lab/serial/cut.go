package serial

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// cut looks at what a power cut would leave at a random moment. The store goes on.
func (r *run) cut(mem *vfs.Mem) {
	rng := rand.New(rand.NewPCG(r.shape.Seed, 5))
	until := int64(rng.IntN(r.shape.Ops)) // operations that are over by then
	for end := time.Now().Add(20 * time.Millisecond); r.ended.Load() < until && time.Now().Before(end); {
		time.Sleep(20 * time.Microsecond)
	}
	r.before = time.Since(r.start)
	if rng.IntN(2) == 0 {
		r.disk = mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	} else {
		r.disk = mem.PowerCutSeed(r.shape.Seed, vfs.SectorAtomic)
	}
	r.after = time.Since(r.start)
}

// recover opens what the cut left. It must be explained by what had returned before
// the cut and those commits under way that are there: then nothing that anybody had
// read is lost.
func (r *run) recover() error {
	db, err := forebay.Open("db", &forebay.Options{FS: r.disk, MarkDelay: -1})
	if err != nil {
		return fmt.Errorf("seed %d: after a power cut: %w", r.shape.Seed, err)
	}
	defer db.Close()
	last := db.LastLSN()
	var ops []porcupine.Operation
	for _, p := range r.ops {
		o := p.Input.(*op)
		lsn, over := r.where[o], p.Return <= int64(r.before)
		switch {
		case over && lsn > last:
			return fmt.Errorf("seed %d: %v was acknowledged as commit %d, and a power cut left %d", r.shape.Seed, o, lsn, last)
		case lsn > last && p.Call < int64(r.after):
			r.count.Lost++
		case over:
			ops = append(ops, p)
		case lsn > 0 && lsn <= last:
			p.Return = math.MaxInt64 - 1
			p.ClientId = 1000 + len(ops)
			ops = append(ops, p)
		}
	}
	r.count.Cuts++
	c := &client{run: &run{shape: r.shape, db: db, start: r.start}}
	c.all()
	if c.err != nil {
		return c.err
	}
	end := c.ops[0]
	end.Call, end.Return = math.MaxInt64-1, math.MaxInt64
	return r.check(append(ops, end))
}
