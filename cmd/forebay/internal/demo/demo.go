// Package demo is the demonstration: it writes a real source tree durably from
// many goroutines in a process of its own, kills that process at random moments,
// and shows that nothing acknowledged is ever lost.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// Commands returns the command and the hidden one that it runs.
func Commands() []*cobra.Command { return []*cobra.Command{demoCommand(), writerCommand()} }

type flags struct {
	from, dir       string
	seed            uint64
	kills           int
	rounds, workers int
	level           forebay.Level
	keep, json      bool
}

func demoCommand() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Import a real tree, kill the writer, show that nothing is lost",
		Long: `Import the source of the installed Go toolchain (--from: another tree) several
times over, every file a durable write, from 64 goroutines in a process of its
own, which reports each acknowledgement through a pipe. At random moments kill
that process without warning, open the store again, and compare every key that
was acknowledged, by content, with the tree. Then let a new process go on. At the
end settle everything, compare everything, and print the figures.

Exit code 1 says that something acknowledged was lost; the store is then kept.

A killed process is not a power cut: what the operating system was given, it
still has. The power cut is the crash explorer's, in the project's fuzz directory.
--level buffered, which promises nothing, shows what this demonstration says when
writes are lost.`,
		Example: `  forebay demo
  forebay demo --seed 7 --kills 5
  forebay demo --from ~/src --dir /mnt/disk --keep
  forebay demo --json
  forebay demo --level buffered`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.kills < 0 || f.rounds < 1 || f.workers < 1 {
				return cli.Usagef("--kills is at least 0, --rounds and --writers at least 1")
			}
			if !cmd.Flags().Changed("seed") {
				f.seed = rand.Uint64N(1e6)
			}
			return run(cmd, &f)
		},
	}
	cmd.Flags().StringVar(&f.from, "from", "", "import this `directory`; default: the source of the Go toolchain")
	cmd.Flags().StringVar(&f.dir, "dir", "", "make the store in a new directory in this `directory`; default: that for temporary files")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "decides when the writer is killed; default: another one each time")
	cmd.Flags().IntVar(&f.kills, "kills", 3, "how often")
	cmd.Flags().IntVar(&f.rounds, "rounds", 3, "how often the tree is imported, each time under other keys")
	cmd.Flags().IntVar(&f.workers, "writers", 64, "how many goroutines write")
	cmd.Flags().BoolVar(&f.keep, "keep", false, "leave the store where it is")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object, and nothing else")
	cli.LevelFlag(cmd.Flags(), &f.level)
	return cmd
}

// demo is one demonstration.
type demo struct {
	*flags
	start  time.Time
	ctx    context.Context
	out    io.Writer // of the story
	err    io.Writer // of progress
	rand   *rand.Rand
	plan   *plan
	store  string
	result result

	latencies []uint32
	active    time.Duration
	records   int64
	bytes     int64 // user bytes acknowledged
}

func run(cmd *cobra.Command, f *flags) error {
	d := &demo{flags: f, start: time.Now(), ctx: cmd.Context(), out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), rand: rand.New(rand.NewPCG(f.seed, 0))}
	if f.json {
		d.out = io.Discard
	}
	place, err := d.prepare()
	if err != nil {
		return err
	}
	err = d.tell()
	bad := err != nil || d.result.Lost > 0 || d.result.Extra > 0
	if f.keep || bad && d.ctx.Err() == nil {
		d.result.Store = d.store
		fmt.Fprintf(d.out, "\nThe store is kept: %s\n", d.store)
	} else if rerr := os.RemoveAll(place); err == nil {
		err = rerr
	}
	if f.json && (err == nil || d.result.Verdict == "corrupt") {
		err = errors.Join(err, cli.WriteJSON(cmd.OutOrStdout(), &d.result))
	}
	if err != nil {
		return err
	}
	if bad {
		return fmt.Errorf("%d acknowledged writes were lost, %d keys should not be there: %s", d.result.Lost, d.result.Extra, d.result.Problem)
	}
	return nil
}

