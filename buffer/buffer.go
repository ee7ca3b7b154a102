package buffer

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/topic"
)

// prefix is before the names of a buffer's topic and keyspace.
const prefix = "buffer/"

// Errors. They come wrapped: compare with errors.Is.
var (
	// ErrClosed: the buffer was closed.
	ErrClosed = errors.New("buffer: closed")
	// ErrMoved: another Open has taken the buffer over.
	ErrMoved = errors.New("buffer: taken over by another open")
)

// Buffer is an open buffer. Any number of goroutines may use it.
type Buffer struct {
	db   *forebay.DB
	tp   *topic.Topic
	seq  *forebay.Sequence
	ks   *forebay.Keyspace
	rd   *topic.Reader // stands at low
	sink sink.Sink
	name string
	own  token
	o    Options

	room    room    // what may be added
	intake  intake  // rows on their way from the topic to the next cut
	circuit circuit // of the sink
	rate    rate    // at which rows are done

	state chan struct{} // of one place; held over each commit of the stored state

	mu      sync.Mutex // guards what follows; changed by who holds state, where it is stored
	c       counters
	low     uint64          // every offset before it has come to something
	cuts    map[uint64]*cut // that are not finished
	running map[uint64]*cut // those of them that are in lanes
	lanes   []*lane
	held    held // rows in lanes
	first   time.Time
	flushTo uint64        // rows before it do not wait for others
	moved   chan struct{} // closed and made anew when low moves, or the buffer ends
	closed  bool
	err     error // why it works no more, beside Close
	count   counts

	recovered []*cut // in their order; the cutter's
	wake      chan struct{}
	trim      chan struct{}
	ctx       context.Context
	stop      context.CancelFunc
	done      sync.WaitGroup
}

// held is how much of something there is.
type held struct {
	rows, bytes int64
}

