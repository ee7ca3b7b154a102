package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
)

// dedupe is what is stored of a dedupe id.
type dedupe struct {
	until int64
	lane  uint8
}

func (d dedupe) encode() []byte {
	return append(binary.BigEndian.AppendUint64([]byte{stateVersion}, uint64(d.until)), d.lane)
}

func decodeDedupe(b []byte) (dedupe, error) {
	c := cutter{b: b}
	version := c.byte()
	d := dedupe{until: int64(c.uint64()), lane: c.byte()}
	if c.bad || version != stateVersion || d.lane > laneLater {
		return d, fmt.Errorf("%w: a dedupe id: %x", ErrDamaged, b[:min(len(b), 64)])
	}
	return d, nil
}

func dedupeKey(id string) []byte { return append([]byte{kindDedupe}, id...) }

func expiryKey(until int64, id string) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{kindExpiry}, uint64(until)), id...)
}

// remember looks at the dedupe ids of items, and returns what notes them, one function an
// id, so that nothing is written when one of them is a duplicate. more is by how many
// ids there are more then.
func (q *core) remember(ks forebay.Space, items []outgoing) (note []func() error, more int64, err error) {
	seen := map[string]bool{}
	for i := range items {
		it := &items[i]
		if it.dedupe == "" {
			continue
		}
		if seen[it.dedupe] {
			return nil, 0, &DuplicateError{DedupeID: it.dedupe}
		}
		seen[it.dedupe] = true
		key := dedupeKey(it.dedupe)
		var old *dedupe
		switch value, err := ks.Get(key); {
		case err == nil:
			d, err := decodeDedupe(value)
			if err != nil {
				return nil, 0, err
			}
			if d.until > q.now().UnixNano() {
				return nil, 0, &DuplicateError{DedupeID: it.dedupe}
			}
			old = &d
		case !errors.Is(err, forebay.ErrNotFound):
			return nil, 0, err
		}
		if old == nil {
			more++
		}
		note = append(note, func() error {
			if old != nil {
				if err := ks.Delete(expiryKey(old.until, it.dedupe)); err != nil {
					return err
				}
			}
			d := dedupe{until: it.until, lane: it.lane.id}
			return errors.Join(ks.Put(key, d.encode()), ks.Put(expiryKey(it.until, it.dedupe), []byte{}))
		})
	}
	return note, more, nil
}

// forgetSome is how many dedupe ids one commit forgets.
const forgetSome = 1000

// forgetDedupes forgets the ids that have ended, and those beyond Options.DedupeMax.
func (q *core) forgetDedupes(ctx context.Context) error {
	for {
		q.mu.Lock()
		over := q.dedupes - int64(q.o.DedupeMax)
		some := q.dedupes > 0
		q.mu.Unlock()
		if !some {
			return nil
		}
		now := q.now().UnixNano()
		var keys [][]byte
		for e, err := range q.ks.Prefix([]byte{kindExpiry}) {
			if err != nil {
				return err
			}
			if len(e.Key) < 9 {
				return fmt.Errorf("%w: key %x", ErrDamaged, e.Key)
			}
			until := int64(binary.BigEndian.Uint64(e.Key[1:]))
			if len(keys) == forgetSome || until > now && int64(len(keys)) >= over {
				break
			}
			keys = append(keys, bytes.Clone(e.Key))
		}
		if len(keys) == 0 {
			return nil
		}
		var gone int64
		err := q.update(ctx, forebay.Written, func(tx *forebay.Tx) error {
			gone = 0
			ks, err := q.space(tx)
			if err != nil {
				return err
			}
			for _, key := range keys {
				// Another message may have the id by now: it deleted this key.
				has, err := ks.Has(key)
				if err != nil {
					return err
				}
				if !has {
					continue
				}
				gone++
				if err := errors.Join(ks.Delete(key), ks.Delete(dedupeKey(string(key[9:])))); err != nil {
					return err
				}
			}
			return nil
		}, func(err error) {
			if err == nil {
				q.mu.Lock()
				q.dedupes -= gone
				q.mu.Unlock()
			}
		})
		if err != nil {
			return err
		}
	}
}
