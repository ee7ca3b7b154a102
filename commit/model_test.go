package commit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/wal"
)

// simLog is a log whose leader goes on by steps, when the test says so. It is
// used by one goroutine.
type simLog struct {
	rng     *rand.Rand
	applier Applier
	queue   []*wal.Request
	group   []*wal.Request // admitted
	took    []*wal.Request // with those that were refused
	phase   int
	next    base.LSN
	done    map[*wal.Request]error
	noCheck bool // refusals are ignored
}

var errSimFull = errors.New("full")

func (l *simLog) Submit(r *wal.Request) error { l.queue = append(l.queue, r); return nil }
func (l *simLog) Commit(r *wal.Request) error { panic("the test would wait for itself") }
func (l *simLog) Poison(err error)            { panic(err) }

func (l *simLog) Wait(ctx context.Context, r *wal.Request) error {
	for {
		if err, ok := l.done[r]; ok {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.step()
	}
}

// step is one of admit, apply and publish, of a group of any size.
func (l *simLog) step() {
	switch l.phase {
	case 0:
		n := min(len(l.queue), 1+l.rng.IntN(8))
		if n == 0 {
			return
		}
		l.took, l.queue = l.queue[:n:n], l.queue[n:]
		if l.rng.IntN(50) == 0 {
			for _, r := range l.took {
				l.done[r] = errSimFull
			}
			return
		}
		l.group = nil
		for _, r := range l.took {
			r.First = l.next
			if len(r.Records) > 0 || r.Owner != nil {
				if err := l.applier.Admit(r); err != nil && !l.noCheck {
					l.done[r] = err
					continue
				}
			}
			l.next += base.LSN(len(r.Records))
			l.group = append(l.group, r)
		}
		l.applier.Assign(l.group)
		l.phase = 1
	case 1:
		if len(l.group) > 0 {
			l.applier.Apply(l.group, l.next-1)
		}
		l.phase = 2
	case 2:
		if len(l.group) > 0 {
			l.applier.Publish(l.next - 1)
		}
		for _, r := range l.group {
			l.done[r] = nil
		}
		l.phase = 0
	}
}

// simTable keeps everything that was ever written, in order.
type simTable struct{ writes []simWrite }

type simWrite struct {
	lsn     base.LSN
	kind    base.Kind
	key, hi string // hi, or the value
}

func (t *simTable) Apply(lsn base.LSN, record []byte) error {
	ops, err := batch.Decode(record)
	if err != nil {
		return err
	}
	var points []simWrite
	for ops.Next() {
		w := simWrite{lsn, ops.Kind(), string(ops.Key()), string(ops.Value())}
		if w.kind == base.KindRangeDelete { // they come before the points of their batch
			t.writes = append(t.writes, w)
		} else {
			points = append(points, w)
		}
	}
	t.writes = append(t.writes, points...)
	return nil
}

func (*simTable) Ahead(base.LSN, []byte) {}
func (*simTable) Place([]byte)           {}
func (t *simTable) Applied(base.LSN)     {}

func (w *simWrite) touches(key string) bool {
	return w.kind != base.KindRangeDelete && w.key == key || w.kind == base.KindRangeDelete && w.key <= key && key < w.hi
}

func (w *simWrite) meets(lo, hi string) bool {
	if w.kind == base.KindRangeDelete {
		return w.key < hi && lo < w.hi
	}
	return lo <= w.key && w.key < hi
}

// read returns the value of key at an LSN, "" for none.
func (t *simTable) read(key string, at base.LSN) string {
	for i := len(t.writes) - 1; i >= 0; i-- {
		if w := &t.writes[i]; w.lsn <= at && w.touches(key) {
			if w.kind == base.KindPut {
				return w.hi
			}
			return ""
		}
	}
	return ""
}

func (t *simTable) scan(lo, hi string, at base.LSN) string {
	var b strings.Builder
	for _, k := range simKeys {
		if v := t.read(k, at); lo <= k && k < hi && v != "" {
			fmt.Fprintf(&b, "%.3s..%d=%s ", k, len(k), v)
		}
	}
	return b.String()
}

// written says whether there is a write above at and up to now that f is true of.
func (t *simTable) written(at, now base.LSN, f func(w *simWrite) bool) bool {
	return slices.ContainsFunc(t.writes, func(w simWrite) bool { return w.lsn > at && w.lsn <= now && f(&w) })
}

// simKeys are ordered. Two of them differ only where the tracker has cut them.
var simKeys = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", strings.Repeat("x", 600) + "1", strings.Repeat("x", 600) + "2"}

// simTx is a transaction and what it saw.
type simTx struct {
	reads   *Reads
	seen    []simRead
	hold    *Hold
	inLane  bool
	c       *Commit
	began   base.LSN
	nothing bool
	stales  int
}

type simRead struct {
	lo, hi string // hi "": a point
	got    string
}

type sim struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	dels     bool // range deletes, which empty the lane
	slow     int  // the higher, the more is under way
	p        *Pipeline
	lane     *Lane
	log      *simLog
	table    *simTable
	active   []*simTx
	admitted []*simTx
	plain    []*wal.Request
	value    int
	conflicts, stales,
	lanes, overlaid int
}

