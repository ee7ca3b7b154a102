package vfs

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Event is one call that a Recorder has seen return, or one Mark.
type Event struct {
	// Seq is the place of the return, and Begin that of the entry, in one
	// sequence of all entries, returns and marks of the Recorder, from 1. A
	// call whose Begin is above the Seq of another began after that returned.
	Seq, Begin uint64
	// Call is the kind.
	Call Call
	// Name is the name of the file when it was opened, or of the directory; To
	// the new name of a rename.
	Name, To string
	// Off and Len are the byte range asked for; N is how many bytes a read or a
	// write moved, and what Size returned.
	Off, Len, N int64
	// Err is what the call returned.
	Err error
	// Start is when the call began, and Took how long it was.
	Start time.Time
	Took  time.Duration
	// Label and Value are those of a Mark.
	Label string
	Value uint64
}

const recChunk = 1024

// Recorder is an FS that passes calls to another and records each with its
// place in time. All methods may be called at once from many goroutines. A call
// costs two readings of the clock and one short lock; memory grows with the
// number of calls (about 200 bytes each).
type Recorder struct {
	fs   FS
	tick atomic.Uint64

	mu     sync.Mutex // guards chunks, and is held when Seq is taken
	chunks [][]Event
}

// NewRecorder returns a Recorder over fsys.
func NewRecorder(fsys FS) *Recorder { return &Recorder{fs: fsys} }

// Unwrap returns the FS below.
func (r *Recorder) Unwrap() FS { return r.fs }

// Mark puts an event of the application into the sequence: that commit n was
// acknowledged, say.
func (r *Recorder) Mark(label string, n uint64) {
	r.end(Event{Call: CallMark, Label: label, Value: n, Start: time.Now(), Begin: r.tick.Add(1)})
}

// Events returns a copy of all events so far, in the order of Seq.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.chunks...)
}

// Reset forgets the events so far. The sequence goes on.
func (r *Recorder) Reset() {
	r.mu.Lock()
	r.chunks = nil
	r.mu.Unlock()
}

func (r *Recorder) begin(c Call, name string) Event {
	return Event{Call: c, Name: name, Begin: r.tick.Add(1), Start: time.Now()}
}

func (r *Recorder) end(e Event) {
	e.Took = time.Since(e.Start)
	r.mu.Lock()
	k := len(r.chunks) - 1
	if k < 0 || len(r.chunks[k]) == recChunk {
		r.chunks = append(r.chunks, make([]Event, 0, recChunk))
		k++
	}
	e.Seq = r.tick.Add(1)
	r.chunks[k] = append(r.chunks[k], e)
	r.mu.Unlock()
}

// Create is FS.Create.
func (r *Recorder) Create(name string, mode Mode) (File, error) {
	return r.openWith(CallCreate, r.fs.Create, name, mode)
}

// Open is FS.Open.
func (r *Recorder) Open(name string, mode Mode) (File, error) {
	return r.openWith(CallOpen, r.fs.Open, name, mode)
}

func (r *Recorder) openWith(c Call, open func(string, Mode) (File, error), name string, mode Mode) (File, error) {
	e := r.begin(c, name)
	f, err := open(name, mode)
	e.Err = err
	r.end(e)
	if err != nil {
		return nil, err
	}
	return &recFile{r: r, f: f, name: name}, nil
}

// Remove is FS.Remove.
func (r *Recorder) Remove(name string) error {
	e := r.begin(CallRemove, name)
	e.Err = r.fs.Remove(name)
	r.end(e)
	return e.Err
}

// Rename is FS.Rename.
func (r *Recorder) Rename(oldName, newName string) error {
	e := r.begin(CallRename, oldName)
	e.To = newName
	e.Err = r.fs.Rename(oldName, newName)
	r.end(e)
	return e.Err
}

// MkdirAll is FS.MkdirAll.
func (r *Recorder) MkdirAll(dir string) error {
	e := r.begin(CallMkdir, dir)
	e.Err = r.fs.MkdirAll(dir)
	r.end(e)
	return e.Err
}

// List is FS.List.
func (r *Recorder) List(dir string) ([]string, error) {
	e := r.begin(CallList, dir)
	names, err := r.fs.List(dir)
	e.Err = err
	r.end(e)
	return names, err
}

// Stat is FS.Stat.
func (r *Recorder) Stat(name string) (Info, error) {
	e := r.begin(CallStat, name)
	info, err := r.fs.Stat(name)
	e.Err, e.N = err, info.Size
	r.end(e)
	return info, err
}

// SyncDir is FS.SyncDir.
func (r *Recorder) SyncDir(dir string) error {
	e := r.begin(CallSyncDir, dir)
	e.Err = r.fs.SyncDir(dir)
	r.end(e)
	return e.Err
}

// Lock is FS.Lock.
func (r *Recorder) Lock(name string) (io.Closer, error) {
	return r.lockWith(CallLock, r.fs.Lock, name)
}

// LockShared is FS.LockShared.
func (r *Recorder) LockShared(name string) (io.Closer, error) {
	return r.lockWith(CallLockShared, r.fs.LockShared, name)
}

func (r *Recorder) lockWith(call Call, lock func(string) (io.Closer, error), name string) (io.Closer, error) {
	e := r.begin(call, name)
	c, err := lock(name)
	e.Err = err
	r.end(e)
	if err != nil {
		return nil, err
	}
	return &recLock{r: r, c: c, name: name}, nil
}

type recLock struct {
	r    *Recorder
	c    io.Closer
	name string
}

func (l *recLock) Close() error {
	e := l.r.begin(CallUnlock, l.name)
	e.Err = l.c.Close()
	l.r.end(e)
	return e.Err
}

type recFile struct {
	r    *Recorder
	f    File
	name string
}

// Unwrap returns the file below.
func (f *recFile) Unwrap() File { return f.f }

func (f *recFile) ReadAt(p []byte, off int64) (int, error) {
	e := f.r.begin(CallRead, f.name)
	n, err := f.f.ReadAt(p, off)
	e.Off, e.Len, e.N, e.Err = off, int64(len(p)), int64(n), err
	f.r.end(e)
	return n, err
}

func (f *recFile) WriteAt(p []byte, off int64) (int, error) { return f.write(f.f, p, off) }

// write is a write to the file by way of below.
func (f *recFile) write(below io.WriterAt, p []byte, off int64) (int, error) {
	e := f.r.begin(CallWrite, f.name)
	n, err := below.WriteAt(p, off)
	e.Off, e.Len, e.N, e.Err = off, int64(len(p)), int64(n), err
	f.r.end(e)
	return n, err
}

func (f *recFile) Zero(off, n int64) error { return f.fill(off, n, f.f.Zero) }

// fill is Zero, or Reserve, by way of below.
func (f *recFile) fill(off, n int64, below func(off, n int64) error) error {
	e := f.r.begin(CallZero, f.name)
	e.Off, e.Len = off, n
	e.Err = below(off, n)
	f.r.end(e)
	return e.Err
}

func (f *recFile) Size() (int64, error) {
	e := f.r.begin(CallSize, f.name)
	e.N, e.Err = f.f.Size()
	f.r.end(e)
	return e.N, e.Err
}

func (f *recFile) Sync() error     { return f.call(CallSync, f.f.Sync) }
func (f *recFile) SyncData() error { return f.call(CallSyncData, f.f.SyncData) }
func (f *recFile) Close() error    { return f.call(CallClose, f.f.Close) }

func (f *recFile) call(c Call, call func() error) error {
	e := f.r.begin(c, f.name)
	e.Err = call()
	f.r.end(e)
	return e.Err
}

var _ FS = (*Recorder)(nil)
