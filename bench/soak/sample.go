package main

import (
	"bufio"
	"fmt"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/forebaydb/forebay"
)

// sample is what was seen at one second.
type sample struct {
	at                    float64 // s
	rate                  float64 // puts a second
	anon, memtables       int64   // bytes
	cache, disk, segments int64
	files, fds            int
	level0                int
	limit                 int64
}

// beyond is what a store may take beyond its MemoryLimit, in bytes.
const beyond = 64 << 20

// sampler takes a sample each second.
type sampler struct {
	start time.Time
	quit  chan struct{}
	wg    sync.WaitGroup
	all   []sample
}

func newSampler(l *load) *sampler {
	s := &sampler{start: time.Now(), quit: make(chan struct{})}
	s.wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		last, lastAt := int64(0), s.start
		for {
			select {
			case <-s.quit:
				return
			case <-tick.C:
			}
			n, now := l.done.Load(), time.Now()
			st := l.db.Stats()
			p := sample{at: now.Sub(s.start).Seconds(), rate: float64(n-last) / now.Sub(lastAt).Seconds(),
				anon: anonymous(), memtables: st.MemtableBytes, cache: st.CacheBytes, segments: st.SegmentBytes, limit: st.WriteRate}
			if len(st.Levels) > 0 {
				p.level0 = st.Levels[0].Segments
			}
			p.disk, p.files = usage(l.dir)
			if names, err := os.ReadDir("/proc/self/fd"); err == nil {
				p.fds = len(names)
			}
			s.all = append(s.all, p)
			last, lastAt = n, now
		}
	})
	return s
}

func (s *sampler) stop() {
	close(s.quit)
	s.wg.Wait()
}

// anonymous returns the anonymous memory of this process in bytes, 0 where the
// system does not tell.
func anonymous() int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), "RssAnon:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// usage returns the bytes and the number of files of a store.
func usage(dir string) (bytes int64, files int) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			bytes += info.Size()
			files++
		}
	}
	return bytes, files
}

// report prints what the load did, up to now.
func (s *sampler) report(l *load, what string) {
	secs := time.Since(s.start).Seconds()
	all := slices.Clone(s.all)
	n := l.done.Load()
	fmt.Printf("%s: %d puts in %.1f s, %.0f/s\n", what, n, secs, float64(n)/secs)
	h := l.latency
	fmt.Printf("latency of a commit (%d writers, %d puts each, %s): p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms\n",
		l.writers, l.batch, l.level, ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99)), ms(h.ValueAtQuantile(99.9)), ms(h.Max()))
	if len(all) < 3 {
		return
	}
	mean, worst := float64(n)/secs, all[0]
	most := all[0]
	for _, p := range all {
		if p.rate < worst.rate {
			worst = p
		}
		most.anon, most.fds, most.files, most.disk, most.level0 = max(most.anon, p.anon), max(most.fds, p.fds), max(most.files, p.files), max(most.disk, p.disk), max(most.level0, p.level0)
	}
	fmt.Printf("worst second: %.0f/s at %.0f s, %.2f of the mean\n", worst.rate, worst.at, worst.rate/mean)
	fmt.Printf("at most: %.0f MiB anonymous memory, %d open descriptors, %d files, %.2f GiB on disk, %d segments in level 0\n",
		mib(most.anon), most.fds, most.files, mib(most.disk)/1024, most.level0)
	for _, part := range []int{1, 2, 3, 4} {
		p := all[min(len(all)-1, len(all)*part/4)]
		fmt.Printf("  at %4.0f s: %.0f MiB anonymous, memtables %.0f MiB, cache %.0f MiB\n", p.at, mib(p.anon), mib(p.memtables), mib(p.cache))
	}
	fmt.Println("now:", describe(l.db, l.dir))
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// describe tells how a store is.
func describe(db *forebay.DB, dir string) string {
	st := db.Stats()
	disk, files := usage(dir)
	var b strings.Builder
	fmt.Fprintf(&b, "%.1f MiB on disk in %d files; segments %.1f MiB;", mib(disk), files, mib(st.SegmentBytes))
	for i, l := range st.Levels {
		if l.Segments > 0 {
			fmt.Fprintf(&b, " L%d %d (%.1f MiB, %d versions, %d tombstones)", i, l.Segments, mib(l.Bytes), l.Versions, l.Tombstones)
		}
	}
	fmt.Fprintf(&b, "; space amplification %.2f, write amplification %.2f (log %.2f, checkpoints %.2f, compactions %.2f)", st.SpaceAmplification(), st.WriteAmplification(),
		ratio(st.Log.Bytes, st.UserBytes), ratio(st.SettledBytes, st.UserBytes), ratio(st.CompactionWritten, st.UserBytes))
	fmt.Fprintf(&b, "; stalls %d (%.1f s in all)", st.Stalls, st.StallTime.Seconds())
	return b.String()
}

func ratio(a, b int64) float64 { return float64(a) / float64(max(b, 1)) }

// plot draws the samples and writes them as a table; memory is MemoryLimit.
func (s *sampler) plot(prefix string, memory int64) error {
	if err := os.MkdirAll(filepath.Dir(prefix), 0o755); err != nil {
		return err
	}
	csv, err := os.Create(prefix + ".csv")
	if err != nil {
		return err
	}
	defer csv.Close()
	fmt.Fprintln(csv, "second,puts_per_second,anonymous_bytes,memtable_bytes,cache_bytes,disk_bytes,segment_bytes,files,descriptors,level0_segments,write_rate_limit")
	for _, p := range s.all {
		fmt.Fprintf(csv, "%.1f,%.0f,%d,%d,%d,%d,%d,%d,%d,%d,%d\n", p.at, p.rate, p.anon, p.memtables, p.cache, p.disk, p.segments, p.files, p.fds, p.level0, p.limit)
	}
	if err := s.draw(prefix+"-rate", "puts per second", func(p sample) []float64 { return []float64{p.rate} }, "puts"); err != nil {
		return err
	}
	return s.draw(prefix+"-memory", "MiB", func(p sample) []float64 {
		return []float64{mib(p.anon), mib(p.memtables), mib(p.cache), mib(memory + beyond)}
	}, "anonymous memory", "memtables", "block cache", "MemoryLimit + 64 MiB")
}

func (s *sampler) draw(name, unit string, values func(sample) []float64, lines ...string) error {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text, p.Y.Min = "seconds", unit, 0
	colors := []color.Color{color.RGBA{B: 200, A: 255}, color.RGBA{G: 140, A: 255}, color.RGBA{R: 200, A: 255}, color.Gray{Y: 120}}
	for i, what := range lines {
		pts := make(plotter.XYs, len(s.all))
		for j, one := range s.all {
			pts[j] = plotter.XY{X: one.at, Y: values(one)[i]}
		}
		line, err := plotter.NewLine(pts)
		if err != nil {
			return err
		}
		line.Color = colors[i]
		p.Add(line)
		p.Legend.Add(what, line)
	}
	p.Add(plotter.NewGrid())
	p.Legend.Top = true
	p.Y.Max *= 1.35 // room for the legend
	for _, ext := range []string{".svg", ".png"} {
		if err := p.Save(20*vg.Centimeter, 10*vg.Centimeter, name+ext); err != nil {
			return err
		}
	}
	return nil
}
