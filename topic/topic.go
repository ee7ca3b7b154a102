package topic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
)

// prefix is before the names of a topic's sequence and keyspace.
const prefix = "topic/"

// timeSize is how many bytes of an item are its time.
const timeSize = 8

// ErrDamaged: an item or a reader's offset is not what a topic writes.
var ErrDamaged = errors.New("topic: not what a topic writes")

// Options of a topic. The zero value keeps everything.
type Options struct {
	// MaxAge, MaxMessages and MaxBytes bound what Retain leaves: messages that are
	// older, and the oldest beyond so many, or beyond so many bytes of the log. 0: no
	// bound. What a reader still has before it stays whatever they say.
	MaxAge      time.Duration
	MaxMessages uint64
	MaxBytes    uint64
	// Every is how often Retain is called in the background while a bound is set;
	// 0: each minute; negative: never.
	Every time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Topic is a handle of a topic. Any number of goroutines may use it.
type Topic struct {
	db   *forebay.DB
	seq  *forebay.Sequence
	pos  *forebay.Keyspace // of the readers
	name string
	o    Options

	retaining sync.Mutex // one Retain of this handle at a time; guards sizes
	sizes     sizes

	stop context.CancelFunc
	done sync.WaitGroup
}

// Open returns a topic, and makes it if there is none with the name, of at most 200
// bytes. Close ends what it does in the background; the store is closed after that.
// Of the handles of one topic only one is to have bounds.
func Open(db *forebay.DB, name string, o *Options) (*Topic, error) {
	if name == "" || len(name) > 200 {
		return nil, fmt.Errorf("topic: a name has 1 to 200 bytes, not %d", len(name))
	}
	t := &Topic{db: db, name: name}
	if o != nil {
		t.o = *o
	}
	if t.o.Now == nil {
		t.o.Now = time.Now
	}
	if t.o.Every == 0 {
		t.o.Every = time.Minute
	}
	var err error
	if t.seq, err = db.Sequence(prefix + name); err != nil {
		return nil, fmt.Errorf("topic %q: %w", name, err)
	}
	if t.pos, err = db.Keyspace(prefix + name); err != nil {
		return nil, fmt.Errorf("topic %q: %w", name, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	if t.bounded() && t.o.Every > 0 {
		t.done.Go(func() { t.retainEvery(ctx) })
	}
	return t, nil
}

// Close ends the background. The topic can be used on, but is not retained any more.
func (t *Topic) Close() error {
	t.stop()
	t.done.Wait()
	return nil
}

// Name returns the topic's name.
func (t *Topic) Name() string { return t.name }

// Sequence returns the sequence in which the messages are.
func (t *Topic) Sequence() *forebay.Sequence { return t.seq }

// Message is one message.
type Message struct {
	Offset uint64
	// LSN of the commit that appended it.
	LSN uint64
	// Time at which it was given to the topic, by the clock of who did. It may be
	// earlier than that of the message before, by as long as their commits took.
	Time time.Time
	// Payload lives for one step of an iteration, and must not be changed.
	Payload []byte
}

// Appender is a *forebay.Batch or a *forebay.Tx.
type Appender interface {
	Append(s *forebay.Sequence, item []byte) error
}

// Append appends a message, which is copied, at the store's default level, and returns
// its offset. Its errors are those of forebay.Sequence.Append.
func (t *Topic) Append(payload []byte) (offset uint64, err error) {
	return t.seq.Append(t.item(payload))
}

// AppendTo appends a message, which is copied, when the batch or transaction is
// committed.
func (t *Topic) AppendTo(to Appender, payload []byte) error {
	return to.Append(t.seq, t.item(payload))
}

func (t *Topic) item(payload []byte) []byte {
	b := make([]byte, timeSize, timeSize+len(payload))
	binary.LittleEndian.PutUint64(b, uint64(t.o.Now().UnixNano()))
	return append(b, payload...)
}

// Bounds returns the offset of the first message that is there, and the one that the
// next will have.
func (t *Topic) Bounds() (first, next uint64, err error) { return t.seq.Bounds() }

// Read iterates over the durable messages from an offset on, in order, up to those that
// are durable when it comes to them. An error ends it and comes as the last pair:
// forebay.ErrNotFound when a message is not there any more, ctx's.
func (t *Topic) Read(ctx context.Context, from uint64) iter.Seq2[Message, error] {
	return t.messages(t.seq.Read(ctx, from))
}

// Follow is Read that then waits for more, until ctx ends or the store is closed.
func (t *Topic) Follow(ctx context.Context, from uint64) iter.Seq2[Message, error] {
	return t.messages(t.seq.Follow(ctx, from))
}

func (t *Topic) messages(items iter.Seq2[forebay.Item, error]) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		for it, err := range items {
			m := Message{}
			if err == nil {
				m, err = decode(it)
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

func decode(it forebay.Item) (Message, error) {
	if len(it.Value) < timeSize {
		return Message{Offset: it.Offset}, fmt.Errorf("%w: message %d has %d bytes", ErrDamaged, it.Offset, len(it.Value))
	}
	at := int64(binary.LittleEndian.Uint64(it.Value))
	return Message{Offset: it.Offset, LSN: it.LSN, Time: time.Unix(0, at), Payload: it.Value[timeSize:]}, nil
}

// disorder is by how much the times of messages may go back.
const disorder = time.Minute

// SeekTime returns the offset of the first durable message that is not older than at,
// and of the next message when all are older. It reads some 20 messages, and those of
// the minute before: messages may be out of the order of their times by as much. A message
// that is damaged has no time: it is older if one behind it is.
func (t *Topic) SeekTime(ctx context.Context, at time.Time) (uint64, error) {
	first, next, err := t.seq.Bounds()
	if err != nil {
		return 0, err
	}
	lo, hi := first, next
	for lo < hi {
		mid := lo + (hi-lo)/2
		m, ok, err := t.at(ctx, mid)
		switch {
		case err != nil:
			return 0, err
		case ok && m.Time.Before(at.Add(-disorder)):
			lo = m.Offset + 1
		default: // what is not durable yet is not older, either
			hi = mid
		}
	}
	damaged := ^uint64(0) // the first behind all that are older
	_, lo, err = t.there(ctx, lo, func(m Message, bad error) bool {
		switch {
		case bad != nil:
			damaged = min(damaged, m.Offset)
		case m.Time.Before(at):
			damaged = ^uint64(0)
		default:
			return false
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	return min(lo, damaged), nil
}

// at returns the first durable message from an offset on that is not damaged, without its
// payload; ok is false where there is none.
func (t *Topic) at(ctx context.Context, offset uint64) (m Message, ok bool, err error) {
	m, _, err = t.there(ctx, offset, func(_ Message, bad error) bool { ok = bad == nil; return !ok })
	m.Payload = nil
	return m, ok, err
}

// there calls each for the durable messages from an offset on that are there, whatever
// was taken out meanwhile or lost by a salvage, until it returns false; for one that is
// damaged with its offset alone, and why. It returns the last message for which it was
// called, and where it ended: the offset of that, or of what comes behind.
func (t *Topic) there(ctx context.Context, from uint64, each func(Message, error) bool) (last Message, end uint64, err error) {
	for {
		was := from
		for m, err := range t.Read(ctx, from) {
			if errors.Is(err, forebay.ErrNotFound) {
				var behind uint64
				if behind, err = t.behind(from); err == nil && behind <= from {
					err = fmt.Errorf("%w: message %d", forebay.ErrNotFound, from)
				}
				if from = behind; err == nil {
					break
				}
			}
			if err != nil && !errors.Is(err, ErrDamaged) {
				return last, from, err
			}
			if last, from = m, m.Offset; !each(m, err) {
				return last, from, nil
			}
			from++
			if err != nil { // it ends the read, and not the walk
				break
			}
			was = from
		}
		if from == was {
			return last, from, nil
		}
	}
}

// behind returns the offset of the first message that is there from one on that is not,
// or of the next one that will be.
func (t *Topic) behind(offset uint64) (uint64, error) {
	for a, err := range t.seq.Appends(offset) {
		return a.Offset, err
	}
	_, next, err := t.seq.Bounds()
	return next, err
}
