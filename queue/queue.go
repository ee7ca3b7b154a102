package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
)

// topicPrefix is before the names of a queue's topics and of its keyspace.
const topicPrefix = "queue/"

// Options of a queue. A nil pointer is valid, zero fields mean the defaults.
type Options struct {
	// Priorities is how many there are, 1 to MaxPriorities; default 1. There may be
	// fewer than at an open before: what has a higher one is still delivered.
	Priorities int
	// Level of Enqueue; the zero Level is forebay.Durable. What is enqueued below that
	// is delivered when it is durable all the same.
	Level forebay.Level
	// MaxMessages and MaxBytes bound what the slowest group, or while there is none the
	// first to come, has before it: waiting, delayed and in flight, but not its dead
	// letters. Bytes are those of stored messages, to within ten a message. 0: no bound.
	MaxMessages, MaxBytes int64
	// DedupeFor is how long a dedupe id is remembered, default an hour, and DedupeMax how
	// many are, default a million: beyond that those that end first are forgotten
	// within some seconds.
	DedupeFor time.Duration
	DedupeMax int
	Hooks     Hooks
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Priorities == 0 {
		out.Priorities = 1
	}
	if out.DedupeFor == 0 {
		out.DedupeFor = time.Hour
	}
	if out.DedupeMax == 0 {
		out.DedupeMax = 1 << 20
	}
	if out.Now == nil {
		out.Now = time.Now
	}
	switch {
	case out.Priorities < 1 || out.Priorities > MaxPriorities:
		return out, &LimitError{"number of priorities", int64(out.Priorities), MaxPriorities}
	case out.MaxMessages < 0 || out.MaxBytes < 0 || out.DedupeMax < 0 || out.DedupeFor < 0 || out.DedupeFor > maxDelay:
		return out, fmt.Errorf("queue: a bound in Options is negative or too large")
	}
	return out, nil
}

// lane is one of the topics of a queue.
type lane struct {
	id      uint8
	t       *topic.Topic
	seq     *forebay.Sequence
	trimmed uint64 // all before it was taken out; trims guards it
}

// core is a queue without the type of its values.
type core struct {
	db   *forebay.DB
	name string
	o    Options
	ks   *forebay.Keyspace
	// handle is the value of the key that says which handle is in use.
	handle []byte
	lanes  [laneLater + 1]*lane // nil: there is none

	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{}  // of the maintenance
	done sync.WaitGroup // goroutines
	// commits under way, also those that nobody waits for: each begins before Close waits.
	commits sync.WaitGroup
	ended   chan struct{} // closed by Close when all is done

	trims sync.Mutex // see doc.go

	mu      sync.Mutex // guards all below, and the memory of all groups; see doc.go
	groups  map[string]*group
	none    backlog // of the first group to come, while there is none
	in      int64   // messages that were ever enqueued, and are committed
	pend    size    // of enqueues under way
	dedupes int64   // dedupe ids that are remembered
	closing bool    // nothing new begins
	closed  bool    // nothing is settled any more
	runs    int     // calls of Run and of Receive, and commits under way
	idle    chan struct{}
}

// size is of messages.
type size struct{ n, bytes int64 }

// backlog is what somebody has before him, and had.
type backlog struct {
	passed int64 // messages of all that were enqueued that are not before him any more
	bytes  int64 // of those that are
}

// opened has the queues that are open in this process.
var opened struct {
	mu    sync.Mutex
	names map[openKey]bool
}

type openKey struct {
	db   *forebay.DB
	name string
}

// Queue is a handle of an open queue. Any number of goroutines may use it.
type Queue[T any] struct {
	*core
	codec Codec[T]
}

// Open opens a queue, and makes it if there is none with the name, of 1 to 100 bytes and
// without a slash. All groups that it has go on where they were; what was in flight is
// delivered again. ErrOpen: it is open already. Close it before the store.
func Open[T any](db *forebay.DB, name string, codec Codec[T], o *Options) (*Queue[T], error) {
	c, err := open(db, name, o)
	if err != nil {
		return nil, err
	}
	return &Queue[T]{c, codec}, nil
}

// Name returns the queue's name.
func (q *Queue[T]) Name() string { return q.core.name }

// Close ends deliveries, ends the contexts of all Run, waits until their handlers have
// returned, and for the commits under way, and notes how far the groups have come. What
// is still in flight with others is delivered again after the next Open; to acknowledge
// it is ErrClosed, but for an AckTx under way, which counts if it is committed before that
// Open. It must not be called by a
// handler. A second call waits for the first, and does nothing else.
func (q *Queue[T]) Close() error { return q.core.close() }

