package eventstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Aggregate says how the events of a stream come to a state S. It is set up once and
// not changed; any number of goroutines may use it.
type Aggregate[S any] struct {
	// Name of the kind of aggregate, 1 to 60 bytes without '/': snapshots are kept under
	// it.
	Name string
	// Schema is the version of S, of Apply and of the codec: snapshots of another one
	// are not used.
	Schema uint32
	// New returns the state before the first event; nil: the zero S.
	New func() S
	// Apply returns the state behind an event, which it must not keep the bytes of. It
	// depends on nothing else than its arguments. An event may be Erased, or of a type
	// that it does not know. Its error ends the load, as an *EventError.
	Apply func(S, Event) (S, error)
	// Encode and Decode turn a state into a snapshot and back; nil: encoding/json.
	// Decode must not keep b.
	Encode func(S) ([]byte, error)
	Decode func(b []byte) (S, error)
	// SnapshotEvery saves a snapshot at each version that is a multiple of it, when a
	// Load comes to it; 0: never.
	SnapshotEvery uint64
	// Keep is how many snapshots of one stream there are, the newest; 0: 1. Older ones
	// make it quicker to go back in time.
	Keep int
}

// Loaded is a state, and how it was come to.
type Loaded[S any] struct {
	State S
	// Version of the last event in it, 0: none, and its time.
	Version uint64
	Time    time.Time
	// Snapshot is the version of the snapshot that it began with, 0: none, and Applied
	// how many events were applied to that.
	Snapshot uint64
	Applied  int
	// SnapshotErr is why no snapshot could be saved, where one was due; nil: there is no
	// reason. The state is as good without.
	SnapshotErr error
}

// until says how far to load.
type until struct {
	version uint64
	timed   bool // at counts
	at      time.Time
}

// Load returns the state of a stream by its last event. It begins with the newest
// snapshot that fits; snapshots are a cache, and whether there is one changes only the
// time that it takes. Errors: those of Store.Stream, *EventError. Without a snapshot a
// stream whose first events were taken out is ErrRetained.
func (a *Aggregate[S]) Load(ctx context.Context, s *Store, stream string) (Loaded[S], error) {
	return a.load(ctx, s, stream, until{version: ^uint64(0)}, true)
}

// AtVersion returns the state as it was behind a version of the stream, or behind the
// last one if there is none yet.
func (a *Aggregate[S]) AtVersion(ctx context.Context, s *Store, stream string, version uint64) (Loaded[S], error) {
	return a.load(ctx, s, stream, until{version: version}, false)
}

// AtTime returns the state as it was at a time: behind the last event that is not later.
func (a *Aggregate[S]) AtTime(ctx context.Context, s *Store, stream string, at time.Time) (Loaded[S], error) {
	return a.load(ctx, s, stream, until{version: ^uint64(0), timed: true, at: at}, false)
}

// Execute loads the state, has decide say which events follow from it, and appends them
// if nobody has appended meanwhile; else it begins again, until ctx ends. It returns
// the state with them. decide is called once each time, outside of all transactions.
func (a *Aggregate[S]) Execute(ctx context.Context, s *Store, stream string, decide func(state S, version uint64) ([]New, error)) (Loaded[S], Appended, error) {
	for {
		l, err := a.Load(ctx, s, stream)
		if err != nil {
			return l, Appended{}, err
		}
		events, err := decide(l.State, l.Version)
		if err != nil || len(events) == 0 {
			return l, Appended{First: l.Version + 1, Last: l.Version}, err
		}
		at, err := s.Append(ctx, stream, Exactly(l.Version), events...)
		switch {
		case err == nil:
			l, err = a.AtVersion(ctx, s, stream, at.Last)
			return l, at, err
		case !errors.Is(err, ErrConflict):
			return l, Appended{}, err
		}
		if err := ctx.Err(); err != nil {
			return l, Appended{}, err
		}
	}
}

func (a *Aggregate[S]) check() error {
	if a.Apply == nil || (a.Encode == nil) != (a.Decode == nil) {
		return fmt.Errorf("%w of an aggregate: %q has no Apply, or one of Encode and Decode alone", ErrName, a.Name)
	}
	return checkName("aggregate", a.Name, 60)
}

