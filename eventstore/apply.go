package eventstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/forebaydb/forebay"
)

// which generation of a projection is worked on.
type which bool

const (
	serving  which = false
	building which = true
)

func (g generations) of(w which) (gen, schema uint64) {
	if w == building {
		return g.building, g.buildSchema
	}
	return g.serving, g.servingSchema
}

// errMoved: the generation is not where the batch was read for, or a payload in it was
// erased meanwhile: it is read again.
var errMoved = errors.New("eventstore: the projection moved meanwhile")

// batch is a stretch of events, from the checkpoint from on. An event that could not be
// read as it should comes with why.
type batch struct {
	from   uint64
	events []Event
	errs   []error // of the events; nil: all are good
	keys   opened
	buf    []byte
}

func (b *batch) reset(from uint64) {
	*b = batch{from: from, events: b.events[:0], errs: b.errs[:0], buf: b.buf[:0]}
}

func (b *batch) next() uint64 { return b.from + uint64(len(b.events)) }

func (b *batch) add(ev Event, err error) {
	ev, b.buf = ev.keep(b.buf)
	b.events, b.errs = append(b.events, ev), append(b.errs, err)
	b.keys.add(ev)
}

// maxBatchBytes is where a batch ends, however few events it has.
const maxBatchBytes = 4 << 20

// at returns the generation that is worked on, and its checkpoint.
func (p *Projection) at(r forebay.Reader, w which) (gen, next uint64, err error) {
	g, err := generationsOf(r, p.o.Name)
	if err != nil {
		return 0, 0, err
	}
	gen, schema := g.of(w)
	switch {
	case gen == 0:
		return 0, 0, fmt.Errorf("%w: projection %q", ErrNoRebuild, p.o.Name)
	case schema != uint64(p.o.Schema):
		return 0, 0, fmt.Errorf("%w: %q has rows of %d, not of %d", ErrSchema, p.o.Name, schema, p.o.Schema)
	}
	next, err = checkpointOf(r, p.o.Name, gen)
	return gen, next, err
}

// catchUp applies what is durable.
func (p *Projection) catchUp(ctx context.Context, w which) (n int, err error) {
	for {
		var gen, from uint64
		err := p.s.db.View(func(snap *forebay.Snapshot) error {
			ks, err := snap.Keyspace(p.s.projs.Name())
			if err != nil {
				return err
			}
			gen, from, err = p.at(ks, w)
			return err
		})
		if err != nil {
			return n, err
		}
		done, err := p.applyFrom(ctx, w, gen, from)
		n += done
		if !errors.Is(err, errMoved) {
			return n, err
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
	}
}

// applyFrom applies the durable events from an offset on, batch by batch, while the
// generation is where it says.
func (p *Projection) applyFrom(ctx context.Context, w which, gen, from uint64) (n int, err error) {
	var b batch
	b.reset(from)
	flush := func() error {
		done, err := p.commit(ctx, w, gen, &b)
		n += done
		return err
	}
	err = p.s.items(ctx, from, p.s.seq.Read, func(it forebay.Item, names *names) (bool, error) {
		if it.Offset != b.next() { // a salvage could not read what is between
			if len(b.events) > 0 {
				if err := flush(); err != nil {
					return false, err
				}
			}
			if err := p.skip(ctx, w, gen, b.next(), it.Offset); err != nil {
				return false, err
			}
			b.reset(it.Offset)
		}
		raw, err := envelopeOf(it)
		if err != nil {
			return false, err
		}
		ev, err := p.s.event(raw, it.Offset, it.LSN, names)
		if failed := (*EventError)(nil); err != nil && (!errors.As(err, &failed) || isOurs(err)) {
			return false, err
		}
		b.add(ev, err)
		if len(b.events) < p.o.Batch && len(b.buf) < maxBatchBytes {
			return true, nil
		}
		if err := flush(); err != nil {
			return false, err
		}
		b.reset(b.next())
		return true, nil
	})
	if err == nil && len(b.events) > 0 {
		err = flush()
	}
	return n, err
}

// isOurs says whether an error is the store's, and not an event's: to apply the event
// again later may succeed, to go on without it would lose it.
func isOurs(err error) bool {
	for _, ours := range []error{forebay.ErrConflict, forebay.ErrClosed, forebay.ErrReadOnly, forebay.ErrFull, forebay.ErrPoisoned, forebay.ErrUnknown,
		forebay.ErrNested, forebay.ErrTxDone, forebay.ErrKeyspaceDropped, forebay.ErrNoKeyspace, ErrNoMasterKey, errMoved,
		context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ours) {
			return true
		}
	}
	var damaged *forebay.CorruptionError
	var disk *fs.PathError // of a read that the disk failed at
	return errors.As(err, &damaged) || errors.As(err, &disk)
}