// prepare finds the source and a place, and says what will happen.
func (d *demo) prepare() (place string, err error) {
	if d.from == "" {
		if d.from, err = findSource(d.ctx); err != nil {
			return "", err
		}
	}
	if d.from, err = filepath.Abs(d.from); err != nil {
		return "", err
	}
	src, err := readSource(d.ctx, d.from)
	if err != nil {
		return "", err
	}
	if place, err = makePlace(d.dir); err != nil {
		return "", err
	}
	if d.store, err = filepath.Abs(filepath.Join(place, "store")); err != nil {
		return "", err
	}
	d.plan = newPlan(src, d.rounds)
	d.result = result{Seed: d.seed, Writers: d.workers, Level: cli.LevelName(d.level), Files: len(src.files), Keys: len(d.plan.jobs), Verdict: "clean"}
	fmt.Fprintf(d.out, "forebay demo, seed %d\n\n", d.seed)
	fmt.Fprintf(d.out, "  source    %s: %s files, %s\n", src.dir, cli.Count(len(src.files)), cli.Bytes(src.bytes))
	if src.large > 0 {
		fmt.Fprintf(d.out, "            without %s above %s\n", cli.Count(src.large), cli.Bytes(forebay.MaxValueSize))
	}
	fmt.Fprintf(d.out, "  plan      import it %d times, %s keys, every put %s, %d writers in a process of their own;\n", d.rounds, cli.Count(len(d.plan.jobs)), d.result.Level, d.workers)
	fmt.Fprintf(d.out, "            kill that process %d times at random moments; nothing acknowledged may be lost\n", d.kills)
	fmt.Fprintf(d.out, "  store     %s\n", d.store)
	if inMemory(place) {
		fmt.Fprintf(d.out, "            this is memory and no disk: a sync costs nothing here; --dir names another place\n")
	}
	return place, nil
}

// tell runs the lives of the writers one after the other, and then looks at
// everything.
func (d *demo) tell() error {
	for number := 1; ; number++ {
		jobs := d.plan.open()
		if len(jobs) == 0 {
			break
		}
		l, err := d.live(number, jobs)
		if err != nil {
			return err
		}
		if !l.killed {
			break
		}
		d.result.Kills++
		if err := d.reopen(); err != nil {
			return err
		}
		if d.result.Lost > 0 || d.result.Extra > 0 {
			break // that is the result
		}
	}
	if d.result.Lost == 0 && d.result.Extra == 0 {
		if err := d.settle(); err != nil {
			return err
		}
	}
	if err := d.sum(); err != nil {
		return err
	}
	d.result.print(d.out)
	return nil
}

// live runs one writer; it is killed while kills are left.
func (d *demo) live(number int, jobs []job) (life, error) {
	fmt.Fprintf(d.out, "\nprocess %d\n", number)
	killAt, killDelay := d.nextKill()
	var done atomic.Int64
	start := time.Now()
	progress := cli.StartProgress(d.err, d.json, func() string {
		n := done.Load()
		return fmt.Sprintf("  writing   %s of %s acknowledged (%s/s)", cli.Count(n), cli.Count(len(jobs)), cli.Count(int64(cli.Rate(n, time.Since(start)))))
	})
	var strange error
	o := &order{Store: d.store, From: d.plan.src.dir, Level: d.level, Workers: d.workers, Jobs: jobs}
	l, err := runWriter(d.ctx, o, killAt, killDelay, func(r report) {
		if int(r.number) >= len(d.plan.states) || d.plan.states[r.number] != open {
			strange = fmt.Errorf("the writer acknowledged put %d, which was not open", r.number)
			return
		}
		d.plan.states[r.number] = acked
		d.latencies = append(d.latencies, r.latency)
		d.bytes += int64(len(d.plan.jobs[r.number].Key)) + d.plan.src.files[d.plan.file(r.number)].size
		done.Add(1)
	})
	progress.Stop()
	if err = errors.Join(err, strange); err != nil {
		return l, err
	}
	d.active += l.active
	d.records += l.records
	d.result.Fsyncs += l.syncs
	d.result.Acked += l.acked
	how := "done"
	if l.killed {
		how = "killed"
	}
	fmt.Fprintf(d.out, "  %-9s %s puts acknowledged in %s, %s/s, %.1f a sync\n", how, cli.Count(l.acked), cli.Duration(l.active),
		cli.Count(int64(cli.Rate(l.acked, l.active))), ratio(l.records, l.syncs))
	return l, nil
}

