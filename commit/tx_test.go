package commit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

var background = context.Background()

func putRecord(key, value string) []byte {
	rec, _ := batch.AppendPut(nil, nil, []byte(key), []byte(value))
	return rec
}

func readsOf(at base.LSN, keys ...string) *Reads {
	r := new(Reads)
	r.Reset(at)
	for _, k := range keys {
		r.Key([]byte(k))
	}
	return r
}

func TestConflict(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	at := s.p.Begin()
	defer s.p.End()
	_, err := s.p.Apply(putRecord("a", "1"), wal.Durable, nil)
	require.NoError(t, err)
	_, err = s.p.CommitTx(putRecord("b", "1"), wal.Durable, readsOf(at, "a"), nil)
	require.ErrorIs(t, err, ErrConflict)
	require.True(t, s.p.Hot([]byte("a")))
	require.False(t, s.p.Hot([]byte("b")))
	_, err = s.p.CommitTx(nil, wal.Durable, readsOf(at, "a"), nil)
	require.ErrorIs(t, err, ErrConflict, "also without a write")
	require.Equal(t, base.LSN(1), s.log.LastLSN())
	lsn, err := s.p.CommitTx(putRecord("b", "1"), wal.Durable, readsOf(at, "b", "c"), nil)
	require.NoError(t, err)
	require.Equal(t, base.LSN(2), lsn)
	_, err = s.p.CommitTx(nil, wal.Durable, readsOf(2, "a", "b"), nil)
	require.NoError(t, err)
	rd := readsOf(1, "x")
	rd.Range([]byte("b"), []byte("c"))
	_, err = s.p.CommitTx(putRecord("d", "1"), wal.Durable, rd, nil)
	require.ErrorIs(t, err, ErrConflict)
	require.Equal(t, base.LSN(2), s.log.LastLSN())
}

// TestStaleWhereNothingWasNoted: what was admitted while there was no
// transaction was not noted, and the leader says so.
func TestStaleWhereNothingWasNoted(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	for range 3 {
		_, err := s.p.Apply(putRecord("a", "1"), wal.Durable, nil)
		require.NoError(t, err)
	}
	at := s.p.Begin()
	defer s.p.End()
	require.Equal(t, base.LSN(3), at)
	rd := readsOf(2, "b")
	_, err := s.p.CommitTx(putRecord("b", "1"), wal.Durable, rd, nil)
	require.ErrorIs(t, err, ErrStale)
	var asked []string
	require.True(t, rd.Recheck(3, func(key []byte, at base.LSN) bool {
		asked = append(asked, fmt.Sprintf("%s above %d", key, at))
		return true
	}, nil))
	require.Equal(t, []string{"b above 2"}, asked)
	_, err = s.p.CommitTx(putRecord("b", "1"), wal.Durable, rd, nil)
	require.NoError(t, err)
	require.False(t, readsOf(2, "b").Recheck(4, func([]byte, base.LSN) bool { return false }, nil))
}

// TestManyReads: transactions that read much are validated in bounded time, and
// right.
func TestManyReads(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	for _, n := range []int{2_000, 20_000} {
		at := s.p.Begin()
		rd := new(Reads)
		rd.Reset(at)
		for i := range n {
			rd.Key(fmt.Append(nil, "key ", i))
			rd.Key(fmt.Append(nil, "key ", i)) // once is enough
		}
		require.Len(t, rd.points, n)
		_, err := s.p.Apply(putRecord("other", "1"), wal.Durable, nil)
		require.NoError(t, err)
		_, err = s.p.CommitTx(nil, wal.Durable, rd, nil)
		require.NoError(t, err)
		b := new(batch.Batch)
		for i := range 3000 { // bulk
			require.NoError(t, b.Put(fmt.Append(nil, "bulk ", i), nil))
		}
		_, err = s.p.Apply(b.Bytes(), wal.Durable, nil)
		require.NoError(t, err)
		_, err = s.p.CommitTx(nil, wal.Durable, rd, nil)
		require.ErrorIs(t, err, ErrStale)
		require.True(t, rd.Recheck(s.p.Applied(), func([]byte, base.LSN) bool { return true }, nil))
		_, err = s.p.Apply(putRecord(fmt.Sprint("key ", n/2), "1"), wal.Durable, nil)
		require.NoError(t, err)
		_, err = s.p.CommitTx(nil, wal.Durable, rd, nil)
		require.ErrorIs(t, err, ErrConflict)
		s.p.End()
	}
}

