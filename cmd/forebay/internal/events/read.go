package events

import (
	"bufio"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
	"github.com/forebaydb/forebay/eventstore"
)

func streamsCommand() *cobra.Command {
	var store, prefix string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "streams DIR",
		Short: "List streams, with their versions",
		Long: `List the streams of an event store, sorted, each with the first version that is
kept, the version of its last event, and the time of that.`,
		Example: `  forebay events streams /tmp/s
  forebay events streams /tmp/s --prefix account- --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return reading(cmd, args[0], store, func(w *bufio.Writer, s *eventstore.Store) error {
				if !asJSON {
					fmt.Fprintf(w, "%10s %10s  %-24s  stream\n", "first", "version", "last event")
				}
				for name, err := range s.Streams(prefix) {
					if err == nil {
						err = cmd.Context().Err()
					}
					if err != nil {
						return err
					}
					info, err := s.Info(name)
					if errors.Is(err, forebay.ErrNotFound) {
						continue
					}
					if err != nil {
						return err
					}
					if asJSON {
						err = cli.WriteJSON(w, map[string]any{"stream": name, "first": info.First, "version": info.Version, "time": info.Time.UTC(), "hash": fmt.Sprintf("%x", info.Hash)})
					} else {
						_, err = fmt.Fprintf(w, "%10d %10d  %-24s  %s\n", info.First, info.Version, cli.Time(info.Time), cli.Escape([]byte(name)))
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	storeFlag(cmd.Flags(), &store)
	cmd.Flags().StringVar(&prefix, "prefix", "", "only streams that begin with this")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object for each stream")
	return cmd
}

func readCommand() *cobra.Command {
	var store string
	var from uint64
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "read DIR [STREAM]",
		Short: "Show the events of a stream, or of all streams",
		Long: `Show the events of a stream from a version on, or of all streams from an offset on, in
the order of their commits. Each line is the offset, the time, stream and version, the
type, and the beginning of the payload. --json has all of it: a payload that is a JSON
object or array as payload, other text as payload_text, and bytes as payload_b64.

Where events were taken out by retention, reading begins with the first that is kept
unless --from says where. An event is (erased) when its subject was forgotten, and
(sealed) when it needs a master key.`,
		Example: `  forebay events read /tmp/s
  forebay events read /tmp/s account-42
  forebay events read /tmp/s account-42 --from 1000 --limit 20 --json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return cli.Usagef("--limit %d is below 0", limit)
			}
			return reading(cmd, args[0], store, func(w *bufio.Writer, s *eventstore.Store) error {
				stream := ""
				first, err := s.First()
				if len(args) > 1 {
					stream = args[1]
					var info eventstore.StreamInfo
					info, err = s.Info(stream)
					if errors.Is(err, forebay.ErrNotFound) {
						return noStream(args[0], stream)
					}
					first = info.First
				}
				if err != nil {
					return err
				}
				if !cmd.Flags().Changed("from") {
					from = first
				}
				events := s.All(cmd.Context(), from)
				if len(args) > 1 {
					events = s.Stream(cmd.Context(), stream, from)
				}
				n := 0
				for ev, err := range events {
					if err != nil {
						return err
					}
					write := writeLine
					if asJSON {
						write = writeJSON
					}
					if err := write(w, ev); err != nil {
						return err
					}
					if n++; n == limit {
						break
					}
				}
				return nil
			})
		},
	}
	storeFlag(cmd.Flags(), &store)
	cmd.Flags().Uint64Var(&from, "from", 0, "begin with this `version` of the stream, or, of all streams, with this offset")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many events; 0: all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON lines")
	return cmd
}

func noStream(dir, stream string) error {
	return fmt.Errorf("no stream %q; `forebay events streams %s` lists them", stream, dir)
}
