package walbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/forebaydb/forebay/bench/workload"
)

// scale says how long and how much.
type scale struct {
	quick  bool
	length time.Duration // of appends
	bytes  int64         // of a log that is replayed
}

var (
	fullScale  = scale{length: 10 * time.Second, bytes: 512 << 20}
	quickScale = scale{quick: true, length: time.Second, bytes: 64 << 20}
)

// small is the size in bytes of a record in most cells, large in the others.
const (
	small = 128
	large = 64 << 10
)

// cell is one measurement of all libraries that can.
type cell struct {
	name string
	libs []*library
	run  func(s scale, lib *library, dir string) (workload.Result, error)
}

func cells() []cell {
	var buffered, written []*library
	for _, l := range libraries {
		switch {
		case l.unsynced == "":
		case l.buffered:
			buffered = append(buffered, l)
		default:
			written = append(written, l)
		}
	}
	written = append(written, forebayWritten)
	out := []cell{
		{"wal-append-buffered", buffered, func(s scale, l *library, dir string) (workload.Result, error) { return appends(s, l, dir, 1, false) }},
		{"wal-append-written", written, func(s scale, l *library, dir string) (workload.Result, error) { return appends(s, l, dir, 1, false) }},
	}
	for _, g := range []int{1, 8, 64} {
		out = append(out, cell{fmt.Sprintf("wal-durable-%d", g), libraries,
			func(s scale, l *library, dir string) (workload.Result, error) { return appends(s, l, dir, g, true) }})
	}
	for _, size := range []int{small, large} {
		out = append(out, cell{fmt.Sprintf("wal-replay-%d", size), libraries,
			func(s scale, l *library, dir string) (workload.Result, error) { return replays(s, l, dir, size) }})
	}
	return out
}

// run runs the cells on the libraries whose names are listed (none: all), each in
// a new directory in dir, interleaved, and gives results to each.
func run(ctx context.Context, s scale, dir string, names []string, repetitions int, each func(workload.Result) error) error {
	for rep := 1; rep <= repetitions; rep++ {
		for n, c := range cells() {
			for i := range c.libs {
				lib := c.libs[(i+n+rep)%len(c.libs)]
				if len(names) > 0 && !slices.Contains(names, lib.name) {
					continue
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				r, err := one(s, &c, lib, dir)
				r.Cell, r.Engine, r.Repetition, r.Quick = c.name, lib.name, rep, s.quick
				if err != nil {
					r.Error = err.Error()
				}
				if err := each(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func one(s scale, c *cell, lib *library, dir string) (r workload.Result, err error) {
	dir = filepath.Join(dir, "log")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	runtime.GC() // the garbage of the one before is not this one's
	return c.run(s, lib, dir)
}

// appends has goroutines add records, and reads back as many as were acknowledged.
func appends(s scale, lib *library, dir string, goroutines int, durable bool) (workload.Result, error) {
	r := workload.Result{Unit: "ops/s", Level: "durable", Promise: "survives a power cut", Note: lib.note}
	if !durable {
		r.Promise = lib.unsynced
		if r.Level = "written"; lib.buffered {
			r.Level = "buffered"
		}
	}
	l, err := lib.open(dir, durable)
	if err != nil {
		return r, err
	}
	add := l.append
	if durable {
		add = l.durable
	}
	var (
		wg    sync.WaitGroup
		ops   atomic.Int64
		hists = make([]*hdrhistogram.Histogram, goroutines)
		errs  = make([]error, goroutines)
		every = 16 // of unsynced appends one in so many is timed: the clock costs as much as some of them
	)
	if durable {
		every = 1
	}
	start := time.Now()
	for g := range goroutines {
		hists[g] = hdrhistogram.New(1, int64(time.Minute), 3)
		wg.Go(func() {
			rec := make([]byte, small)
			for time.Since(start) < s.length {
				for range every - 1 {
					if errs[g] = add(recordOf(rec, 0)); errs[g] != nil {
						return
					}
				}
				began := time.Now()
				if errs[g] = add(recordOf(rec, 0)); errs[g] != nil {
					return
				}
				_ = hists[g].RecordValue(int64(time.Since(began))) // above a minute it is not in the percentiles
				ops.Add(int64(every))
			}
		})
	}
	wg.Wait()
	if !durable {
		// Else a library would be the faster the more it leaves for later.
		errs = append(errs, l.flush())
	}
	took := time.Since(start)
	if err := errors.Join(append(errs, l.close())...); err != nil {
		return r, err
	}
	hist := hists[0]
	for _, h := range hists[1:] {
		hist.Merge(h)
	}
	us := func(q float64) float64 { return float64(hist.ValueAtQuantile(q)) / 1e3 }
	r.Ops, r.Seconds, r.TimedEvery = ops.Load(), took.Seconds(), every
	r.OpsPerS = float64(r.Ops) / took.Seconds()
	r.Value, r.MBPerS = r.OpsPerS, r.OpsPerS*small/1e6
	r.P50, r.P95, r.P99, r.P999, r.Max = us(50), us(95), us(99), us(99.9), float64(hist.Max())/1e3
	return r, counts(lib, dir, r.Ops)
}

// counts says whether a log has as many records as were acknowledged.
func counts(lib *library, dir string, want int64) error {
	if lib.replay == nil {
		lib = forebayLog
	}
	n, scratch, first := int64(0), make([]byte, small), recordOf(make([]byte, small), 0)
	err := lib.replay(dir, func(rec []byte) error {
		n++
		if len(rec) != len(scratch) || string(rec) != string(first) {
			return fmt.Errorf("record %d is not the one that was written", n)
		}
		return nil
	})
	if err == nil && n != want {
		err = fmt.Errorf("%d records were acknowledged and %d are there", want, n)
	}
	return err
}

// replays makes a log and times how long it takes to open and to read all of it.
func replays(s scale, lib *library, dir string, size int) (workload.Result, error) {
	r := workload.Result{Unit: "MB/s", Note: lib.note}
	n := int(max(s.bytes/int64(size), 1))
	buf := make([]byte, size)
	if err := lib.load(dir, n, func(i int) []byte { return recordOf(buf, i) }); err != nil {
		return r, err
	}
	runtime.GC()
	c := checker{scratch: make([]byte, size)}
	start := time.Now()
	if err := lib.replay(dir, c.each); err != nil {
		return r, err
	}
	took := time.Since(start)
	if c.n != n {
		return r, fmt.Errorf("%d of %d records came back", c.n, n)
	}
	r.Ops, r.Seconds, r.OpsPerS = int64(n), took.Seconds(), float64(n)/took.Seconds()
	r.MBPerS = r.OpsPerS * float64(size) / 1e6
	r.Value = r.MBPerS
	return r, nil
}

// find checks names of libraries, by commas; "all" is all of them.
func find(list string) ([]string, error) {
	if list == "all" {
		return nil, nil
	}
	var known []string
	for _, l := range libraries {
		known = append(known, l.name)
	}
	names := strings.Split(list, ",")
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("there is no library %q; there are %s", n, strings.Join(known, ", "))
		}
	}
	return names, nil
}
