// Package upkeep has the commands that care for a whole store: backup,
// checkpoint, compact, keyspaces, check and salvage.
package upkeep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/wal"
)

// Commands returns the commands.
func Commands() []*cobra.Command {
	return []*cobra.Command{backupCommand(), checkpointCommand(), compactCommand(), keyspacesCommand(), checkCommand(), salvageCommand()}
}

// Work is what a long call did to a store.
type Work struct {
	Before, After Size
	Took          time.Duration
}

// Size is what a store takes and holds.
type Size struct {
	Segments      int    `json:"segments"`
	SegmentBytes  int64  `json:"segment_bytes"`
	Versions      uint64 `json:"versions"`
	Tombstones    uint64 `json:"tombstones"`
	RangeDeletes  uint64 `json:"range_deletes"`
	MemtableBytes int64  `json:"memtable_bytes"`
	LogBytes      int64  `json:"log_bytes"`
}

func sizeOf(s forebay.Stats) Size {
	z := Size{Segments: s.Segments, SegmentBytes: s.SegmentBytes, MemtableBytes: s.MemtableBytes, LogBytes: s.Log.FileBytes + s.Log.SpareBytes}
	for _, l := range s.Levels {
		z.Versions += l.Versions
		z.Tombstones += l.Tombstones
		z.RangeDeletes += l.RangeDeletes
	}
	return z
}

// Do runs a long call on a store that is open, and measures it.
func Do(ctx context.Context, db *forebay.DB, call func(context.Context) error) (Work, error) {
	w := Work{Before: sizeOf(db.Stats())}
	start := time.Now()
	err := call(ctx)
	w.Took, w.After = time.Since(start), sizeOf(db.Stats())
	return w, err
}

// String tells figures before and after.
func (w Work) String() string {
	var b strings.Builder
	row := func(name, before, after string) { fmt.Fprintf(&b, "  %-14s %13s → %s\n", name, before, after) }
	row("segments", cli.Count(w.Before.Segments), cli.Count(w.After.Segments))
	row("segment bytes", cli.Bytes(w.Before.SegmentBytes), cli.Bytes(w.After.SegmentBytes))
	row("versions", cli.Count(w.Before.Versions), cli.Count(w.After.Versions))
	row("tombstones", cli.Count(w.Before.Tombstones), cli.Count(w.After.Tombstones))
	row("range deletes", cli.Count(w.Before.RangeDeletes), cli.Count(w.After.RangeDeletes))
	row("in memory", cli.Bytes(w.Before.MemtableBytes), cli.Bytes(w.After.MemtableBytes))
	row("log files", cli.Bytes(w.Before.LogBytes), cli.Bytes(w.After.LogBytes))
	return b.String()
}

// work opens a store for writing and runs a long call on it.
func work(cmd *cobra.Command, dir, done string, asJSON bool, call func(*forebay.DB, context.Context) error) error {
	db, err := cli.OpenExisting(dir, nil)
	if err != nil {
		return err
	}
	start := time.Now()
	progress := cli.StartProgress(cmd.ErrOrStderr(), asJSON, func() string {
		s := db.Stats()
		return fmt.Sprintf("%s: settled %s; merged %s, %s segments left", cli.Duration(time.Since(start)), cli.Bytes(s.SettledBytes), cli.Bytes(s.CompactionWritten), cli.Count(s.Segments))
	})
	w, err := Do(cmd.Context(), db, func(ctx context.Context) error { return call(db, ctx) })
	progress.Stop()
	if err := errors.Join(err, db.Close()); err != nil {
		if errors.Is(err, context.Canceled) {
			return errors.New("interrupted; what was done by then stays done, and nothing is lost")
		}
		return err
	}
	if asJSON {
		return cli.WriteJSON(cmd.OutOrStdout(), map[string]any{"before": w.Before, "after": w.After, "seconds": w.Took.Seconds()})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s in %s\n%s", done, cli.Duration(w.Took), w)
	return err
}

func checkpointCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "checkpoint DIR",
		Short: "Settle what is in the log into segments",
		Long: `Settle everything that is only in the log and in memory into sorted segments, so
that the next open replays nothing, and let go of the log files that nobody needs
any more. A store does that by itself as it is written to; before a copy of its
files, or before many opens that only read, it is worth while.`,
		Example: `  forebay checkpoint /tmp/s`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return work(cmd, args[0], "settled", asJSON, (*forebay.DB).Checkpoint)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the figures as a JSON object")
	return cmd
}

func compactCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "compact DIR",
		Short: "Merge all segments, so that deleted data gives its space back",
		Long: `Settle everything, and merge all segments towards the last level: what was
overwritten or deleted gives its space back. A store compacts by itself as it is
written to; this is for after large deletions, or before a store is only read. It
needs about as much free space as the store has. An interrupt ends it in order.`,
		Example: `  forebay compact /tmp/s
  forebay compact /tmp/s --json | jq .after.segment_bytes`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return work(cmd, args[0], "compacted", asJSON, (*forebay.DB).Compact)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the figures as a JSON object")
	return cmd
}

func backupCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "backup DIR DST",
		Short: "Copy a store that no process has open into a new directory",
		Long: `Copy a store into DST, which must not exist or be empty. What is in the log alone
is settled first; each segment is copied, synced, and every byte of the copy
verified. DST is then a store, which goes on by itself.

The store is opened for writing, so that no other process may have it open; one
that has makes a backup with DB.Backup, beside its readers and writers.`,
		Example: `  forebay backup /tmp/s /backup/s-$(date +%F)`,
		Args:    cobra.ExactArgs(2),
		RunE:    func(cmd *cobra.Command, args []string) error { return backup(cmd, args[0], args[1], asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as a JSON object")
	return cmd
}

func backup(cmd *cobra.Command, dir, dst string, asJSON bool) error {
	if cli.Inside(dst, dir) {
		return cli.Usagef("%s lies inside the store %s; put the backup elsewhere", dst, dir)
	}
	// Asked before the store is opened: an open may write.
	if entries, err := os.ReadDir(dst); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; name a directory that is new or empty", dst)
	}
	db, err := cli.OpenExisting(dir, nil)
	if errors.Is(err, forebay.ErrLocked) {
		return fmt.Errorf("%w; a process that has a store open backs it up itself, with DB.Backup", err)
	}
	if err != nil {
		return err
	}
	start := time.Now()
	progress := cli.StartProgress(cmd.ErrOrStderr(), asJSON, func() string {
		return fmt.Sprintf("%s: %s copied of %s", cli.Duration(time.Since(start)), cli.Bytes(dirSize(dst)), cli.Bytes(db.Stats().SegmentBytes))
	})
	info, err := db.Backup(cmd.Context(), dst)
	progress.Stop()
	if err := errors.Join(err, db.Close()); err != nil {
		if entries, rerr := os.ReadDir(dst); rerr == nil && len(entries) > 0 {
			err = fmt.Errorf("%w\n%s is no complete backup; remove it", err, dst)
		}
		return err
	}
	took := time.Since(start)
	if asJSON {
		return cli.WriteJSON(cmd.OutOrStdout(), map[string]any{
			"epoch": info.At.Epoch, "lsn": info.At.LSN, "segments": info.Segments, "bytes": info.Bytes, "seconds": took.Seconds(),
		})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "backed up %s, %s in %s, as of commit %s, in %s\n", dir, cli.Bytes(info.Bytes), count(info.Segments, "segment"), position(info.At), cli.Duration(took))
	return err
}

func position(p wal.Position) string { return fmt.Sprintf("%d:%d (epoch:LSN)", p.Epoch, p.LSN) }

// dirSize is the size of the files in a directory.
func dirSize(dir string) (n int64) {
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return 0
	}
	for _, name := range names {
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
			n += st.Size()
		}
	}
	return n
}
