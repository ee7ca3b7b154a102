package eventstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/forebaydb/forebay"
)

// Report says what Verify looked at.
type Report struct {
	// Events that are kept, and Streams that ever had one.
	Events, Streams uint64
	// Sealed payloads among them that could be opened, and Erased ones.
	Sealed, Erased uint64
	// Problems are what is wrong, the first hundred; all of them wrap ErrDamaged or
	// ErrIndex.
	Problems []error
}

const maxProblems = 100

// verifier walks the topic beside a snapshot of the keys.
type verifier struct {
	s       *Store
	report  Report
	main    forebay.Reader
	streams map[string]*verified
	entries uint64 // index entries that were met
}

// verified is how far a stream was walked.
type verified struct {
	head  StreamHead
	entry entry // the index entry that the event was in
}

func (v *verifier) problem(format string, args ...any) {
	if len(v.report.Problems) < maxProblems {
		v.report.Problems = append(v.report.Problems, fmt.Errorf(format, args...))
	}
}

// Verify reads all events that are durable and kept, and looks that each stream's chain
// of hashes is whole from its first event that is kept to its head, that the index leads
// to each event and to nothing else, and that sealed payloads open where the key is
// there. It runs beside everything else, by a snapshot, and needs memory for the head of
// each stream. It returns an error that joins the problems that it found, or why it came
// to no end: ErrRetained when Retain took events out meanwhile, ctx's.
func (s *Store) Verify(ctx context.Context) (Report, error) {
	snap, err := s.db.Snapshot()
	if err != nil {
		return Report{}, err
	}
	defer snap.Close()
	if err := s.db.Sync(ctx); err != nil { // the topic shows what is durable: all of the snapshot
		return Report{}, err
	}
	v := verifier{s: s, streams: map[string]*verified{}}
	if v.main, err = snap.Keyspace(s.main.Name()); err != nil {
		return v.report, err
	}
	floor, err := floorOf(v.main)
	if err != nil {
		return v.report, err
	}
	_, next, err := s.seq.Bounds()
	if err != nil {
		return v.report, err
	}
	if floor < next {
		err = s.items(ctx, floor, s.seq.Read, func(it forebay.Item, n *names) (bool, error) {
			if it.LSN > snap.LSN() {
				return false, nil
			}
			return true, v.event(it, n)
		})
	}
	if err == nil {
		err = v.ends()
	}
	if err != nil {
		return v.report, err
	}
	return v.report, errors.Join(v.report.Problems...)
}

// event looks at the next event of the topic.
func (v *verifier) event(it forebay.Item, n *names) error {
	raw, err := envelopeOf(it)
	if err != nil {
		v.problem("%w", err)
		return nil
	}
	ev, sealed, err := decode(raw, it.Offset, it.LSN, n)
	if err != nil {
		v.problem("%w", err)
		return nil
	}
	v.report.Events++
	at := v.streams[ev.Stream]
	if at == nil {
		b, err := baseOf(v.main, ev.Stream)
		if err != nil {
			return err
		}
		at = &verified{head: StreamHead{b.first - 1, b.prev}}
		v.streams[ev.Stream] = at
	}
	if ev.Version != at.head.Version+1 || ev.Prev != at.head.Hash {
		v.problem("%w", failedAt(ev, fmt.Errorf("%w: it does not follow version %d of its stream", ErrDamaged, at.head.Version)))
	}
	at.head = StreamHead{ev.Version, hashOf(raw)}
	if err := v.index(ev, at); err != nil {
		return err
	}
	if sealed {
		switch err := v.s.open(&ev); {
		case err != nil && isOurs(err):
			return err
		case err != nil:
			v.problem("%w", err)
		case ev.Erased:
			v.report.Erased++
		case !ev.Sealed:
			v.report.Sealed++
		}
	}
	return nil
}

// index looks that the index leads to an event.
func (v *verifier) index(ev Event, at *verified) error {
	if e := at.entry; ev.Version < e.first || ev.Version >= e.first+e.count {
		key := indexKey(ev.Stream, ev.Version)
		it := v.main.NewIterator(&forebay.IterOptions{Lower: key, Upper: append(slices.Clone(key), 0)})
		defer it.Close()
		if !it.First() {
			if it.Err() == nil {
				v.problem("%w", failedAt(ev, fmt.Errorf("%w: there is no entry", ErrIndex)))
			}
			return it.Err()
		}
		var err error
		if at.entry, err = decodeEntry(it.Key(), it.Value(), it.LSN()); err != nil {
			v.problem("%w", err)
			return nil
		}
		v.entries++
	}
	if e := at.entry; e.exact && e.offset+(ev.Version-e.first) != ev.Offset || !e.exact && e.lsn != ev.LSN {
		v.problem("%w", failedAt(ev, ErrIndex))
	}
	return nil
}