// TestRangesAgainstNaive compares the sorted ranges with a plain loop.
func TestRangesAgainstNaive(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	key := func() []byte { return []byte(strings.Repeat(string(rune('a'+rng.IntN(5))), rng.IntN(3))) }
	bound := func() []byte {
		if rng.IntN(6) == 0 {
			return nil
		}
		return key()
	}
	for range 5000 {
		r := new(Reads)
		for range rng.IntN(5) {
			r.Range(bound(), bound())
		}
		plain := append([]keyRange(nil), r.ranges...)
		r.seal()
		for range 10 {
			k, lo, hi := key(), key(), bound()
			covers, overlaps := false, false
			for _, s := range plain {
				covers = covers || within(k, s.lo, s.hi)
				overlaps = overlaps || (hi == nil || string(s.lo) < string(hi)) && (s.hi == nil || string(lo) < string(s.hi))
			}
			require.Equal(t, covers, r.covers(k), "seed %d: %q in %q", seed, k, plain)
			if hi == nil || string(lo) < string(hi) {
				require.Equal(t, overlaps, r.overlaps(lo, hi), "seed %d: %q-%q in %q", seed, lo, hi, plain)
			}
		}
	}
}

func TestWaitVisible(t *testing.T) {
	p, gate := New(&versions{m: map[string][]version{}}), make(chan error)
	l, err := wal.Open("db", &wal.Options{FS: gateSync{vfs.NewMem(), gate}, MarkDelay: -1, NoSpares: true, Applier: Applier{p}})
	require.NoError(t, err)
	p.Start(l, 0)
	submit := func() *Commit {
		c, err := p.Submit(putRecord("a", "1"), wal.Durable)
		require.NoError(t, err)
		return c
	}
	applied := func(lsn base.LSN) {
		for p.Applied() < lsn {
			time.Sleep(time.Millisecond)
		}
	}
	c := submit()
	applied(1)
	require.Zero(t, p.Visible())
	ctx, cancel := context.WithTimeout(background, 10*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.WaitVisible(ctx, 1), context.DeadlineExceeded)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, p.WaitVisible(background, 1)) })
	time.Sleep(time.Millisecond)
	gate <- nil
	wg.Wait()
	require.NoError(t, p.WaitVisible(background, 1))
	require.NoError(t, c.Wait(background))

	c = submit()
	applied(2)
	wg.Go(func() {
		require.Error(t, p.WaitVisible(background, 2))
		require.Equal(t, base.LSN(1), p.Visible())
	})
	gate <- errors.New("no sync")
	wg.Wait()
	require.ErrorIs(t, c.Wait(background), wal.ErrUnknown)
	require.NoError(t, p.WaitVisible(background, 1))
	require.Empty(t, p.waiting.list)
}

// gateSync is a file system whose syncs of data wait for what they return.
type gateSync struct {
	vfs.FS
	gate chan error
}

type gateFile struct {
	vfs.File
	gate chan error
}

func (s gateSync) Create(name string, m vfs.Mode) (vfs.File, error) {
	f, err := s.FS.Create(name, m)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return gateFile{f, s.gate}, nil
}

func (f gateFile) SyncData() error {
	if err := <-f.gate; err != nil {
		return err
	}
	return f.File.SyncData()
}

// TestLaneIsTakenFromOneself: the holder who asks for it again waits for a moment.
func TestLaneIsTakenFromOneself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, vfs.NewMem())
		nested := true
		s.lane.nested = func() bool { return nested }
		for _, wait := range []time.Duration{s.lane.short, s.lane.limit} {
			begin := time.Now()
			outer, err := s.lane.Enter(background)
			require.NoError(t, err)
			inner, err := s.lane.Enter(background)
			require.NoError(t, err)
			require.Equal(t, wait, time.Since(begin))
			require.Same(t, inner, s.lane.holder)
			outer.Leave()
			require.Same(t, inner, s.lane.holder)
			inner.Leave()
			require.Nil(t, s.lane.holder)
			nested = false
		}
	})
}

func TestLaneIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, vfs.NewMem())
		h, err := s.lane.Enter(background)
		require.NoError(t, err)
		var wg sync.WaitGroup
		var order []int
		for i := range 5 {
			wg.Go(func() {
				ctx := background
				if i == 2 { // does not wait for long
					c, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
					defer cancel()
					ctx = c
				}
				h, err := s.lane.Enter(ctx)
				if i == 2 {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					return
				}
				require.NoError(t, err)
				defer h.Leave()
				order = append(order, i)
			})
			synctest.Wait()
		}
		time.Sleep(200 * time.Millisecond)
		h.Leave()
		h.Leave()
		wg.Wait()
		require.Equal(t, []int{0, 1, 3, 4}, order)
		require.Nil(t, s.lane.holder)
	})
}

// TestLaneIsTakenAway: a function that waits for a transaction of another
// goroutine does not wait for ever.
func TestLaneIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, vfs.NewMem())
		defer s.log.Close()
		s.p.Begin()
		defer s.p.End()
		h, err := s.lane.Enter(background)
		require.NoError(t, err)
		rd := readsOf(h.At(), "mine")
		start := time.Now()
		done := make(chan error)
		go func() { done <- s.updateInLane(background, "k", 1) }()
		require.NoError(t, <-done)
		require.Equal(t, time.Second, time.Since(start).Truncate(time.Second))
		_, _, _, ok := h.Get([]byte("k"))
		require.False(t, ok)
		c, err := h.Submit(putRecord("mine", "1"), wal.Durable, rd, nil)
		require.NoError(t, err, "it was overtaken, not refused")
		require.NoError(t, c.Wait(background))
		h.Leave()
		require.Empty(t, s.lane.over.keys[hashOf([]byte("mine"))])

		// A panic leaves the lane by the deferred call.
		func() {
			defer func() { recover() }()
			h, err := s.lane.Enter(background)
			require.NoError(t, err)
			defer h.Leave()
			panic("user code")
		}()
		require.NoError(t, s.updateInLane(background, "k", 1))
		require.Equal(t, "2", s.table.get("k", s.p.Visible()))
	})
}

// TestRefusedWithWhatItReadFrom: who read from a commit that is refused is
// refused, and who comes after sees neither.
func TestRefusedWithWhatItReadFrom(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	s.p.Begin()
	defer s.p.End()
	var c1, c2 *Commit
	require.NoError(t, s.log.Exclusive(func() { // the leader is busy: all join one group
		_, err := s.p.Submit(putRecord("a", "foreign"), wal.Durable)
		require.NoError(t, err)
		h, err := s.lane.Enter(background)
		require.NoError(t, err)
		require.True(t, h.Clean())
		c1, err = h.Submit(putRecord("b", "from a"), wal.Durable, readsOf(h.At(), "a"), nil)
		require.NoError(t, err)
		h.Leave()
		h, err = s.lane.Enter(background)
		require.NoError(t, err)
		require.False(t, h.Clean())
		v, kind, from, ok := h.Get([]byte("b"))
		require.True(t, ok)
		require.Equal(t, base.KindPut, kind)
		require.Equal(t, "from a", string(v))
		require.Same(t, c1, from)
		rd := readsOf(h.At())
		rd.KeyFrom([]byte("b"), from)
		c2, err = h.Submit(putRecord("c", "from b"), wal.Durable, rd, nil)
		require.NoError(t, err)
		h.Leave()
	}))
	require.ErrorIs(t, c1.Wait(background), ErrConflict)
	require.ErrorIs(t, c2.Wait(background), ErrConflict)
	h, err := s.lane.Enter(background)
	require.NoError(t, err)
	require.True(t, h.Clean())
	h.Leave()
	require.Equal(t, base.LSN(1), s.p.Applied())
}

