// Package transfer has the commands that move whole sets of keys in and out of a
// store: import and export.
package transfer

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// Commands returns the commands.
func Commands() []*cobra.Command { return []*cobra.Command{importCommand(), exportCommand()} }

// Formats.
const (
	tree  = "tree"
	lines = "json"
	csv   = "csv"
)

const formatHelp = "json (lines), csv or tree (a directory: key = path, value = content); default: by what is there"

// byName returns the format that a file's name tells, or "".
func byName(name string) string {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".json", ".jsonl", ".ndjson":
		return lines
	case ".csv":
		return csv
	}
	return ""
}

func checkFormat(format string) error {
	switch format {
	case "", tree, lines, csv:
		return nil
	}
	return cli.Usagef("--format %s is unknown; it is json, csv or tree", format)
}

// sniff returns the format that a file's beginning tells.
func sniff(r *bufio.Reader) string {
	head, _ := r.Peek(512)
	if bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(head, bom), " \t\r\n"), []byte("{")) {
		return lines
	}
	return csv
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
