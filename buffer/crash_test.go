package buffer_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/sinktest"
	"github.com/forebaydb/forebay/vfs"
)

var (
	crashSeeds = flag.Int("buffer.seeds", 0, "how many lives of crashes to play; 0: a few")
	crashSeed  = flag.Uint64("buffer.seed", 0, "plays the one with this seed alone")
)

// crashes is a buffer in a machine that crashes, and a sink beside it that does not.
type crashes struct {
	t    *testing.T
	sink sinktest.Memory

	mu      sync.Mutex
	r       *rand.Rand
	over    bool            // this life
	acked   map[string]bool // rows, by their numbers
	refused map[string]bool // that were certainly not added
	purged  map[string]bool // that may have been
	next    map[string]int  // of each key
	mem     *vfs.Mem        // as the crash left it
}

func (c *crashes) draw(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(n)
}

// id is what a value says of its row: it does not change when a row is mended.
func id(value []byte) string {
	_, id, _ := bytes.Cut(value, []byte(" "))
	return string(id)
}

// Write is the sink: it fails now and then, with the effect and without. A machine that
// has crashed writes no more.
func (c *crashes) Write(ctx context.Context, b sink.Batch) error {
	if c.draw(3) == 0 {
		time.Sleep(time.Duration(c.draw(20)) * time.Millisecond)
	}
	c.mu.Lock()
	over, luck := c.over, c.r.IntN(10)
	c.mu.Unlock()
	if over || luck == 0 {
		return errors.New("not written")
	}
	if luck == 1 {
		ctx = context.WithoutCancel(ctx)
	}
	err := c.sink.Write(ctx, b)
	if luck == 2 && err == nil {
		return &sink.Later{After: time.Millisecond, Err: errors.New("the answer is lost")}
	}
	return err
}

// crash ends a life: what was acknowledged by now counts.
func (c *crashes) crash(mem *vfs.Mem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.over = true
	if c.r.IntN(4) == 0 {
		c.mem = mem.Snapshot()
	} else {
		c.mem = mem.PowerCutSeed(c.r.Uint64(), vfs.SectorAtomic)
	}
}

