package buffer

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/sink"
)

// lane writes the jobs of one lane, one after the other.
type lane struct {
	wake  chan struct{}
	queue []*job // guarded by Buffer.mu
	busy  bool   // or has a queue; guarded by Buffer.mu
}

// job is what one lane has of a cut.
type job struct {
	cut  *cut
	lane int
	rows []row
	plan plan
	held held
}

// lane returns a lane, and makes those that are missing up to it. Who calls holds mu, or
// is alone.
func (b *Buffer) lane(i int) *lane {
	for len(b.lanes) <= i {
		l := &lane{wake: make(chan struct{}, 1)}
		b.lanes = append(b.lanes, l)
		b.done.Go(func() { b.work(l) })
	}
	return b.lanes[i]
}

// work does the jobs of a lane.
func (b *Buffer) work(l *lane) {
	for b.ctx.Err() == nil {
		b.mu.Lock()
		var j *job
		if l.busy = len(l.queue) > 0; l.busy {
			j = l.queue[0]
			l.queue = slices.Delete(l.queue, 0, 1)
		}
		b.mu.Unlock()
		if j == nil {
			signal(b.wake)
			select {
			case <-b.ctx.Done():
			case <-l.wake:
			}
			continue
		}
		if err := b.do(j); err != nil {
			b.fail(err)
			return
		}
	}
}

// maxDeath is how many bytes of rows become dead letters in one commit, if not one row
// alone has more.
const maxDeath = 8 << 20

// do writes what a job has left, piece by piece. Each answer of the sink is durable
// before the next piece is written: so an id has one set of rows for ever.
func (b *Buffer) do(j *job) error {
	for len(j.plan.pieces) > 0 {
		p := &j.plan.pieces[0]
		rows := j.of(p)
		var rejected *sink.Rejected
		id := j.id(b.name, p)
		if bad := damaged(rows); len(bad) > 0 {
			rejected = &sink.Rejected{Rows: bad, Err: fmt.Errorf("%w: the row does not decode", ErrDamaged)}
		} else if len(rows) > 0 {
			batch := sink.Batch{ID: id, Rows: make([]sink.Row, len(rows))}
			for i, r := range rows {
				batch.Rows[i] = r.Row
			}
			tries, err := b.write(batch)
			p.writes += tries
			if err != nil && !errors.As(err, &rejected) {
				return err
			}
		}
		next, out := j.plan.answered(rows, rejected)
		if err := b.note(j, next, out, id); err != nil {
			return err
		}
	}
	return nil
}

// note makes durable what became of the first piece of a job.
func (b *Buffer) note(j *job, next plan, out outcome, id string) error {
	died := time.Now()
	last := false
	gone := out.done
	for _, r := range out.dead {
		gone.rows++
		gone.bytes += r.size
	}
	err := b.commit(func(tx *forebay.Tx, ks forebay.Space, c *counters) error {
		for _, r := range out.dead {
			l := DeadLetter{
				Number: c.deaths, Offset: r.Offset, Added: r.Time, Died: died,
				Row:    Row{r.Key, r.Value, r.Headers},
				Reason: reason(out.why), Batch: id, Attempts: j.plan.pieces[0].writes, Damaged: r.bad,
			}
			if err := ks.Put(numberKey(deadPrefix, l.Number), l.encode()); err != nil {
				return err
			}
			c.deaths++
		}
		c.dead += uint64(len(out.dead))
		c.done += uint64(out.done.rows)
		// Only who holds state changes it, and that is this commit.
		if last = len(next.pieces) == 0 && j.cut.left == 1; last {
			return b.finish(tx, ks, c, j.cut)
		}
		return ks.Put(laneKey(j.cut.number, j.lane), next.encode(j.cut))
	}, func() {
		b.room.release(gone)
		b.rate.add(died, gone.rows)
		j.plan = next
		if len(next.pieces) == 0 {
			j.cut.left--
			b.held.rows -= j.held.rows
			b.held.bytes -= j.held.bytes
			signal(b.wake) // it waits for that
		}
		if last {
			b.finished(j.cut)
		} else if !slices.Contains(j.cut.stored, j.lane) {
			j.cut.stored = append(j.cut.stored, j.lane)
		}
	})
	if err != nil {
		return err
	}
	if len(out.dead) > 0 {
		b.o.Logger.Warn("buffer: rows became dead letters", "buffer", b.name, "batch", id, "rows", len(out.dead), "first", out.dead[0].Offset, "reason", out.why)
	}
	return nil
}

