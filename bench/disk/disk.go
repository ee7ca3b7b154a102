// Package disk finds out in half a minute what a disk can do for a log: how
// long the ways to make bytes durable take, on files that were filled with zeros,
// that grow, or that were only promised their space; with several syncs in flight
// and with several records for one sync; and how fast large writes are. It is what
// pg_test_fsync is for PostgreSQL, and it ends with advice.
package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// Kinds of files.
const (
	Zeroed     = "zeroed"     // filled with zeros and synced, then written again
	Growing    = "growing"    // appended to
	Fallocated = "fallocated" // given its space by fallocate, which writes nothing
)

// Mechanisms.
const (
	Fdatasync       = "write + fdatasync"
	Fsync           = "write + fsync"
	DSync           = "O_DSYNC"
	DirectFdatasync = "O_DIRECT + fdatasync"
	DirectDSync     = "O_DIRECT|O_DSYNC"
	NoSync          = "write"
)

// Test is one thing to measure: so many goroutines, each of which writes Bytes
// behind what was written last, and makes them durable, again and again.
type Test struct {
	// Part is the part of the report it stands in.
	Part      string `json:"part"`
	Mechanism string `json:"mechanism"`
	File      string `json:"file"`
	Bytes     int    `json:"bytes"`
	// InFlight is the number of goroutines.
	InFlight int `json:"in_flight"`
	// Records is how many records Bytes are meant to be.
	Records int `json:"records"`
	// SyncEvery is how many writes one sync makes durable; its time is part of the
	// last one's.
	SyncEvery int `json:"writes_per_sync"`
}

