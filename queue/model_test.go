package queue_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

var flagModel = flag.Uint64("queue.model", 0, "the seed that TestModel plays; 0: some")

// modelMessage is what is known of a message in a group.
type modelMessage struct {
	status   string // pending, flight, done, dead, purged
	due      time.Time
	attempts int
	held     *queue.Message[[]byte]
	until    time.Time // of its lease
	delivery uint64    // the last one
}

// staleHandle is a message as a receiver had it whose lease is over: it was settled or
// given back, or has expired.
type staleHandle struct {
	*queue.Message[[]byte]
	of      *modelMessage
	expired bool
}

// modelWorld plays a queue with two groups against maps.
type modelWorld struct {
	t      *testing.T
	r      *rand.Rand
	fs     *vfs.Mem
	db     *forebay.DB
	q      *queue.Queue[[]byte]
	groups [2]*queue.Group[[]byte]
	known  [2]map[queue.ID]*modelMessage
	dedupe map[string]queue.ID
	stale  []staleHandle
	closed []*queue.Message[[]byte] // of the queue before, whatever became of them
}

const modelLease = 30 * time.Second

func (w *modelWorld) open() {
	var err error
	w.db, err = forebay.Open("data", &forebay.Options{FS: w.fs, MemtableSize: 64 << 10, LogFileSize: 32 << 10, MarkDelay: -1})
	require.NoError(w.t, err)
	w.q, err = queue.Open(w.db, "q", queue.Bytes{}, &queue.Options{Priorities: 2, MaxBytes: 1 << 40, DedupeFor: maxTime})
	require.NoError(w.t, err)
	for i := range w.groups {
		w.groups[i], err = w.q.Group(fmt.Sprint(i), &queue.GroupOptions{Lease: modelLease, MaxDeliveries: -1, Window: 8,
			Jitter: func(d time.Duration) time.Duration { return d }, Backoff: time.Second, MaxBackoff: time.Minute})
		require.NoError(w.t, err)
	}
}

const maxTime = 1000 * time.Hour

// close ends a life; crash: of the process, without a word.
func (w *modelWorld) close(crash bool) {
	next := w.fs
	if crash {
		next = w.fs.Snapshot()
	}
	require.NoError(w.t, w.q.Close())
	require.NoError(w.t, w.db.Close())
	w.fs = next
	w.closed = nil
	for _, m := range w.stale {
		w.closed = append(w.closed, m.Message)
	}
	for _, known := range w.known {
		for _, m := range known {
			if m.status == "flight" {
				w.closed = append(w.closed, m.held)
				m.status, m.due, m.held = "pending", time.Time{}, nil
			}
		}
	}
	w.stale = nil
}

// expire ends the leases that are over.
func (w *modelWorld) expire() {
	synctest.Wait()
	for _, known := range w.known {
		for _, m := range known {
			if m.status == "flight" && !m.until.After(time.Now()) {
				w.stale = append(w.stale, staleHandle{m.held, m, true})
				m.status, m.due, m.held = "pending", time.Time{}, nil
			}
		}
	}
}

