package policy

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// watch is a file system that notes what happens to log files. All else it
// passes on. A write costs two readings of the clock and some 10 ns a record.
type watch struct {
	vfs.FS
	began time.Time
	bytes atomic.Int64 // written and zeroed in log files

	mu     sync.Mutex // guards all below, and the logStates; a leaf
	states map[string]*logState
	dirty  []*logState // those with records that are not synced, oldest first
	first  uint64      // LSN of ids[0]
	ids    []uint64    // of each record, in the order of LSNs
	writes []writeEvent
	syncs  []syncEvent
	zeroed []writeEvent
	err    error // what the watch did not understand
}

// writeEvent is a write to a log file that returned.
type writeEvent struct {
	at    int64
	lsn   uint64 // of the last record so far
	bytes int64
}

// syncEvent is a sync of records that returned, or a write that is one.
type syncEvent struct {
	from, at       int64
	lsn            uint64 // all up to it are durable
	records, bytes int64
}

// logState is what the watch knows of one log file, whatever handle it comes by.
type logState struct {
	head     *frame.FileHeader
	first    uint64 // LSN of its first record
	last     uint64 // LSN of its last record; 0: none
	synced   uint64 // LSN through which it is synced
	unsynced int64  // bytes
}

func newWatch(fsys vfs.FS) *watch {
	return &watch{FS: fsys, began: time.Now(), states: map[string]*logState{}}
}

func (w *watch) now() int64 { return int64(time.Since(w.began)) }

// watched wraps the handle of a log file.
func (w *watch) watched(name string, mode vfs.Mode, f vfs.File, fresh bool) vfs.File {
	if _, ok := wal.ParseFileName(filepath.Base(name)); !ok {
		return f
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.states[name]
	if s == nil || fresh {
		s = &logState{}
		w.states[name] = s
	}
	return &watchedFile{File: f, w: w, s: s, through: mode&vfs.DSync != 0}
}

func (w *watch) Create(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := w.FS.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return w.watched(name, mode, f, true), nil
}

func (w *watch) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := w.FS.Open(name, mode)
	if err != nil || mode&vfs.ReadWrite == 0 {
		return f, err
	}
	return w.watched(name, mode, f, false), nil
}

func (w *watch) Rename(from, to string) error { // a log file that is used again
	w.mu.Lock()
	delete(w.states, from)
	delete(w.states, to)
	w.mu.Unlock()
	return w.FS.Rename(from, to)
}

type watchedFile struct {
	vfs.File
	w       *watch
	s       *logState
	through bool // each write is synced
}

func (f *watchedFile) WriteAt(p []byte, off int64) (int, error) {
	from := f.w.now()
	n, err := f.File.WriteAt(p, off)
	at := f.w.now()
	f.w.bytes.Add(int64(n))
	if err == nil {
		f.w.wrote(f.s, p, off, from, at, f.through)
	}
	return n, err
}

func (f *watchedFile) Zero(off, n int64) error {
	err := f.File.Zero(off, n)
	if err == nil {
		f.w.bytes.Add(n)
		f.w.mu.Lock()
		f.w.zeroed = append(f.w.zeroed, writeEvent{at: f.w.now(), bytes: n})
		f.w.mu.Unlock()
	}
	return err
}

func (f *watchedFile) Reserve(off, n int64) error { return vfs.Reserve(f.File, off, n) }

func (f *watchedFile) Sync() error     { return f.w.sync(f.s, f.File.Sync) }
func (f *watchedFile) SyncData() error { return f.w.sync(f.s, f.File.SyncData) }

