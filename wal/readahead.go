package wal

import (
	"io"
	"sync"
)

// readAhead reads a file from front to back by a goroutine of its own, while the caller
// works on what was read before. Whatever else is asked for, and whatever fails, is read
// at once, by the caller; so is the beginning, as most files are not read much further. It
// is used by one goroutine.
type readAhead struct {
	f     io.ReaderAt
	size  int64
	ready chan piece // in the order of the file; closed at its end, and at an error; nil before
	free  chan []byte
	quit  chan struct{}
	group sync.WaitGroup
	cur   piece
}

// piece is what was read at an offset.
type piece struct {
	at  int64
	buf []byte
}

const (
	// aheadPiece is how much is read at once, and aheadPieces how often ahead.
	aheadPiece  = 256 << 10
	aheadPieces = 3
	// aheadFrom is where it begins.
	aheadFrom = 1 << 20
)

// newReadAhead returns a reader of a file of size bytes. Until it is stopped the file has
// to be open.
func newReadAhead(f io.ReaderAt, size int64) *readAhead {
	return &readAhead{f: f, size: size}
}

// start begins to read at an offset.
func (a *readAhead) start(at int64) {
	a.ready, a.free, a.quit = make(chan piece, aheadPieces), make(chan []byte, aheadPieces), make(chan struct{})
	for range aheadPieces {
		a.free <- make([]byte, aheadPiece)
	}
	a.group.Go(func() {
		defer close(a.ready)
		for ; at < a.size; at += aheadPiece {
			select {
			case buf := <-a.free:
				buf = buf[:min(aheadPiece, a.size-at)]
				if got, _ := a.f.ReadAt(buf, at); got < len(buf) {
					return // who comes here asks, and is told why
				}
				a.ready <- piece{at, buf} // there is room for all of them
			case <-a.quit:
				return
			}
		}
	})
}

// ReadAt implements io.ReaderAt.
func (a *readAhead) ReadAt(p []byte, off int64) (n int, err error) {
	if a.ready == nil {
		if off < aheadFrom {
			return a.f.ReadAt(p, off)
		}
		a.start(off)
	}
	for n < len(p) {
		at := off + int64(n)
		end := a.cur.at + int64(len(a.cur.buf))
		switch {
		case at < a.cur.at: // it lies behind
			want := int(min(a.cur.at-at, int64(len(p)-n)))
			got, err := a.f.ReadAt(p[n:n+want], at)
			if n += got; got < want {
				return n, err
			}
		case at < end:
			n += copy(p[n:], a.cur.buf[at-a.cur.at:])
		default:
			if a.cur.buf != nil {
				a.free <- a.cur.buf[:aheadPiece]
			}
			var ok bool
			if a.cur, ok = <-a.ready; !ok {
				got, err := a.f.ReadAt(p[n:], at)
				return n + got, err
			}
		}
	}
	return n, nil
}

// stop ends the reading; nothing reads the file any more.
func (a *readAhead) stop() {
	if a.ready != nil {
		close(a.quit)
		a.group.Wait()
	}
}