func (j *job) id(name string, p *piece) string {
	return fmt.Sprintf("%s/%x/%d.%d.%d", name, j.cut.token, j.cut.first, j.lane, p.gen)
}

// of returns the rows of a piece.
func (j *job) of(p *piece) []row {
	var out []row
	for i, s := range p.spans {
		lo := sort.Search(len(j.rows), func(i int) bool { return j.rows[i].Offset >= s.lo })
		hi := lo + sort.Search(len(j.rows)-lo, func(i int) bool { return j.rows[lo+i].Offset >= s.hi })
		if i == 0 && len(p.spans) == 1 {
			return j.rows[lo:hi]
		}
		out = append(out, j.rows[lo:hi]...)
	}
	return out
}

// damaged returns which rows do not decode.
func damaged(rows []row) (bad []int) {
	for i := range rows {
		if rows[i].bad {
			bad = append(bad, i)
		}
	}
	return bad
}

// has says whether an offset is in a piece.
func (p *plan) has(offset uint64) bool {
	for _, q := range p.pieces {
		for _, s := range q.spans {
			if s.lo <= offset && offset < s.hi {
				return true
			}
		}
	}
	return false
}

// outcome is what became of rows of a piece.
type outcome struct {
	done held
	dead []row
	why  error
}

// answered returns what a plan becomes when the rows of its first piece were written, or
// were rejected.
func (p *plan) answered(rows []row, rejected *sink.Rejected) (plan, outcome) {
	first := p.pieces[0]
	next := plan{next: p.next}
	rest := p.pieces[1:]
	if rejected == nil || len(rows) == 0 {
		var out outcome
		for i := range rows {
			out.done.rows++
			out.done.bytes += rows[i].size
		}
		next.pieces = slices.Clone(rest)
		return next, out
	}
	out := outcome{why: rejected.Err}
	bad := namedRows(rejected, rows)
	if len(bad) == 0 && len(rows) == 1 {
		bad = []int{0}
	}
	put := func(spans []span) {
		next.pieces = append(next.pieces, piece{gen: next.next, writes: first.writes, spans: spans})
		next.next++
	}
	if len(bad) == 0 {
		lo, hi := divide(first.spans, rows[len(rows)/2].Offset)
		put(lo)
		put(hi)
	} else {
		spans := first.spans
		for _, i := range bad {
			out.dead = append(out.dead, rows[i])
			lo, hi := divide(spans, rows[i].Offset)
			_, hi = divide(hi, rows[i].Offset+1)
			spans = slices.Concat(lo, hi)
		}
		if len(bad) < len(rows) {
			put(spans)
		}
	}
	next.pieces = append(next.pieces, rest...)
	return next, out
}

// namedRows returns which rows a sink has named, once each and in their order, and no
// more than go into one commit: the others it will name again.
func namedRows(rejected *sink.Rejected, rows []row) (bad []int) {
	named := slices.Sorted(slices.Values(rejected.Rows))
	size := int64(0)
	for _, i := range slices.Compact(named) {
		if i < 0 || i >= len(rows) {
			continue
		}
		if size += rows[i].size; size > maxDeath && len(bad) > 0 {
			break
		}
		bad = append(bad, i)
	}
	return bad
}

// divide divides spans into what is before an offset, and what is not.
func divide(spans []span, at uint64) (before, behind []span) {
	for _, s := range spans {
		if s.lo < min(s.hi, at) {
			before = append(before, span{s.lo, min(s.hi, at)})
		}
		if max(s.lo, at) < s.hi {
			behind = append(behind, span{max(s.lo, at), s.hi})
		}
	}
	return before, behind
}
