package eventstore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// ID names an event. The store gives random ones.
type ID [16]byte

// String returns the id in hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Hash is a SHA-256.
type Hash [32]byte

// New is an event that is to be appended. What it refers to is copied.
type New struct {
	// ID is random when zero. The store does not look whether it is there already.
	ID ID
	// Type says what happened: 1 to 255 bytes.
	Type string
	// Schema is the version of the payload's form, from 1 on; 0 is 1.
	Schema uint32
	// Correlation names the conversation that the event belongs to, Causation what it
	// follows from: an event or a command. At most 255 bytes each; may be empty.
	Correlation, Causation string
	// Headers are for what else is to be known: at most 64, with names of 1 to 255
	// bytes and values of up to 4,096.
	Headers map[string]string
	// Subject, if not empty, is whom the payload is about: it is encrypted with a key
	// that Forget removes. Only the payload is: type, stream, headers and the name of
	// the subject itself stay, and should say nothing about a person.
	Subject string
	Payload []byte
}

// CausedBy returns the event with ev as its cause: its correlation, or ev itself where
// that has none, and its id as causation.
func (n New) CausedBy(ev Event) New {
	if n.Correlation = ev.Correlation; n.Correlation == "" {
		n.Correlation = ev.ID.String()
	}
	n.Causation = ev.ID.String()
	return n
}

// Event is one that was appended. Payload and Headers live for one step of an
// iteration, or one call of Apply, and must not be changed; the rest may be kept.
type Event struct {
	// Offset is its place among all events, in the order of their commits, from 0 on.
	Offset uint64
	// LSN of the commit that appended it.
	LSN uint64
	// Stream and its Version there, from 1 on.
	Stream  string
	Version uint64
	ID      ID
	Type    string
	Schema  uint32
	// Time at which it was appended, by the store's clock, but never before that of the
	// stream's event before. Across streams times may be out of order.
	Time                   time.Time
	Correlation, Causation string
	Headers                map[string]string
	Subject                string
	// Erased: the subject was forgotten. There is no Payload, and no upcaster has seen
	// the event.
	Erased bool
	// Sealed: it could not be opened; only with Options.LeaveSealed.
	Sealed  bool
	Payload []byte
	// Prev is the hash of the stream's event before, zero for version 1.
	Prev Hash

	raw []byte // the envelope
	key keyID  // under which the payload was sealed, and opened
}

// Hash returns the event's own hash, which the stream's next event has as Prev. It is of
// what is stored, whatever upcasters make of it. Like Payload it can be had for one step
// of an iteration.
func (ev Event) Hash() Hash { return hashOf(ev.raw) }

// Forgotten is the type of the event that Forget appends to the stream "$forgotten": a
// projection that holds rows about Event.Subject deletes them when it comes to it.
const Forgotten = "$forgotten"

// forgottenStream is where they are.
const forgottenStream = "$forgotten"

// Expected says at which version a stream must be for an append.
type Expected struct {
	any     bool
	version uint64
}

// Any is any version.
var Any = Expected{any: true}

// NoStream is that of a stream without events.
var NoStream = Exactly(0)

// Exactly is one version: that of the stream's last event.
func Exactly(version uint64) Expected { return Expected{version: version} }

// String returns what is expected, for messages.
func (e Expected) String() string {
	switch {
	case e.any:
		return "any"
	case e.version == 0:
		return "no stream"
	}
	return fmt.Sprint(e.version)
}

func (e Expected) check(stream string, actual uint64) error {
	if e.any || e.version == actual {
		return nil
	}
	return &VersionError{Stream: stream, Expected: e, Actual: actual}
}

// EventError says which event an upcaster, an Apply or a decoder failed at.
type EventError struct {
	Offset uint64
	// Stream is "", and the rest zero, where the event itself does not decode.
	Stream  string
	Version uint64
	Type    string
	Err     error
}

func (e *EventError) Error() string {
	if e.Stream == "" {
		return fmt.Sprintf("eventstore: event %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("eventstore: event %d (%s, version %d of stream %q): %v", e.Offset, e.Type, e.Version, e.Stream, e.Err)
}

// Unwrap returns the cause.
func (e *EventError) Unwrap() error { return e.Err }

// failedAt says that err is of an event, if it does not yet.
func failedAt(ev Event, err error) error {
	if had := (*EventError)(nil); errors.As(err, &had) {
		return err
	}
	return &EventError{ev.Offset, ev.Stream, ev.Version, ev.Type, err}
}
