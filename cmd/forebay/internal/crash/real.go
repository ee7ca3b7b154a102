package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/fuzz/real"
)

// childArgs are the arguments with which this program is the child of a campaign.
var childArgs = []string{"crash", "child"}

// realCommands returns the commands that trust no model, and the hidden one that
// they run.
func realCommands() []*cobra.Command {
	return []*cobra.Command{killCommand(), powerCommand(), modelCommand(), {
		Use:    childArgs[1],
		Short:  "Do what crash kill, power and model order",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return real.Child(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}}
}

// campaign is what the three commands have in common.
type campaign struct {
	count   int
	seed    uint64
	dir     string
	systems []string
	json    bool
}

// command returns the command of a campaign. count is how much of what is done by
// default, and run does it.
func (c *campaign) command(cmd *cobra.Command, what string, count int, run func(cmd *cobra.Command) error) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if c.count < 1 {
			return cli.Usagef("--count is at least 1")
		}
		if !cmd.Flags().Changed("seed") {
			c.seed = rand.Uint64N(1e6)
		}
		return run(cmd)
	}
	cmd.Flags().IntVar(&c.count, "count", count, "how many "+what)
	cmd.Flags().Uint64Var(&c.seed, "seed", 0, "decides what is done, and when; default: another one each time")
	cmd.Flags().StringVar(&c.dir, "dir", "", "use a new directory in this `directory`; default: in memory, where there is a place for that")
	cmd.Flags().BoolVar(&c.json, "json", false, "print one JSON object, and nothing else")
	return cmd
}

func (c *campaign) systemsFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringSliceVar(&c.systems, "fs", []string{"ext4", "xfs"}, "the file systems, `names` with commas")
	return cmd
}

func killCommand() *cobra.Command {
	var c campaign
	return c.command(&cobra.Command{
		Use:   "kill",
		Short: "Kill real processes while they write or recover",
		Long: `Run processes that write to a store from several goroutines, batches, range deletes
and transactions at all levels over two keyspaces, with checkpoints, compactions and
backups all the time; kill each with SIGKILL at a moment in a phase of that work, its
recovery among them; and look at what it leaves: exactly S(n), with every commit that
was acknowledged at Durable or Written, and nothing that was not begun.

Exit code 1: something was lost, or is there and should not be; the store is kept.`,
		Example: `  forebay crash kill
  forebay crash kill --count 100 --dir /var/tmp --json`,
	}, "processes are killed", 1000, func(cmd *cobra.Command) error {
		var rep *real.KillReport
		return c.run(cmd, func(ctx context.Context, show func(string)) (err error) {
			rep, err = real.Kill(ctx, real.KillConfig{Child: childArgs, Dir: c.dir, Kills: c.count, Seed: c.seed, Progress: func(r *real.KillReport) {
				show(fmt.Sprintf("  %s of %s kills, %s acknowledged, %d lost", cli.Count(r.Kills), cli.Count(c.count), cli.Count(r.Promised), r.Lost))
			}})
			return err
		}, func(w io.Writer) (any, string) {
			if rep == nil {
				return nil, ""
			}
			table(w, fmt.Sprintf("%s kills, seed %d, %.1f s", cli.Count(rep.Kills), rep.Seed, rep.Seconds), rep.Phases, slices.Concat(rows(&rep.Result), [][2]string{
				{"recovery again", fmt.Sprintf("%d kills in the recovery of what a kill in a recovery had left", rep.Again)},
			}))
			return rep, rep.Problem
		})
	})
}

func powerCommand() *cobra.Command {
	var c campaign
	return c.systemsFlag(c.command(&cobra.Command{
		Use:   "power",
		Short: "Cut the power of real file systems under a store",
		Long: `Make ext4 and xfs file systems in files, write to stores in them as crash kill does,
and shut each file system down at a moment, without a flush of its journal: what it
had not written is lost. Mount it again, which replays the journal, and look at the
store: exactly S(n), with every Durable commit that was acknowledged, and all that a
sync had covered. After the cut nothing may be acknowledged.

Mount options, mechanisms of the log and its alignment change from time to time. It
needs Linux, root, mkfs.ext4 and mkfs.xfs; however it ends, nothing stays mounted.
What a loop device was given is not lost, so that the cache of a disk is not part of
this: the explorer in memory (crash run) has that.

Exit code 1: something was lost, or is there and should not be.`,
		Example: `  forebay crash power
  forebay crash power --count 100 --fs xfs --json`,
	}, "times the power is cut, all file systems together", 500, func(cmd *cobra.Command) error {
		var rep *real.PowerReport
		return c.run(cmd, func(ctx context.Context, show func(string)) (err error) {
			rep, err = real.Power(ctx, real.PowerConfig{Child: childArgs, Dir: c.dir, Cuts: c.count, Seed: c.seed, Systems: c.systems, Progress: func(r *real.PowerReport) {
				show(fmt.Sprintf("  %s of %s cuts, %s acknowledged, %d lost", cli.Count(r.Cuts), cli.Count(c.count), cli.Count(r.Promised), r.Lost))
			}})
			return err
		}, func(w io.Writer) (any, string) {
			if rep == nil {
				return nil, ""
			}
			table(w, fmt.Sprintf("%s power cuts, seed %d, %.1f s", cli.Count(rep.Cuts), rep.Seed, rep.Seconds), rep.Phases, slices.Concat(rows(&rep.Result), volumes(rep.Volumes)))
			return rep, rep.Problem
		})
	}))
}