// update runs fn in a transaction in which the generation is at an offset, and moves it
// to another one.
func (p *Projection) update(ctx context.Context, w which, gen, from, to uint64, fn func(tx *forebay.Tx, ks forebay.Space) error) error {
	// Rows and checkpoint are in one commit: what a crash takes of it is applied again.
	return p.s.db.UpdateLevel(ctx, forebay.Buffered, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(p.s.projs.Name())
		if err != nil {
			return err
		}
		g, at, err := p.at(ks.Reader, w)
		if err != nil {
			return err
		}
		if g != gen || at != from {
			return errMoved
		}
		if err := fn(tx, ks); err != nil {
			return err
		}
		return ks.Put(genKey('c', p.o.Name, gen), binary.BigEndian.AppendUint64(nil, to))
	})
}

// skip moves a generation over offsets that have no events.
func (p *Projection) skip(ctx context.Context, w which, gen, from, to uint64) error {
	return p.update(ctx, w, gen, from, to, func(*forebay.Tx, forebay.Space) error { return nil })
}

// commit applies a batch, in one commit if nothing fails, and returns how many events
// are behind the checkpoint now.
func (p *Projection) commit(ctx context.Context, w which, gen uint64, b *batch) (n int, err error) {
	hi, suspect := len(b.events), -1
	for n < len(b.events) {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if n == suspect { // what was before it is committed
			if err := p.alone(ctx, w, gen, b, n); err != nil {
				return n, err
			}
			n, hi, suspect = n+1, len(b.events), -1
			continue
		}
		failed, err := p.apply(ctx, w, gen, b, n, hi)
		switch {
		case err == nil:
			n, hi = hi, len(b.events)
		case failed < 0:
			return n, err
		default:
			suspect, hi = failed, failed
		}
	}
	return n, nil
}

// apply applies the events of a batch from lo to before hi in one commit. Its error is
// of the failed event, or of the store, and failed is -1 then.
func (p *Projection) apply(ctx context.Context, w which, gen uint64, b *batch, lo, hi int) (failed int, err error) {
	failed = -1
	err = p.update(ctx, w, gen, b.from+uint64(lo), b.from+uint64(hi), func(tx *forebay.Tx, _ forebay.Space) error {
		failed = -1
		if ok, err := p.s.still(tx, b.keys); err != nil {
			return err
		} else if !ok {
			return errMoved
		}
		rows, err := tx.Keyspace(p.s.rowsName(p.o.Name, gen))
		if err != nil {
			return err
		}
		for i := lo; i < hi; i++ {
			err := b.errs[i]
			if err == nil {
				err = p.o.Apply(rows, b.events[i])
			}
			if err != nil {
				if !isOurs(err) {
					failed = i
					err = failedAt(b.events[i], err)
				}
				return err
			}
		}
		return nil
	})
	if err == nil || isOurs(err) {
		failed = -1
	}
	// A commit that is above a limit has too much of what these events did: half of them
	// may have less.
	if limit := (*forebay.LimitError)(nil); failed < 0 && errors.As(err, &limit) {
		failed = lo + (hi-lo)/2
		err = failedAt(b.events[failed], err)
	}
	return failed, err
}

// alone applies one event by itself, as often as it may be, and then makes a dead letter
// of it.
func (p *Projection) alone(ctx context.Context, w which, gen uint64, b *batch, i int) error {
	var last error
	for range p.o.Attempts {
		if err := ctx.Err(); err != nil {
			return err
		}
		failed, err := p.apply(ctx, w, gen, b, i, i+1)
		if err == nil || failed < 0 {
			return err
		}
		last = err
	}
	if p.o.OnFail == Stop {
		return last
	}
	ev := b.events[i]
	return p.update(ctx, w, gen, ev.Offset, ev.Offset+1, func(_ *forebay.Tx, ks forebay.Space) error {
		return ks.Put(deadKey(p.o.Name, gen, ev.Offset), deadLetterOf(p.s.now(), p.o.Attempts, last))
	})
}