// errMisfit: the events behind a snapshot are not those that it goes on with.
var errMisfit = errors.New("eventstore: snapshot does not fit")

func (a *Aggregate[S]) load(ctx context.Context, s *Store, stream string, to until, save bool) (Loaded[S], error) {
	if err := errors.Join(a.check(), checkKey("stream", stream)); err != nil {
		return Loaded[S]{}, err
	}
	snap, err := s.newestSnapshot(a.Name, stream, a.Schema, to)
	if err != nil {
		return Loaded[S]{}, err
	}
	if snap != nil {
		state, err := a.decode(snap.state)
		if err == nil {
			l := Loaded[S]{State: state, Version: snap.version, Snapshot: snap.version, Time: time.Unix(0, snap.at)}
			if l, err = a.fold(ctx, s, stream, to, save, l, snap); !errors.Is(err, errMisfit) {
				return l, err
			}
		}
	}
	l := Loaded[S]{}
	if a.New != nil {
		l.State = a.New()
	}
	return a.fold(ctx, s, stream, to, save, l, nil)
}

// fold applies the events behind l, which begins with snap unless that is nil.
func (a *Aggregate[S]) fold(ctx context.Context, s *Store, stream string, to until, save bool, l Loaded[S], snap *snapshot) (Loaded[S], error) {
	due := uint64(0) // the version of which a snapshot is to be saved
	h, err := headOf(s.main.Reader, stream)
	if err != nil {
		return l, err
	}
	if snap != nil && (h.version < snap.version || h.version == snap.version && h.hash != snap.hash) {
		return l, errMisfit
	}
	if n := a.SnapshotEvery; save && n > 0 && !s.sealed {
		if due = h.version - h.version%n; due <= l.Version {
			due = 0
		}
	}
	saved := snapshot{schema: a.Schema}
	if snap != nil {
		for subject, id := range snap.subjects {
			saved.subjects.put(subject, id)
		}
	}
	if l.Version >= to.version {
		return l, nil
	}
	var pending *snapshot
	for ev, err := range s.Stream(ctx, stream, l.Version+1) {
		if err != nil {
			return l, err
		}
		if snap != nil && l.Applied == 0 && ev.Prev != snap.hash {
			return l, errMisfit
		}
		if to.timed && ev.Time.After(to.at) {
			break
		}
		if l.State, err = a.Apply(l.State, ev); err != nil {
			return l, failedAt(ev, err)
		}
		l.Version, l.Time = ev.Version, ev.Time
		l.Applied++
		if due > 0 {
			saved.subjects.add(ev)
		}
		if due == ev.Version {
			// It is encoded now, before later events change what it refers to.
			saved.version, saved.at, saved.hash = ev.Version, ev.Time.UnixNano(), ev.Hash()
			if saved.state, l.SnapshotErr = a.encode(l.State); l.SnapshotErr == nil {
				pending = &saved
			}
			due = 0
		}
		if l.Version >= to.version {
			break
		}
	}
	if pending != nil {
		l.SnapshotErr = s.saveSnapshot(ctx, a.Name, stream, pending, max(a.Keep, 1))
	}
	return l, nil
}

func (a *Aggregate[S]) encode(state S) ([]byte, error) {
	if a.Encode != nil {
		return a.Encode(state)
	}
	return json.Marshal(state)
}

func (a *Aggregate[S]) decode(b []byte) (state S, err error) {
	if a.Decode != nil {
		return a.Decode(b)
	}
	if a.New != nil {
		state = a.New()
	}
	err = json.Unmarshal(b, &state)
	return state, err
}

// DropSnapshots deletes all snapshots of the aggregate, by a durable commit. States are
// then made from events alone, until Load saves snapshots again.
func (a *Aggregate[S]) DropSnapshots(ctx context.Context, s *Store) error {
	if err := a.check(); err != nil {
		return err
	}
	return s.dropSnapshots(ctx, a.Name)
}
