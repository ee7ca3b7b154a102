package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// importer is one import.
type importer struct {
	format string
	hex    bool
	header bool
	quiet  bool
	level  forebay.Level
	space  string

	cmd     *cobra.Command
	load    *loader
	skipped int

	keys, bytes atomic.Int64
}

func importCommand() *cobra.Command {
	im := &importer{}
	cmd := &cobra.Command{
		Use:   "import DIR SOURCE",
		Short: "Put a directory tree, JSON lines or CSV into a store",
		Long: `Put many keys into a store, or into a keyspace of it; both are made if they do not
exist. SOURCE is

  a directory   each file is a key (its path inside the directory, with /), and
                its content the value; what is no plain file is left out
  JSON lines    {"key": "k", "value": "v"}, or key_b64 and value_b64 (base64), or
                key_hex and value_hex, on a line each
  CSV           key,value on a line each, as in RFC 4180

and - is standard input. The format is detected by name and content; --format
tells it. Of a key that comes twice the last value counts.

When the command ends well, everything is durable, whatever --level says; the
level is what the keys survive while it runs. When it fails, what it had read
before may be in the store; run it again.`,
		Example: `  forebay import /tmp/s ~/src
  forebay import /tmp/s events.jsonl
  forebay import /tmp/s users.csv --keyspace users
  zcat big.csv.gz | forebay import /tmp/s - --format csv --level written`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			im.cmd = cmd
			return im.run(args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&im.format, "format", "", formatHelp)
	cmd.Flags().BoolVar(&im.hex, "hex", false, "keys and values of CSV are hexadecimal")
	cmd.Flags().BoolVar(&im.header, "header", false, "the first line of CSV is no record")
	cmd.Flags().BoolVar(&im.quiet, "json", false, "print the result as a JSON object")
	cli.KeyspaceFlag(cmd.Flags(), &im.space)
	cli.LevelFlag(cmd.Flags(), &im.level)
	return cmd
}

// run imports source into the store in dir.
func (im *importer) run(dir, source string) error {
	if err := checkFormat(im.format); err != nil {
		return err
	}
	read, closeSource, err := im.open(dir, source)
	if err != nil {
		return err
	}
	defer closeSource()
	db, err := forebay.Open(dir, nil)
	if err != nil {
		return err
	}
	ks, err := cli.Space(db, im.space)
	if err != nil {
		return errors.Join(err, db.Close())
	}
	start := time.Now()
	im.load = newLoader(db, ks, im.level)
	progress := cli.StartProgress(im.cmd.ErrOrStderr(), im.quiet, func() string {
		n, d := im.keys.Load(), time.Since(start)
		return fmt.Sprintf("imported %s keys, %s (%s keys/s)", cli.Count(n), cli.Bytes(im.bytes.Load()), cli.Count(int64(cli.Rate(n, d))))
	})
	ctx := im.cmd.Context()
	err = read(ctx)
	if ferr := im.load.finish(ctx); err == nil {
		err = ferr
	}
	if err == nil {
		err = db.Sync(ctx)
	}
	took := time.Since(start)
	progress.Stop()
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		return fmt.Errorf("import stopped after %s keys were read; they may be in the store: %w", cli.Count(im.keys.Load()), err)
	}
	return im.report(took)
}

func (im *importer) report(took time.Duration) error {
	keys, size := im.keys.Load(), im.bytes.Load()
	if im.quiet {
		return cli.WriteJSON(im.cmd.OutOrStdout(), map[string]any{
			"keys": keys, "bytes": size, "skipped": im.skipped, "seconds": took.Seconds(), "level": cli.LevelName(im.level),
			"keys_per_s": cli.Rate(keys, took), "mb_per_s": cli.Rate(size, took) / 1e6,
		})
	}
	_, err := fmt.Fprintf(im.cmd.OutOrStdout(), "imported %s keys, %s, in %s (%s keys/s, %.1f MB/s)\n", cli.Count(keys), cli.Bytes(size),
		cli.Duration(took), cli.Count(int64(cli.Rate(keys, took))), cli.Rate(size, took)/1e6)
	if im.skipped > 0 {
		fmt.Fprintf(im.cmd.ErrOrStderr(), "left out: %s that are no plain files\n", cli.Count(im.skipped))
	}
	return err
}

// open opens the source, before a store is made, and returns what reads it.
func (im *importer) open(dir, source string) (read func(context.Context) error, closeSource func() error, err error) {
	if source != "-" && isDir(source) {
		if im.format != "" && im.format != tree {
			return nil, nil, cli.Usagef("%s is a directory and --format is %s", source, im.format)
		}
		if cli.Inside(dir, source) {
			return nil, nil, cli.Usagef("the store %s lies inside the tree %s; put it elsewhere", dir, source)
		}
		root, err := os.OpenRoot(source)
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context) error { return im.readTree(ctx, source, root) }, root.Close, nil
	}
	if im.format == tree {
		return nil, nil, cli.Usagef("%s is no directory and --format is tree", source)
	}
	var in io.Reader = im.cmd.InOrStdin()
	closeSource = func() error { return nil }
	if source != "-" {
		f, err := os.Open(source)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil, cli.Usagef("there is no file or directory %s", source)
		}
		if err != nil {
			return nil, nil, err
		}
		in, closeSource = f, f.Close
	}
	r := bufio.NewReaderSize(in, 256<<10)
	format := im.format
	if format == "" {
		format = byName(source)
	}
	return func(ctx context.Context) error {
		if format == "" {
			format = sniff(r)
		}
		if format == csv {
			return im.readCSV(ctx, r)
		}
		return im.readLines(ctx, r)
	}, closeSource, nil
}

// put hands one entry on.
func (im *importer) put(ctx context.Context, key, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := im.load.put(ctx, key, value); err != nil {
		return err
	}
	im.keys.Add(1)
	im.bytes.Add(int64(len(key) + len(value)))
	return nil
}
