package upkeep

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/vfs"
)

func checkCommand() *cobra.Command {
	var asJSON bool
	var logDir string
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Verify every byte of a store that no process writes to",
		Long: `Read all of a store and print every problem, with file and offset: the manifest,
every block of every segment, the levels, every record of the log, files that
nobody names. Nothing is changed, and the directory need not be writable.

A warning is odd, and nothing is lost by it. Exit code 1: something is damaged.
No process may have the store open for writing meanwhile; one that has verifies it
with DB.Verify.`,
		Example: `  forebay check /tmp/s
  forebay check /tmp/s --json | jq '.problems[]'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return verify(cmd, args[0], logDir, asJSON) },
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().StringVar(&logDir, "log-dir", "", "where the log files are, if not in DIR")
	return cmd
}

// quiet takes the shared locks of a store, so that nobody writes to it. A store
// without a lock's file has never been opened, and a directory without one is not
// made to have one.
func quiet(fsys vfs.FS, dirs ...string) (release func(), err error) {
	var locks []io.Closer
	release = func() {
		for _, l := range locks {
			l.Close()
		}
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		l, err := fsys.LockShared(filepath.Join(dir, "LOCK"))
		switch {
		case err == nil:
			locks = append(locks, l)
		case errors.Is(err, forebay.ErrLocked):
			release()
			return nil, fmt.Errorf("%w; a process that has a store open verifies it itself, with DB.Verify", err)
		case !errors.Is(err, fs.ErrNotExist):
			release()
			return nil, err
		}
	}
	return release, nil
}

// watched shows how far a check or a salvage has come.
func watched(cmd *cobra.Command, cfg *check.Config, what string, hide bool) *cli.Progress {
	var done, total atomic.Int64
	cfg.Progress = func(d, t int64) { done.Store(d); total.Store(t) }
	return cli.StartProgress(cmd.ErrOrStderr(), hide, func() string {
		return fmt.Sprintf("%s %s of %s", what, cli.Bytes(done.Load()), cli.Bytes(total.Load()))
	})
}

// problem is a problem in JSON.
type problem struct {
	Severity string `json:"severity"` // damage or warning
	File     string `json:"file"`
	Offset   int64  `json:"offset"` // -1: the whole file
	Reason   string `json:"reason"`
}

// because joins a reason and its cause.
func because(reason string, err error) string {
	if err == nil {
		return reason
	}
	return reason + ": " + err.Error()
}

func verify(cmd *cobra.Command, dir, logDir string, asJSON bool) error {
	cfg := &check.Config{FS: vfs.OS(), Dir: dir, LogDir: logDir}
	release, err := quiet(cfg.FS, dir, logDir)
	if err != nil {
		return err
	}
	defer release()
	progress := watched(cmd, cfg, "checked", asJSON)
	rep, err := check.Verify(cmd.Context(), cfg)
	progress.Stop()
	if err != nil {
		return noStore(dir, err)
	}
	damaged, warnings := rep.Count(check.Damage), rep.Count(check.Warning)
	w := cmd.OutOrStdout()
	if asJSON {
		problems := []problem{}
		for _, p := range rep.Problems {
			problems = append(problems, problem{p.Severity.String(), p.File, p.Offset, because(p.Reason, p.Err)})
		}
		err = cli.WriteJSON(w, map[string]any{
			"ok": damaged == 0, "problems": problems, "files": rep.Files, "bytes": rep.Bytes, "segments": rep.Segments, "versions": rep.Versions, "records": rep.Records,
		})
	} else {
		for _, p := range rep.Problems {
			fmt.Fprintln(w, p)
		}
		_, err = fmt.Fprintf(w, "checked %s in %s: %s with %s, %s of the log; %s\n", cli.Bytes(rep.Bytes), count(rep.Files, "file"),
			count(rep.Segments, "segment"), count(int(rep.Versions), "version"), count(int(rep.Records), "record"), found(damaged, warnings))
	}
	if err == nil && damaged > 0 {
		err = fmt.Errorf("%s is damaged; no file was changed. Copy it before anything else, restore a backup, or make a\nnew store of what can be read: forebay salvage %s DST", dir, dir)
	}
	return err
}

func found(damaged, warnings int) string {
	s := "no damage"
	if damaged > 0 {
		s = count(damaged, "damaged place")
	}
	if warnings > 0 {
		s += ", " + count(warnings, "warning")
	}
	return s
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return cli.Count(n) + " " + what + "s"
}

// noStore says what to do where there is none.
func noStore(dir string, err error) error {
	switch {
	case errors.Is(err, check.ErrNone):
		return fmt.Errorf("no store in %s (it has no file of one)", dir)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no directory %s", dir)
	}
	return err
}
