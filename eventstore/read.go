package eventstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
)

// envelopeOf cuts the topic's time off an item.
func envelopeOf(it forebay.Item) ([]byte, error) {
	if len(it.Value) < topicTime {
		return nil, fmt.Errorf("%w: event at offset %d: too short", ErrDamaged, it.Offset)
	}
	return it.Value[topicTime:], nil
}

// event makes of an envelope what callers see: with its payload opened, and brought up.
// An *EventError comes with the event as far as it is known.
func (s *Store) event(raw []byte, offset, lsn uint64, n *names) (Event, error) {
	ev, sealed, err := decode(raw, offset, lsn, n)
	if err != nil {
		return ev, err
	}
	if sealed {
		if err := s.open(&ev); err != nil || ev.Erased || ev.Sealed {
			return ev, err
		}
	}
	if len(s.up) == 0 {
		return ev, nil
	}
	return ev, s.up.apply(&ev)
}

// All iterates over the durable events of all streams, in the order of their commits,
// from an offset on, which may lie inside of a commit, up to those that are durable when
// it comes to them. Over events that a salvage could not read it goes on behind them. An
// error ends it and comes as the last pair: ErrRetained when the event at from was taken
// out, an *EventError, ErrDamaged, ctx's.
func (s *Store) All(ctx context.Context, from uint64) iter.Seq2[Event, error] {
	return s.all(ctx, from, s.seq.Read)
}

// Follow is All that then waits for more, until ctx ends or the store is closed. It sees
// every event once, whoever appends at once.
func (s *Store) Follow(ctx context.Context, from uint64) iter.Seq2[Event, error] {
	return s.all(ctx, from, s.seq.Follow)
}

func (s *Store) all(ctx context.Context, from uint64, read func(context.Context, uint64) iter.Seq2[forebay.Item, error]) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if err := s.items(ctx, from, read, func(it forebay.Item, n *names) (bool, error) {
			raw, err := envelopeOf(it)
			if err != nil {
				return false, err
			}
			ev, err := s.event(raw, it.Offset, it.LSN, n)
			return err == nil && yield(ev, nil), err
		}); err != nil {
			yield(Event{}, err)
		}
	}
}

// items calls each for the items from an offset on until it returns false or an error. It
// passes over those that a salvage could not read.
func (s *Store) items(ctx context.Context, from uint64, read func(context.Context, uint64) iter.Seq2[forebay.Item, error], each func(forebay.Item, *names) (bool, error)) error {
	floor, err := s.First()
	if err != nil {
		return err
	}
	if from < floor {
		return &RetainedError{First: floor}
	}
	var n names
	for {
		was := from
		for it, err := range read(ctx, from) {
			if errors.Is(err, forebay.ErrNotFound) {
				if from, err = s.behindHole(from, err); err == nil {
					break
				}
			}
			if err != nil {
				return err
			}
			from = it.Offset + 1
			was = from
			if ok, err := each(it, &n); err != nil || !ok {
				return err
			}
		}
		if from == was {
			return nil
		}
	}
}

// behindHole returns the offset of the first event behind one that is not there, or of
// the next one that will be. none is what was said of that, and its error if it is there.
func (s *Store) behindHole(at uint64, none error) (uint64, error) {
	// Retain moves the floor before it takes anything.
	switch floor, err := s.First(); {
	case err != nil:
		return at, err
	case at < floor:
		return at, &RetainedError{First: floor}
	}
	next := uint64(0)
	for a, err := range s.seq.Appends(at) {
		if err != nil {
			return at, err
		}
		next = a.Offset
		break
	}
	if next == 0 {
		var err error
		if _, next, err = s.seq.Bounds(); err != nil {
			return at, err
		}
	}
	if next <= at {
		return at, none
	}
	return next, nil
}

// First returns the offset of the first event that Retain has left, 0 if it took none.
func (s *Store) First() (uint64, error) { return floorOf(s.main.Reader) }

var floorKey = []byte{'f'}

func floorOf(r forebay.Reader) (floor uint64, err error) {
	err = r.GetFunc(floorKey, func(b []byte) error {
		if len(b) != 8 {
			return fmt.Errorf("%w: floor of %d bytes", ErrDamaged, len(b))
		}
		floor = binary.BigEndian.Uint64(b)
		return nil
	})
	if errors.Is(err, forebay.ErrNotFound) {
		err = nil
	}
	return floor, err
}

// entry is one of the index: of the events that one append gave to a stream.
type entry struct {
	first, count uint64 // versions
	lsn, offset  uint64 // where they are: the offset if exact
	exact        bool
}

func decodeEntry(key, value []byte, lsn uint64) (e entry, err error) {
	d := decoder{b: value}
	e = entry{first: binary.BigEndian.Uint64(key[len(key)-8:]), count: d.uvarint(), lsn: lsn}
	if len(d.b) > 0 && !d.bad {
		e.exact, e.offset = true, d.uvarint()
	}
	if d.bad || len(d.b) > 0 || e.count == 0 || e.first == 0 || e.first+e.count < e.first {
		return e, fmt.Errorf("%w: index entry %q", ErrDamaged, key)
	}
	return e, nil
}

