package buffer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/forebaydb/forebay"
)

// DeadLetters iterates over the dead letters from a number on, in the order in which they
// died, as they are when the iteration begins. A letter may be kept. An error ends it and
// comes as the last pair: ctx's, ErrDamaged, and those of the store.
func (b *Buffer) DeadLetters(ctx context.Context, from uint64) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		for e, err := range b.ks.Range(numberKey(deadPrefix, from), []byte{deadPrefix + 1}) {
			if err == nil {
				err = ctx.Err()
			}
			var l *DeadLetter
			if err == nil {
				l, err = letterOf(e.Key, slices.Clone(e.Value))
			}
			if err != nil {
				yield(DeadLetter{}, err)
				return
			}
			if !yield(*l, nil) {
				return
			}
		}
	}
}

func letterOf(key, value []byte) (*DeadLetter, error) {
	number, _, err := numberOf(key)
	if err != nil {
		return nil, err
	}
	return decodeDead(number, value)
}

// Redrive adds dead letters again, as new rows at the end of the buffer: each once, in
// the commit in which the letter goes. pick says which, and may change the row that it is
// given, to mend it; nil: all, as they are. A row that was Damaged is added with what
// there was for its value. It returns how many there were. After an error (those of Add,
// and ctx's) some may have been, and the others are still dead letters.
func (b *Buffer) Redrive(ctx context.Context, pick func(*DeadLetter) bool) (n int, err error) {
	rows, bytes := deadRows, deadBytes
	if most := b.o.MaxRows; most > 0 { // what is larger would never fit
		rows = int(min(int64(rows), most))
	}
	if most := b.o.MaxBytes; most > 0 {
		bytes = int(min(int64(bytes), most))
	}
	return b.eachDead(ctx, pick, rows, bytes, func(letters []DeadLetter) (int, error) {
		// It is full or not: a part of it is room for nobody.
		var size held
		items := make([][]byte, len(letters))
		for i, l := range letters {
			if err := checkRow(l.Row); err != nil {
				return 0, err
			}
			items[i] = appendItem(nil, time.Now(), l.Row, l.Added)
			size.rows++
			size.bytes += sizeOf(len(items[i]))
		}
		if err := b.reserve(size); err != nil {
			return 0, err
		}
		var used held
		err := b.change(ctx, func(tx *forebay.Tx, ks forebay.Space, c *counters) error {
			used = held{}
			for i, l := range letters {
				key := numberKey(deadPrefix, l.Number)
				switch has, err := ks.Has(key); {
				case err != nil:
					return err
				case !has: // somebody else was at it
					continue
				}
				if err := errors.Join(ks.Delete(key), tx.Append(b.seq, items[i])); err != nil {
					return err
				}
				if c.dead == 0 {
					return fmt.Errorf("%w: more dead letters than were counted", ErrDamaged)
				}
				c.dead--
				c.redriven++
				used.rows++
				used.bytes += sizeOf(len(items[i]))
			}
			return nil
		}, func() {})
		if err != nil {
			used = held{}
		}
		b.room.release(held{size.rows - used.rows, size.bytes - used.bytes})
		return int(used.rows), err
	})
}

// Purge throws dead letters away, durably. pick says which; nil: all. It returns how many
// there were. Errors as for Redrive.
func (b *Buffer) Purge(ctx context.Context, pick func(*DeadLetter) bool) (n int, err error) {
	return b.eachDead(ctx, pick, deadRows, deadBytes, func(letters []DeadLetter) (n int, err error) {
		err = b.change(ctx, func(_ *forebay.Tx, ks forebay.Space, c *counters) error {
			n = 0
			for _, l := range letters {
				key := numberKey(deadPrefix, l.Number)
				switch has, err := ks.Has(key); {
				case err != nil:
					return err
				case !has:
					continue
				}
				if err := ks.Delete(key); err != nil {
					return err
				}
				if c.dead == 0 {
					return fmt.Errorf("%w: more dead letters than were counted", ErrDamaged)
				}
				c.dead--
				c.purged++
				n++
			}
			return nil
		}, func() {})
		if err != nil {
			n = 0
		}
		return n, err
	})
}

// deadRows and deadBytes bound what is done with dead letters in one commit.
const (
	deadRows  = 1000
	deadBytes = 4 << 20
)

// rowOverhead is what a row has in the log at most, beside its size.
const rowOverhead = timeSize + 2 + 8 + 3*binary.MaxVarintLen32

// eachDead gives do the letters that are picked, at most so many at a time, if not one
// alone is larger. Letters that come meanwhile are left.
func (b *Buffer) eachDead(ctx context.Context, pick func(*DeadLetter) bool, mostRows, mostBytes int, do func([]DeadLetter) (int, error)) (n int, err error) {
	var some []DeadLetter
	bytes := 0
	flush := func() error {
		if len(some) == 0 {
			return nil
		}
		m, err := do(some)
		n += m
		some, bytes = some[:0], 0
		return err
	}
	for l, err := range b.DeadLetters(ctx, 0) {
		if err != nil {
			return n, err
		}
		if pick != nil && !pick(&l) {
			continue
		}
		size := l.size() + rowOverhead
		if len(some) >= mostRows || len(some) > 0 && bytes+size > mostBytes {
			if err := flush(); err != nil {
				return n, err
			}
		}
		some = append(some, l)
		bytes += size
	}
	return n, flush()
}
