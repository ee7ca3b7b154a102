package eventstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/forebaydb/forebay"
)

// Rebuild makes the rows anew from all events that are kept, in a generation of its own,
// while the present one serves and goes on (Run). When it has caught up with that it
// takes its place, in one commit with which the old rows, their checkpoint and their dead
// letters are gone; readers in a View keep what they see. A rebuild of the same Schema
// that was ended before is gone on with, one of another Schema is given up.
//
// ErrNoRebuild: somebody gave it up meanwhile. That another Rebuild finished it is none.
func (p *Projection) Rebuild(ctx context.Context) error {
	gen, err := p.startBuild(ctx)
	if err != nil {
		return err
	}
	for {
		_, err := p.catchUp(ctx, building)
		switched := false
		if err == nil {
			switched, err = p.switchOver(ctx)
		}
		if errors.Is(err, ErrNoRebuild) {
			if st, serr := p.Status(); serr != nil || st.Generation < gen {
				return errors.Join(err, serr)
			}
			switched, err = true, nil // another one has finished it
		}
		switch {
		case err != nil:
			return err
		case switched:
			return p.dropGarbage()
		}
	}
}

// AbandonRebuild gives up a rebuild that is under way, with its rows and dead letters.
func (p *Projection) AbandonRebuild(ctx context.Context) error {
	err := p.change(ctx, func(_ *forebay.Tx, ks forebay.Space, g *generations) error {
		if g.building == 0 {
			return fmt.Errorf("%w: projection %q", ErrNoRebuild, p.o.Name)
		}
		return p.giveUp(ks, g)
	})
	if err != nil {
		return err
	}
	return p.dropGarbage()
}

// change changes the record of the generations, by a durable commit.
func (p *Projection) change(ctx context.Context, fn func(tx *forebay.Tx, ks forebay.Space, g *generations) error) error {
	return p.s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(p.s.projs.Name())
		if err != nil {
			return err
		}
		g, err := generationsOf(ks.Reader, p.o.Name)
		if err != nil {
			return err
		}
		was := g
		if err := fn(tx, ks, &g); err != nil || g == was {
			return err
		}
		return ks.Put(projKey(p.o.Name), g.encode())
	})
}

// discard deletes what is known of a generation, and notes that its rows are to go.
func (p *Projection) discard(ks forebay.Space, gen uint64) error {
	dead := genKey('d', p.o.Name, gen)
	return errors.Join(ks.Delete(genKey('c', p.o.Name, gen)), ks.DeleteRange(dead, genKey('d', p.o.Name, gen+1)),
		ks.Put(genKey('g', p.o.Name, gen), nil))
}

func (p *Projection) giveUp(ks forebay.Space, g *generations) error {
	gen := g.building
	g.building, g.buildSchema = 0, 0
	return p.discard(ks, gen)
}

// startBuild returns the generation that is to be built.
func (p *Projection) startBuild(ctx context.Context) (gen uint64, err error) {
	err = p.change(ctx, func(tx *forebay.Tx, ks forebay.Space, g *generations) error {
		if g.building != 0 {
			if gen = g.building; g.buildSchema == uint64(p.o.Schema) {
				return nil
			}
			if err := p.giveUp(ks, g); err != nil {
				return err
			}
		}
		g.building, g.buildSchema = g.next, uint64(p.o.Schema)
		g.next++
		gen = g.building
		return p.begin(tx, ks, gen)
	})
	return gen, err
}

// switchOver has the generation that was built serve, if it is as far as the one that
// does now: who reads the rows never goes back.
func (p *Projection) switchOver(ctx context.Context) (done bool, err error) {
	err = p.change(ctx, func(_ *forebay.Tx, ks forebay.Space, g *generations) error {
		done = false
		if g.building == 0 || g.buildSchema != uint64(p.o.Schema) {
			return fmt.Errorf("%w of schema %d: projection %q", ErrNoRebuild, p.o.Schema, p.o.Name)
		}
		built, err := checkpointOf(ks.Reader, p.o.Name, g.building)
		if err != nil {
			return err
		}
		now, err := checkpointOf(ks.Reader, p.o.Name, g.serving)
		if err != nil || built < now {
			return err
		}
		old := g.serving
		g.serving, g.servingSchema = g.building, g.buildSchema
		g.building, g.buildSchema = 0, 0
		done = true
		return p.discard(ks, old)
	})
	return done && err == nil, err
}

// DeadLetter is an event that a projection could not apply. It refers to the event, which
// Retain does not take while it does. Reason is the text of the error.
type DeadLetter struct {
	// Offset of the event.
	Offset uint64
	// Generation of the projection whose it is.
	Generation uint64
	Attempts   int
	Time       time.Time
	Reason     string
}