// ends looks at heads, and at what the index has beside what was met.
func (v *verifier) ends() error {
	for e, err := range v.main.Prefix([]byte{'h'}) {
		if err != nil {
			return err
		}
		v.report.Streams++
		stream := string(e.Key[1:])
		h, err := decodeHead(e.Value)
		if err != nil {
			v.problem("%w", err)
			continue
		}
		at := v.streams[stream]
		if at == nil { // all of it was taken out
			b, err := baseOf(v.main, stream)
			if err != nil {
				return err
			}
			at = &verified{head: StreamHead{b.first - 1, b.prev}}
		}
		delete(v.streams, stream)
		if (StreamHead{h.version, h.hash}) != at.head {
			v.problem("%w: head of stream %q is at version %d, its last event is %d, or another one", ErrDamaged, stream, h.version, at.head.Version)
		}
	}
	for stream := range v.streams {
		v.problem("%w: stream %q has no head", ErrDamaged, stream)
	}
	for e, err := range v.main.Prefix([]byte{'b'}) {
		if err != nil {
			return err
		}
		stream := string(e.Key[1:])
		if has, err := v.main.Has(headKey(stream)); err != nil {
			return err
		} else if !has && v.streams[stream] == nil {
			v.problem("%w: stream %q, of which all was taken out, has no head", ErrDamaged, stream)
		}
	}
	var entries uint64
	for _, err := range v.main.Prefix([]byte{'i'}) {
		if err != nil {
			return err
		}
		entries++
	}
	if entries != v.entries {
		v.problem("%w: %d entries, and %d lead to events", ErrIndex, entries, v.entries)
	}
	return nil
}

// Reindex makes heads and index anew from the events, in one walk over the topic, by
// durable commits of some events each: for a store that was salvaged, where commits have
// other LSNs, or events at the end are lost. Nobody else may append meanwhile: if somebody
// did it returns ErrConflict, and is to be called again, as after any other error.
// Versions that are missing in the middle of a stream stay missing, and reads say so. It
// needs memory for the head of each stream.
//
// A stream of which no event is left goes on behind the last version that is known of it:
// that before which Retain has noted that it begins, or, in a store out of which events
// were taken, that of its head. So no version that was taken out is given again.
func (s *Store) Reindex(ctx context.Context) error {
	floor, err := s.First()
	if err != nil {
		return err
	}
	first, _, err := s.seq.Bounds()
	if err != nil {
		return err
	}
	if err := s.db.Sync(ctx); err != nil {
		return err
	}
	next := s.seq.Next()
	r := reindexer{s: s, next: next, heads: map[string]head{}, taken: max(floor, first) > 0}
	if err := s.clearIndex(ctx); err != nil {
		return err
	}
	if from := max(floor, first); from < next {
		if err := s.items(ctx, from, s.seq.Read, func(it forebay.Item, n *names) (bool, error) { return true, r.add(ctx, it, n) }); err != nil {
			return err
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	if err := r.putHeads(ctx); err != nil {
		return err
	}
	return r.still()
}

// clearIndex deletes the whole index.
func (s *Store) clearIndex(ctx context.Context) error {
	return s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		main, err := tx.Keyspace(s.main.Name())
		if err != nil {
			return err
		}
		return main.DeleteRange([]byte{'i'}, []byte{'i' + 1})
	})
}

// reindexer collects entries: one for each run of events of a stream in one commit.
type reindexer struct {
	s     *Store
	next  uint64 // offset behind the last event when it began
	heads map[string]head
	taken bool // events were taken out at the front, or are lost there
	puts  []entry
	names []string // their streams
	last  string   // stream of the last event
}

// still is ErrConflict when events were appended since it began. In a transaction that
// has read a head before, and is committed, that head is as it was when this was asked.
func (r *reindexer) still() error {
	if r.s.seq.Next() != r.next {
		return fmt.Errorf("%w: events were appended during Reindex", ErrConflict)
	}
	return nil
}

