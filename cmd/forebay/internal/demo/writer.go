package demo

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay"
)

// writerName is the hidden command that writes in a process of its own.
const writerName = "demo-writer"

func writerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    writerName,
		Short:  "Write what forebay demo orders, until killed",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o order
			if err := gob.NewDecoder(cmd.InOrStdin()).Decode(&o); err != nil {
				return fmt.Errorf("read the order: %w", err)
			}
			return write(&o, cmd.OutOrStdout())
		},
	}
}

// write puts all jobs, in their order, from many goroutines, and reports each
// put once it is acknowledged. A worker takes its next job when its last is
// reported: at a kill no more puts can be unreported than there are workers.
func write(o *order, out io.Writer) error {
	db, err := forebay.Open(o.Store, &forebay.Options{DefaultLevel: o.Level})
	if err != nil {
		return err
	}
	if _, err := out.Write((&report{number: ready}).encode()); err != nil {
		return errors.Join(err, db.Close())
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	failures := make(chan error, o.Workers)
	for range o.Workers {
		workers.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(o.Jobs) {
					return
				}
				if err := o.put(db, &o.Jobs[n], out); err != nil {
					failures <- err
					next.Store(int64(len(o.Jobs))) // the others end after their put
					return
				}
			}
		})
	}
	workers.Wait()
	close(failures)
	return errors.Join(<-failures, db.Close())
}

func (o *order) put(db *forebay.DB, j *job, out io.Writer) error {
	content, err := os.ReadFile(filepath.Join(o.From, j.Path))
	if err != nil {
		return err
	}
	start := time.Now()
	if err := db.Put([]byte(j.Key), content); err != nil {
		return fmt.Errorf("put %s: %w", j.Key, err)
	}
	took := time.Since(start)
	log := db.Stats().Log
	_, err = out.Write((&report{j.Number, uint32(took.Microseconds()), log.Records, log.Syncs}).encode())
	return err
}
