package check

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/forebaydb/forebay/vfs"
)

// watcher is a file system to read from, that counts what is read and at which
// every read ends with the context: so those of packages that know no context end
// too.
type watcher struct {
	vfs.FS
	ctx      context.Context
	progress func(done, total int64)

	mu          sync.Mutex // guards all below, and is held while progress runs
	left        map[string]int64
	done, total int64
}

func newWatcher(ctx context.Context, cfg *Config) *watcher {
	return &watcher{FS: cfg.FS, ctx: ctx, progress: cfg.Progress, left: map[string]int64{}}
}

// expect says that a file of n bytes will be read; of what is read beyond that
// nothing is counted.
func (w *watcher) expect(path string, n int64) {
	w.left[path] += n
	w.total += n
}

func (w *watcher) count(path string, n int) {
	if w.progress == nil || n == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if d := min(int64(n), w.left[path]); d > 0 {
		w.left[path] -= d
		w.done += d
		w.progress(w.done, w.total)
	}
}

// finish says that all is done.
func (w *watcher) finish() {
	if w.progress != nil {
		w.progress(w.total, w.total)
	}
}

// Open implements vfs.FS.
func (w *watcher) Open(name string, mode vfs.Mode) (vfs.File, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	f, err := w.FS.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &watched{File: f, w: w, name: name}, nil
}

type watched struct {
	vfs.File
	w    *watcher
	name string
}

// ReadAt implements io.ReaderAt.
func (f *watched) ReadAt(p []byte, off int64) (int, error) {
	if err := f.w.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(p, off)
	f.w.count(f.name, n)
	return n, err
}

// tolerant is a file of which what cannot be read is zero: no checksum is right
// over it. It keeps the first error.
type tolerant struct {
	vfs.File
	ctx context.Context
	// read is how many bytes were asked for.
	read int64
	err  error
}

// readUnit is how much of a file is given up where a read fails, in bytes.
const readUnit = 4096

// ReadAt implements io.ReaderAt.
func (f *tolerant) ReadAt(p []byte, off int64) (int, error) {
	f.read += int64(len(p))
	n, err := f.File.ReadAt(p, off)
	if n == len(p) || err == nil || errors.Is(err, io.EOF) || f.ctx.Err() != nil {
		return n, err
	}
	for at := 0; at < len(p); {
		piece := p[at:min(len(p), at+readUnit-int((off+int64(at))%readUnit))]
		n, err := f.File.ReadAt(piece, off+int64(at))
		if n < len(piece) && errors.Is(err, io.EOF) {
			return at + n, err
		}
		if n < len(piece) {
			if cerr := f.ctx.Err(); cerr != nil {
				return at, cerr
			}
			clear(piece[n:])
			if f.err == nil {
				f.err = err
			}
		}
		at += len(piece)
	}
	return len(p), nil
}
