package inspect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/wal"
)

func (t *tool) changesCommand() *cobra.Command {
	f := &follower{t: t}
	var from string
	c := &cobra.Command{
		Use:   "changes DIR",
		Short: "The commits in a store's log, in order; with --follow, also those to come",
		Long: `Prints the commits that the log holds, one line for each operation: epoch and LSN
of the commit, and what it does. Only what is proven durable is printed: a power
cut never takes it back. With --follow it goes on, while another process writes,
until it is interrupted. What a writer commits shows up when the log proves it:
with the next commit, or when the writer is idle for 100 ms.

A store lets go of log files once they are settled, so that the log begins
somewhere. A process that uses the store keeps them for a reader with DB.Pin.

--from EPOCH:LSN goes on behind that commit, as printed; start (the default) is
the oldest that the log holds, end shows only what comes.

Exit code 1: the log does not hold what is behind --from any more, or --from is of
a history that was cut off, or the log is damaged.` + readsOnly,
		Example: `  forebay changes /tmp/s
  forebay changes /tmp/s --from end --follow
  forebay changes /tmp/s --from 3:1200 --json | jq -c '.ops[]'`,
		Args: one("a directory"),
	}
	c.Flags().StringVar(&from, "from", "start", "EPOCH:LSN, start or end")
	c.Flags().BoolVar(&f.wait, "follow", false, "go on with what is committed from now on")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON, one object for each commit")
	c.Flags().StringVar(&f.logDir, "log-dir", "", "where the log files are, if not in DIR")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		f := *f
		var err error
		if f.from, f.given, err = parseFrom(from); err != nil {
			return err
		}
		f.end = from == "end"
		f.warn = cmd.ErrOrStderr()
		return run(func(cmd *cobra.Command, w *bufio.Writer, dir string) error {
			if is, err := t.isDir(dir); err != nil {
				return err
			} else if !is {
				return usage("%s is a file; changes takes a directory", dir)
			}
			f.w, f.dir = w, dir
			ctx := cmd.Context()
			if ctx == nil {
				ctx = context.Background()
			}
			return f.run(ctx)
		})(cmd, args)
	}
	return c
}

// parseFrom reads a position; given says that it is one.
func parseFrom(s string) (p wal.Position, given bool, err error) {
	if s == "start" || s == "end" {
		return p, false, nil
	}
	epoch, lsn, ok := strings.Cut(s, ":")
	if ok {
		p.Epoch, err = strconv.ParseUint(epoch, 10, 64)
		if err == nil {
			p.LSN, err = strconv.ParseUint(lsn, 10, 64)
		}
	}
	if !ok || err != nil {
		return p, false, usage("--from is %q; it may be EPOCH:LSN, start or end", s)
	}
	return p, true, nil
}

// follower prints changes.
type follower struct {
	t                      *tool
	w                      *bufio.Writer
	warn                   io.Writer
	dir, logDir            string
	from                   wal.Position
	given, end, wait, json bool

	names  spaces
	chain  *chain
	cursor cursor
	begun  bool
}

// followPause is how long a follower waits before it looks again.
const followPause = 50 * time.Millisecond