func newSim(t *testing.T, seed uint64, noCheck bool) *sim {
	s := &sim{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), table: &simTable{}}
	s.dels, s.slow = s.rng.IntN(2) == 0, s.rng.IntN(12)
	s.p = New(s.table)
	s.lane = NewLane(s.p, nil)
	s.log = &simLog{rng: s.rng, applier: Applier{s.p}, next: 1, done: map[*wal.Request]error{}, noCheck: noCheck}
	s.p.Start(s.log, 0)
	if seed%2 == 0 { // what is remembered is little
		s.p.track.limits = limits{sets: 1 << s.rng.IntN(3), writes: 1 + s.rng.IntN(12), dels: 1 + s.rng.IntN(3), bulk: 2 + s.rng.IntN(6), linger: s.rng.IntN(4)}
	}
	return s
}

func (s *sim) key() string { return simKeys[s.rng.IntN(len(simKeys))] }

func (s *sim) span() (lo, hi string) {
	i := s.rng.IntN(len(simKeys))
	return simKeys[i], simKeys[min(len(simKeys)-1, i+1+s.rng.IntN(3))] + "\x00"
}

// record is a random batch.
func (s *sim) record(most int) []byte {
	b := new(batch.Batch)
	for range 1 + s.rng.IntN(most) {
		s.value++
		var err error
		switch s.rng.IntN(12) {
		case 0, 1:
			err = b.Delete([]byte(s.key()))
		case 2:
			if !s.dels {
				continue
			}
			lo, hi := s.span()
			err = b.DeleteRange([]byte(lo), []byte(hi))
		default:
			err = b.Put([]byte(s.key()), fmt.Append(nil, "v", s.value))
		}
		require.NoError(s.t, err)
	}
	return bytes.Clone(b.Bytes())
}

func (s *sim) begin() {
	tx := &simTx{reads: new(Reads)}
	at := s.p.Begin()
	if s.lane.holder == nil && s.rng.IntN(3) > 0 {
		h, err := s.lane.Enter(context.Background())
		require.NoError(s.t, err)
		if s.rng.IntN(6) == 0 {
			require.NoError(s.t, h.Drain(context.Background()))
			require.True(s.t, h.Clean())
		}
		tx.hold, tx.inLane, at = h, true, h.At()
		s.lanes++
	}
	tx.began = at
	tx.reads.Reset(at)
	s.active = append(s.active, tx)
}

func (s *sim) read(tx *simTx) {
	if (tx.hold == nil || tx.hold.Clean()) && s.rng.IntN(4) == 0 {
		lo, hi := s.span()
		tx.reads.Range([]byte(lo), []byte(hi))
		tx.seen = append(tx.seen, simRead{lo, hi, s.table.scan(lo, hi, tx.began)})
		return
	}
	k := s.key()
	if tx.hold != nil {
		if v, kind, from, ok := tx.hold.Get([]byte(k)); ok {
			if kind == base.KindDelete {
				v = nil
			}
			tx.reads.KeyFrom([]byte(k), from)
			tx.seen = append(tx.seen, simRead{k, "", string(v)})
			s.overlaid++
			return
		}
	}
	tx.reads.Key([]byte(k))
	tx.seen = append(tx.seen, simRead{k, "", s.table.read(k, tx.began)})
}

func (s *sim) submit(i int) {
	tx := s.active[i]
	var rec []byte
	if tx.nothing = s.rng.IntN(8) == 0; !tx.nothing {
		rec = s.record(3)
	}
	var err error
	if tx.hold != nil {
		tx.c, err = tx.hold.Submit(rec, wal.Durable, tx.reads, nil)
		tx.hold.Leave()
	} else {
		tx.c, err = s.p.SubmitTx(rec, wal.Durable, tx.reads, nil)
	}
	if err != nil {
		s.over(i, err)
	}
}

// over is told how a transaction ended.
func (s *sim) over(i int, err error) {
	tx := s.active[i]
	switch {
	case err == nil:
		s.admitted = append(s.admitted, tx)
	case errors.Is(err, ErrStale):
		s.stales++
		tx.stales++
		if now := s.p.Applied(); tx.stales < 9 && tx.reads.Recheck(now, func(key []byte, at base.LSN) bool {
			return !s.table.written(at, now, func(w *simWrite) bool { return w.touches(string(key)) })
		}, func(lo, hi []byte, at base.LSN) bool {
			return !s.table.written(at, now, func(w *simWrite) bool { return w.meets(string(lo), string(hi)) })
		}) {
			tx.hold, tx.c = nil, nil
			return // it will be submitted again
		}
	case errors.Is(err, ErrConflict):
		s.conflicts++
		s.genuine(tx)
	default:
		require.ErrorIs(s.t, err, errSimFull)
	}
	s.p.End()
	s.active = slices.Delete(s.active, i, i+1)
}

