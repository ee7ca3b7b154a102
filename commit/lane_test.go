package commit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// versions is a table that many read at once: the values of each key, by LSN.
type versions struct {
	mu sync.RWMutex
	m  map[string][]version
}

type version struct {
	lsn   base.LSN
	value string
}

func (v *versions) Apply(lsn base.LSN, record []byte) error {
	ops, err := batch.Decode(record)
	v.mu.Lock()
	defer v.mu.Unlock()
	for ops.Next() {
		k := string(ops.Key())
		v.m[k] = append(v.m[k], version{lsn, string(ops.Value())})
	}
	return err
}

func (*versions) Ahead(base.LSN, []byte) {}
func (*versions) Place([]byte)           {}
func (v *versions) Applied(base.LSN)     {}

func (v *versions) get(key string, at base.LSN) string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	vs := v.m[key]
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].lsn <= at {
			return vs[i].value
		}
	}
	return ""
}

// slowSync is a file system whose syncs take a while.
type slowSync struct {
	vfs.FS
	d time.Duration
}

type slowFile struct {
	vfs.File
	d time.Duration
}

func (s slowSync) Create(name string, m vfs.Mode) (vfs.File, error) {
	f, err := s.FS.Create(name, m)
	if err != nil {
		return nil, err
	}
	return slowFile{f, s.d}, nil
}

func (f slowFile) SyncData() error {
	for end := time.Now().Add(f.d); time.Now().Before(end); {
		time.Sleep(time.Microsecond)
	}
	return f.File.SyncData()
}

// store is a pipeline on a real log, and what the root does with both.
type store struct {
	p     *Pipeline
	lane  *Lane
	table *versions
	log   *wal.Log
	first, inLane,
	refusals atomic.Int64
}

func openStore(t testing.TB, fsys vfs.FS) *store {
	s := &store{table: &versions{m: map[string][]version{}}}
	s.p = New(s.table)
	s.lane = NewLane(s.p, nil)
	l, err := wal.Open("db", &wal.Options{FS: fsys, MarkDelay: -1, Applier: Applier{s.p}})
	require.NoError(t, err)
	s.log = l
	s.p.Start(l, l.LastLSN())
	t.Cleanup(func() { l.Close() })
	return s
}

// update adds n to the number under key.
func (s *store) update(key string, n int) error {
	s.p.Begin()
	defer s.p.End()
	ctx := context.Background()
	reads := new(Reads)
	for try := 0; ; try++ {
		var err error
		if try == 0 && !s.p.Hot([]byte(key)) {
			s.first.Add(1)
			reads.Reset(s.p.Applied())
			reads.Key([]byte(key))
			_, err = s.p.CommitTx(added(key, s.table.get(key, reads.At()), n), wal.Durable, reads, nil)
		} else {
			s.inLane.Add(1)
			err = s.updateInLane(ctx, key, n)
		}
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrStale) {
			return err
		}
		s.refusals.Add(1)
	}
}

func (s *store) updateInLane(ctx context.Context, key string, n int) error {
	h, err := s.lane.Enter(ctx)
	if err != nil {
		return err
	}
	defer h.Leave()
	reads := new(Reads)
	reads.Reset(h.At())
	value, _, from, ok := h.Get([]byte(key))
	if !ok {
		value = []byte(s.table.get(key, h.At()))
	}
	reads.KeyFrom([]byte(key), from)
	c, err := h.Submit(added(key, string(value), n), wal.Durable, reads, nil)
	if err != nil {
		return err
	}
	h.Leave()
	return c.Wait(ctx)
}

func added(key, value string, n int) []byte {
	old, _ := strconv.Atoi(value)
	rec, _ := batch.AppendPut(nil, nil, []byte(key), strconv.AppendInt(nil, int64(old+n), 10))
	return rec
}

// TestIncrements: many goroutines add to few keys; nothing is lost.
func TestIncrements(t *testing.T) {
	for _, keys := range []int{1, 3} {
		s := openStore(t, slowSync{vfs.NewMem(), 100 * time.Microsecond})
		const each = 60
		var wg sync.WaitGroup
		for g := range 64 {
			wg.Go(func() {
				for range each {
					if err := s.update(fmt.Sprint("k", g%keys), 1); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		sum := 0
		for k := range keys {
			n, _ := strconv.Atoi(s.table.get(fmt.Sprint("k", k), s.p.Visible()))
			sum += n
		}
		require.Equal(t, 64*each, sum)
		require.Equal(t, base.LSN(64*each), s.p.Applied())
		s.lane.mu.Lock()
		s.lane.over.prune(s.p, s.p.Applied())
		require.Empty(t, s.lane.over.queue)
		require.Empty(t, s.lane.over.keys)
		s.lane.mu.Unlock()
	}
}

// BenchmarkIncrement is of 64 goroutines and one key, where a sync takes 200 µs.
func BenchmarkIncrement(b *testing.B) {
	s := openStore(b, slowSync{vfs.NewMem(), 200 * time.Microsecond})
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range 64 {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := s.update("hot", 1); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "incr/s")
	b.ReportMetric(float64(b.N)/float64(max(1, s.log.Stats().Syncs)), "incr/sync")
	b.ReportMetric(float64(s.refusals.Load())/float64(b.N), "refusals/incr")
	if n := s.table.get("hot", s.p.Visible()); n != fmt.Sprint(b.N) {
		b.Fatal("lost increments:", n, b.N)
	}
}