// entriesAtOnce is how many index entries a read of a stream looks up at once. No
// iterator is open while its caller works.
const entriesAtOnce = 512

// entries returns the index entries of a stream from the one with a version on.
func (s *Store) entries(stream string, version uint64, out []entry) ([]entry, error) {
	prefix := indexPrefix(stream)
	it := s.main.NewIterator(&forebay.IterOptions{Prefix: prefix})
	defer it.Close()
	ok := false
	if version < ^uint64(0) {
		ok = it.SeekLT(indexKey(stream, version+1))
	}
	if !ok {
		ok = it.First()
	}
	for ; ok && len(out) < entriesAtOnce; ok = it.Next() {
		if len(it.Key()) != len(prefix)+8 {
			return nil, fmt.Errorf("%w: index entry %q", ErrDamaged, it.Key())
		}
		e, err := decodeEntry(it.Key(), it.Value(), it.LSN())
		if err != nil {
			return nil, err
		}
		if e.first+e.count > version {
			out = append(out, e)
		}
	}
	return out, it.Err()
}

// Stream iterates over the events of a stream from a version on (0 is 1), in order, up
// to the last one. Events that are not durable yet it makes durable before it shows
// them. A stream without events has none. An error ends it and comes as the last pair:
// ErrRetained when the version was taken out, ErrIndex, an *EventError, ErrDamaged, ctx's.
func (s *Store) Stream(ctx context.Context, stream string, from uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var n names
		if err := s.stream(ctx, stream, from, func(it forebay.Item) (bool, error) {
			ev, err := s.event(it.Value[topicTime:], it.Offset, it.LSN, &n)
			return err == nil && yield(ev, nil), err
		}); err != nil {
			yield(Event{}, err)
		}
	}
}

// stream calls each for the items of a stream until it returns false or an error.
func (s *Store) stream(ctx context.Context, stream string, from uint64, each func(forebay.Item) (bool, error)) error {
	if err := checkKey("stream", stream); err != nil {
		return err
	}
	w := streamWalk{s: s, stream: stream, next: max(from, 1), each: each}
	var entries []entry
	for {
		var err error
		if entries, err = s.entries(stream, w.next, entries[:0]); err != nil {
			return err
		}
		if len(entries) == 0 {
			return s.noEntry(stream, w.next)
		}
		last := len(entries) < entriesAtOnce
		for len(entries) > 0 && !w.done {
			if err := ctx.Err(); err != nil {
				return err
			}
			if entries[0].first > w.next {
				return s.missing(stream, w.next)
			}
			if entries, err = w.run(ctx, entries); err != nil {
				return err
			}
		}
		if w.done {
			return nil
		}
		if last {
			return s.noEntry(stream, w.next)
		}
	}
}

// noEntry says why there is no index entry of a version: it comes later, or it was taken
// out with all before it.
func (s *Store) noEntry(stream string, version uint64) error {
	h, err := headOf(s.main.Reader, stream)
	if err != nil || h.version < version {
		return err
	}
	// An append may have come between the two looks.
	if entries, err := s.entries(stream, version, nil); err != nil || len(entries) > 0 && entries[0].first <= version {
		return err
	}
	return s.missing(stream, version)
}

// missing is the error of a version that is not there, and was.
func (s *Store) missing(stream string, version uint64) error {
	b, err := baseOf(s.main.Reader, stream)
	if err != nil {
		return err
	}
	if version < b.first {
		return &RetainedError{Stream: stream, First: b.first}
	}
	return fmt.Errorf("%w: version %d of stream %q", ErrIndex, version, stream)
}

// near is how far the next append of a stream may be, in commits, for the log between to
// be read rather than sought over: to read one commit takes half a microsecond, to seek in
// the log file that is being written some hundreds.
const near = 1024

// streamWalk reads a stream along its index.
type streamWalk struct {
	s      *Store
	stream string
	next   uint64 // version
	each   func(forebay.Item) (bool, error)
	done   bool   // each wants no more
	at     uint64 // offset behind the last item that was read
	lsn    uint64 // and its commit; 0: none was
}

// isNear says whether to read on is quicker than to seek.
func (w *streamWalk) isNear(e entry) bool {
	if w.lsn == 0 {
		return false
	}
	if e.exact {
		return e.offset >= w.at && e.offset-w.at <= near
	}
	return e.lsn >= w.lsn && e.lsn-w.lsn <= near
}

