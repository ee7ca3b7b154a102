package eventstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/forebaydb/forebay"
)

// Retention says what Retain may take out: all that one of its fields allows. The zero
// value allows nothing.
type Retention struct {
	// Before is an offset: what is before it. See Archive.
	Before uint64
	// MaxAge, MaxEvents and MaxBytes: what is older, and the oldest beyond so many, or
	// beyond so many bytes of the log.
	MaxAge    time.Duration
	MaxEvents uint64
	MaxBytes  uint64
}

// Retained says what Retain did.
type Retained struct {
	// First is the offset of the first event that is left.
	First uint64
	// Events is how many went, and Bytes what they had in the log.
	Events, Bytes uint64
	// Held says that a projection, one of its dead letters, or a reader of the topic
	// still needs what would have gone else.
	Held bool
	// Problems are the events among them that did not decode, the first hundred: each is
	// an *EventError with its Offset, and wraps ErrDamaged.
	Problems []error
}

// stepOfRetain is about how many events go in one commit.
const stepOfRetain = 1024

// Retain takes events out, the oldest first, by durable commits: not those that a
// projection, a generation that is being built, a dead letter or a reader of the topic
// still needs; and those of one commit together. Streams go on with their versions and
// their chain of hashes, and know their first version that is there. What was taken out
// is in no rebuild, and in no state but that of a snapshot: archive it before, and have
// snapshots of the aggregates that go on. A reader of the topic that is made while Retain
// works may begin behind what it takes. When it fails or ctx ends in the middle, what is
// done is whole, and the next Retain goes on.
//
// An event that does not decode goes with those around it, and its stream goes on behind
// it, if the index leads to it. When all is done Retain returns an error that joins the
// Problems: so they are told once. An Archive that was made before has such an event as it
// was.
func (s *Store) Retain(ctx context.Context, r Retention) (out Retained, err error) {
	to, err := s.retainTo(ctx, r)
	if err != nil {
		return out, err
	}
	readers, err := s.topic.Readers()
	if err != nil {
		return out, err
	}
	for _, at := range readers {
		if at < to {
			to, out.Held = at, true
		}
	}
	for {
		st, err := s.retainStep(ctx, to)
		if err != nil {
			return out, errors.Join(append(out.Problems, err)...)
		}
		out.Problems = append(out.Problems, st.problems...)
		out.Problems = out.Problems[:min(len(out.Problems), maxProblems)]
		out.First, out.Events, out.Bytes = st.floor, out.Events+st.events, out.Bytes+st.bytes
		out.Held = out.Held || st.held
		if st.events == 0 && !st.again {
			break
		}
	}
	// Also what a crash has left of the last time.
	return out, errors.Join(append(out.Problems, s.seq.Trim(out.First))...)
}

// retainTo returns the offset before which a retention lets everything go.
func (s *Store) retainTo(ctx context.Context, r Retention) (uint64, error) {
	first, next, err := s.seq.Bounds()
	if err != nil {
		return 0, err
	}
	to := min(r.Before, next)
	if r.MaxEvents > 0 && next-first > r.MaxEvents {
		to = max(to, next-r.MaxEvents)
	}
	if r.MaxAge > 0 {
		at, err := s.topic.SeekTime(ctx, s.now().Add(-r.MaxAge))
		if err != nil {
			return 0, err
		}
		to = max(to, at)
	}
	if r.MaxBytes > 0 {
		var all uint64
		for a, err := range s.seq.Appends(first) {
			if err != nil {
				return 0, err
			}
			all += a.Bytes
		}
		over, at := all-min(all, r.MaxBytes), first
		for a, err := range s.seq.Appends(first) {
			if err != nil {
				return 0, err
			}
			if over == 0 {
				break
			}
			over -= min(over, a.Bytes)
			at = a.Offset + a.Items
		}
		to = max(to, at)
	}
	return to, nil
}

// step is what one commit of Retain does.
type step struct {
	floor, events, bytes uint64
	held                 bool
	again                bool    // another Retain has moved the floor meanwhile
	problems             []error // of events that do not decode
}

func (s *Store) retainStep(ctx context.Context, to uint64) (st step, err error) {
	if st.floor, err = s.First(); err != nil {
		return st, err
	}
	from := st.floor
	end := from
	for a, err := range s.seq.Appends(from) {
		if err != nil {
			return st, err
		}
		if a.Offset+a.Items > to || end-from >= stepOfRetain {
			break
		}
		end = a.Offset + a.Items
		st.bytes += a.Bytes
	}
	if end == from {
		return st, nil
	}
	bases, problems, err := s.basesAt(ctx, from, end)
	if gone := (*RetainedError)(nil); errors.As(err, &gone) {
		return step{floor: gone.First, again: true}, nil
	}
	if err != nil {
		return st, err
	}
	err = s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		st.again, st.held = false, false
		main, err := tx.Keyspace(s.main.Name())
		if err != nil {
			return err
		}
		floor, err := floorOf(main.Reader)
		if err != nil {
			return err
		}
		if floor != from {
			st.floor, st.again = floor, true
			return nil
		}
		needed, err := s.needed(tx)
		if err != nil {
			return err
		}
		if needed < end {
			st.held = true
			return nil
		}
		for _, stream := range slices.Sorted(maps.Keys(bases)) {
			b := bases[stream]
			if err := deleteEntries(main, stream, b.first); err != nil {
				return err
			}
			if err := main.Put(baseKey(stream), b.encode()); err != nil {
				return err
			}
		}
		return main.Put(floorKey, binary.BigEndian.AppendUint64(nil, end))
	})
	switch {
	case err != nil:
		return st, err
	case st.held:
		return s.retainHeld(ctx, from, end)
	case st.again:
		return step{floor: st.floor, again: true}, nil
	}
	st.floor, st.events, st.problems = end, end-from, problems
	return st, nil
}