func modelCommand() *cobra.Command {
	var c campaign
	return c.systemsFlag(c.command(&cobra.Command{
		Use:   "model",
		Short: "Compare the model of a power cut with real file systems",
		Long: `Run the same calls, of random scripts and of stores that are written to, on the file
system in memory that crash run uses and on real ext4 and xfs, let the kernel write
parts of files back early, and cut the power of both in the same place. What the real
one then holds must be a state that the model has: a model that promises more than a
disk gives would hide bugs. It needs what crash power needs.

Exit code 1: a real file system has left a state that the model does not have.`,
		Example: `  forebay crash model
  forebay crash model --count 2000 --fs ext4`,
	}, "cuts are compared, all file systems together", 500, func(cmd *cobra.Command) error {
		var rep *real.ModelReport
		return c.run(cmd, func(ctx context.Context, show func(string)) (err error) {
			rep, err = real.Model(ctx, real.ModelConfig{Child: childArgs, Dir: c.dir, Cuts: c.count, Seed: c.seed, Systems: c.systems, Progress: func(r *real.ModelReport) {
				show(fmt.Sprintf("  %s of %s cuts, %d outside the model", cli.Count(r.Cuts), cli.Count(c.count), r.Outside))
			}})
			return err
		}, func(w io.Writer) (any, string) {
			if rep == nil {
				return nil, ""
			}
			table(w, fmt.Sprintf("%s power cuts, seed %d, %.1f s", cli.Count(rep.Cuts), rep.Seed, rep.Seconds), nil, slices.Concat([][2]string{
				{"under stores", fmt.Sprintf("%s, the others under scripts", cli.Count(rep.Stores))},
				{"unsynced", fmt.Sprintf("%s units at the cuts", cli.Count(rep.Units))},
				{"lossy", fmt.Sprintf("%s cuts took something; %s of them not all that they might", cli.Count(rep.Lossy), cli.Count(rep.Partial))},
				{"outside", fmt.Sprintf("%d states that the model does not have", rep.Outside)},
			}, volumes(rep.Volumes)))
			return rep, rep.Problem
		})
	}))
}

// run does a campaign with a line of progress, and tells what came of it: tell
// prints it, and returns it for JSON, with what is wrong.
func (c *campaign) run(cmd *cobra.Command, do func(ctx context.Context, show func(string)) error, tell func(io.Writer) (any, string)) error {
	var line atomic.Value
	line.Store("  starting")
	progress := cli.StartProgress(cmd.ErrOrStderr(), c.json, func() string { return line.Load().(string) })
	err := do(cmd.Context(), func(s string) { line.Store(s) })
	progress.Stop()
	out := cmd.OutOrStdout()
	if c.json {
		out = io.Discard
	}
	rep, problem := tell(out)
	if c.json && rep != nil {
		err = errors.Join(err, cli.WriteJSON(cmd.OutOrStdout(), rep))
	}
	if err == nil && problem != "" {
		err = errors.New(problem)
	}
	return err
}

func rows(r *real.Result) [][2]string {
	out := [][2]string{
		{"stores", cli.Count(r.Stores)},
		{"acknowledged", cli.Count(r.Promised)},
		{"lost", cli.Count(r.Lost)},
		{"under way", cli.Count(r.InFlight) + " commits, there and whole"},
		{"promised nothing", cli.Count(r.Dropped) + " acknowledged commits are gone"},
	}
	if r.Store != "" {
		out = append(out, [2]string{"kept", r.Store})
	}
	return out
}

func volumes(by map[string]int) (out [][2]string) {
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, [2]string{"file system", fmt.Sprintf("%s: %s cuts", name, cli.Count(by[name]))})
	}
	return out
}

// table prints a title, how many crashes fell in which phase, and rows.
func table(w io.Writer, title string, phases map[string]int, rows [][2]string) {
	rule := strings.Repeat("─", 62)
	fmt.Fprintf(w, "  %s\n  %s\n", title, rule)
	names := slices.SortedFunc(maps.Keys(phases), func(a, b string) int { return phases[b] - phases[a] })
	for _, name := range names {
		fmt.Fprintf(w, "  %-20s%s\n", "in "+name, cli.Count(phases[name]))
	}
	for _, row := range rows {
		fmt.Fprintf(w, "  %-20s%s\n", row[0], row[1])
	}
	fmt.Fprintf(w, "  %s\n", rule)
}
