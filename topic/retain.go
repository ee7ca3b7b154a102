package topic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/forebaydb/forebay"
)

// sizes is what the messages from first to before end have, in bytes of the log.
type sizes struct {
	first, end uint64
	bytes      uint64
}

// floorKey is behind the names of all readers, of which it is none: it is longer.
var floorKey = bytes.Repeat([]byte{0xff}, maxReaderName+1)

func (t *Topic) bounded() bool { return t.o.MaxAge > 0 || t.o.MaxMessages > 0 || t.o.MaxBytes > 0 }

// retainEvery calls Retain until ctx ends.
func (t *Topic) retainEvery(ctx context.Context) {
	tick := time.NewTicker(t.o.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// What fails now is tried again at the next tick; a store that is damaged
		// or full tells so itself.
		_, _ = t.Retain(ctx)
	}
}

// Retain takes out what the bounds of Options say, as far as no reader has it before
// it, by a durable commit, and returns the offset of the first message that stays.
// Messages that were appended together go together. A reader that is moved back before
// that commit keeps what it has before it then; see Reader.Move and MoveTx for one that
// is moved back behind it.
func (t *Topic) Retain(ctx context.Context) (first uint64, err error) {
	t.retaining.Lock()
	defer t.retaining.Unlock()
	first, next, err := t.seq.Bounds()
	if err != nil || !t.bounded() {
		return first, err
	}
	before := first
	if n := t.o.MaxMessages; n > 0 && next-first > n {
		before = next - n
	}
	if t.o.MaxAge > 0 {
		at, err := t.SeekTime(ctx, t.o.Now().Add(-t.o.MaxAge))
		if err != nil {
			return first, err
		}
		before = max(before, at)
	}
	if t.o.MaxBytes > 0 {
		at, err := t.beyond(first)
		if err != nil {
			return first, err
		}
		before = max(before, at)
	}
	if before <= first {
		return first, nil
	}
	if before, err = t.raiseFloor(ctx, first, before); err != nil || before <= first {
		return first, err
	}
	var gone uint64
	if err := t.walk(first, before, func(a forebay.AppendInfo) { gone += a.Bytes }); err != nil {
		return first, err
	}
	if err := t.seq.Trim(before); err != nil {
		return first, err
	}
	was := first
	if first, _, err = t.seq.Bounds(); err != nil {
		return was, err
	}
	if s := &t.sizes; s.first == was {
		s.first, s.bytes = first, s.bytes-min(s.bytes, gone)
	}
	return first, nil
}

// raiseFloor notes that messages before an offset are to go, as far as no reader has
// them before it, and returns the offset up to which that is so. Readers and note are one
// transaction: a reader that was moved meanwhile is looked at again, and one that is moved
// back later finds the note. It need not be durable, for the trim behind it is.
func (t *Topic) raiseFloor(ctx context.Context, first, before uint64) (end uint64, err error) {
	err = t.db.UpdateLevel(ctx, forebay.Written, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(prefix + t.name)
		if err != nil {
			return err
		}
		readers, err := t.readers(ks.Reader)
		if err != nil { // one that cannot be read may have any of it before it
			return err
		}
		end = before
		for _, at := range readers {
			end = min(end, at)
		}
		floor, err := t.floor(ks.Reader)
		if err != nil || end <= max(first, floor) {
			return err
		}
		return ks.Put(floorKey, encode(end))
	})
	return end, err
}

// floor returns the offset before which messages were taken out, or are being, 0 if none
// were.
func (t *Topic) floor(r forebay.Reader) (uint64, error) {
	value, err := r.Get(floorKey)
	switch {
	case errors.Is(err, forebay.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(value) != 8:
		return 0, fmt.Errorf("%w: the floor of topic %q has %d bytes", ErrDamaged, t.name, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// beyond returns the offset in front of which MaxBytes are exceeded. It walks the part
// of the index that it has not seen yet, and that which is to go.
func (t *Topic) beyond(first uint64) (uint64, error) {
	s := &t.sizes
	if s.first != first || s.end < first { // somebody else took messages out, or it is the first time
		*s = sizes{first: first, end: first}
	}
	if err := t.walk(s.end, ^uint64(0), func(a forebay.AppendInfo) {
		s.bytes += a.Bytes
		s.end = a.Offset + a.Items
	}); err != nil {
		return 0, err
	}
	over, before := s.bytes-min(s.bytes, t.o.MaxBytes), first
	for a, err := range t.seq.Appends(first) {
		if err != nil || over == 0 {
			return before, err
		}
		over -= min(over, a.Bytes)
		before = a.Offset + a.Items
	}
	return before, nil
}

// walk calls each for the appends that lie between two offsets.
func (t *Topic) walk(from, to uint64, each func(forebay.AppendInfo)) error {
	if from >= to {
		return nil
	}
	for a, err := range t.seq.Appends(from) {
		if err != nil {
			return err
		}
		if a.Offset+a.Items > to {
			return nil
		}
		if a.Offset >= from {
			each(a)
		}
	}
	return nil
}