func (r *reindexer) add(ctx context.Context, it forebay.Item, n *names) error {
	raw, err := envelopeOf(it)
	if err != nil {
		return err
	}
	ev, _, err := decode(raw, it.Offset, it.LSN, n)
	if err != nil {
		return err
	}
	r.heads[ev.Stream] = head{ev.Version, ev.Time.UnixNano(), hashOf(raw)}
	if k := len(r.puts) - 1; k >= 0 && r.last == ev.Stream && r.puts[k].lsn == it.LSN && r.puts[k].first+r.puts[k].count == ev.Version {
		r.puts[k].count++
		return nil
	}
	if len(r.puts) >= stepOfRetain {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	r.last = ev.Stream
	r.puts = append(r.puts, entry{first: ev.Version, count: 1, lsn: it.LSN, offset: it.Offset, exact: true})
	r.names = append(r.names, ev.Stream)
	return nil
}

func (r *reindexer) flush(ctx context.Context) error {
	err := r.s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		main, err := tx.Keyspace(r.s.main.Name())
		if err != nil {
			return err
		}
		for i, e := range r.puts {
			value := binary.AppendUvarint(binary.AppendUvarint(nil, e.count), e.offset)
			if err := main.Put(indexKey(r.names[i], e.first), value); err != nil {
				return err
			}
		}
		return nil
	})
	r.puts, r.names, r.last = r.puts[:0], r.names[:0], ""
	return err
}

// putHeads writes the heads that are not as they should be.
func (r *reindexer) putHeads(ctx context.Context) error {
	known := slices.Sorted(maps.Keys(r.heads))
	for part := range slices.Chunk(known, stepOfRetain) {
		if err := r.s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
			main, err := tx.Keyspace(r.s.main.Name())
			if err != nil {
				return err
			}
			for _, stream := range part {
				want := r.heads[stream].encode()
				had, err := main.Get(headKey(stream))
				if err != nil && !errors.Is(err, forebay.ErrNotFound) {
					return err
				}
				if bytes.Equal(had, want) {
					continue
				}
				if err := main.Put(headKey(stream), want); err != nil {
					return err
				}
			}
			return r.still()
		}); err != nil {
			return err
		}
	}
	// A stream of which no event is left may have a head, or a base, or both.
	if err := r.otherHeads(ctx, 'b'); err != nil {
		return err
	}
	return r.otherHeads(ctx, 'h')
}

// otherHeads mends the heads of streams of which no event is left, and which have a key
// with a letter.
func (r *reindexer) otherHeads(ctx context.Context, letter byte) error {
	for from := []byte{letter}; from != nil; {
		var next []byte
		if err := r.s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
			main, err := tx.Keyspace(r.s.main.Name())
			if err != nil {
				return err
			}
			var keys [][]byte
			for e, err := range main.Range(from, []byte{letter + 1}) {
				if err != nil {
					return err
				}
				keys = append(keys, bytes.Clone(e.Key))
				if len(keys) > stepOfRetain {
					break
				}
			}
			next = nil
			if len(keys) > stepOfRetain {
				next = keys[stepOfRetain]
				keys = keys[:stepOfRetain]
			}
			for _, key := range keys {
				stream := string(key[1:])
				if _, has := r.heads[stream]; has {
					continue
				}
				if err := r.otherHead(main, stream); err != nil {
					return err
				}
			}
			return r.still()
		}); err != nil {
			return err
		}
		from = next
	}
	return nil
}

// otherHead mends the head of a stream of which no event is left.
func (r *reindexer) otherHead(main forebay.Space, stream string) error {
	b, err := baseOf(main.Reader, stream)
	if err != nil {
		return err
	}
	h, err := headOf(main.Reader, stream)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	switch {
	case err == nil && h.version == b.first-1 && h.hash == b.prev:
		return nil
	case err == nil && h.version >= b.first && r.taken:
		// It may be that Retain took them, and its note is lost: they are not given again.
		return main.Put(baseKey(stream), base{h.version + 1, h.hash}.encode())
	case b.first == 1: // nothing was taken out, and what there was is lost
		return main.Delete(headKey(stream))
	}
	return main.Put(headKey(stream), head{b.first - 1, h.at, b.prev}.encode())
}