// Open returns the buffer with a name of 1 to MaxName letters, digits and . _ -, makes it
// if there is none, takes it over from who had it open, and begins to write what waits
// into the sink. Close ends that; the store is closed after it. A buffer may be opened
// with other options, and another sink, than before.
//
// Errors: those of the store, and ErrDamaged.
func Open(db *forebay.DB, name string, to sink.Sink, o *Options) (*Buffer, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if to == nil {
		return nil, fmt.Errorf("buffer %q: no sink", name)
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Buffer{
		db: db, name: name, sink: to, o: opts,
		cuts: map[uint64]*cut{}, running: map[uint64]*cut{},
		state: make(chan struct{}, 1), moved: make(chan struct{}), wake: make(chan struct{}, 1), trim: make(chan struct{}, 1),
	}
	if err := b.load(); err != nil {
		return nil, fmt.Errorf("buffer %q: %w", name, err)
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.intake.init(b.ctx)
	context.AfterFunc(b.ctx, b.intake.wakeAll)
	b.circuit.init(opts.Backoff, opts.MaxBackoff)
	b.lane(opts.Lanes - 1)
	b.done.Go(b.cutAll)
	b.done.Go(b.trimAll)
	signal(b.trim)
	return b, nil
}

// load takes the buffer over and reads what is stored of it.
func (b *Buffer) load() (err error) {
	// All but the last row goes when it is written; Keep has them stay.
	retain := topic.Options{Every: -1, MaxMessages: 1}
	if b.o.Keep > 0 {
		retain.MaxMessages, retain.MaxAge = 0, b.o.Keep
	}
	if b.tp, err = topic.Open(b.db, prefix+b.name, &retain); err != nil {
		return err
	}
	b.seq = b.tp.Sequence()
	if b.rd, err = b.tp.Reader("sink"); err != nil {
		return err
	}
	if b.ks, err = b.db.Keyspace(prefix + b.name); err != nil {
		return err
	}
	if _, err := rand.Read(b.own[:]); err != nil {
		return err
	}
	if err := b.db.UpdateLevel(context.Background(), forebay.Durable, b.takeOver); err != nil {
		return err
	}
	used, err := b.waiting()
	if err != nil {
		return err
	}
	b.room.init(b.o.MaxRows, b.o.MaxBytes, used)
	return nil
}

// takeOver reads the state, and puts its token into it. What the topic does not have any
// more, because a salvage could not read it, is let go: its offsets will be given again.
func (b *Buffer) takeOver(tx *forebay.Tx) error {
	ks, err := tx.Keyspace(prefix + b.name)
	if err != nil {
		return err
	}
	stands, err := b.rd.Offset()
	if err != nil {
		return err
	}
	c := counters{next: stands}
	// A buffer that is new on a topic that is not begins behind what was taken out of it.
	c.lost = stands
	switch v, err := ks.Get(stateKey); {
	case err == nil:
		if c, err = decodeCounters(v); err != nil {
			return err
		}
	case !errors.Is(err, forebay.ErrNotFound):
		return err
	}
	cuts, err := readCuts(ks.Reader)
	if err != nil {
		return err
	}
	kept := cuts[:0]
	end := max(b.seq.Next(), stands)
	for _, cut := range cuts {
		switch {
		case cut.first >= end:
			if err := forgetCut(ks, cut); err != nil {
				return err
			}
			continue
		case cut.end > end:
			if err := b.shorten(ks, cut, end); err != nil {
				return err
			}
		case cut.end > c.next:
			return fmt.Errorf("%w: a cut ends at %d, and the next begins at %d", ErrDamaged, cut.end, c.next)
		}
		kept = append(kept, cut)
	}
	if c.next > end {
		c.again += c.next - end
		c.next = end
	}
	b.c, b.recovered = c, kept
	clear(b.cuts)
	for _, cut := range kept {
		b.cuts[cut.number] = cut
	}
	b.low = b.lowWithout(nil)
	if b.low < stands {
		return fmt.Errorf("%w: the topic's reader is at %d, before which row %d waits", ErrDamaged, stands, b.low)
	}
	switch err := b.rd.MoveTx(tx, stands, b.low); {
	case errors.Is(err, topic.ErrMoved): // a commit of before, which was not to be seen yet
		return fmt.Errorf("%w: %w", forebay.ErrConflict, err)
	case err != nil:
		return err
	}
	if err := ks.Put(ownerKey, b.own[:]); err != nil {
		return err
	}
	return ks.Put(stateKey, c.encode())
}

// lowWithout returns the offset before which all have come to something, once a cut is
// finished, too. Who calls holds mu, or is alone.
func (b *Buffer) lowWithout(finished *cut) uint64 {
	low := b.c.next
	for _, c := range b.cuts {
		if c != finished {
			low = min(low, c.first)
		}
	}
	return low
}

// readCuts reads the cuts that are not finished, in their order.
func readCuts(ks forebay.Reader) (cuts []*cut, err error) {
	for e, err := range ks.Prefix([]byte{cutPrefix}) {
		if err != nil {
			return nil, err
		}
		number, _, err := numberOf(e.Key)
		if err != nil {
			return nil, err
		}
		c, err := decodeCut(number, e.Value)
		if err != nil {
			return nil, err
		}
		cuts = append(cuts, c)
	}
	for e, err := range ks.Prefix([]byte{lanePrefix}) {
		if err != nil {
			return nil, err
		}
		number, rest, err := numberOf(e.Key)
		if err != nil || len(rest) != 2 {
			return nil, errors.Join(err, fmt.Errorf("%w: a key of a lane", ErrDamaged))
		}
		for _, c := range cuts {
			if c.number == number {
				c.stored = append(c.stored, int(rest[0])<<8|int(rest[1]))
			}
		}
	}
	return cuts, nil
}

// writer is a forebay.Writer, of a space.
type writer interface {
	Put(key, value []byte) error
	Delete(key []byte) error
}

// forgetCut deletes all that is stored of a cut.
func forgetCut(w writer, c *cut) error {
	err := w.Delete(numberKey(cutPrefix, c.number))
	for _, lane := range c.stored {
		err = errors.Join(err, w.Delete(laneKey(c.number, lane)))
	}
	return err
}

// shorten cuts a cut off at an offset, with the plans of its lanes.
func (b *Buffer) shorten(ks forebay.Space, c *cut, end uint64) error {
	plans := map[int]plan{}
	for _, lane := range c.stored {
		v, err := ks.Get(laneKey(c.number, lane))
		if err != nil {
			return err
		}
		if plans[lane], err = decodePlan(c, v); err != nil {
			return err
		}
	}
	c.end = end
	err := ks.Put(numberKey(cutPrefix, c.number), c.encode())
	for lane, p := range plans {
		for i := range p.pieces {
			q := &p.pieces[i]
			var spans []span
			for _, s := range q.spans {
				if s.hi = min(s.hi, end); s.lo < s.hi {
					spans = append(spans, s)
				}
			}
			q.spans = spans
		}
		err = errors.Join(err, ks.Put(laneKey(c.number, lane), p.encode(c)))
	}
	return err
}

// waiting returns how much is to be written: what is in cuts that are not finished, and
// what is in none yet. A cut may be finished before one that came earlier. What of cuts
// is done already is taken off when they are loaded.
func (b *Buffer) waiting() (used held, err error) {
	for _, c := range b.recovered {
		if err := b.measure(c.first, c.end, &used); err != nil {
			return used, err
		}
	}
	return used, b.measure(b.c.next, math.MaxUint64, &used)
}

// measure adds the rows from lo to before hi, and what they have in the log. It reads the
// index alone, and of appends that are in there by a part the items.
func (b *Buffer) measure(lo, hi uint64, sum *held) error {
	for a, err := range b.seq.Appends(lo) {
		if err != nil {
			return err
		}
		if a.Offset >= hi {
			break
		}
		if a.Offset >= lo && a.Offset+a.Items <= hi {
			sum.rows += int64(a.Items)
			sum.bytes += int64(a.Bytes) - 8 // the offset that each append has
			continue
		}
		for it, err := range b.seq.Read(context.Background(), max(a.Offset, lo)) {
			if err != nil {
				return err
			}
			if it.Offset >= min(a.Offset+a.Items, hi) {
				break
			}
			sum.rows++
			sum.bytes += sizeOf(len(it.Value))
		}
	}
	return nil
}

// commit is change for what the buffer itself does: while the store is full it tries
// again. Others may come in between.
func (b *Buffer) commit(edit func(tx *forebay.Tx, ks forebay.Space, c *counters) error, then func()) error {
	for n := 0; ; n++ {
		err := b.change(context.Background(), edit, then)
		if !errors.Is(err, forebay.ErrFull) {
			return err
		}
		b.o.Logger.Warn("buffer: the store is full", "buffer", b.name, "error", err)
		if err := sleep(b.ctx, backoff(b.o.Backoff, b.o.MaxBackoff, n)); err != nil {
			return ErrClosed
		}
	}
}

// change changes what is stored: edit is called in a transaction, with the counters to
// change, and again when that has to begin again. It returns when that is durable, and
// then is called with mu held, to change what is in memory. When ctx ends before its turn
// has come it returns ctx's error.
func (b *Buffer) change(ctx context.Context, edit func(tx *forebay.Tx, ks forebay.Space, c *counters) error, then func()) error {
	select {
	case b.state <- struct{}{}:
		defer func() { <-b.state }()
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	was, err := b.c, b.err
	b.mu.Unlock()
	if err != nil {
		return err
	}
	c := was
	// Its fate is to be known: nobody may end it.
	if err := b.db.UpdateLevel(context.Background(), forebay.Durable, func(tx *forebay.Tx) error {
		c = was
		ks, err := tx.Keyspace(prefix + b.name)
		if err != nil {
			return err
		}
		switch owner, err := ks.Get(ownerKey); {
		case errors.Is(err, forebay.ErrNotFound) || err == nil && !bytes.Equal(owner, b.own[:]):
			return fmt.Errorf("%w: buffer %q", ErrMoved, b.name)
		case err != nil:
			return err
		}
		if err := edit(tx, ks, &c); err != nil {
			return err
		}
		return ks.Put(stateKey, c.encode())
	}); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c = c
	then()
	return nil
}

// fail ends the work of the buffer, which cannot go on: the store is closed, or it was
// taken over.
func (b *Buffer) fail(err error) {
	if b.ctx.Err() != nil { // it was closed
		return
	}
	b.mu.Lock()
	if b.err == nil {
		b.err = fmt.Errorf("buffer %q: %w", b.name, err)
		b.room.close(b.err)
		b.tell()
	}
	b.mu.Unlock()
	b.o.Logger.Error("buffer: it works no more", "buffer", b.name, "error", err)
	b.stop()
}

// tell wakes all who wait for low. Who calls holds mu.
func (b *Buffer) tell() {
	close(b.moved)
	b.moved = make(chan struct{})
}

// signal wakes who waits at a channel of one place.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Name returns the buffer's name.
func (b *Buffer) Name() string { return b.name }

// Topic returns the topic in which the rows are. Whoever reads it under a name of his own
// (topic.Topic.Reader) keeps what is before his reader; nobody is to write there.
func (b *Buffer) Topic() *topic.Topic { return b.tp }

// Flush returns when every row that was acknowledged before the call is in the sink, or a
// dead letter. Rows do not wait for others then. When ctx ends it returns its error.
// Otherwise: ErrClosed, and what ended the buffer.
func (b *Buffer) Flush(ctx context.Context) error {
	target := b.seq.Next()
	for synced := false; ; {
		b.mu.Lock()
		b.flushTo = max(b.flushTo, target)
		low, moved, err := b.low, b.moved, b.err
		if err == nil && b.closed {
			err = ErrClosed
		}
		b.mu.Unlock()
		if low >= target {
			return nil
		}
		if err != nil {
			return err
		}
		if !synced { // what is acknowledged below Durable is not read before it is
			if err := b.db.Sync(ctx); err != nil {
				return err
			}
			synced = true
		}
		signal(b.wake)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// Shutdown takes no more rows, flushes, and closes. When ctx ends first it returns its
// error: what is not written yet waits for the next Open, and a write that does not end
// with its context goes on by itself. Rows whose Add runs at the same time may be left.
func (b *Buffer) Shutdown(ctx context.Context) error {
	b.room.close(ErrClosed)
	err := b.Flush(ctx)
	if err == nil {
		if _, err := b.tp.Retain(ctx); err != nil && ctx.Err() == nil {
			b.o.Logger.Warn("buffer: rows that are written stay in the log", "buffer", b.name, "error", err)
		}
	}
	if errors.Is(err, ErrClosed) {
		err = nil // by somebody else
	}
	closed := make(chan error, 1)
	go func() { closed <- b.Close() }() // it ends with the last write
	select {
	case e := <-closed:
		if err == nil {
			err = e
		}
	case <-ctx.Done():
		if err == nil {
			err = ctx.Err()
		}
	}
	return err
}

// Close ends what the buffer does: waits end at once, and a write under way has its
// context ended and is waited for. What is not written waits in the store for the next
// Open, which tries the same batches again. It returns what ended the buffer before, if
// something did.
func (b *Buffer) Close() error {
	b.room.close(ErrClosed)
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		b.tell()
	}
	b.mu.Unlock()
	b.stop()
	b.done.Wait()
	_ = b.tp.Close() // it has nothing in the background
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// trimAll takes out of the topic what is written, now and then.
func (b *Buffer) trimAll() {
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.trim:
		}
		if _, err := b.tp.Retain(b.ctx); err != nil && b.ctx.Err() == nil {
			b.o.Logger.Warn("buffer: rows that are written stay in the log", "buffer", b.name, "error", err)
			signal(b.trim) // there may come no row any more that would
		}
		if sleep(b.ctx, time.Second) != nil {
			return
		}
	}
}