// nextKill decides at how many acknowledgements of the next writer, and how long
// after, it is killed; 0 is never. The kills lie each in an equal part of the
// plan.
func (d *demo) nextKill() (killAt int, delay time.Duration) {
	if d.result.Kills >= d.kills {
		return 0, 0
	}
	part := float64(len(d.plan.jobs)) / float64(d.kills+1)
	at := int(part * (float64(d.result.Kills) + 0.1 + 0.9*d.rand.Float64()))
	delay = time.Duration(d.rand.Int64N(int64(3 * time.Millisecond)))
	return max(at-d.plan.count(acked), 1), delay
}

// reopen opens the store after a kill, shows what recovery did, and verifies.
func (d *demo) reopen() (err error) {
	db, err := forebay.Open(d.store, nil)
	if err != nil {
		var corrupt *forebay.CorruptionError
		if errors.As(err, &corrupt) {
			d.result.Verdict, d.result.Lost, d.result.Problem = "corrupt", d.plan.count(acked), err.Error()
		}
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	r := d.result.reopened(db.Recovery())
	fmt.Fprintf(d.out, "  reopened  in %s: log %s; %s records, %s, replayed at %.0f MB/s; %s copied forward\n", cli.Duration(r.took), r.Verdict,
		cli.Count(r.Records), cli.Bytes(r.Bytes), cli.Rate(r.Bytes, r.took)/1e6, cli.Count(r.Copied))
	if r.Verdict == "torn" {
		fmt.Fprintf(d.out, "            torn at %s, offset %s: %s; %s dropped\n", r.File, cli.Count(r.Offset), r.Reason, cli.Bytes(r.Dropped))
	}
	return d.verify(db, d.workers)
}

// verify verifies the store and tells of it.
func (d *demo) verify(db *forebay.DB, inFlight int) error {
	start := time.Now()
	progress := cli.StartProgress(d.err, d.json, func() string { return "  verifying every key and value against the source tree" })
	f, err := d.plan.verify(db, inFlight)
	progress.Stop()
	if err != nil {
		return err
	}
	d.result.found(f)
	fmt.Fprintf(d.out, "  verified  %s keys by content in %s: %d lost", cli.Count(f.checked), cli.Duration(time.Since(start)), f.lost())
	if inFlight > 0 {
		fmt.Fprintf(d.out, "; %d more were under way, and are whole", f.flight)
	}
	if f.extra > 0 {
		fmt.Fprintf(d.out, "; %d should not be there", f.extra)
	}
	fmt.Fprintln(d.out)
	if f.first != "" {
		fmt.Fprintf(d.out, "            %s\n", f.first)
	}
	return nil
}

// settle opens the finished store, checkpoints it, and verifies everything.
func (d *demo) settle() (err error) {
	fmt.Fprintf(d.out, "\nat the end\n")
	db, err := forebay.Open(d.store, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	start := time.Now()
	progress := cli.StartProgress(d.err, d.json, func() string { return "  settling" })
	err = db.Checkpoint(d.ctx)
	progress.Stop()
	if err != nil {
		return err
	}
	s := db.Stats()
	fmt.Fprintf(d.out, "  settled   into %s segments, %s, in %s\n", cli.Count(s.Segments), cli.Bytes(s.SegmentBytes), cli.Duration(time.Since(start)))
	return d.verify(db, 0)
}

// sum computes the figures.
func (d *demo) sum() (err error) {
	r := &d.result
	r.WritesPerS = cli.Rate(r.Acked, d.active)
	r.MBPerS = cli.Rate(d.bytes, d.active) / 1e6
	r.RecordsPerFsync = ratio(d.records, r.Fsyncs)
	r.P50, r.P99 = percentiles(d.latencies)
	r.CPUs, r.Platform = runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH
	for n, s := range d.plan.states {
		if s != open {
			r.UserBytes += int64(len(d.plan.jobs[n].Key)) + d.plan.src.files[d.plan.file(uint32(n))].size
		}
	}
	r.Seconds = time.Since(d.start).Seconds()
	r.DiskBytes, err = diskUse(d.store)
	return err
}
