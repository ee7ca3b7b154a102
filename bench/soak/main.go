// Command soak loads one store for minutes and writes down, second by second,
// what that does to it: the rate of writes, the memory of the process, files and
// open descriptors, and the space on disk. It prints figures, and draws plots.
//
//	go run ./bench/soak -load random  -ops 20000000   # puts of random keys
//	go run ./bench/soak -load queue   -ops 10000000   # put at the tail, take from the front
//	go run ./bench/soak -load snapshot -seconds 60    # one snapshot, scanned again and again
//	go run ./bench/soak -load reads -writers 8        # random gets of a settled store
//	go run ./bench/soak -load mixed -writers 4        # puts and gets beside each other
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/forebaydb/forebay"
)

type config struct {
	load       string
	dir        string
	ops, keys  int64
	seconds    int
	puts       int64
	writers    int
	batch      int
	value      int
	level      string
	memtable   int64
	memory     int64
	plot       string
	keep       bool
	cpuprofile string
}

func main() {
	var c config
	flag.StringVar(&c.load, "load", "random", "random, queue, snapshot, reads or mixed")
	flag.StringVar(&c.dir, "dir", "", "where the store is made; a new directory of the system's if empty")
	flag.Int64Var(&c.ops, "ops", 1_000_000, "how many puts")
	flag.Int64Var(&c.keys, "keys", 0, "how many different keys; as many as puts if 0")
	flag.IntVar(&c.seconds, "seconds", 60, "how long is read, and for mixed also written")
	flag.Int64Var(&c.puts, "puts", 500_000, "how many keys the snapshot, or the store that is read, has; as many are overwritten")
	flag.IntVar(&c.writers, "writers", 64, "goroutines that write, or read; for mixed as many of either")
	flag.IntVar(&c.batch, "batch", 1, "puts in a commit")
	flag.IntVar(&c.value, "value", 100, "bytes of a value, half of them random")
	flag.StringVar(&c.level, "level", "durable", "durable, written or buffered")
	flag.Int64Var(&c.memtable, "memtable", 64<<20, "bytes of a memtable")
	flag.Int64Var(&c.memory, "memory", 256<<20, "bytes for memtables and caches")
	flag.StringVar(&c.plot, "plot", "", "prefix of the plots' and the table's files; none if empty")
	flag.BoolVar(&c.keep, "keep", false, "keep the store")
	flag.StringVar(&c.cpuprofile, "cpuprofile", "", "write a CPU profile of the load to this file")
	flag.Parse()
	if err := run(&c); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(c *config) error {
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "soak-")
		if err != nil {
			return err
		}
		c.dir = dir
	}
	dir := filepath.Join(c.dir, "store")
	if !c.keep {
		defer os.RemoveAll(dir)
	}
	if c.keys == 0 {
		c.keys = c.ops
	}
	db, err := forebay.Open(dir, &forebay.Options{MemtableSize: c.memtable, MemoryLimit: c.memory})
	if err != nil {
		return err
	}
	l := &load{config: c, db: db, dir: dir, latency: hdrhistogram.New(1, int64(time.Minute), 3)}
	s := newSampler(l)
	if c.load != "reads" {
		if err := l.profile(); err != nil {
			return err
		}
	}
	switch c.load {
	case "random":
		err = l.random(context.Background())
	case "queue":
		err = l.queue()
	case "snapshot":
		err = l.snapshot()
	case "reads":
		err = l.reads()
	case "mixed":
		err = l.mixed()
	default:
		err = fmt.Errorf("-load %s is unknown", c.load)
	}
	pprof.StopCPUProfile()
	loaded := time.Now()
	if err != nil {
		return err
	}
	s.report(l, "load")
	settle(db)
	s.stop()
	fmt.Printf("settled after %.1f s more: %s\n", time.Since(loaded).Seconds(), describe(db, dir))
	if err := l.finish(); err != nil {
		return err
	}
	if c.plot != "" {
		if err := s.plot(c.plot, c.memory); err != nil {
			return err
		}
	}
	start := time.Now()
	if err := db.Close(); err != nil {
		return err
	}
	closed := time.Since(start)
	start = time.Now()
	if db, err = forebay.Open(dir, &forebay.Options{MemtableSize: c.memtable, MemoryLimit: c.memory}); err != nil {
		return err
	}
	fmt.Printf("close %.3f s, open %.3f s (replayed %d)\n", closed.Seconds(), time.Since(start).Seconds(), db.Recovery().Replayed)
	return db.Close()
}

// profile begins a CPU profile, if one is wanted; run ends it.
func (c *config) profile() error {
	if c.cpuprofile == "" {
		return nil
	}
	f, err := os.Create(c.cpuprofile)
	if err != nil {
		return err
	}
	return pprof.StartCPUProfile(f)
}

// settle waits until nothing works in the background any more.
func settle(db *forebay.DB) {
	for idle, last := 0, int64(-1); idle < 20; {
		time.Sleep(100 * time.Millisecond)
		st := db.Stats()
		work := st.Compactions + st.Checkpoints
		if st.Compacting > 0 || st.Frozen > 0 || work != last {
			idle, last = 0, work
			continue
		}
		idle++
	}
}
