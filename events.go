package forebay

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// EventKind says what an Event is about.
type EventKind uint8

// Kinds of events.
const (
	// EventCheckpoint: a memtable was settled, up to LSN, in Duration, into a
	// segment of Bytes; or Err says why not.
	EventCheckpoint EventKind = iota + 1
	// EventCompaction: segments were merged into Level for Reason, BytesRead and
	// Bytes written, in Duration; or Err says why not.
	EventCompaction
	// EventStall: a writer had to wait for Duration because checkpoints or
	// compactions could not follow. Waits below 10 ms are not told.
	EventStall
	// EventSlowSync: a sync of the log has been running for Duration, which is
	// more than Options.SlowSync; with Done it has ended after all.
	EventSlowSync
	// EventCorruption: bytes that must be intact are not; Err is a
	// *CorruptionError. It is told for each call that meets them.
	EventCorruption
)

// String returns the kind's name.
func (k EventKind) String() string {
	switch k {
	case EventCheckpoint:
		return "checkpoint"
	case EventCompaction:
		return "compaction"
	case EventStall:
		return "stall"
	case EventSlowSync:
		return "slow sync"
	case EventCorruption:
		return "corruption"
	}
	return fmt.Sprintf("event(%d)", uint8(k))
}

// Event is something that happened in a store; Kind says which of the fields
// mean something.
type Event struct {
	Kind EventKind
	// Err is why it failed, or nil.
	Err error
	// Duration is how long it took.
	Duration time.Duration
	// Bytes written and BytesRead, sizes of segments.
	Bytes, BytesRead int64
	// Level is the level into which a compaction merged, and Reason why it did.
	Level  int
	Reason string
	// LSN is the last commit that a checkpoint settled, or was to settle.
	LSN uint64
	// Done: the sync that was told as slow has ended.
	Done bool
}

// maxEvents wait for a listener that does not return; newer ones are lost.
const maxEvents = 1024

// events hands events to the listener, one at a time and in order, by a goroutine
// that lives while there are some.
type events struct {
	listen func(Event)
	mu     sync.Mutex // guards all below; it is a leaf
	queue  []Event
	busy   bool
	over   bool
	lost   uint64
}

func (e *events) start(listen func(Event)) { e.listen = listen }

// end takes no more events. It does not wait until those that came before are
// told.
func (e *events) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
}

// event tells the listener.
func (db *DB) event(ev Event) {
	e := &db.events
	if e.listen == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.over:
		return
	case len(e.queue) >= maxEvents:
		e.lost++
		return
	}
	e.queue = append(e.queue, ev)
	if !e.busy {
		e.busy = true
		go e.tell()
	}
}

func (e *events) tell() {
	for {
		e.mu.Lock()
		if len(e.queue) == 0 {
			e.busy = false
			e.mu.Unlock()
			return
		}
		ev := e.queue[0]
		e.queue = e.queue[1:]
		e.mu.Unlock()
		e.listen(ev)
	}
}

// seen passes an error on, and tells of damage.
func (db *DB) seen(err error) error {
	if err == nil {
		return nil
	}
	var damage *CorruptionError
	if errors.As(err, &damage) {
		db.count.corruptions.Add(1)
		db.opts.Logger.Error("forebay: damage", "file", damage.File, "offset", damage.Offset, "reason", damage.Reason)
		db.event(Event{Kind: EventCorruption, Err: err})
	}
	return err
}

// stallCounted is the shortest wait that is one: the pacer lets most pass.
const stallCounted = 50 * time.Microsecond

// stallTold is the shortest wait of a writer that is told.
const stallTold = 10 * time.Millisecond

// stalled says that a writer waited.
func (db *DB) stalled(d time.Duration) {
	db.count.stalls.Add(1)
	db.count.stallTime.Add(int64(d))
	if d >= stallTold {
		db.event(Event{Kind: EventStall, Duration: d})
	}
}

// slowSync is told by the log.
func (db *DB) slowSync(took time.Duration, done bool) {
	if !done {
		db.count.slowSyncs.Add(1)
		db.opts.Logger.Warn("forebay: a sync of the log hangs", "for", took)
	}
	db.event(Event{Kind: EventSlowSync, Duration: took, Done: done})
}
