package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay"
)

// load is a load under way.
type load struct {
	*config
	db   *forebay.DB
	dir  string
	done atomic.Int64 // puts

	mu      sync.Mutex
	latency *hdrhistogram.Histogram // ns of a commit
	after   func() error
	began   time.Time
}

func (c *config) levelOf() forebay.Level {
	switch c.level {
	case "written":
		return forebay.Written
	case "buffered":
		return forebay.Buffered
	}
	return forebay.Durable
}

// key makes the 16 bytes of key n.
func key(dst []byte, n uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst[:0], n*0x9e3779b97f4a7c15)
	return binary.BigEndian.AppendUint64(dst, n)
}

// fill makes a value of which half can be compressed away.
func fill(v []byte, r *rand.Rand) {
	for i := 0; i < len(v)/2; i += 8 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], r.Uint64())
		copy(v[i:len(v)/2], b[:])
	}
}

// each runs a function in several goroutines, each with a share of n
// operations, and stops at the first error.
func (l *load) each(ctx context.Context, write func(r *rand.Rand, b *forebay.Batch, v []byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var left atomic.Int64
	left.Store(l.ops)
	var wg sync.WaitGroup
	for w := range l.writers {
		wg.Go(func() {
			h := hdrhistogram.New(1, int64(time.Minute), 3)
			r := rand.New(rand.NewPCG(uint64(w), 1))
			b, v := l.db.NewBatch(), make([]byte, l.value)
			for ctx.Err() == nil {
				n := int64(l.batch)
				if left.Add(-n) < 0 {
					break
				}
				b.Reset()
				for range n {
					if err := write(r, b, v); err != nil {
						cancel(err)
						return
					}
				}
				start := time.Now()
				if err := l.db.Apply(b, l.levelOf()); err != nil {
					cancel(err)
					return
				}
				_ = h.RecordValue(int64(time.Since(start)))
				l.done.Add(n)
			}
			l.mu.Lock()
			l.latency.Merge(h)
			l.mu.Unlock()
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil // it is over, or its time is
}

// random puts random keys.
func (l *load) random(ctx context.Context) error {
	return l.each(ctx, func(r *rand.Rand, b *forebay.Batch, v []byte) error {
		var k [16]byte
		fill(v, r)
		return b.Put(key(k[:0], r.Uint64N(uint64(l.keys))), v)
	})
}

// queue puts at the tail, and takes from the front what is older than a tenth of
// the load, with a scan from the front now and then.
func (l *load) queue() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var tail atomic.Int64
	scans := hdrhistogram.New(1, int64(time.Minute), 3)
	var wg sync.WaitGroup
	var scanErr error
	wg.Go(func() {
		for ctx.Err() == nil {
			start := time.Now()
			n := 0
			for _, err := range l.db.Range(nil, nil) {
				if err != nil {
					scanErr = err
					return
				}
				if n++; n == 100 {
					break
				}
			}
			_ = scans.RecordValue(int64(time.Since(start)))
			time.Sleep(10 * time.Millisecond)
		}
	})
	depth := l.ops / 10
	err := l.each(ctx, func(r *rand.Rand, b *forebay.Batch, v []byte) error {
		fill(v, r)
		n := tail.Add(1)
		if err := b.Put(fmt.Appendf(nil, "%016d", n), v); err != nil {
			return err
		}
		if n > depth {
			return b.Delete(fmt.Appendf(nil, "%016d", n-depth))
		}
		return nil
	})
	cancel()
	wg.Wait()
	l.after = func() error {
		fmt.Printf("scans of 100 from the front, beside the load: %d, p50 %.3f ms, p99 %.3f ms, max %.3f ms\n",
			scans.TotalCount(), ms(scans.ValueAtQuantile(50)), ms(scans.ValueAtQuantile(99)), ms(scans.Max()))
		start := time.Now()
		if err := l.db.DeleteRange(nil, nil); err != nil {
			return err
		}
		if err := l.db.Compact(context.Background()); err != nil {
			return err
		}
		fmt.Printf("all deleted and compacted in %.1f s: %s\n", time.Since(start).Seconds(), describe(l.db, l.dir))
		return nil
	}
	if err == nil {
		err = scanErr
	}
	return err
}

// snapshot scans one snapshot again and again beside writes.
func (l *load) snapshot() error {
	before := *l.config
	before.ops, before.keys = before.puts, before.puts
	first := &load{config: &before, db: l.db, dir: l.dir, latency: hdrhistogram.New(1, int64(time.Minute), 3)}
	if err := first.random(context.Background()); err != nil {
		return err
	}
	s, err := l.db.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(l.seconds)*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var writeErr error
	l.ops, l.keys = 1<<40, l.puts
	wg.Go(func() { writeErr = l.random(ctx) })
	var want uint64
	scans := 0
	for ctx.Err() == nil {
		d := xxhash.New()
		n := 0
		for e, err := range s.Range(nil, nil) {
			if err != nil {
				return err
			}
			_, _ = d.Write(e.Key)
			_, _ = d.Write(e.Value)
			n++
		}
		got := d.Sum64()
		if scans == 0 {
			want = got
			fmt.Printf("snapshot at LSN %d: %d keys, hash %016x\n", s.LSN(), n, got)
		}
		if got != want {
			return fmt.Errorf("scan %d of the snapshot has hash %016x, the first had %016x", scans, got, want)
		}
		scans++
	}
	wg.Wait()
	if writeErr != nil {
		return writeErr
	}
	st := l.db.Stats()
	fmt.Printf("%d scans gave one and the same hash, beside %d puts, %d checkpoints, %d compactions\n", scans, l.done.Load(), st.Checkpoints, st.Compactions)
	return nil
}

// reads gets random keys of a settled store.
func (l *load) reads() error {
	if err := l.prepare(); err != nil {
		return err
	}
	if err := l.db.Compact(context.Background()); err != nil {
		return err
	}
	fmt.Println("reading from:", describe(l.db, l.dir))
	l.began = time.Now()
	if err := l.profile(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(l.seconds)*time.Second)
	defer cancel()
	return l.gets(ctx, &l.done, l.latency)
}

// mixed gets random keys from as many goroutines as overwrite them: what asks
// for most memory, as writes want memtables and reads want the cache.
func (l *load) mixed() error {
	if err := l.prepare(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(l.seconds)*time.Second)
	defer cancel()
	l.ops, l.keys = 1<<40, l.puts
	var writeErr error
	var wg sync.WaitGroup
	wg.Go(func() { writeErr = l.random(ctx) })
	l.began = time.Now()
	var gets atomic.Int64
	err := l.gets(ctx, &gets, hdrhistogram.New(1, int64(time.Minute), 3)) // the report is of puts
	cancel()                                                              // a get that failed ends the puts
	wg.Wait()
	return errors.Join(err, writeErr)
}

// prepare puts what is read later.
func (l *load) prepare() error {
	c := *l.config
	c.ops, c.keys, c.batch, c.writers, c.level = l.puts, l.puts, 100, 4, "written"
	first := &load{config: &c, db: l.db, dir: l.dir, latency: hdrhistogram.New(1, int64(time.Minute), 3)}
	return first.random(context.Background())
}

// gets gets random keys from several goroutines until ctx ends or a get fails, counts
// them in done and adds how long they took, in ns, to latency.
func (l *load) gets(ctx context.Context, done *atomic.Int64, latency *hdrhistogram.Histogram) error {
	var wg sync.WaitGroup
	var found, missing atomic.Int64
	var failed atomic.Pointer[error]
	for w := range l.writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 2))
			h := hdrhistogram.New(1, int64(time.Minute), 3)
			var k [16]byte
			for ctx.Err() == nil && failed.Load() == nil {
				start := time.Now()
				err := l.db.GetFunc(key(k[:0], r.Uint64N(uint64(l.puts))), func([]byte) error { return nil })
				switch {
				case err == nil:
					found.Add(1)
				case errors.Is(err, forebay.ErrNotFound):
					missing.Add(1)
				default:
					failed.Store(&err)
					return
				}
				_ = h.RecordValue(int64(time.Since(start)))
				done.Add(1)
			}
			l.mu.Lock()
			latency.Merge(h)
			l.mu.Unlock()
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	st := l.db.Stats()
	fmt.Printf("%.0f gets/s from %d goroutines; %d found, %d not; of the blocks %.1f %% were in the cache\n", float64(done.Load())/time.Since(l.began).Seconds(), l.writers,
		found.Load(), missing.Load(), 100*float64(st.CacheHits)/float64(st.CacheHits+st.CacheMisses))
	return nil
}

// finish does what is to be done once all is settled.
func (l *load) finish() error {
	if l.after == nil {
		return nil
	}
	return l.after()
}

func ms(ns int64) float64 { return float64(ns) / 1e6 }
