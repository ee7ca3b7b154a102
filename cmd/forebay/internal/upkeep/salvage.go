package upkeep

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/cmd/forebay/inspect"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/vfs"
)

func salvageCommand() *cobra.Command {
	var asJSON, beyond bool
	var logDir string
	cmd := &cobra.Command{
		Use:   "salvage DIR DST",
		Short: "Make a new store of what can be read of a damaged one",
		Long: `Make a new store in DST, which must be empty or not exist, of everything that can
be read of the store in DIR, and print what was lost: where, which keys and
commits it may have held, and what a reader of the new store may see instead.
DIR is not changed; copies of its damaged files are put into DST/damaged.

Restore a backup instead, if there is one: where something is lost, a deleted key
or an older value may be back. Of a damaged log the commits up to the first that
is missing are taken, so that the result is the state of one moment, as far as
the segments are whole; --beyond-holes takes those behind it as well.

Exit code 0: the new store was made, whatever was lost; --json says how much.`,
		Example: `  forebay salvage /tmp/s /tmp/saved
  forebay salvage /tmp/s /tmp/saved --beyond-holes --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return salvage(cmd, &check.Config{FS: vfs.OS(), Dir: args[0], LogDir: logDir, BeyondHoles: beyond}, args[1], asJSON)
		},
	}
	cmd.Flags().BoolVar(&beyond, "beyond-holes", false, "take commits of the log behind one that is missing, too: the state of no moment")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().StringVar(&logDir, "log-dir", "", "where the log files are, if not in DIR")
	return cmd
}

func salvage(cmd *cobra.Command, cfg *check.Config, dst string, asJSON bool) error {
	release, err := quiet(cfg.FS, cfg.Dir, cfg.LogDir)
	if err != nil {
		return err
	}
	defer release()
	progress := watched(cmd, cfg, "read", asJSON)
	out, err := check.Salvage(cmd.Context(), cfg, dst)
	progress.Stop()
	if errors.Is(err, check.ErrNotEmpty) {
		return fmt.Errorf("%w: %s; name a directory that is new or empty, and outside of %s", err, dst, cfg.Dir)
	}
	if err != nil {
		return noStore(cfg.Dir, err)
	}
	keys := inspect.Keys(cfg.FS, cfg.Dir, cfg.LogDir)
	if asJSON {
		return cli.WriteJSON(cmd.OutOrStdout(), newSalvageReport(out, keys))
	}
	return printSalvage(cmd.OutOrStdout(), out, keys, cfg.Dir, dst)
}

// loss is a loss in JSON.
type loss struct {
	File     string `json:"file"`
	Offset   int64  `json:"offset"` // -1: the whole file
	Length   int64  `json:"length"`
	What     string `json:"what"`
	Reason   string `json:"reason"`
	Lo       string `json:"lo,omitempty"` // keys between them may be missed; without, any
	Hi       string `json:"hi,omitempty"`
	First    uint64 `json:"first_lsn,omitempty"`
	Last     uint64 `json:"last_lsn,omitempty"`
	Harmless bool   `json:"harmless"`
	Effect   string `json:"effect"`
}

type salvageReport struct {
	Lost     int      `json:"lost"` // places by which something may be missing
	Losses   []loss   `json:"losses"`
	Rebuilt  bool     `json:"rebuilt"`
	Keys     uint64   `json:"keys"`
	Segments int      `json:"segments"`
	Bytes    int64    `json:"bytes"`
	Commits  uint64   `json:"commits"`
	Skipped  uint64   `json:"skipped_commits"`
	Items    uint64   `json:"items"` // of sequences
	Lacking  uint64   `json:"lost_items"`
	Through  uint64   `json:"through_lsn"`
	LastLSN  uint64   `json:"last_lsn"`
	Unlisted []string `json:"unlisted"`
	Ignored  []string `json:"ignored"`
	Kept     []string `json:"kept"`
}

func newSalvageReport(out *check.Salvaged, keys func([]byte) string) *salvageReport {
	list := func(names []string) []string { return append([]string{}, names...) }
	r := &salvageReport{
		Losses: []loss{}, Rebuilt: out.Rebuilt, Keys: out.Keys, Segments: out.Segments, Bytes: out.Bytes, Commits: out.Commits, Skipped: out.Skipped, Items: out.Items, Lacking: out.LostItems,
		Through: out.Through, LastLSN: out.LastLSN, Unlisted: list(out.Unlisted), Ignored: list(out.Ignored), Kept: list(out.Kept),
	}
	for _, l := range out.Losses {
		j := loss{File: l.File, Offset: l.Offset, Length: l.Length, What: l.What, Reason: because(l.Reason, l.Err), First: l.FirstLSN, Last: l.LastLSN, Harmless: l.Harmless, Effect: l.Effect}
		if l.Lo != nil {
			j.Lo = keys(l.Lo)
		}
		if l.Hi != nil {
			j.Hi = keys(l.Hi)
		}
		if !l.Harmless {
			r.Lost++
		}
		r.Losses = append(r.Losses, j)
	}
	return r
}

func printSalvage(w io.Writer, out *check.Salvaged, keys func([]byte) string, dir, dst string) error {
	r := newSalvageReport(out, keys)
	title := func(harmless bool, title string) {
		first := true
		for _, l := range r.Losses {
			if l.Harmless != harmless {
				continue
			}
			if first {
				fmt.Fprintln(w, title)
				first = false
			}
			fmt.Fprintln(w, "  "+l.text())
		}
	}
	title(false, "lost, or perhaps lost:")
	title(true, "damaged, and nothing is lost by it:")
	for _, x := range []struct {
		what  string
		names []string
	}{{"segments that nobody listed, and that were used", out.Unlisted}, {"files that were not used", out.Ignored}, {"copies of damaged files", out.Kept}} {
		if len(x.names) > 0 {
			fmt.Fprintf(w, "%s: %s\n", x.what, strings.Join(x.names, " "))
		}
	}
	if out.Rebuilt {
		fmt.Fprintln(w, "There was no manifest to say what counts: all files were taken together.")
	}
	if out.Skipped > 0 {
		fmt.Fprintf(w, "%s behind the hole left out; --beyond-holes takes what is intact there.\n", count(int(out.Skipped), "commit"))
	}
	if out.Items+out.LostItems > 0 {
		fmt.Fprintf(w, "%s of sequences, with their offsets; %s lost\n", count(int(out.Items), "item"), cli.Count(out.LostItems))
	}
	verdict := "nothing is lost"
	if r.Lost > 0 {
		verdict = "see above for " + count(r.Lost, "place") + " by which something may be missing"
	}
	_, err := fmt.Fprintf(w, "salvaged %s into %s: %s keys, %s in %s, %s of the log, all through LSN %d; %s\nIt goes on behind LSN %d. `forebay check %s` verifies it.\n", dir, dst,
		cli.Count(out.Keys), cli.Bytes(out.Bytes), count(out.Segments, "segment"), count(int(out.Commits), "commit"), out.Through, verdict, out.LastLSN, dst)
	return err
}

// text tells a loss in lines.
func (l *loss) text() string {
	s := l.File
	if l.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", l.Offset)
	}
	if l.Length > 0 {
		s += fmt.Sprintf(", %d bytes", l.Length)
	}
	s += fmt.Sprintf(" (%s): %s", l.What, l.Reason)
	switch {
	case l.Lo != "" && l.Hi != "":
		s += fmt.Sprintf("\n    keys from %s to %s", l.Lo, l.Hi)
	case l.Lo != "":
		s += fmt.Sprintf("\n    keys from %s on", l.Lo)
	case l.Hi != "":
		s += fmt.Sprintf("\n    keys up to %s", l.Hi)
	}
	if l.First > 0 {
		s += fmt.Sprintf("\n    commits %d to %d", l.First, l.Last)
	}
	if l.Effect != "" {
		s += "\n    " + l.Effect
	}
	return s
}