func (f *follower) run(ctx context.Context) error {
	f.chain = &chain{t: f.t, live: map[uint64]*liveFile{}}
	defer f.chain.close()
	misses, last := 0, base.LSN(0)
	for {
		err := f.look(ctx)
		if ferr := f.w.Flush(); err == nil {
			err = ferr
		}
		moved := retry(err)
		switch {
		case ctx.Err() != nil && f.wait:
			return nil // it was asked to end
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !moved:
			return err
		case f.cursor.at.LSN > last, err == nil:
			misses, last = 0, f.cursor.at.LSN
		}
		// Files that go while they are read are gone in the next look; what is
		// told again and again is so.
		if moved {
			if misses++; misses >= 2*looks {
				return err
			}
		}
		if err == nil && !f.wait {
			return f.rest(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(followPause):
		}
	}
}

// retry says whether an error may come of a log that moves.
func retry(err error) bool {
	var c *base.CorruptionError
	return errors.As(err, &c)
}

// look prints what is new.
func (f *follower) look(ctx context.Context) error {
	s, err := f.t.load(f.dir, f.logDir)
	if err == nil {
		err = s.err
	}
	if err != nil {
		return err
	}
	if !s.engine {
		return damaged("%s holds a log that is used alone, and no changes of keys; see wal dump --records", s.dir)
	}
	if err := f.chain.look(s); err != nil {
		return err
	}
	if f.names == nil {
		f.names = f.t.names(s)
	}
	if err := f.place(s); err != nil {
		return err
	}
	err = f.cursor.each(f.chain, func(p wal.Position, rec []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return f.commit(p, rec)
	})
	var gone *wal.CompactedError
	if errors.As(err, &gone) {
		err = fmt.Errorf("the log does not hold what is behind %d:%d any more: %w; begin again with --from start, and let the process that writes keep the log with DB.Pin", f.cursor.at.Epoch, f.cursor.at.LSN, err)
	}
	return err
}

// place puts the cursor where it begins, and checks that it is still of this
// history.
func (f *follower) place(s *store) error {
	c, at := f.chain, &f.cursor.at
	if !f.begun {
		switch {
		case f.given:
			*at = f.from
		case f.end:
			at.LSN = c.proven
		default:
			at.LSN = c.oldest() - 1
		}
		if !f.given {
			at.Epoch = epochAt(s, c, at.LSN)
		}
		f.begun = true
	}
	if at.LSN > c.proven {
		return fmt.Errorf("%w: position %d:%d is ahead of the log, which is proven durable through LSN %d", wal.ErrDiverged, at.Epoch, at.LSN, c.proven)
	}
	if epoch := epochAt(s, c, at.LSN); epoch != 0 && epoch != at.Epoch {
		return fmt.Errorf("%w: LSN %d is of epoch %d here, not %d", wal.ErrDiverged, at.LSN, epoch, at.Epoch)
	}
	return nil
}

// epochAt returns the epoch of a record, 0 when it is not known any more.
func epochAt(s *store, c *chain, lsn base.LSN) uint64 {
	if lsn == s.state.Log.Floor.LSN {
		return s.state.Log.Floor.Epoch
	}
	if sp := c.span(lsn); sp != nil {
		return sp.file.epochOf(lsn)
	}
	return 0
}

// rest tells of commits that are there and are not shown, and of damage behind
// them.
func (f *follower) rest(ctx context.Context) error {
	if _, _, err := f.t.steady(f.dir, f.logDir); err != nil {
		return errors.Join(err, ctx.Err())
	}
	if n := f.chain.written - f.chain.proven; n > 0 {
		fmt.Fprintf(f.warn, "%s behind LSN %d: nothing proves yet that they are durable. They are shown when the\nwriter commits more or is idle, or, after a crash, when the store was opened.\n", plural(n, "more commit"), f.chain.proven)
	}
	return nil
}

// change is one commit in JSON.
type change struct {
	Epoch uint64     `json:"epoch"`
	LSN   base.LSN   `json:"lsn"`
	Ops   []changeOp `json:"ops"`
}

// changeOp is one operation; a bound that is left out is open.
type changeOp struct {
	Op       string `json:"op"`
	Keyspace string `json:"keyspace"`
	*cli.Record
	Lo    *string `json:"lo,omitempty"`
	LoB64 *string `json:"lo_b64,omitempty"`
	Hi    *string `json:"hi,omitempty"`
	HiB64 *string `json:"hi_b64,omitempty"`

	text string
}

func (f *follower) commit(p wal.Position, rec []byte) error {
	b, err := batch.Decode(rec)
	if err != nil {
		return damaged("commit %d verifies and is no batch: %w", p.LSN, err)
	}
	f.names.learnRecord(rec)
	c := change{Epoch: p.Epoch, LSN: p.LSN, Ops: []changeOp{}}
	for b.Next() {
		c.Ops = append(c.Ops, f.ops(&b)...)
	}
	if f.json {
		return jsonLine(f.w, c)
	}
	for _, op := range c.Ops {
		if _, err := fmt.Fprintf(f.w, "%d:%d  %s\n", p.Epoch, p.LSN, op.text); err != nil {
			return err
		}
	}
	return nil
}

// ops tells one operation of a batch: none for the bookkeeping of keyspaces, one
// for each keyspace that a range delete reaches over.
func (f *follower) ops(b *batch.Reader) []changeOp {
	id, user, ok := keyspace.Cut(b.Key())
	switch {
	case !ok:
		return []changeOp{{Op: "unknown", text: "a key of no keyspace: " + quote(b.Key(), false, -1)}}
	case id == keyspace.System:
		return f.systemOps(b, user)
	case b.Kind() == base.KindRangeDelete:
		return f.rangeOps(id, user, b.Value())
	case b.Kind() == base.KindAppend:
		return f.appendOps(id, b.Value())
	}
	op := changeOp{Op: "put", Keyspace: f.name(id), Record: cli.NewRecord(user, b.Value(), false), text: f.names.op(b, false, -1)}
	if b.Kind() == base.KindDelete {
		op.Op, op.Record = "delete", cli.NewRecord(user, nil, false)
	}
	return []changeOp{op}
}

// appendOps tells of each item that is appended to a sequence.
func (f *follower) appendOps(id uint64, value []byte) (ops []changeOp) {
	offset := batch.FirstOffset(value)
	for i := batch.ItemsOf(value); i.Next(); offset++ {
		ops = append(ops, changeOp{
			Op: "append", Keyspace: f.name(id), Record: cli.NewRecord(fmt.Append(nil, offset), i.Item(), false),
			text: fmt.Sprintf("append to %q item %d %s", f.name(id), offset, quote(i.Item(), false, -1)),
		})
	}
	return ops
}

func (f *follower) systemOps(b *batch.Reader, user []byte) []changeOp {
	value := b.Value()
	if b.Kind() == base.KindDelete {
		value = nil
	}
	e, err := keyspace.DecodeEntry(user, value)
	switch {
	case err != nil || !e.Named:
		return nil
	case value == nil:
		return []changeOp{{Op: "drop keyspace", Keyspace: e.Name, text: fmt.Sprintf("drop keyspace %q", e.Name)}}
	}
	return []changeOp{{Op: "create keyspace", Keyspace: e.Name, text: fmt.Sprintf("create keyspace %q", e.Name)}}
}

// maxSpaces bounds over how many keyspaces a range delete may reach, as the
// engine's own reader of changes does.
const maxSpaces = 1 << 20

// rangeOps cuts a range delete into those of the keyspaces that it reaches over.
func (f *follower) rangeOps(id uint64, lo, hi []byte) (out []changeOp) {
	last, end, ok := keyspace.Cut(hi)
	if !ok {
		last, end = id+1, nil // the end of the last keyspace
	}
	for n := 0; id <= last && n < maxSpaces; n, id = n+1, id+1 {
		op := changeOp{Op: "delete range", Keyspace: f.name(id)}
		_, known := f.names[id]
		upper := keyspace.End(id)
		if id == last {
			if len(end) == 0 {
				break
			}
			upper = hi
			op.Hi, op.HiB64 = bound(end)
		}
		if len(lo) > 0 {
			op.Lo, op.LoB64 = bound(lo)
		}
		if known || id == keyspace.Default || len(lo) > 0 || id == last {
			op.text = "delete range " + f.names.bounds(append(keyspace.AppendPrefix(nil, id), lo...), upper, false, -1)
			out = append(out, op)
		}
		lo = nil
	}
	return out
}

// name is a keyspace's name, or its number where the name is not known.
func (f *follower) name(id uint64) string {
	name, ok := f.names[id]
	if !ok && id != keyspace.Default {
		return fmt.Sprintf("#%d", id)
	}
	return name
}

func bound(b []byte) (text, b64 *string) {
	r := cli.NewRecord(b, nil, false)
	return r.Key, r.KeyB64
}
