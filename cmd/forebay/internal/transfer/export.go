package transfer

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// exporter is one export.
type exporter struct {
	format string
	hex    bool
	header bool
	force  bool
	quiet  bool
	prefix string
	space  string

	cmd         *cobra.Command
	keys, bytes atomic.Int64
}

func exportCommand() *cobra.Command {
	ex := &exporter{}
	cmd := &cobra.Command{
		Use:   "export DIR DEST",
		Short: "Write a store's keys to JSON lines, CSV or a directory tree",
		Long: `Write all keys and values of a keyspace, as they are at one moment, in a format
that import reads. DEST is a file, - for standard output, or, with --format tree, a directory.
The format is told by DEST's name or --format.

JSON lines hold any bytes. CSV holds them too, as they are; --hex makes it text.
A tree holds only keys that are paths below it: a key such as ../x, /x or a//b is
refused, and so is a/b beside a key a.

A file that exists, and a directory that is not empty, are left alone without
--force.`,
		Example: `  forebay export /tmp/s all.jsonl
  forebay export /tmp/s - --format csv --prefix user/ | head
  forebay export /tmp/s users.jsonl --keyspace users
  forebay export /tmp/s /tmp/out --format tree`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ex.cmd = cmd
			return ex.run(args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&ex.format, "format", "", formatHelp)
	cli.KeyspaceFlag(cmd.Flags(), &ex.space)
	cmd.Flags().StringVar(&ex.prefix, "prefix", "", "only keys that begin with this")
	cmd.Flags().BoolVar(&ex.hex, "hex", false, "keys and values are hexadecimal, in the file and in --prefix")
	cmd.Flags().BoolVar(&ex.header, "header", false, "begin CSV with the line key,value")
	cmd.Flags().BoolVar(&ex.force, "force", false, "write over what is there")
	cmd.Flags().BoolVar(&ex.quiet, "json", false, "print the result as a JSON object")
	return cmd
}

func (ex *exporter) run(dir, dest string) (err error) {
	if err := checkFormat(ex.format); err != nil {
		return err
	}
	format := ex.format
	if format == "" {
		format = byName(dest)
	}
	if format == "" && isDir(dest) {
		format = tree
	}
	if format == "" && dest == "-" {
		format = lines
	}
	switch {
	case format == "":
		return cli.Usagef("the name %s tells no format; add --format json, csv or tree", dest)
	case format == tree && dest == "-":
		return cli.Usagef("a tree does not fit on standard output; name a directory")
	case format == tree && ex.hex:
		return cli.Usagef("--hex is for json and csv")
	}
	prefix, err := (&cli.Format{Hex: ex.hex}).Arg("--prefix", ex.prefix)
	if err != nil {
		return err
	}
	db, err := cli.OpenReading(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	from, err := cli.ReadSpace(db, ex.space)
	if err != nil {
		return err
	}
	progress := cli.StartProgress(ex.cmd.ErrOrStderr(), ex.quiet || dest == "-", func() string {
		return fmt.Sprintf("exported %s keys, %s", cli.Count(ex.keys.Load()), cli.Bytes(ex.bytes.Load()))
	})
	switch {
	case format == tree:
		err = ex.toTree(from, prefix, dest)
	case dest == "-":
		err = ex.toWriter(from, prefix, format, ex.cmd.OutOrStdout())
	default:
		err = ex.toFile(from, prefix, format, dest)
	}
	progress.Stop()
	if err != nil || dest == "-" {
		return err
	}
	keys, size := ex.keys.Load(), ex.bytes.Load()
	if ex.quiet {
		return cli.WriteJSON(ex.cmd.OutOrStdout(), map[string]any{"keys": keys, "bytes": size, "format": format})
	}
	_, err = fmt.Fprintf(ex.cmd.OutOrStdout(), "exported %s keys, %s, to %s\n", cli.Count(keys), cli.Bytes(size), dest)
	return err
}

// each calls fn for each entry and counts.
func (ex *exporter) each(from cli.Reader, prefix []byte, fn func(key, value []byte) error) error {
	for e, err := range from.Prefix(prefix) {
		if err != nil {
			return err
		}
		if err := ex.cmd.Context().Err(); err != nil {
			return errors.New("interrupted")
		}
		if err := fn(e.Key, e.Value); err != nil {
			return err
		}
		ex.keys.Add(1)
		ex.bytes.Add(int64(len(e.Key) + len(e.Value)))
	}
	return nil
}

func (ex *exporter) toWriter(from cli.Reader, prefix []byte, format string, w io.Writer) error {
	out := bufio.NewWriterSize(w, 256<<10)
	var err error
	if format == csv {
		if ex.header {
			out.WriteString("key,value\n") // Flush says what went wrong
		}
		var buf []byte
		err = ex.each(from, prefix, func(key, value []byte) error {
			if ex.hex {
				key, value = hex.AppendEncode(nil, key), hex.AppendEncode(nil, value)
			}
			buf = appendCSV(buf[:0], key, value)
			_, err := out.Write(buf)
			return err
		})
	} else {
		f := cli.Format{JSON: true, Hex: ex.hex}
		err = ex.each(from, prefix, func(key, value []byte) error {
			if value == nil {
				value = []byte{}
			}
			return f.WriteEntry(out, key, value)
		})
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

// toFile writes a file beside dest and renames it, so that dest is whole.
func (ex *exporter) toFile(from cli.Reader, prefix []byte, format, dest string) (err error) {
	if st, err := os.Lstat(dest); err == nil {
		if !ex.force {
			return fmt.Errorf("%s exists; name another file, or write over it with --force", dest)
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s is no plain file; use - and a redirection", dest)
		}
	}
	f, err := os.CreateTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := ex.toWriter(from, prefix, format, f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), dest)
}

// toTree writes a file for each key, through an os.Root, out of which neither a
// key nor a link leads.
func (ex *exporter) toTree(from cli.Reader, prefix []byte, dest string) error {
	if err := os.MkdirAll(dest, 0o777); err != nil {
		return err
	}
	if entries, err := os.ReadDir(dest); err != nil {
		return err
	} else if len(entries) > 0 && !ex.force {
		return fmt.Errorf("%s is not empty; name another directory, or write into it with --force", dest)
	}
	root, err := os.OpenRoot(dest)
	if err != nil {
		return err
	}
	defer root.Close()
	flag := os.O_WRONLY | os.O_CREATE
	if ex.force {
		flag |= os.O_TRUNC
	} else {
		flag |= os.O_EXCL // also where two keys differ and their files do not
	}
	last := "."
	err = ex.each(from, prefix, func(key, value []byte) error {
		name := string(key)
		if err := checkPath(name); err != nil {
			return err
		}
		if dir := path.Dir(name); dir != last {
			if err := root.MkdirAll(filepath.FromSlash(dir), 0o777); err != nil {
				return treeError(name, err)
			}
			last = dir
		}
		f, err := root.OpenFile(filepath.FromSlash(name), flag, 0o666)
		if err != nil {
			return treeError(name, err)
		}
		_, err = f.Write(value)
		return errors.Join(err, f.Close())
	})
	if err != nil && ex.keys.Load() > 0 {
		return fmt.Errorf("export stopped after %s keys, which are in %s: %w", cli.Count(ex.keys.Load()), dest, err)
	}
	return err
}

// checkPath refuses a key that is no plain path below a directory, or one that
// import would not read back as the same key.
func checkPath(key string) error {
	ok := path.Clean(key) == key && key != "." && !strings.ContainsRune(key, 0) && filepath.IsLocal(filepath.FromSlash(key))
	if runtime.GOOS == "windows" && strings.ContainsAny(key, `\:`) {
		ok = false
	}
	if !ok {
		return fmt.Errorf("the key %q is no path below a directory; use --format json", key)
	}
	return nil
}

func treeError(key string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("the key %q falls on the file of another key; use --format json: %w", key, err)
	}
	return fmt.Errorf("the key %q (is a part of its path, or the path itself, another key?): %w; use --format json", key, err)
}