// maxReason is how much of an error's text is kept.
const maxReason = 4096

func deadKey(name string, gen, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(genKey('d', name, gen), offset)
}

// deadLetterOf is what is stored: attempts (uvarint), time (8 bytes) and the text.
func deadLetterOf(at time.Time, attempts int, cause error) []byte {
	b := binary.AppendUvarint(nil, uint64(attempts))
	b = binary.LittleEndian.AppendUint64(b, uint64(at.UnixNano()))
	text := cause.Error()
	return append(b, text[:min(len(text), maxReason)]...)
}

func decodeDeadLetter(key, value []byte) (l DeadLetter, err error) {
	d := decoder{b: value}
	l.Attempts = int(d.uvarint())
	if at := d.bytes(8); !d.bad {
		l.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(at)))
	}
	if d.bad || len(key) < 16 {
		return l, fmt.Errorf("%w: dead letter", ErrDamaged)
	}
	l.Offset = binary.BigEndian.Uint64(key[len(key)-8:])
	l.Generation = binary.BigEndian.Uint64(key[len(key)-16:])
	l.Reason = string(d.b)
	return l, nil
}

// DeadLetters iterates over the dead letters of the generation that serves, by offset.
// Store.All from an offset shows the event as it is, with upcasters.
func (p *Projection) DeadLetters() iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		err := p.s.db.View(func(snap *forebay.Snapshot) error {
			ks, err := snap.Keyspace(p.s.projs.Name())
			if err != nil {
				return err
			}
			g, err := generationsOf(ks, p.o.Name)
			if err != nil {
				return err
			}
			for e, err := range ks.Prefix(genKey('d', p.o.Name, g.serving)) {
				if err != nil {
					return err
				}
				l, err := decodeDeadLetter(e.Key, e.Value)
				if err != nil {
					return err
				}
				if !yield(l, nil) {
					return nil
				}
			}
			return nil
		})
		if err != nil {
			yield(DeadLetter{}, err)
		}
	}
}

// Redrive applies the event of a dead letter of the serving generation, behind all that
// was applied since, and removes the dead letter in the same commit. forebay.ErrNotFound:
// there is none at the offset. When Apply fails again the dead letter stays, and the
// *EventError is returned.
func (p *Projection) Redrive(ctx context.Context, offset uint64) error {
	for {
		var b batch
		b.reset(offset)
		if err := p.s.items(ctx, offset, p.s.seq.Read, func(it forebay.Item, n *names) (bool, error) {
			raw, err := envelopeOf(it)
			if err != nil {
				return false, err
			}
			ev, err := p.s.event(raw, it.Offset, it.LSN, n)
			if err == nil {
				b.add(ev, nil)
			}
			return false, err
		}); err != nil {
			return err
		}
		err := p.redrive(ctx, offset, &b)
		if !errors.Is(err, errMoved) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

func (p *Projection) redrive(ctx context.Context, offset uint64, b *batch) error {
	return p.s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		key, ks, gen, err := p.dead(tx, offset)
		if err != nil {
			return err
		}
		if len(b.events) != 1 || b.events[0].Offset != offset {
			return fmt.Errorf("%w: event at offset %d", forebay.ErrNotFound, offset)
		}
		if ok, err := p.s.still(tx, b.keys); err != nil {
			return err
		} else if !ok {
			return errMoved
		}
		rows, err := tx.Keyspace(p.s.rowsName(p.o.Name, gen))
		if err != nil {
			return err
		}
		if err := p.o.Apply(rows, b.events[0]); err != nil {
			return failedAt(b.events[0], err)
		}
		return ks.Delete(key)
	})
}

// dead finds a dead letter of the serving generation in a transaction.
func (p *Projection) dead(tx *forebay.Tx, offset uint64) (key []byte, ks forebay.Space, gen uint64, err error) {
	if ks, err = tx.Keyspace(p.s.projs.Name()); err != nil {
		return nil, ks, 0, err
	}
	gen, _, err = p.at(ks.Reader, serving)
	if err != nil {
		return nil, ks, 0, err
	}
	key = deadKey(p.o.Name, gen, offset)
	if has, err := ks.Has(key); err != nil {
		return nil, ks, 0, err
	} else if !has {
		return nil, ks, 0, fmt.Errorf("%w: dead letter of projection %q at offset %d", forebay.ErrNotFound, p.o.Name, offset)
	}
	return key, ks, gen, nil
}

// Discard removes a dead letter of the serving generation, by a durable commit: its event
// will be in no row. forebay.ErrNotFound: there is none at the offset.
func (p *Projection) Discard(ctx context.Context, offset uint64) error {
	return p.s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		key, ks, _, err := p.dead(tx, offset)
		if err != nil {
			return err
		}
		return ks.Delete(key)
	})
}