// Result is what a test measured. Latencies are of one write with its sync, in
// microseconds. Its JSON form is one line of the output.
type Result struct {
	Kind string `json:"kind"` // "disk"
	Test
	N       int     `json:"n"`
	PerS    float64 `json:"per_s"`
	MBPerS  float64 `json:"mb_per_s"` // 10⁶ bytes
	RecordS float64 `json:"records_per_s"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
	Max     float64 `json:"max_us"`
	// Missing says why there are no figures.
	Missing string `json:"missing,omitempty"`
}

// Parts of the report.
const (
	PartSync   = "sync"
	PartFlight = "in flight"
	PartGroup  = "group"
	PartLarge  = "large writes"
	PartWrite  = "no sync"
)

// Tests returns all that is measured, in the order of the report.
func Tests() []Test {
	var ts []Test
	add := func(t Test) {
		t.InFlight, t.Records, t.SyncEvery = max(t.InFlight, 1), max(t.Records, 1), max(t.SyncEvery, 1)
		ts = append(ts, t)
	}
	for _, file := range []string{Zeroed, Growing, Fallocated} {
		for _, m := range []string{Fdatasync, Fsync, DSync} {
			add(Test{Part: PartSync, Mechanism: m, File: file, Bytes: 512})
			add(Test{Part: PartSync, Mechanism: m, File: file, Bytes: 4096})
		}
		for _, m := range []string{DirectFdatasync, DirectDSync} {
			add(Test{Part: PartSync, Mechanism: m, File: file, Bytes: 4096})
		}
	}
	for _, m := range []string{Fdatasync, DirectDSync} {
		for n := 1; n <= 3; n++ {
			add(Test{Part: PartFlight, Mechanism: m, File: Zeroed, Bytes: 4096, InFlight: n})
		}
	}
	for _, n := range []int{1, 4, 16, 64, 256} {
		add(Test{Part: PartGroup, Mechanism: Fdatasync, File: Zeroed, Bytes: n * recordBytes, Records: n})
	}
	const large = 1 << 20
	add(Test{Part: PartLarge, Mechanism: Fdatasync, File: Growing, Bytes: large, SyncEvery: 64})
	add(Test{Part: PartLarge, Mechanism: Fdatasync, File: Zeroed, Bytes: large})
	add(Test{Part: PartLarge, Mechanism: DirectFdatasync, File: Growing, Bytes: large, SyncEvery: 64})
	add(Test{Part: PartLarge, Mechanism: DirectDSync, File: Zeroed, Bytes: large})
	add(Test{Part: PartWrite, Mechanism: NoSync, File: Zeroed, Bytes: recordBytes})
	return ts
}

// recordBytes is the length of a small record.
const recordBytes = 128

// fileBytes is the size of the files that are made ahead: no test comes to the end
// of one in its time. A short run makes do with less.
const (
	fileBytes      = 64 << 20
	shortFileBytes = 4 << 20
	shortBudget    = 5 * time.Second
)

// rounds is how often all tests are gone through, each for a part of its time: what
// else the disk does then meets all of them, and they can be compared.
const rounds = 4

// Run carries out tests in a new directory in dir, which it removes, in about
// the time budget. step, which may be nil, is told how much is done, from 0 to 1.
func Run(ctx context.Context, dir string, budget time.Duration, tests []Test, step func(done float64)) ([]Result, error) {
	dir, err := os.MkdirTemp(dir, "forebay-disk-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	r := runner{fsys: vfs.OS(), dir: dir, size: fileBytes, each: budget / time.Duration(rounds*max(len(tests), 1))}
	if budget < shortBudget {
		r.size = shortFileBytes
	}
	if err := r.prepare(); err != nil {
		return nil, err
	}
	runs := make([]samples, len(tests))
	for round := range rounds {
		for i := range tests {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := r.run(&tests[i], &runs[i]); err != nil {
				return nil, fmt.Errorf("%s, %s: %w", tests[i].Mechanism, tests[i].File, err)
			}
			if step != nil {
				step(float64(round*len(tests)+i+1) / float64(rounds*len(tests)))
			}
		}
	}
	out := make([]Result, len(tests))
	for i := range tests {
		out[i] = runs[i].result(&tests[i])
	}
	return out, nil
}

// samples are what a test measured.
type samples struct {
	took    []time.Duration
	all     time.Duration
	missing string
}

func (s *samples) result(t *Test) Result {
	res := Result{Kind: "disk", Test: *t, N: len(s.took), Missing: s.missing}
	if s.missing == "" && len(s.took) == 0 {
		res.Missing = "not one was done in time"
	}
	if res.Missing != "" {
		return res
	}
	slices.Sort(s.took)
	at := func(q float64) float64 {
		return float64(s.took[min(int(q*float64(len(s.took))), len(s.took)-1)]) / 1e3
	}
	res.PerS = float64(len(s.took)) / s.all.Seconds()
	res.MBPerS, res.RecordS = res.PerS*float64(t.Bytes)/1e6, res.PerS*float64(t.Records)
	res.P50, res.P99, res.Max = at(.5), at(.99), at(1)
	return res
}

type runner struct {
	fsys vfs.FS
	dir  string
	size int64 // of files that are made ahead
	each time.Duration
	n    int // files made
}

func (r *runner) zeroed() string { return filepath.Join(r.dir, "zeroed") }

// prepare makes the file of zeros that all tests share.
func (r *runner) prepare() error {
	f, err := r.fsys.Create(r.zeroed(), vfs.ReadWrite)
	if err != nil {
		return err
	}
	return errors.Join(f.Zero(0, r.size), f.Sync(), f.Close())
}

// modes of the mechanisms' handles.
var modes = map[string]vfs.Mode{DSync: vfs.DSync, DirectFdatasync: vfs.Direct, DirectDSync: vfs.Direct | vfs.DSync}

// open returns the file of a test, and how it goes when the test is over.
func (r *runner) open(t *Test) (f vfs.File, gone func() error, err error) {
	name, fresh := r.zeroed(), false
	if t.File != Zeroed {
		r.n++
		name, fresh = filepath.Join(r.dir, fmt.Sprint(r.n)), true
		made, err := r.fsys.Create(name, vfs.ReadWrite)
		if err != nil {
			return nil, nil, err
		}
		if err := made.Close(); err != nil {
			return nil, nil, err
		}
	}
	if t.File == Fallocated {
		if err := fallocate(name, r.size); err != nil {
			return nil, nil, err
		}
	}
	if f, err = r.fsys.Open(name, vfs.ReadWrite|modes[t.Mechanism]); err != nil {
		return nil, nil, err
	}
	if fresh {
		// Its name and its space are not what is measured.
		if err := errors.Join(f.Sync(), r.fsys.SyncDir(r.dir)); err != nil {
			f.Close()
			return nil, nil, err
		}
	}
	return f, func() error {
		err := f.Close()
		if fresh {
			err = errors.Join(err, r.fsys.Remove(name))
		}
		return err
	}, nil
}

// run carries out one round of a test.
func (r *runner) run(t *Test, s *samples) error {
	f, gone, err := r.open(t)
	if errors.Is(err, vfs.ErrUnsupported) || errors.Is(err, errNoFallocate) {
		s.missing = "not supported here"
		return nil
	}
	if err != nil {
		return err
	}
	took, all, err := r.load(t, f)
	s.took, s.all = append(s.took, took...), s.all+all
	return errors.Join(err, gone())
}

// load writes and syncs for a while, and returns how long each took, and all.
func (r *runner) load(t *Test, f vfs.File) ([]time.Duration, time.Duration, error) {
	var (
		mu   sync.Mutex // guards took and errs
		took []time.Duration
		errs []error
		next atomic.Int64
		wg   sync.WaitGroup
	)
	slots := r.size / int64(t.Bytes) // where a file of fixed size ends
	start := time.Now()
	for range t.InFlight {
		wg.Go(func() {
			buf := vfs.AlignedBuf(t.Bytes)
			for i := range buf {
				buf[i] = byte(i*7 + 1)
			}
			var mine []time.Duration
			var err error
			for begin := time.Now(); err == nil && begin.Sub(start) < r.each; {
				slot := next.Add(1) - 1
				if t.File == Zeroed {
					slot %= slots
				} else if t.File == Fallocated && slot >= slots {
					break
				}
				_, err = f.WriteAt(buf, slot*int64(t.Bytes))
				if err == nil && (slot+1)%int64(t.SyncEvery) == 0 {
					err = sync1(t.Mechanism, f)
				}
				now := time.Now()
				mine = append(mine, now.Sub(begin))
				begin = now
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			errs = append(errs, err)
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil && t.SyncEvery > 1 {
		err = sync1(t.Mechanism, f) // what it did not come to
	}
	return took, time.Since(start), err
}

// sync1 makes durable what was written, where the write did not.
func sync1(mechanism string, f vfs.File) error {
	switch mechanism {
	case Fdatasync, DirectFdatasync:
		return f.SyncData()
	case Fsync:
		return f.Sync()
	}
	return nil
}