// BenchmarkApply is a put through pipeline and log in memory, without a sync.
func BenchmarkApply(b *testing.B) {
	for _, active := range []bool{false, true} {
		b.Run(fmt.Sprint("transactions=", active), func(b *testing.B) {
			p := New(nothing{})
			l, err := wal.Open("db", &wal.Options{FS: vfs.NewMem(), MarkDelay: -1, NoSpares: true, Applier: Applier{p}})
			require.NoError(b, err)
			defer l.Close()
			p.Start(l, 0)
			if active {
				p.Begin()
				defer p.End()
			}
			recs := make([][]byte, 1<<14)
			for i := range recs {
				recs[i] = putRecord(fmt.Sprintf("key%013d", i), strings.Repeat("v", 100))
			}
			i := 0
			for b.Loop() {
				i++
				if _, err := p.Apply(recs[i&(len(recs)-1)], wal.Buffered, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type nothing struct{}

func (nothing) Apply(base.LSN, []byte) error { return nil }
func (nothing) Ahead(base.LSN, []byte)       {}
func (nothing) Place([]byte)                 {}
func (nothing) Applied(base.LSN)             {}

// TestLastWrites: the table says when a key was last written, or up to when it
// may have been, however it grows and forgets.
func TestLastWrites(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 3))
	t.Logf("seed %d", seed)
	for _, keys := range []uint64{50, 1000, 50_000} {
		w, last := lastWrites{max: 1024}, map[uint64]base.LSN{}
		for lsn := base.LSN(1); lsn < 30_000; lsn++ {
			hash := rng.Uint64N(keys) * 0x9e3779b97f4a7c15
			w.put(hash, lsn)
			last[hash] = lsn
			for range 3 {
				hash := rng.Uint64N(keys) * 0x9e3779b97f4a7c15
				if got, unknown := w.get(hash); got != last[hash] {
					require.Zero(t, got, "seed %d", seed)
					require.GreaterOrEqual(t, unknown, last[hash], "seed %d", seed)
				}
			}
		}
		require.LessOrEqual(t, len(w.sets), 1024)
		if keys == 50 {
			require.Less(t, len(w.sets), 1024)
		}
	}
}

// TestForgottenRangeDeletes: a transaction that is older than the range deletes
// that are remembered is stale, and not admitted.
func TestForgottenRangeDeletes(t *testing.T) {
	s := openStore(t, vfs.NewMem())
	at := s.p.Begin()
	defer s.p.End()
	for i := range 3 * defaultLimits.dels {
		b := new(batch.Batch)
		lo := fmt.Sprintf("%04d", i)
		require.NoError(t, b.DeleteRange([]byte(lo), []byte(lo+"x")))
		_, err := s.p.Apply(b.Bytes(), wal.Buffered, nil)
		require.NoError(t, err)
	}
	_, err := s.p.CommitTx(putRecord("b", "1"), wal.Durable, readsOf(at, "0000a"), nil)
	require.ErrorIs(t, err, ErrStale)
	now := s.p.Applied()
	_, err = s.p.CommitTx(putRecord("b", "1"), wal.Durable, readsOf(now-1, fmt.Sprintf("%04da", 3*defaultLimits.dels-1)), nil)
	require.ErrorIs(t, err, ErrConflict)
	_, err = s.p.CommitTx(putRecord("b", "1"), wal.Durable, readsOf(now-1, "0000a"), nil)
	require.NoError(t, err)
}

// hungLog is a log whose leader waits for a disk that hangs.
type hungLog struct{ fakeLog }

func (l *hungLog) Submit(*wal.Request) error { return nil }
func (l *hungLog) Wait(ctx context.Context, _ *wal.Request) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestNotSeenBehindAHungDisk: who waits for a mark that moved, and was not seen by who
// moved it, is not held up by a log that hangs.
func TestNotSeenBehindAHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(new(fakeTable))
		p.Start(new(hungLog), 0)
		time.AfterFunc(time.Millisecond, func() { p.visible.Store(1) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		start := time.Now()
		require.NoError(t, p.WaitVisible(ctx, 1))
		require.LessOrEqual(t, time.Since(start), 2*patience)
	})
}
