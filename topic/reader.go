package topic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/forebaydb/forebay"
)

// maxReaderName is the longest name of a reader in bytes.
const maxReaderName = 1000

// Reader is a named place in a topic, which is durable. What it has before it stays in
// the topic. It is a handle: whoever reads under one name is one reader.
type Reader struct {
	t    *Topic
	name string
}

// Reader returns the reader with a name of 1 to 1,000 bytes. When there is none it is
// made, by a durable commit, in front of the first message that is there.
func (t *Topic) Reader(name string) (*Reader, error) {
	if name == "" || len(name) > maxReaderName {
		return nil, fmt.Errorf("topic: the name of a reader has 1 to %d bytes, not %d", maxReaderName, len(name))
	}
	r := &Reader{t, name}
	if has, err := t.pos.Has([]byte(name)); err != nil || has {
		return r, err
	}
	return r, t.db.UpdateLevel(context.Background(), forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(prefix + t.name)
		if err != nil {
			return err
		}
		if has, err := ks.Has([]byte(name)); err != nil || has {
			return err
		}
		floor, err := t.floor(ks.Reader) // where a Retain is whose trim is still to come
		if err != nil {
			return err
		}
		first, next, err := t.seq.Bounds()
		if err != nil {
			return err
		}
		return ks.Put([]byte(name), encode(max(first, min(floor, next))))
	})
}

// Readers returns the names of all readers and their offsets.
func (t *Topic) Readers() (map[string]uint64, error) { return t.readers(t.pos.Reader) }

func (t *Topic) readers(from forebay.Reader) (map[string]uint64, error) {
	out := map[string]uint64{}
	for e, err := range from.Range(nil, floorKey) {
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
// ErrGone: Retain has taken that message out. A batch does not look again when it is
// committed: for one that moves a reader back, and that a Retain overtakes between Move
// and that commit, it is the first read that fails, with forebay.ErrNotFound. MoveTx has
// no such moment.
func (r *Reader) Move(b *forebay.Batch, offset uint64) error {
	if err := r.gone(r.t.pos.Reader, offset); err != nil {
		return err
	}
	return b.In(r.t.pos).Put([]byte(r.name), encode(offset))
}

// ErrGone: the reader was to be moved back in front of messages that Retain has taken
// out, or is taking out. It stands where it stood.
var ErrGone = errors.New("topic: the messages were taken out")

// gone is ErrGone if Retain has taken out the message with an offset.
func (r *Reader) gone(from forebay.Reader, offset uint64) error {
	floor, err := r.t.floor(from)
	if err == nil && offset < floor {
		err = fmt.Errorf("%w: reader %q of topic %q cannot be at %d, the first is %d", ErrGone, r.name, r.t.name, offset, floor)
	}
	return err
}

// ErrMoved: the reader does not stand where it was to; another one of its name is at
// work.
var ErrMoved = errors.New("topic: the reader was moved by somebody else")

// MoveTx moves the reader from one offset to another when the transaction is committed:
// so what is done with messages between the two is done once, however many read under
// one name. ErrMoved: it is not at from. ErrGone: to is before from, and Retain has taken
// that message out; when the transaction is committed, it has not, and the reader has it.
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
	if to < from { // what is before from stays, as long as the reader is there
		if err := r.gone(ks.Reader, to); err != nil {
			return err
		}
	}
	return ks.Put([]byte(r.name), encode(to))
}
