package queue

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrClosed: the queue was closed.
	ErrClosed = errors.New("queue: closed")
	// ErrOpen: the queue is open already, by another handle in this process.
	ErrOpen = errors.New("queue: already open")
	// ErrStaleLease: the message was acknowledged, given back, delivered again, or its
	// lease has ended. Nothing was done with it.
	ErrStaleLease = errors.New("queue: stale lease")
	// ErrFull is what a *FullError is.
	ErrFull = errors.New("queue: full")
	// ErrDuplicate is what a *DuplicateError is.
	ErrDuplicate = errors.New("queue: duplicate")
	// ErrDamaged: something stored is not what a queue writes.
	ErrDamaged = errors.New("queue: not what a queue writes")
	// ErrPermanent, wrapped in a handler's error, makes the message a dead letter at
	// once: another attempt would not help.
	ErrPermanent = errors.New("queue: permanent failure")
)

// FullError says that the slowest group has as much before it as Options allow. Nothing
// was enqueued.
type FullError struct {
	// What is "messages" or "bytes", Limit that of Options.
	What  string
	Limit int64
	// RetryAfter is about how long it takes, at the rate at which the slowest group has
	// drained lately, until there is room for what was refused: 10 ms to a minute, and
	// a second when nothing was drained.
	RetryAfter time.Duration
}

func (e *FullError) Error() string {
	return fmt.Sprintf("queue: full: %d %s wait; try again in %v", e.Limit, e.What, e.RetryAfter)
}

// Is says that it is ErrFull.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// DuplicateError says that a message with the dedupe id was enqueued before, and not so
// long ago that it would be forgotten. Nothing was enqueued.
type DuplicateError struct {
	DedupeID string
	// ID of that message, if Known: it may be done and gone.
	ID    ID
	Known bool
}

func (e *DuplicateError) Error() string {
	if !e.Known {
		return fmt.Sprintf("queue: duplicate of a message with the dedupe id %q", e.DedupeID)
	}
	return fmt.Sprintf("queue: duplicate of message %v with the dedupe id %q", e.ID, e.DedupeID)
}

// Is says that it is ErrDuplicate.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// LimitError says that a name or a part of a message is not within its limit. Nothing
// was done.
type LimitError struct {
	What        string
	Size, Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("queue: %s: %d is not within the limit of %d", e.What, e.Size, e.Limit)
}
