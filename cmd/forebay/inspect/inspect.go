// Package inspect holds the commands of forebay that look at files and change
// nothing: wal dump, wal hex, wal stats, manifest dump, segment dump, find, changes
// and recover --explain.
//
// They open files for reading alone and take no lock, so that they work on a
// store that another process has open. What they then say is what a crash at
// that moment would leave. A file that moved while it was read is read again
// before damage is told.
package inspect

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/vfs"
)

// Exit codes.
const (
	codeDamaged = 1 // damaged, not found, not readable
	codeUsage   = 2
)

// ExitError is an error that asks for an exit code: 1 for what is damaged or not
// found, 2 for a wrong call.
type ExitError struct {
	Code int
	Err  error
}

// Error implements error.
func (e *ExitError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

func failed(err error) error {
	var e *ExitError
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &ExitError{codeDamaged, err}
}

func damaged(format string, args ...any) error {
	return &ExitError{codeDamaged, fmt.Errorf(format, args...)}
}

func usage(format string, args ...any) error {
	return &ExitError{codeUsage, fmt.Errorf(format, args...)}
}

// Commands returns the commands of this package.
func Commands() []*cobra.Command { return commands(vfs.OS()) }

// tool is what the commands share.
type tool struct{ fsys vfs.FS }

func commands(fsys vfs.FS) []*cobra.Command {
	t := &tool{fsys}
	wal := &cobra.Command{Use: "wal", Short: "Look into log files: dump, hex, stats"}
	wal.AddCommand(t.dumpCommand(), t.hexCommand(), t.statsCommand())
	manifest := &cobra.Command{Use: "manifest", Short: "Look into the list of what is live: dump"}
	manifest.AddCommand(t.manifestCommand())
	segment := &cobra.Command{Use: "segment", Short: "Look into segments: dump"}
	segment.AddCommand(t.segmentCommand())
	all := []*cobra.Command{wal, manifest, segment, t.recoverCommand(), t.findCommand(), t.changesCommand()}
	for _, c := range all {
		c.SilenceUsage = true
		c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &ExitError{codeUsage, err} })
	}
	return all
}

const readsOnly = "\n\nIt only reads and takes no lock: it works while another process has the store open."

// one asks for exactly one argument.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s takes one argument, %s; it got %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// run makes the RunE of a command that writes to a buffered output.
func run(fn func(cmd *cobra.Command, w *bufio.Writer, path string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		w := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
		err := fn(cmd, w, args[0])
		if ferr := w.Flush(); err == nil {
			err = ferr
		}
		return failed(err)
	}
}

// isDir says whether path is a directory.
func (t *tool) isDir(path string) (bool, error) {
	info, err := t.fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, damaged("%s does not exist", path)
	}
	if err == nil && !info.Dir && !info.Regular {
		return false, damaged("%s is neither a plain file nor a directory", path)
	}
	return info.Dir, err
}

// jsonLine writes v as one line.
func jsonLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// colours paints text where that is wanted.
type colours bool

const (
	red     = "1;31"
	green   = "32"
	yellow  = "33"
	blue    = "34"
	magenta = "35"
	cyan    = "36"
	dim     = "2"
	bold    = "1"
)

func (c colours) paint(code, s string) string {
	if !c || s == "" || code == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

const colourHelp = "auto (a terminal, and NO_COLOR is not set), always or never"

// wantColours decides from --color, NO_COLOR and the kind of output.
func wantColours(flag string, out io.Writer) (colours, error) {
	switch flag {
	case "always":
		return true, nil
	case "never":
		return false, nil
	case "auto":
		f, ok := out.(*os.File)
		if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
			return false, nil
		}
		info, err := f.Stat()
		return colours(err == nil && info.Mode()&os.ModeCharDevice != 0), nil
	}
	return false, usage("--color is %q; it may be auto, always or never", flag)
}

// plural returns "1 frame", "2 frames".
func plural[N int | int64 | uint64](n N, word string) string {
	if n == 1 {
		return "1 " + word
	}
	if strings.HasSuffix(word, "y") && !strings.HasSuffix(word, "ey") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(word, "y"))
	}
	return fmt.Sprintf("%d %ss", n, word)
}