// add adds rows in one of the ways, and notes what became of them.
func (c *crashes) add(db *forebay.DB, b *buffer.Buffer, rows []buffer.Row) error {
	var err error
	switch c.draw(3) {
	case 0:
		_, err = b.AddBatch(rows)
	case 1:
		err = db.Update(func(tx *forebay.Tx) error {
			for _, r := range rows {
				if err := b.AddTx(tx, r); err != nil {
					return err
				}
			}
			return nil
		})
	default:
		rows = rows[:1]
		_, err = b.Add(rows[0])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range rows {
		switch {
		case err == nil && !c.over:
			c.acked[id(r.Value)] = true
		case err != nil && !errors.Is(err, forebay.ErrUnknown) && !c.over:
			c.refused[id(r.Value)] = true
		}
	}
	return err
}

// live is one life, until it crashes.
func (c *crashes) live(life int) {
	c.mu.Lock()
	c.over = false
	mem := c.mem
	ops, at := 0, 1+c.r.IntN(250)
	c.mu.Unlock()
	var fsys vfs.FS = mem
	if c.draw(3) == 0 { // and a disk that fails
		in := vfs.NewInjector(mem)
		call := []vfs.Call{vfs.CallWrite, vfs.CallSyncData, vfs.CallSync}[c.draw(3)]
		in.Add(vfs.Rule{Call: call, K: 1 + c.draw(60), Err: syscall.EIO, After: c.draw(2) == 0})
		fsys = in
	}
	// The hook runs inside of a change of the disk.
	mem.OnIO(func(vfs.Op) {
		if ops++; ops == at {
			c.crash(mem)
		}
	})
	defer mem.OnIO(nil)
	defer c.crash(mem) // at the latest
	db, err := forebay.Open("data", &forebay.Options{FS: fsys, MemtableSize: 16 << 10, LogFileSize: 16 << 10, MarkDelay: -1})
	if err != nil {
		return
	}
	defer db.Close()
	b, err := buffer.Open(db, "b", c, &buffer.Options{
		Items: 1 + c.draw(12), Lanes: 1 + c.draw(4), Age: time.Duration(c.draw(20)) * time.Millisecond,
		Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, MaxRows: int64(c.draw(2) * 60),
	})
	if err != nil {
		return
	}
	defer b.Close()
	var g sync.WaitGroup
	for w := range 3 {
		g.Go(func() {
			for n := range 25 {
				var rows []buffer.Row
				for range 1 + c.draw(5) {
					key := fmt.Sprintf("key-%d-%d", w, c.draw(3))
					c.mu.Lock()
					num := c.next[key]
					c.next[key]++
					c.mu.Unlock()
					kind := "good"
					if c.draw(8) == 0 {
						kind = "bad"
					}
					r := buffer.Row{Key: []byte(key), Value: fmt.Appendf(nil, "%s %s %d", kind, key, num)}
					if c.draw(6) == 0 {
						r.Value = fmt.Appendf(nil, "%s none-%d-%d %d", kind, life, w, n*10+len(rows))
						r.Key = nil
					}
					rows = append(rows, r)
				}
				if err := c.add(db, b, rows); err != nil && !errors.Is(err, buffer.ErrFull) {
					return
				}
				time.Sleep(time.Duration(c.draw(10)) * time.Millisecond)
			}
		})
	}
	g.Go(func() {
		for range 4 {
			time.Sleep(time.Duration(c.draw(80)) * time.Millisecond)
			if c.draw(3) == 0 {
				_, _ = b.Purge(context.Background(), func(l *buffer.DeadLetter) bool {
					if l.Number%5 != 0 {
						return false
					}
					c.mu.Lock()
					defer c.mu.Unlock()
					c.purged[id(l.Value)] = true
					return true
				})
			}
			_, _ = b.Redrive(context.Background(), func(l *buffer.DeadLetter) bool {
				if l.Number%2 == 0 {
					l.Value = fmt.Append(nil, "mended ", id(l.Value))
				}
				return l.Number%3 != 0
			})
		}
	})
	g.Wait()
	if c.draw(2) == 0 {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_ = b.Flush(ctx)
		cancel()
	}
}

// check drains what is there, and looks that each row is where it has to be, once.
func (c *crashes) check() {
	t := c.t
	c.mu.Lock()
	c.over = false
	c.mu.Unlock()
	db := openDB(t, c.mem)
	defer db.Close()
	b, err := buffer.Open(db, "b", c, &buffer.Options{Items: 7, Lanes: 1 + c.draw(3), Age: time.Hour, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
	require.NoError(t, err)
	defer b.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	require.NoError(t, b.Flush(ctx))
	s := b.Stats()
	require.NoError(t, s.Err)
	require.Zero(t, s.Pending)
	require.Zero(t, s.PendingBytes)
	require.Zero(t, s.Lost)
	require.Equal(t, s.In, s.Done+s.Dead+s.Purged)
	where := map[string]string{}
	order := map[string]int{}
	rows := c.sink.Rows()
	for _, r := range rows {
		kind, _, _ := strings.Cut(string(r.Value), " ")
		require.NotEqual(t, "bad", kind)
		require.NotContains(t, where, id(r.Value), "twice")
		where[id(r.Value)] = "sink"
		if kind == "good" && len(r.Key) > 0 {
			var num int
			_, err := fmt.Sscanf(strings.TrimPrefix(id(r.Value), string(r.Key)+" "), "%d", &num)
			require.NoError(t, err)
			require.GreaterOrEqual(t, num, order[string(r.Key)], "the order of key %s", r.Key)
			order[string(r.Key)] = num + 1
		}
	}
	require.EqualValues(t, len(rows), s.Done)
	dead := letters(t, b)
	for _, l := range dead {
		require.False(t, l.Damaged)
		require.NotContains(t, where, id(l.Value), "twice")
		where[id(l.Value)] = "dead"
	}
	require.EqualValues(t, len(dead), s.Dead)
	for x := range c.acked {
		if !c.purged[x] {
			require.Contains(t, where, x, "an acknowledged row")
		}
	}
	for x := range c.refused {
		require.NotContains(t, where, x, "a row that was refused")
	}
}

// TestCrashes plays lives that end in power cuts and kills, at any change of the disk,
// with a sink and a disk that fail: each acknowledged row is in the sink once, or a dead
// letter once, and rows of one key are in their order.
func TestCrashes(t *testing.T) {
	n := *crashSeeds
	if n == 0 {
		n = 120
		if testing.Short() {
			n = 12
		}
	}
	first := rand.Uint64() >> 16
	if *crashSeed != 0 {
		first, n = *crashSeed, 1
	}
	acked, batches := 0, 0
	for i := range n {
		seed := first + uint64(i)
		ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &crashes{
					t: t, r: rand.New(rand.NewPCG(seed, 0)), mem: vfs.NewMem(),
					acked: map[string]bool{}, refused: map[string]bool{}, purged: map[string]bool{}, next: map[string]int{},
				}
				c.sink.Name = seed%2 == 0
				c.sink.Refuse(refuseBad)
				for life := range 2 + c.draw(3) {
					c.live(life)
				}
				c.check()
				acked += len(c.acked)
				batches += len(c.sink.Batches())
			})
		})
		require.True(t, ok, "again: -run TestCrashes -buffer.seed %d", seed)
	}
	t.Logf("%d lives of machines, %d rows acknowledged, %d batches", n, acked, batches)
}
