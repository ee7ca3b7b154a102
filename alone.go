package forebay

import (
	"context"
	"runtime"
	"strings"

	"github.com/forebaydb/forebay/commit"
)

// alone is a transaction that runs by itself: all other writers wait.
type alone struct {
	goroutine string
	done      chan struct{}
}

// enterAlone makes the calling goroutine the only one that is admitted, until it
// leaves. Those that were admitted before may still commit.
func (db *DB) enterAlone(ctx context.Context) (leave func(), err error) {
	select {
	case <-db.solo:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	db.count.alone.Add(1)
	a := &alone{goroutine: commit.Goroutine(), done: make(chan struct{})}
	db.alone.Store(a)
	return func() {
		db.alone.Store(nil)
		close(a.done)
		db.solo <- struct{}{}
	}, nil
}

// waitAlone waits for a transaction that runs by itself.
func (db *DB) waitAlone(ctx context.Context, a *alone) error {
	if a.goroutine == commit.Goroutine() {
		return ErrNested
	}
	select {
	case <-a.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// insideTwo says whether the calling goroutine runs a transaction inside of another,
// of any store.
func insideTwo() bool {
	const attempt = "/forebay.(*Tx).attempt"
	pcs := make([]uintptr, 256)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for n := 0; ; {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, attempt) {
			if n++; n == 2 {
				return true
			}
		}
		if !more {
			return false
		}
	}
}
