package cli

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// Progress is one line on a terminal that rewrites itself.
type Progress struct {
	w    io.Writer
	stop chan struct{}
	done sync.WaitGroup
}

const (
	progressEvery = 100 * time.Millisecond
	progressWidth = 78
)

// StartProgress shows what line returns until Stop, when w is a terminal and
// quiet is false. line is called on a goroutine of its own.
func StartProgress(w io.Writer, quiet bool, line func() string) *Progress {
	p := &Progress{w: w, stop: make(chan struct{})}
	if quiet || !IsTerminal(w) {
		return p
	}
	p.done.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				fmt.Fprintf(w, "\r%*s\r", progressWidth, "")
				return
			case <-tick.C:
				s := line()
				for utf8.RuneCountInString(s) > progressWidth {
					s = s[:len(s)-1]
				}
				fmt.Fprintf(w, "\r%-*s", progressWidth, s)
			}
		}
	})
	return p
}

// Stop clears the line. It is called once.
func (p *Progress) Stop() {
	close(p.stop)
	p.done.Wait()
}

// IsTerminal says whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && IsTerminalFile(f)
}

// IsTerminalFile says whether f is a terminal.
func IsTerminalFile(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(st, null)
}
