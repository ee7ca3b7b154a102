package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// life is what one writer did.
type life struct {
	killed  bool
	acked   int
	active  time.Duration // from its first put to its last acknowledgement
	records int64         // of the log, with the syncs that they took
	syncs   int64
}

// runWriter runs a writer in a process of its own until it is done, or, unless
// killAt is 0, until killAt acknowledgements and then killDelay have passed, and
// kills it. onAck is called for each report of a put.
func runWriter(ctx context.Context, o *order, killAt int, killDelay time.Duration, onAck func(report)) (life, error) {
	var l life
	self, err := os.Executable()
	if err != nil {
		return l, err
	}
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, self, writerName)
	cmd.Stderr = &complaint
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return l, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return l, err
	}
	if err := cmd.Start(); err != nil {
		return l, fmt.Errorf("start the writer: %w", err)
	}
	// A writer that fails before it has read all says so by its exit.
	sendErr := errors.Join(gob.NewEncoder(stdin).Encode(o), stdin.Close())

	var kill *time.Timer
	var start, last time.Time
	in := bufio.NewReaderSize(stdout, 64<<10)
	for {
		r, err := readReport(in)
		if err != nil {
			break // the end: Wait tells which
		}
		last = time.Now()
		if r.number == ready {
			start = last
			continue
		}
		onAck(r)
		l.acked++
		// Reports of workers overtake each other.
		l.records, l.syncs = max(l.records, r.records), max(l.syncs, r.syncs)
		if l.acked == killAt {
			kill = time.AfterFunc(killDelay, func() { cmd.Process.Kill() }) // fails only when it has ended by itself
		}
	}
	if l.acked > 0 {
		l.active = last.Sub(start)
	}
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return l, errors.New("interrupted")
	case err == nil:
		if kill != nil {
			kill.Stop()
		}
		return l, nil
	case kill != nil && complaint.Len() == 0:
		l.killed = true
		return l, nil
	}
	return l, fmt.Errorf("the writer failed: %w", errors.Join(err, sendErr, errors.New(complaint.String())))
}
