package policy

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// keySize is the length of all keys in bytes.
const keySize = 16

// Options say how cells are measured. Zero fields mean the defaults.
type Options struct {
	// FS is where; nil: the operating system.
	FS vfs.FS
	// Dir is a directory in which each cell makes one of its own, and removes it.
	Dir string
	// Window is how long is measured, behind a warm-up of a quarter of it;
	// default 2 s.
	Window time.Duration
	// MaxBytes ends a cell early when its log has written so much; default 4 GiB.
	MaxBytes int64
	// Cuts is how many cuts are simulated of each kind; default 1000.
	Cuts int
	// Seed draws keys and moments.
	Seed uint64
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.OS()
	}
	if o.Window <= 0 {
		o.Window = 2 * time.Second
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 4 << 30
	}
	if o.Cuts <= 0 {
		o.Cuts = 1000
	}
	return o
}

// Run measures one cell.
func Run(ctx context.Context, c Cell, o Options) (Result, error) {
	if err := c.check(); err != nil {
		return Result{}, err
	}
	o = o.withDefaults()
	dir, err := os.MkdirTemp(o.Dir, "forebay-fsync-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	m, err := load(ctx, &c, &o, dir)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", c.Name(), err)
	}
	return m.result(&c, o.Cuts, o.Seed), nil
}

// load runs the writers of a cell.
func load(ctx context.Context, c *Cell, o *Options, dir string) (*measured, error) {
	w := newWatch(o.FS)
	t, err := c.open(w, dir)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	m := &measured{watch: w, acks: make([][]int64, c.Writers)}
	start := w.now()
	m.from = start + int64(o.Window)/4
	deadline := m.from + int64(o.Window)
	var (
		stop  atomic.Bool
		wg    sync.WaitGroup
		once  sync.Once
		first error
	)
	release := context.AfterFunc(ctx, func() { stop.Store(true) })
	defer release()
	for i := range c.Writers {
		wg.Go(func() {
			acks, err := write(w, t.writer(), c, i, o.Seed, func(now int64) bool {
				return now < deadline && !stop.Load() && w.bytes.Load() < o.MaxBytes
			})
			m.acks[i] = acks
			if err != nil {
				once.Do(func() { first = err })
				stop.Store(true)
			}
		})
	}
	wg.Wait()
	// The last writes of a cell end when nobody comes any more to share their sync.
	m.to = min(deadline, w.now())
	if first == nil {
		first = ctx.Err()
	}
	if first == nil {
		w.mu.Lock()
		first = w.err
		w.mu.Unlock()
	}
	if m.to <= m.from && first == nil {
		m.from = start // it came to MaxBytes at once
	}
	return m, first
}

// write is one writer: it puts random keys until told to end, and returns when
// each put was acknowledged.
func write(w *watch, put func(key, value []byte) error, c *Cell, writer int, seed uint64, more func(now int64) bool) ([]int64, error) {
	r := rand.NewPCG(seed, uint64(writer))
	key, value := make([]byte, keySize), make([]byte, c.Value)
	for i := 0; i+8 <= len(value); i += 8 {
		binary.LittleEndian.PutUint64(value[i:], r.Uint64())
	}
	acks := make([]int64, 0, 1<<12)
	for now := w.now(); more(now); {
		binary.BigEndian.PutUint64(key, r.Uint64())
		binary.BigEndian.PutUint64(key[8:], r.Uint64())
		binary.LittleEndian.PutUint64(value[len(value)-8:], identify(writer, len(acks)))
		if err := put(key, value); err != nil {
			return acks, err
		}
		now = w.now()
		acks = append(acks, now)
	}
	return acks, nil
}
