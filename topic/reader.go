package topic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/forebaydb/forebay"
)

// Reader is a named place in a topic, which is durable. What it has before it stays in
// the topic. It is a handle: whoever reads under one name is one reader.
type Reader struct {
	t    *Topic
	name string
}

// Reader returns the reader with a name of 1 to 1,000 bytes. When there is none it is
// made, by a durable commit, in front of the first message that is there.
func (t *Topic) Reader(name string) (*Reader, error) {
	if name == "" || len(name) > 1000 {
		return nil, fmt.Errorf("topic: the name of a reader has 1 to 1000 bytes, not %d", len(name))
	}
	r := &Reader{t, name}
	// By this handle nothing is trimmed between the look and the commit.
	t.retaining.Lock()
	defer t.retaining.Unlock()
	if has, err := t.pos.Has([]byte(name)); err != nil || has {
		return r, err
	}
	first, _, err := t.seq.Bounds()
	if err != nil {
		return nil, err
	}
	return r, t.db.UpdateLevel(context.Background(), forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(prefix + t.name)
		if err != nil {
			return err
		}
		if has, err := ks.Has([]byte(name)); err != nil || has {
			return err
		}
		return ks.Put([]byte(name), encode(first))
	})
}

// Readers returns the names of all readers and their offsets.
func (t *Topic) Readers() (map[string]uint64, error) {
	out := map[string]uint64{}
	for e, err := range t.pos.Range(nil, nil) {
		r := Reader{t, string(e.Key)}
		at, err := r.offset(e.Value, err)
		if err != nil {
			return nil, err
		}
		out[r.name] = at
	}
	return out, nil
}

// DropReader forgets a reader, by a durable commit. It is no error if there is none.
func (t *Topic) DropReader(name string) error {
	b := t.db.NewBatch()
	if err := b.In(t.pos).Delete([]byte(name)); err != nil {
		return err
	}
	return t.db.Apply(b, forebay.Durable)
}

func encode(offset uint64) []byte { return binary.BigEndian.AppendUint64(nil, offset) }

// Offset returns the offset of the reader's next message. A reader that was dropped is
// forebay.ErrNotFound.
func (r *Reader) Offset() (uint64, error) { return r.offset(r.t.pos.Get([]byte(r.name))) }

func (r *Reader) offset(value []byte, err error) (uint64, error) {
	if err != nil {
		return 0, fmt.Errorf("topic %q: reader %q: %w", r.t.name, r.name, err)
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: reader %q of topic %q has %d bytes", ErrDamaged, r.name, r.t.name, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// Name returns the reader's name.
func (r *Reader) Name() string { return r.name }

// Messages follows the topic from the reader's offset on. It does not move the reader.
func (r *Reader) Messages(ctx context.Context) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		at, err := r.Offset()
		if err != nil {
			yield(Message{}, err)
			return
		}
		r.t.Follow(ctx, at)(yield)
	}
}

// Move has the reader stand in front of the message with an offset when the batch is
// committed, whatever was before: forward behind what was done with messages, and back
// to read them again. There is one of a name at work: batches that come later win.
func (r *Reader) Move(b *forebay.Batch, offset uint64) error {
	return b.In(r.t.pos).Put([]byte(r.name), encode(offset))
}

// ErrMoved: the reader does not stand where it was to; another one of its name is at
// work.
var ErrMoved = errors.New("topic: the reader was moved by somebody else")

// MoveTx moves the reader from one offset to another when the transaction is committed:
// so what is done with messages between the two is done once, however many read under
// one name. ErrMoved: it is not at from.
func (r *Reader) MoveTx(tx *forebay.Tx, from, to uint64) error {
	ks, err := tx.Keyspace(prefix + r.t.name)
	if err != nil {
		return err
	}
	at, err := r.offset(ks.Get([]byte(r.name)))
	if err != nil {
		return err
	}
	if at != from {
		return fmt.Errorf("%w: %q of topic %q is at %d, not at %d", ErrMoved, r.name, r.t.name, at, from)
	}
	return ks.Put([]byte(r.name), encode(to))
}
