package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
)

// Names returns the names of the queues that a store has, sorted.
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
		name, ok := strings.CutPrefix(ks, topicPrefix)
		if ok && name != "" && !strings.Contains(name, "/") && slices.Contains(sequences, "topic/"+topicPrefix+name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// ParseID returns the id that ID.String has written.
func ParseID(s string) (ID, error) {
	l, o, _ := strings.Cut(s, "-")
	lane, err := strconv.ParseUint(l, 10, 8)
	offset, oerr := strconv.ParseUint(o, 10, 64)
	if id := (ID{uint8(lane), offset}); err == nil && oerr == nil && lane <= laneLater && id.String() == s {
		return id, nil
	}
	return ID{}, fmt.Errorf("queue: %q is no id of a message, which has a lane from 0 to %d and an offset: 0-17", s, laneLater)
}

// Inspector looks at what is stored of a queue. It takes no message, moves nothing and
// writes nothing, and neither do queues notice it: it is for tools, and for a queue that
// nobody has open. Of one that is in use it shows about what was stored at Inspect, and
// Group.Stats is exact. It needs no Close. Its methods may be called at once.
type Inspector struct {
	q      *core
	groups map[string]*inspected // "": the first one to come
}

// inspected is a group that does not work, with what one that does has in memory.
type inspected struct {
	*group
	inFlight, notDue int64
}

// Inspect looks at a queue. It reads the states of all messages that are under way, and
// the index of those that wait. forebay.ErrNotFound: there is none with the name. The
// store is open for writing, as for all that reads topics.
func Inspect(db *forebay.DB, name string) (out *Inspector, err error) {
	names, err := Names(db)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("%w: queue %q", forebay.ErrNotFound, name)
	}
	o, err := (&Options{MaxBytes: math.MaxInt64}).withDefaults() // so that bytes are counted
	if err != nil {
		return nil, err
	}
	o.Priorities = 0 // no lane is made
	for range looks {
		at := db.LastLSN()
		out = &Inspector{q: &core{db: db, name: name, o: o, groups: map[string]*group{}}, groups: map[string]*inspected{}}
		if err := out.load(); err != nil {
			return nil, fmt.Errorf("queue %q: %w", name, err)
		}
		if db.LastLSN() == at {
			break
		}
	}
	return out, nil
}

// looks is how often Inspect looks, as long as there are commits meanwhile: so that its
// figures are of one moment where nobody is at work.
const looks = 3

func (v *Inspector) load() (err error) {
	q := v.q
	if q.ks, err = q.db.Keyspace(topicPrefix + q.name); err != nil {
		return err
	}
	if err := q.openLanes(); err != nil {
		return err
	}
	var readers [laneLater + 1]map[string]uint64
	none := &inspected{group: &group{q: q}}
	v.groups[""] = none
	for i, l := range q.lanes {
		if l != nil {
			if readers[i], err = l.t.Readers(); err != nil {
				return err
			}
			none.starts[i] = l.trimmed
		}
	}
	for e, err := range q.ks.Prefix([]byte{kindGroup}) {
		if err != nil {
			return err
		}
		g := &inspected{group: &group{q: q, name: string(e.Key[1:])}}
		if g.starts, err = decodeStarts(e.Value); err != nil {
			return err
		}
		if err := checkGroup(g.name); err != nil {
			return err
		}
		v.groups[g.name] = g
	}
	for name, g := range v.groups {
		g.init()
		for i, l := range q.lanes {
			if l == nil {
				continue
			}
			at, ok := readers[i][name]
			if !ok {
				at = l.trimmed
			}
			g.places[i] = &place{lane: l, cursor: at, saved: at}
		}
		if err := errors.Join(g.group.count(), g.count()); err != nil {
			return err
		}
	}
	return nil
}

// count counts what was delivered and not settled, and what is not due.
func (g *inspected) count() error {
	now := g.q.now().UnixNano()
	later := g.places[laneLater]
	if later != nil { // all that no scheduler has looked at
		g.notDue = int64(later.seq.Next() - later.cursor)
	}
	for _, kind := range []byte{kindState, kindParked} {
		for e, err := range g.q.ks.Prefix(g.prefix(kind)) {
			id, s, err := stateOf(e, err)
			if err != nil {
				return err
			}
			if p := g.places[id.Lane]; kind == kindState && (p == nil || id.Offset < p.cursor) {
				continue
			}
			if kind == kindState && id.Lane == laneLater {
				g.notDue--
			}
			switch {
			case s.settled:
			case s.attempts > 0 && s.due == 0:
				g.inFlight++
			case s.due > now:
				g.notDue++
			}
		}
	}
	for _, p := range g.places {
		if p != nil {
			p.known = math.MaxUint64 // who has the queue open may write more states
		}
	}
	return nil
}

func (v *Inspector) group(name string) (*inspected, error) {
	g := v.groups[name]
	if g == nil {
		return nil, fmt.Errorf("%w: group %q of queue %q", forebay.ErrNotFound, name, v.q.name)
	}
	return g, nil
}

// Groups returns the names of all groups, sorted.
func (v *Inspector) Groups() []string {
	return slices.Sorted(func(yield func(string) bool) {
		for name := range maps.Keys(v.groups) {
			if name != "" && !yield(name) {
				return
			}
		}
	})
}