// pick returns a message of a group with a status, nil if there is none.
func (w *modelWorld) pick(g int, status string) (queue.ID, *modelMessage) {
	var ids []queue.ID
	for id, m := range w.known[g] {
		if m.status == status {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return queue.ID{}, nil
	}
	// The order of a map is not the seed's.
	best := ids[0]
	for _, id := range ids {
		if id.Lane < best.Lane || id.Lane == best.Lane && id.Offset < best.Offset {
			best = id
		}
	}
	return best, w.known[g][best]
}

func (w *modelWorld) enqueue() {
	var items []queue.Item[[]byte]
	for range 1 + w.r.IntN(4) {
		m := queue.Meta{Priority: w.r.IntN(2)}
		if w.r.IntN(3) == 0 {
			m.Delay = time.Duration(w.r.IntN(100)) * time.Second
		}
		items = append(items, queue.Item[[]byte]{Value: make([]byte, w.r.IntN(300)), Meta: m})
	}
	id := fmt.Sprint(w.r.IntN(50))
	old, dup := w.dedupe[id]
	with := w.r.IntN(4) == 0
	if with {
		items[0].Meta.DedupeID = id
	}
	ids, err := w.q.EnqueueBatch(ctx, items)
	if with && dup {
		var d *queue.DuplicateError
		require.ErrorAs(w.t, err, &d)
		if d.Known {
			require.Equal(w.t, old, d.ID)
		}
		return
	}
	require.NoError(w.t, err)
	if with {
		w.dedupe[id] = ids[0]
	}
	for i, id := range ids {
		for g := range w.groups {
			m := &modelMessage{status: "pending"}
			if items[i].Meta.Delay > 0 {
				m.due = time.Now().Add(items[i].Meta.Delay)
			}
			require.Nil(w.t, w.known[g][id])
			w.known[g][id] = m
		}
	}
}

func (w *modelWorld) receive(g int) {
	w.expire()
	ready := 0
	for _, m := range w.known[g] {
		if m.status == "pending" && !m.due.After(time.Now()) {
			ready++
		}
	}
	if ready == 0 {
		none(w.t, w.groups[g])
		return
	}
	flight := 0
	for _, m := range w.known[g] {
		if m.status != "done" && m.status != "dead" && m.status != "purged" && m.status != "pending" {
			flight++
		}
	}
	if flight >= 6 { // the windows may be full
		return
	}
	ms, err := w.groups[g].Receive(ctx, 1+w.r.IntN(3))
	require.NoError(w.t, err)
	for _, got := range ms {
		m := w.known[g][got.ID]
		require.Equal(w.t, "pending", m.status)
		require.False(w.t, m.due.After(time.Now()))
		m.attempts++
		require.Equal(w.t, m.attempts, got.Attempt)
		require.Greater(w.t, got.Delivery, m.delivery)
		m.status, m.held, m.until, m.delivery = "flight", got, time.Now().Add(modelLease), got.Delivery
	}
}

func (w *modelWorld) settle(g int) {
	w.expire()
	_, m := w.pick(g, "flight")
	if m == nil {
		return
	}
	var err error
	switch w.r.IntN(7) {
	case 0:
		m.status, err = "done", m.held.Ack(ctx)
	case 1, 2:
		m.status, err = "done", w.db.Update(m.held.AckTx)
	case 3:
		wait := min(time.Second<<min(m.attempts-1, 10), time.Minute)
		m.status, m.due, err = "pending", time.Now().Add(wait), m.held.Nack(ctx, errors.New("no"))
	case 4:
		wait := time.Duration(w.r.IntN(30)) * time.Second
		m.status, m.due, err = "pending", time.Now().Add(wait), m.held.NackAfter(ctx, wait, nil)
	case 5:
		m.status, err = "dead", m.held.Kill(ctx, errors.New("dead"))
	case 6:
		require.NoError(w.t, m.held.Extend(time.Minute))
		m.until = time.Now().Add(time.Minute)
		return
	}
	require.NoError(w.t, err)
	w.stale = append(w.stale, staleHandle{m.held, m, false})
	m.held = nil
}

// settleStale tries what is not allowed any more, and AckTx, which is as long as an expired
// message was not delivered again.
func (w *modelWorld) settleStale() {
	w.expire()
	if n := len(w.closed); n > 0 {
		m := w.closed[w.r.IntN(n)]
		require.ErrorIs(w.t, m.Ack(ctx), queue.ErrClosed)
		require.ErrorIs(w.t, w.db.Update(m.AckTx), queue.ErrClosed)
	}
	if len(w.stale) == 0 {
		return
	}
	m := w.stale[w.r.IntN(len(w.stale))]
	require.ErrorIs(w.t, m.Ack(ctx), queue.ErrStaleLease)
	require.ErrorIs(w.t, m.Nack(ctx, nil), queue.ErrStaleLease)
	if w.r.IntN(2) == 0 {
		return
	}
	if m.expired && m.of.status == "pending" && m.of.delivery == m.Delivery {
		require.NoError(w.t, w.db.Update(m.AckTx))
		m.of.status = "done"
	}
	require.ErrorIs(w.t, w.db.Update(m.AckTx), queue.ErrStaleLease)
}

func (w *modelWorld) compare() {
	w.expire()
	for g, known := range w.known {
		n := map[string]int64{}
		for _, m := range known {
			n[m.status]++
		}
		s := stats(w.t, w.groups[g])
		require.Equal(w.t, int64(len(known)), s.Enqueued)
		require.Equal(w.t, n["pending"]+n["flight"], s.Pending)
		require.Equal(w.t, n["flight"], s.InFlight)
		require.Equal(w.t, n["dead"], s.Dead)
		require.Equal(w.t, n["done"]+n["purged"], s.Done)
		require.LessOrEqual(w.t, s.Loaded, 4*8)
		require.Len(w.t, letters(w.t, w.groups[g]), int(n["dead"]))
	}
}

// TestModel plays random programs, with restarts and crashes of the process, and compares
// each figure and each delivery with maps.
func TestModel(t *testing.T) {
	seeds := []uint64{*flagModel}
	if *flagModel == 0 {
		seeds = seeds[:0]
		for n := range 20 {
			if n < 5 || !testing.Short() {
				seeds = append(seeds, rand.Uint64())
			}
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				t.Logf("again with -queue.model %d", seed)
				w := &modelWorld{t: t, r: rand.New(rand.NewPCG(seed, 0)), fs: vfs.NewMem(), dedupe: map[string]queue.ID{}}
				for g := range w.known {
					w.known[g] = map[queue.ID]*modelMessage{}
				}
				w.open()
				for range 250 {
					g := w.r.IntN(2)
					switch w.r.IntN(12) {
					case 0, 1:
						w.enqueue()
					case 2, 3, 4:
						w.receive(g)
					case 5, 6, 7:
						w.settle(g)
					case 8:
						time.Sleep(time.Duration(w.r.IntN(20)) * time.Second)
					case 9:
						if id, m := w.pick(g, "dead"); m != nil {
							if w.r.IntN(3) == 0 {
								require.NoError(t, w.groups[g].Purge(ctx, id))
								m.status = "purged"
							} else {
								require.NoError(t, w.groups[g].Redrive(ctx, id))
								m.status, m.due, m.attempts = "pending", time.Time{}, 0
							}
						}
					case 10:
						w.settleStale()
					case 11:
						if w.r.IntN(4) == 0 {
							w.close(w.r.IntN(2) == 0)
							w.open()
						} else if w.r.IntN(4) == 0 {
							require.NoError(t, w.db.Checkpoint(ctx))
						}
					}
					w.compare()
				}
				require.NoError(t, w.q.Close())
				require.NoError(t, w.db.Close())
			})
		})
	}
}