// retainHeld makes a smaller step, up to what is needed.
func (s *Store) retainHeld(ctx context.Context, from, end uint64) (st step, err error) {
	var needed uint64
	if err := s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) (err error) {
		needed, err = s.needed(tx)
		return err
	}); err != nil {
		return st, err
	}
	if needed > from && needed < end {
		st, err = s.retainStep(ctx, needed)
	} else {
		st.floor = from
	}
	st.held = true
	return st, err
}

// basesAt returns where the streams begin that have events in [from, end) when these are
// gone, and which of them do not decode.
func (s *Store) basesAt(ctx context.Context, from, end uint64) (bases map[string]base, problems []error, err error) {
	bases = map[string]base{}
	bad := damaged{offsets: map[uint64]bool{}, commits: map[uint64]bool{}}
	if err := s.items(ctx, from, s.seq.Read, func(it forebay.Item, n *names) (bool, error) {
		if it.Offset >= end {
			return false, nil
		}
		var ev Event
		raw, err := envelopeOf(it)
		if err == nil {
			ev, _, err = decode(raw, it.Offset, it.LSN, n)
		}
		if err == nil {
			bases[ev.Stream] = base{ev.Version + 1, hashOf(raw)}
		} else {
			bad.offsets[it.Offset], bad.commits[it.LSN] = true, true
			problems = append(problems, &EventError{Offset: it.Offset, Err: err})
		}
		return it.Offset+1 < end, nil
	}); err != nil || len(problems) == 0 {
		return bases, nil, err
	}
	lasts, err := s.lastsOf(ctx, bad)
	if err != nil {
		return nil, nil, err
	}
	for stream, last := range lasts {
		if last < bases[stream].first { // one behind it decodes
			continue
		}
		b := base{first: last + 1}
		if b.prev, err = s.hashOfVersion(ctx, stream, last); err != nil {
			return nil, nil, err
		}
		bases[stream] = b
	}
	return bases, problems, nil
}

// damaged are events that do not decode: their offsets, and the LSNs of their commits.
type damaged struct{ offsets, commits map[uint64]bool }

// lastsOf returns the last version of each stream that, by the index, events that do not
// decode have, or that is of one commit with them: those of a commit go together. It
// walks the whole index, for that has no other way from an event to its stream.
func (s *Store) lastsOf(ctx context.Context, bad damaged) (map[string]uint64, error) {
	lasts := map[string]uint64{}
	prefix := []byte{'i'}
	it := s.main.NewIterator(&forebay.IterOptions{Prefix: prefix})
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name := len(it.Key()) - len(prefix) - 1 - 8
		if name < 1 {
			continue // Verify tells of such
		}
		e, err := decodeEntry(it.Key(), it.Value(), it.LSN())
		if err != nil {
			continue
		}
		last := e.first + e.count - 1
		if e.exact && bad.offsets[e.offset+e.count-1] || !e.exact && bad.commits[e.lsn] {
			stream := string(it.Key()[len(prefix) : len(prefix)+name])
			lasts[stream] = max(lasts[stream], last)
		}
	}
	return lasts, it.Err()
}

// hashOfVersion returns what the stream's next event has as Prev, without the event itself:
// the zero Hash where neither that nor the head says it.
func (s *Store) hashOfVersion(ctx context.Context, stream string, version uint64) (hash Hash, err error) {
	h, err := headOf(s.main.Reader, stream)
	if err == nil && h.version == version {
		return h.hash, nil
	}
	if err == nil {
		err = s.stream(ctx, stream, version+1, func(it forebay.Item) (bool, error) {
			ev, _, err := decode(it.Value[topicTime:], it.Offset, it.LSN, nil)
			hash = ev.Prev
			return false, err
		})
	}
	for _, told := range []error{ErrDamaged, ErrIndex, ErrRetained} { // by Verify, or it is gone
		if errors.Is(err, told) {
			return hash, nil
		}
	}
	return hash, err
}

// deleteEntries deletes the index entries of a stream before a version.
func deleteEntries(main forebay.Space, stream string, before uint64) error {
	var keys [][]byte
	for e, err := range main.Range(indexPrefix(stream), indexKey(stream, before)) {
		if err != nil {
			return err
		}
		keys = append(keys, bytes.Clone(e.Key))
	}
	for _, key := range keys {
		if err := main.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// needed returns the offset from which on events are needed: by the checkpoint of a
// generation, or by a dead letter.
func (s *Store) needed(tx *forebay.Tx) (uint64, error) {
	ks, err := tx.Keyspace(s.projs.Name())
	if err != nil {
		return 0, err
	}
	least := ^uint64(0)
	var gens [][]byte
	for e, err := range ks.Prefix([]byte{'c'}) {
		if err != nil {
			return 0, err
		}
		if len(e.Value) != 8 {
			return 0, fmt.Errorf("%w: checkpoint %q", ErrDamaged, e.Key)
		}
		least = min(least, binary.BigEndian.Uint64(e.Value))
		gens = append(gens, append([]byte{'d'}, e.Key[1:]...))
	}
	for _, dead := range gens {
		for e, err := range ks.Prefix(dead) {
			if err != nil {
				return 0, err
			}
			if len(e.Key) != len(dead)+8 {
				return 0, fmt.Errorf("%w: dead letter %q", ErrDamaged, e.Key)
			}
			least = min(least, binary.BigEndian.Uint64(e.Key[len(dead):]))
			break // they are sorted
		}
	}
	return least, nil
}