// wrote notes a write of frames, or of a file's header.
func (w *watch) wrote(s *logState, p []byte, off, from, at int64, through bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if off == 0 {
		h, err := frame.DecodeFileHeader(p)
		if err != nil {
			w.misread(err)
			return
		}
		*s = logState{head: &h}
		w.writes = append(w.writes, writeEvent{at, w.last(), int64(len(p))})
		return
	}
	if s.head == nil {
		w.misread(errors.New("policy: frames before the header of their log file"))
		return
	}
	dirty, had := s.last > s.synced, w.last()
	w.misread(frame.Walk(p, off, s.head, func(h *frame.Header, payload []byte) error {
		if h.Kind != frame.KindData {
			return nil
		}
		return frame.EachRecord(h, payload, func(lsn, _ uint64, rec []byte) error {
			return w.record(s, lsn, rec)
		})
	}))
	last := w.last()
	w.writes = append(w.writes, writeEvent{at, last, int64(len(p))})
	switch {
	case !through || dirty: // a write that is synced covers no other
		s.unsynced += int64(len(p))
		if !dirty && s.last > s.synced {
			w.dirty = append(w.dirty, s)
		}
	case last > had:
		s.synced = s.last
		w.syncs = append(w.syncs, syncEvent{from, at, w.covered(), int64(last - had), int64(len(p))})
	}
}

func (w *watch) record(s *logState, lsn uint64, rec []byte) error {
	if w.first == 0 {
		w.first = lsn
	}
	if next := w.first + uint64(len(w.ids)); lsn != next || len(rec) < 8 {
		return errors.New("policy: records are not in the order of their LSNs")
	}
	if s.first == 0 {
		s.first, s.synced = lsn, lsn-1
	}
	s.last = lsn
	w.ids = append(w.ids, binary.LittleEndian.Uint64(rec[len(rec)-8:]))
	return nil
}

// last returns the LSN of the last record that was written.
func (w *watch) last() uint64 { return max(w.first, 1) - 1 + uint64(len(w.ids)) }

// covered returns the LSN through which all is synced. It drops files from
// dirty that have become clean.
func (w *watch) covered() uint64 {
	for len(w.dirty) > 0 && w.dirty[0].synced == w.dirty[0].last {
		w.dirty = w.dirty[1:]
	}
	if len(w.dirty) > 0 {
		return w.dirty[0].synced
	}
	return w.last()
}

// sync runs a sync: it covers what was written when it began.
func (w *watch) sync(s *logState, call func() error) error {
	w.mu.Lock()
	last, bytes := s.last, s.unsynced
	w.mu.Unlock()
	from := w.now()
	if err := call(); err != nil {
		return err
	}
	at := w.now()
	w.mu.Lock()
	defer w.mu.Unlock()
	s.unsynced -= min(bytes, s.unsynced)
	if last > s.synced {
		n := int64(last - s.synced)
		s.synced = last
		w.syncs = append(w.syncs, syncEvent{from, at, w.covered(), n, bytes})
	}
	return nil
}

func (w *watch) misread(err error) {
	if w.err == nil {
		w.err = err
	}
}

// timeline makes the run's timeline: acks has, by writer, the moments at which
// its writes were acknowledged, in their order.
func (w *watch) timeline(acks [][]int64, from, to int64) *Timeline {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &Timeline{From: from, To: to}
	t.Acks = make([]Ack, 0, len(w.ids))
	next := make([]int, len(acks)) // of each writer, the first that was not written
	for i, id := range w.ids {
		writer, seq := split(id)
		if writer >= len(acks) || seq >= len(acks[writer]) {
			continue // not acknowledged when the run ended
		}
		t.Acks = append(t.Acks, Ack{acks[writer][seq], w.first + uint64(i)})
		next[writer] = seq + 1
	}
	for writer, n := range next {
		for _, at := range acks[writer][n:] {
			t.Acks = append(t.Acks, Ack{at, Unwritten})
		}
	}
	sortAcks(t.Acks)
	for _, e := range w.writes {
		t.Written = append(t.Written, Step{e.at, e.lsn})
	}
	for _, e := range w.syncs {
		t.Synced = append(t.Synced, Step{e.at, e.lsn})
	}
	return t
}

// The last 8 bytes of a value name its write.
const (
	seqBits = 40
	seqMask = 1<<seqBits - 1
)

func identify(writer, seq int) uint64   { return uint64(writer)<<seqBits | uint64(seq) }
func split(id uint64) (writer, seq int) { return int(id >> seqBits), int(id & seqMask) }