// Stats returns the figures of a group as they were at Inspect, "": of the first one
// that is still to be made. InFlight is what was delivered and not settled: it is with
// receivers, or was when its process ended, and will be delivered again.
// Delayed has with it what was enqueued with a delay and no group has looked at yet,
// whether its time has come or not. Nothing is Loaded, and as nobody is watched nothing
// drains. forebay.ErrNotFound: there is no such group.
func (v *Inspector) Stats(ctx context.Context, group string) (Stats, error) {
	g, err := v.group(group)
	if err != nil {
		return Stats{}, err
	}
	s, err := g.stats(ctx)
	s.InFlight, s.Delayed = g.inFlight, g.notDue
	return s, err
}

// Pending is a message that a group has not settled, as Inspector.Peek shows it.
type Pending struct {
	ID       ID
	Key      string
	Headers  map[string]string
	Priority int
	DedupeID string
	// Time at which it was enqueued.
	Time time.Time
	// Due is when it can be delivered, by the clock on the wall; zero: at once.
	Due time.Time
	// Attempts is how often it was delivered, Reason why the last attempt failed, and
	// InFlight that this one was not answered yet.
	Attempts int
	Reason   string
	InFlight bool
	// Damaged: it does not decode, and will be a dead letter. Payload is all there is.
	Damaged bool
	// Payload as the codec made it. It is the caller's.
	Payload []byte
}

// Peek iterates over the messages that a group, "": the first one that is still to be
// made, has not settled: by priority, the highest first, each in the order of commits;
// then those that are delayed and were not looked at yet; then what is to be tried again
// or was delayed or redriven, by the time when it is due. Of a queue in use, one that is
// put off meanwhile may come twice. An error ends it and comes as the last pair:
// forebay.ErrNotFound where there is no such group, ctx's, ErrDamaged, and those of the
// store.
func (v *Inspector) Peek(ctx context.Context, group string) iter.Seq2[Pending, error] {
	return func(yield func(Pending, error) bool) {
		if err := v.peek(ctx, group, func(e *entry) bool { return yield(pendingOf(e), nil) }); err != nil {
			yield(Pending{}, err)
		}
	}
}

func (v *Inspector) peek(ctx context.Context, name string, each func(*entry) bool) error {
	g, err := v.group(name)
	if err != nil {
		return err
	}
	for _, lane := range []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0, laneLater} {
		if p := g.places[lane]; p != nil {
			if ok, err := g.peekLane(ctx, p, each); err != nil || !ok {
				return err
			}
		}
	}
	prefix := g.prefix(kindWaiting)
	for en, err := range v.q.ks.Prefix(prefix) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		id, err := idOf(en.Key)
		if err != nil || len(en.Key) != len(prefix)+17 {
			return errors.Join(err, fmt.Errorf("%w: key %x", ErrDamaged, en.Key))
		}
		e, err := g.parkedEntry(id, int64(binary.BigEndian.Uint64(en.Key[len(prefix):])), v.q.now())
		if err != nil || e != nil && !each(e) {
			return err
		}
	}
	return nil
}

// peekLane calls each for the messages of a lane that are not settled.
func (g *group) peekLane(ctx context.Context, p *place, each func(*entry) bool) (ok bool, err error) {
	from := p.cursor
	for {
		at := from
		var gone error
		for m, err := range p.t.Read(ctx, from) {
			var e *entry
			if err == nil {
				e, _, err = g.entryOf(p, m.Offset, m.Time.UnixNano(), m.Payload, g.q.now())
			}
			if errors.Is(err, forebay.ErrNotFound) { // it was settled and taken out meanwhile
				gone = err
				break
			}
			if err != nil {
				return false, err
			}
			at = m.Offset + 1
			if e != nil && e.delivery == 0 {
				// There is no state: the message is new, or the mark has moved over it since
				// the Inspect, and the state went in the same commit.
				readers, err := p.t.Readers()
				if err != nil {
					return false, err
				}
				if m.Offset < readers[g.name] {
					continue
				}
			}
			if e != nil && !each(e) {
				return false, nil
			}
		}
		first, _, err := p.t.Bounds()
		if err != nil || first <= at {
			err = errors.Join(err, gone)
			return err == nil, err
		}
		from = first
	}
}

func pendingOf(e *entry) Pending {
	m := Pending{
		ID: e.id, Key: e.env.key, Headers: e.env.headers, Priority: int(e.env.priority), DedupeID: e.env.dedupe, Time: time.Unix(0, e.time),
		Attempts: int(e.attempts), Reason: e.reason, Damaged: e.broken != nil, Payload: e.env.payload,
	}
	switch {
	case e.attempts > 0 && e.at.IsZero():
		m.InFlight = true
	case e.parked:
		m.Due = time.Unix(0, e.index)
	case !e.at.IsZero():
		m.Due = e.at.Round(0)
	case e.env.notBefore != 0:
		m.Due = time.Unix(0, e.env.notBefore)
	}
	return m
}

// DeadLetters iterates over the dead letters of a group as Group.DeadLetters does.
// forebay.ErrNotFound: there is no such group.
func (v *Inspector) DeadLetters(group string) iter.Seq2[DeadLetter, error] {
	g, err := v.group(group)
	if err != nil {
		return func(yield func(DeadLetter, error) bool) { yield(DeadLetter{}, err) }
	}
	return g.deadLetters()
}