// run reads the events of as many entries as lie near each other, one at least, and
// returns the others.
func (w *streamWalk) run(ctx context.Context, entries []entry) ([]entry, error) {
	begin := entries[0]
	readOn := w.isNear(begin)
	var items iter.Seq2[forebay.Item, error]
	switch {
	case readOn:
		if begin.lsn > w.s.db.DurableLSN() {
			if err := w.s.db.Sync(ctx); err != nil { // Read shows what is durable
				return nil, err
			}
		}
		items = w.s.seq.Read(ctx, w.at)
	case begin.exact:
		items = w.s.seq.Read(ctx, begin.offset)
	default:
		items = w.s.seq.Commit(ctx, begin.lsn)
	}
	for it, err := range items {
		if err != nil {
			switch {
			case !errors.Is(err, forebay.ErrNotFound):
				return nil, err
			case readOn: // what was taken out may end before the next version, which is sought
				w.lsn = 0
				return entries, nil
			}
			return nil, w.s.missing(w.stream, w.next)
		}
		e := entries[0]
		w.at, w.lsn = it.Offset+1, it.LSN
		if !e.exact && it.LSN < e.lsn || e.exact && it.Offset < e.offset {
			continue
		}
		if !e.exact && it.LSN > e.lsn {
			break
		}
		raw, err := envelopeOf(it)
		if err != nil {
			return nil, err
		}
		version, ok := isOf(raw, w.stream)
		if !ok || version < w.next {
			continue
		}
		if version > w.next {
			break
		}
		if ok, err := w.each(it); err != nil || !ok {
			w.done = true
			return nil, err
		}
		if w.next++; w.next < e.first+e.count {
			continue
		}
		entries = entries[1:]
		if len(entries) == 0 || !w.isNear(entries[0]) || entries[0].lsn > w.s.db.DurableLSN() {
			return entries, nil
		}
		if entries[0].first != w.next {
			return entries, nil // its caller says what is wrong with that
		}
	}
	switch {
	case entries[0] != begin: // what was read came to its end, the next is read on
		return entries, nil
	case readOn: // it is not where it would be near, so it is sought
		w.lsn = 0
		return entries, nil
	}
	return nil, w.s.missing(w.stream, w.next)
}

// StreamInfo says what there is of a stream.
type StreamInfo struct {
	Stream string
	// First is the first version that is kept, and Prev the hash of the event before.
	First uint64
	Prev  Hash
	// Version, Time and Hash of the last event, whether it is kept or not.
	Version uint64
	Time    time.Time
	Hash    Hash
}

// Info returns what there is of a stream; forebay.ErrNotFound: it has no events.
func (s *Store) Info(stream string) (info StreamInfo, err error) {
	err = s.db.View(func(snap *forebay.Snapshot) error {
		main, err := snap.Keyspace(s.main.Name())
		if err != nil {
			return err
		}
		h, err := headOf(main, stream)
		if err != nil {
			return err
		}
		if h.version == 0 {
			return fmt.Errorf("%w: stream %q", forebay.ErrNotFound, stream)
		}
		b, err := baseOf(main, stream)
		info = StreamInfo{stream, b.first, b.prev, h.version, time.Unix(0, h.at), h.hash}
		return err
	})
	return info, err
}

// Streams iterates over the names of the streams that begin with a prefix, sorted. An
// error ends it and comes as the last pair.
func (s *Store) Streams(prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range s.main.Prefix(headKey(prefix)) {
			if err != nil {
				yield("", err)
				return
			}
			if name := string(e.Key[1:]); !strings.HasPrefix(name, "$") && !yield(name, nil) {
				return
			}
		}
	}
}

// base is where a stream begins since Retain.
type base struct {
	first uint64 // version, 1 at least
	prev  Hash
}

func baseKey(stream string) []byte { return append([]byte{'b'}, stream...) }

func (b base) encode() []byte {
	return append(binary.BigEndian.AppendUint64(nil, b.first), b.prev[:]...)
}

func baseOf(r forebay.Reader, stream string) (b base, err error) {
	err = r.GetFunc(baseKey(stream), func(v []byte) (err error) {
		b, err = decodeBase(v)
		return err
	})
	if errors.Is(err, forebay.ErrNotFound) {
		return base{first: 1}, nil
	}
	return b, err
}

func decodeBase(v []byte) (b base, err error) {
	if len(v) != 8+len(b.prev) {
		return b, fmt.Errorf("%w: base of a stream has %d bytes", ErrDamaged, len(v))
	}
	b.first = binary.BigEndian.Uint64(v)
	copy(b.prev[:], v[8:])
	return b, nil
}

// keep copies an event, so that it outlives the step that it came with. buf is what the
// copy lies in.
func (ev Event) keep(buf []byte) (Event, []byte) {
	from := len(buf)
	buf = append(buf, ev.raw...)
	raw := buf[from:len(buf):len(buf)]
	if at := len(raw) - len(ev.Payload); at >= 0 && len(ev.Payload) > 0 && &ev.Payload[0] == &ev.raw[at] {
		ev.Payload = raw[at:]
	} else {
		ev.Payload = bytes.Clone(ev.Payload)
	}
	ev.raw = raw
	return ev, buf
}