// genuine checks that a conflict was one: with a write that is in the table, or
// in the group under way, or with a commit in the lane.
func (s *sim) genuine(tx *simTx) {
	t := &simTable{writes: slices.Clone(s.table.writes)}
	for _, r := range s.log.group {
		for i := range r.Records {
			t.Apply(r.First+base.LSN(i), r.Records[i].Data)
		}
	}
	for _, r := range tx.seen {
		if tx.inLane || t.written(tx.began, base.MaxLSN, func(w *simWrite) bool {
			if r.hi == "" {
				return w.touches(r.lo) || w.kind == base.KindRangeDelete && len(r.lo) > keepKey && (len(w.key) > keepKey || len(w.hi) > keepKey)
			}
			// Of long keys only the beginning is compared.
			return w.meets(r.lo, r.hi) || len(w.key) > keepKey && r.hi > simKeys[9] || w.kind == base.KindRangeDelete && len(w.hi) > keepKey && (w.hi > r.lo || len(r.lo) > keepKey)
		}) {
			return
		}
	}
	require.Fail(s.t, "a conflict with nothing", "seed %d: began at %d, saw %.60q", s.seed, tx.began, fmt.Sprint(tx.seen))
}

// run is a history of n steps.
func (s *sim) run(n int) {
	for range n {
		switch k := s.rng.IntN(20 - s.slow/2); {
		case k < 2 && len(s.active) < 6:
			s.begin()
		case k < 8 && len(s.active) > 0:
			if tx := s.active[s.rng.IntN(len(s.active))]; tx.c == nil && tx.stales == 0 && len(tx.seen) < 5 {
				s.read(tx)
			}
		case k < 11 && len(s.active) > 0:
			if i := s.rng.IntN(len(s.active)); s.active[i].c == nil {
				s.submit(i)
			}
		case k < 12:
			most := 3
			if s.rng.IntN(8) == 0 {
				most = 30
			}
			c, err := s.p.Submit(s.record(most), wal.Durable)
			require.NoError(s.t, err)
			s.plain = append(s.plain, &c.req)
		case k < 13 && s.rng.IntN(10) == 0: // somebody held the lane for too long
			s.lane.mu.Lock()
			s.lane.pass()
			s.lane.mu.Unlock()
		case k < 14 && len(s.active) > 0:
			i := s.rng.IntN(len(s.active))
			if tx := s.active[i]; tx.c != nil {
				if err := tx.c.Wait(ended); err != context.Canceled {
					s.over(i, err)
				}
			}
		case k < 20-s.slow:
			s.log.step()
		}
	}
	for len(s.active) > 0 {
		if s.active[0].c == nil {
			s.submit(0)
		} else {
			s.over(0, s.active[0].c.Wait(context.Background()))
		}
	}
	for _, r := range s.plain {
		s.log.Wait(context.Background(), r)
	}
}

// serial compares what each admitted transaction saw with the state in front of
// its own commit.
func (s *sim) serial() error {
	for _, tx := range s.admitted {
		at := tx.c.LSN() - 1
		for _, r := range tx.seen {
			now := ""
			if r.hi == "" {
				now = s.table.read(r.lo, at)
			} else {
				now = s.table.scan(r.lo, r.hi, at)
			}
			if now != r.got {
				return fmt.Errorf("the transaction at %d (began at %d, in the lane: %v) saw %.4q..%.4q as %q, where %q is before it", tx.c.LSN(), tx.began, tx.inLane, r.lo, r.hi, r.got, now)
			}
		}
	}
	return nil
}

// TestSerialInLSNOrder runs random histories; what was admitted is as if each
// transaction had run as a whole at its own LSN.
func TestSerialInLSNOrder(t *testing.T) {
	histories := 20_000
	if testing.Short() {
		histories = 2_000
	}
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds from %d", first)
	var admitted, conflicts, stales, lanes, overlaid int
	for i := range uint64(histories) {
		s := newSim(t, first+i, false)
		s.run(120)
		require.NoError(t, s.serial(), "seed %d", first+i)
		require.Empty(t, s.lane.over.keysOfDone(s.p), "seed %d", first+i)
		admitted += len(s.admitted)
		conflicts, stales, lanes, overlaid = conflicts+s.conflicts, stales+s.stales, lanes+s.lanes, overlaid+s.overlaid
	}
	t.Logf("%d admitted, %d conflicts, %d stale, %d in the lane, %d reads of commits under way", admitted, conflicts, stales, lanes, overlaid)
	for _, n := range []int{admitted, conflicts, stales, lanes, overlaid} {
		require.Greater(t, n, histories/10)
	}
}

// keysOfDone prunes and returns what is left.
func (o *overlay) keysOfDone(p *Pipeline) map[uint64]*overWrite {
	o.prune(p, p.Applied())
	return o.keys
}

// TestModelHasTeeth: without refusals the same histories are not serial.
func TestModelHasTeeth(t *testing.T) {
	bad := 0
	for seed := range uint64(100) {
		s := newSim(t, seed, true)
		s.run(120)
		if s.serial() != nil {
			bad++
		}
	}
	t.Logf("%d of 100", bad)
	require.Greater(t, bad, 15)
}
