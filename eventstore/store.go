package eventstore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/topic"
)

// Errors. They come wrapped: compare with errors.Is.
var (
	// ErrConflict: a stream is not at the version that was expected; *VersionError has
	// more. Nothing was appended. (It is not forebay.ErrConflict, which transactions
	// are attempted again for.)
	ErrConflict = errors.New("eventstore: stream is not at the expected version")
	// ErrName: a name or another string of an event is empty, too long, or has bytes
	// that it may not have.
	ErrName = errors.New("eventstore: name")
	// ErrDamaged: what is stored is not what this package stores.
	ErrDamaged = errors.New("eventstore: damaged")
	// ErrIndex: the index does not lead to an event. Reindex makes it again; that is
	// needed behind a salvage of the store.
	ErrIndex = errors.New("eventstore: the index does not lead to the event")
	// ErrRetained: events were taken out by Retain; *RetainedError has more.
	ErrRetained = errors.New("eventstore: events were taken out")
	// ErrForgotten: the subject was forgotten.
	ErrForgotten = errors.New("eventstore: subject is forgotten")
	// ErrNoMasterKey: a subject's key is wrapped by a master key that is not among
	// Options.MasterKeys.
	ErrNoMasterKey = errors.New("eventstore: master key is missing")
)

// VersionError says where a stream is; it is ErrConflict.
type VersionError struct {
	Stream string
	// Expected is what the caller expected, Actual the stream's version.
	Expected Expected
	Actual   uint64
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("eventstore: stream %q is at version %d, expected %v", e.Stream, e.Actual, e.Expected)
}

// Is says that it is ErrConflict.
func (e *VersionError) Is(target error) bool { return target == ErrConflict }

// RetainedError says what is still there; it is ErrRetained.
type RetainedError struct {
	// Stream is "" where all events are read, and First the first version of the
	// stream that is there, or the first offset.
	Stream string
	First  uint64
}

func (e *RetainedError) Error() string {
	if e.Stream == "" {
		return fmt.Sprintf("eventstore: events before offset %d were taken out", e.First)
	}
	return fmt.Sprintf("eventstore: events of stream %q before version %d were taken out", e.Stream, e.First)
}

// Is says that it is ErrRetained.
func (e *RetainedError) Is(target error) bool { return target == ErrRetained }

// Options of a Store. The zero value is good for all but erasure that is proof against
// who has the disk: see MasterKeys.
type Options struct {
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Rand gives ids, keys and nonces, to many goroutines at once; nil: crypto/rand.
	Rand io.Reader
	// Level of Append; the zero Level is forebay.Durable. All, Follow and projections see
	// what is durable alone, Stream makes durable what it shows.
	Level forebay.Level
	// Upcasters bring payloads of old schemas to the ones of today; see Upcaster.
	Upcasters []Upcaster
	// MasterKeys wrap the keys of subjects: the first one those that are made from now
	// on, and all of them those that are there. None: keys lie in the store as they
	// are. See Forget for what that means.
	MasterKeys []MasterKey
	// LeaveSealed is for tools that look at events without the master keys: where one is
	// missing the event comes as Sealed, without its Payload and as no upcaster has seen
	// it, and the read goes on. No snapshot is saved then, and there are no projections.
	LeaveSealed bool
}

// Store is a set of streams on one topic. It is a handle, which any number of
// goroutines may use; it has no background and no Close.
type Store struct {
	db    *forebay.DB
	name  string
	topic *topic.Topic
	seq   *forebay.Sequence
	main  *forebay.Keyspace
	keys  *forebay.Keyspace
	snaps *forebay.Keyspace
	projs *forebay.Keyspace
	now   func() time.Time
	rand  io.Reader
	level forebay.Level
	up    upcasters
	ring  keyring
	// sealed is Options.LeaveSealed.
	sealed bool
}

// Names returns the names of the stores that a database has, sorted.
func Names(db *forebay.DB) ([]string, error) {
	sequences, err := db.Sequences()
	if err != nil {
		return nil, err
	}
	keyspaces, err := db.Keyspaces()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ks := range keyspaces {
		name, ok := strings.CutPrefix(ks, "events/")
		if ok && checkName("store", name, 60) == nil && slices.Contains(sequences, "topic/events/"+name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// Open returns the store with a name of 1 to 60 bytes without '/', and makes it if
// there is none. A forebay.DB that is open for reading only has no events to read.
func Open(db *forebay.DB, name string, o *Options) (*Store, error) {
	if err := checkName("store", name, 60); err != nil {
		return nil, err
	}
	s := &Store{db: db, name: name, now: time.Now, rand: rand.Reader}
	if o != nil {
		if o.Now != nil {
			s.now = o.Now
		}
		if o.Rand != nil {
			s.rand = o.Rand
		}
		s.level, s.sealed = o.Level, o.LeaveSealed
		var err error
		if s.up, err = newUpcasters(o.Upcasters); err != nil {
			return nil, err
		}
		if s.ring, err = newKeyring(o.MasterKeys); err != nil {
			return nil, err
		}
	}
	var err error
	if s.topic, err = topic.Open(db, "events/"+name, &topic.Options{Now: s.now, Every: -1}); err != nil {
		return nil, fmt.Errorf("eventstore %q: %w", name, err)
	}
	s.seq = s.topic.Sequence()
	for suffix, ks := range map[string]**forebay.Keyspace{"": &s.main, "/keys": &s.keys, "/snapshots": &s.snaps, "/projections": &s.projs} {
		if *ks, err = db.Keyspace("events/" + name + suffix); err != nil {
			return nil, fmt.Errorf("eventstore %q: %w", name, err)
		}
	}
	return s, nil
}

// Name returns the store's name.
func (s *Store) Name() string { return s.name }

// Topic returns the topic in which the events are. A topic.Reader of it holds Retain
// back, as a projection does.
func (s *Store) Topic() *topic.Topic { return s.topic }

// checkName looks at a name that becomes part of a key or the name of a keyspace.
func checkName(what, name string, limit int) error {
	switch {
	case name == "" || len(name) > limit:
		return fmt.Errorf("%w of a %s: %d bytes, want 1 to %d", ErrName, what, len(name), limit)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%w of a %s: %q has '/' or a zero byte", ErrName, what, name)
	}
	return nil
}

// maxString is the longest name of a stream, type, subject or header in bytes, and
// maxHeaders how many headers an event has at most.
const (
	maxString  = 255
	maxText    = 4096 // value of a header
	maxHeaders = 64
)

// checkKey looks at a string of an event that becomes part of a key.
func checkKey(what, v string) error {
	if v == "" || len(v) > maxString || strings.IndexByte(v, 0) >= 0 || !utf8.ValidString(v) {
		return fmt.Errorf("%w of a %s: %q, want 1 to %d bytes of UTF-8 without zero bytes", ErrName, what, v, maxString)
	}
	return nil
}

// checkStream looks at the name of a stream that a caller appends to.
func checkStream(stream string) error {
	if strings.HasPrefix(stream, "$") {
		return fmt.Errorf("%w of a stream: %q: those that begin with '$' are the store's own", ErrName, stream)
	}
	return checkKey("stream", stream)
}