func open(db *forebay.DB, name string, o *Options) (*core, error) {
	if name == "" || len(name) > 100 || strings.Contains(name, "/") {
		return nil, fmt.Errorf("queue: the name of a queue has 1 to 100 bytes and no slash: %q", name)
	}
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	key := openKey{db, name}
	opened.mu.Lock()
	had := opened.names[key]
	if !had {
		if opened.names == nil {
			opened.names = map[openKey]bool{}
		}
		opened.names[key] = true
	}
	opened.mu.Unlock()
	if had {
		return nil, fmt.Errorf("%w: %q", ErrOpen, name)
	}
	q := &core{db: db, name: name, o: opts, groups: map[string]*group{}, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	if err := q.start(); err != nil {
		q.forget()
		return nil, fmt.Errorf("queue %q: %w", name, err)
	}
	return q, nil
}

// start opens what is stored.
func (q *core) start() (err error) {
	if q.ks, err = q.db.Keyspace(topicPrefix + q.name); err != nil {
		return err
	}
	if err := q.fence(); err != nil {
		return err
	}
	if err := q.openLanes(); err != nil {
		return err
	}
	if err := q.load(); err != nil {
		return err
	}
	q.ctx, q.stop = context.WithCancel(context.Background())
	q.done.Go(q.maintain)
	return nil
}

func (q *core) forget() {
	opened.mu.Lock()
	defer opened.mu.Unlock()
	delete(opened.names, openKey{q.db, q.name})
}

func (q *core) laneName(id uint8) string {
	switch id {
	case 0:
		return topicPrefix + q.name
	case laneLater:
		return topicPrefix + q.name + "/later"
	}
	return topicPrefix + q.name + "/" + strconv.Itoa(int(id))
}

// openLanes opens the lanes that are wanted, and those that are there.
func (q *core) openLanes() error {
	names, err := q.db.Sequences()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for id := range q.lanes {
		name := q.laneName(uint8(id))
		wanted := id < q.o.Priorities || id == laneLater && q.o.Priorities > 0
		if !wanted && !there["topic/"+name] {
			continue
		}
		t, err := topic.Open(q.db, name, &topic.Options{Now: q.o.Now})
		if err != nil {
			return err
		}
		l := &lane{id: uint8(id), t: t, seq: t.Sequence()}
		first, next, err := t.Bounds()
		if err != nil {
			return err
		}
		l.trimmed = first
		q.in += int64(next)
		q.lanes[id] = l
	}
	return nil
}

// load makes what is kept in memory of what is stored. Nobody else knows the queue yet.
func (q *core) load() error {
	for e, err := range q.ks.Prefix([]byte{kindGroup}) {
		if err != nil {
			return err
		}
		starts, err := decodeStarts(e.Value)
		if err != nil {
			return err
		}
		name := string(e.Key[1:])
		if err := checkGroup(name); err != nil {
			return err
		}
		q.groups[name] = &group{q: q, name: name, starts: starts}
	}
	for _, g := range q.groups {
		if err := g.load(); err != nil {
			return err
		}
	}
	if len(q.groups) == 0 {
		if err := q.measure(); err != nil {
			return err
		}
	}
	for _, err := range q.ks.Prefix([]byte{kindExpiry}) {
		if err != nil {
			return err
		}
		q.dedupes++
	}
	return nil
}

// measure sets what the first group to come has before it. trims is held, or nobody else
// knows the queue yet.
func (q *core) measure() error {
	var firsts [laneLater + 1]uint64
	var none backlog
	for i, l := range q.lanes {
		if l != nil {
			firsts[i] = l.trimmed
			none.passed += int64(l.trimmed)
		}
	}
	var err error
	none.bytes, err = q.bytesFrom(firsts)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.none = none
	return err
}

// bytesFrom returns what messages from given offsets on have in the log. It walks their
// index, where there is a bound.
func (q *core) bytesFrom(from [laneLater + 1]uint64) (sum int64, err error) {
	if q.o.MaxBytes == 0 {
		return 0, nil
	}
	for i, l := range q.lanes {
		if l == nil {
			continue
		}
		for a, err := range l.seq.Appends(from[i]) {
			if err != nil {
				return 0, err
			}
			bytes := a.Bytes
			if a.Offset < from[i] { // a part of it is done
				bytes = bytes / a.Items * (a.Offset + a.Items - from[i])
			}
			sum += int64(bytes)
		}
	}
	return sum, nil
}

// now returns the time.
func (q *core) now() time.Time { return q.o.Now() }

// begin is called before what Close waits for; it ends with end. late: it settles what
// is under way, and may begin while the queue closes.
func (q *core) begin(late bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.closing && !late {
		return ErrClosed
	}
	q.runs++
	return nil
}

func (q *core) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.runs--; q.runs == 0 && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

// close is Queue.Close.
func (q *core) close() error {
	q.mu.Lock()
	if q.closing {
		q.mu.Unlock()
		<-q.ended
		return nil
	}
	q.closing = true
	defer close(q.ended)
	var stops []context.CancelFunc
	for _, g := range q.groups {
		g.fail(ErrClosed)
		stops = append(stops, g.stopRuns)
	}
	q.mu.Unlock()
	for _, stop := range stops {
		if stop != nil {
			stop()
		}
	}
	q.mu.Lock()
	for q.runs > 0 {
		idle := make(chan struct{})
		q.idle = idle
		q.mu.Unlock()
		<-idle
		q.mu.Lock()
	}
	q.closed = true
	groups := make([]*group, 0, len(q.groups))
	for _, g := range q.groups {
		groups = append(groups, g)
	}
	q.mu.Unlock()
	q.stop()
	q.done.Wait()
	var errs []error
	for _, g := range groups {
		if g.started {
			errs = append(errs, g.uncount(), g.save(context.Background()))
		}
	}
	q.commits.Wait()
	for _, l := range q.lanes {
		if l != nil {
			errs = append(errs, l.t.Close())
		}
	}
	q.forget()
	return errors.Join(errs...)
}
