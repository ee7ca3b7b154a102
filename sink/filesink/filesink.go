// Package filesink appends batches to a file, each once.
//
// The file has what an encoder makes of the batches (lines of JSON unless told
// otherwise), one behind the other, and nothing else. A batch is durable when Write
// returns, and one whose id is known is not written again: "exactly once".
//
// # What is stored
//
// Beside the file NAME there are NAME.journal, of slots of 32 bytes, and NAME.lock. The
// first slot of the journal is
//
//	magic     16 bytes, "forebay filesink"
//	version   4 bytes, 1
//	zeros     8 bytes
//	checksum  4 bytes, CRC-32C of what is before
//
// and each other one tells of a batch that is whole in the file:
//
//	id        16 bytes, the beginning of the SHA-256 of its id
//	end       8 bytes: where it ends in the file
//	zeros     4 bytes
//	checksum  4 bytes, CRC-32C of the number of the slot (8 bytes) and what is before
//
// Numbers are little endian. A batch goes into the file, which is synced, and then into
// the journal, which is synced. So what a crash leaves behind the end that the journal
// knows is a part of a batch that nobody was told of: Open takes it off, by copying the
// file up to there. Open also writes the journal anew: what it shows is durable.
//
// After a failed write or sync nothing more is written (ErrPoisoned) until the file is
// opened again: what a failed sync has covered may be gone although reads show it.
package filesink

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/vfs"
)

// Errors. They come wrapped: compare with errors.Is.
var (
	// ErrClosed: the sink was closed.
	ErrClosed = errors.New("filesink: closed")
	// ErrDamaged: the journal, or the file, is not what this package has written.
	ErrDamaged = errors.New("filesink: damaged")
	// ErrPoisoned: an earlier write failed. The cause is wrapped beside it.
	ErrPoisoned = errors.New("filesink: an earlier write failed, and the file is to be opened again")
)

// Options of a file. A nil pointer is valid, zero fields mean the defaults.
type Options struct {
	// FS is the file system; nil: the operating system.
	FS vfs.FS
	// Encode makes what is appended; nil: sink.NDJSON.
	Encode sink.Encoder
	// Remember is how many ids are kept at least, the newest, and twice as many at most;
	// default 1,048,576. Each has 32 bytes on the disk, and some 50 in memory. A batch
	// whose id is forgotten is written again if it comes again.
	Remember int
}

// Sink is an open file. Any number of goroutines may write to it: their batches follow
// one another.
type Sink struct {
	o    Options
	name string
	lock io.Closer

	turn    chan struct{} // has a token while somebody writes, or has closed
	closing chan struct{} // closed by Close
	once    sync.Once

	// Of whose turn it is.
	data    vfs.File
	journal vfs.File
	slots   uint64 // of the journal, the first included

	mu    sync.Mutex // guards what follows, which whose turn it is changes
	known map[key]bool
	end   int64 // of the file
	err   error // why nothing is written any more
}

// bodies are buffers for what encoders make.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// maxBody is the largest that is kept.
const maxBody = 4 << 20

// key is what is remembered of an id.
type key [16]byte

func keyOf(id string) key {
	sum := sha256.Sum256([]byte(id))
	return key(sum[:16])
}

const (
	slotSize = 32
	magic    = "forebay filesink"
	version  = 1
)

var table = crc32.MakeTable(crc32.Castagnoli)

func headSlot() []byte {
	b := make([]byte, slotSize)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[16:], version)
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], table))
	return b
}

func appendSlot(dst []byte, number uint64, k key, end int64) []byte {
	at := len(dst)
	dst = append(dst, k[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(end))
	dst = append(dst, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(dst, slotSum(number, dst[at:]))
}

func slotSum(number uint64, b []byte) uint32 {
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], number)
	return crc32.Update(crc32.Checksum(n[:], table), table, b)
}

// entry is a slot of the journal.
type entry struct {
	key key
	end int64
}

// Open opens a file, or makes it and its directory. Errors: vfs.ErrLocked when somebody
// has it open, ErrDamaged, and those of the file system. A file that is not empty and has
// no journal is left alone: fs.ErrExist.
func Open(name string, o *Options) (*Sink, error) {
	s := &Sink{name: name, turn: make(chan struct{}, 1), closing: make(chan struct{})}
	if o != nil {
		s.o = *o
	}
	if s.o.FS == nil {
		s.o.FS = vfs.OS()
	}
	if s.o.Remember <= 0 {
		s.o.Remember = 1 << 20
	}
	if err := vfs.MkdirDurable(s.o.FS, filepath.Dir(name)); err != nil {
		return nil, fmt.Errorf("filesink: %w", err)
	}
	var err error
	if s.lock, err = s.o.FS.Lock(name + ".lock"); err != nil {
		return nil, fmt.Errorf("filesink: %w", err)
	}
	if err := s.open(); err != nil {
		s.closeFiles()
		return nil, fmt.Errorf("filesink: %q: %w", name, err)
	}
	return s, nil
}

func (s *Sink) open() error {
	fsys, dir := s.o.FS, filepath.Dir(s.name)
	entries, err := s.readJournal()
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return err
	}
	s.data, err = fsys.Open(s.name, vfs.ReadWrite)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(entries) == 0:
		s.data, err = fsys.Create(s.name, vfs.ReadWrite)
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: the journal tells of %d bytes, and there is no file", ErrDamaged, entries[len(entries)-1].end)
	}
	if err != nil {
		return err
	}
	size, err := s.data.Size()
	if err != nil {
		return err
	}
	if fresh && size > 0 {
		return fmt.Errorf("%w: it has %d bytes and no journal", fs.ErrExist, size)
	}
	if len(entries) > 0 {
		s.end = entries[len(entries)-1].end
	}
	switch {
	case size < s.end:
		return fmt.Errorf("%w: the journal tells of %d bytes, and the file has %d", ErrDamaged, s.end, size)
	case size > s.end:
		if err := s.cutTail(); err != nil {
			return err
		}
	}
	if err := fsys.SyncDir(dir); err != nil { // the file is there before its journal
		return err
	}
	return s.writeJournal(entries)
}

// replace makes a file of a name that has what fill writes: durably, and whole or not at
// all.
func (s *Sink) replace(name string, fill func(vfs.File) error) (vfs.File, error) {
	fsys, temp := s.o.FS, name+".new"
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := fsys.Create(temp, vfs.ReadWrite)
	if err != nil {
		return nil, err
	}
	if err := fill(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// Not every system can rename what is open.
	if err := f.Close(); err != nil {
		return nil, err
	}
	if err := fsys.Rename(temp, name); err != nil {
		return nil, err
	}
	if err := fsys.SyncDir(filepath.Dir(name)); err != nil {
		return nil, err
	}
	return fsys.Open(name, vfs.ReadWrite)
}

// cutTail takes off what is behind the end.
func (s *Sink) cutTail() error {
	size := s.end
	// What is to be replaced is closed before that, too.
	f, err := s.replace(s.name, func(f vfs.File) error {
		_, err := vfs.Copy(context.Background(), f, s.data, size)
		old := s.data
		s.data = nil
		return errors.Join(err, old.Close())
	})
	if err != nil { // and there may be the old one to be closed
		return err
	}
	s.data = f
	return nil
}

// readJournal returns the entries of the journal. At its end there may be one that was
// being written in a crash.
func (s *Sink) readJournal() ([]entry, error) {
	f, err := s.o.FS.Open(s.name+".journal", vfs.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	r := io.NewSectionReader(f, 0, size)
	var slot [slotSize]byte
	if _, err := io.ReadFull(r, slot[:]); err != nil || string(slot[:]) != string(headSlot()) {
		return nil, errors.Join(fmt.Errorf("%w: the head of the journal", ErrDamaged), err)
	}
	chunk := make([]byte, 2048*slotSize)
	var entries []entry
	end := int64(0)
	for at := int64(slotSize); at < size; {
		n, err := r.Read(chunk[:min(int64(len(chunk)), size-at)])
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		if n%slotSize != 0 && at+int64(n) < size { // a short read
			n -= n % slotSize
			if _, err := r.Seek(at+int64(n), io.SeekStart); err != nil {
				return nil, err
			}
		}
		for b := chunk[:n]; len(b) > 0; {
			number := uint64(at / slotSize)
			var e entry
			ok := len(b) >= slotSize
			if ok {
				e.key = key(b[:16])
				e.end = int64(binary.LittleEndian.Uint64(b[16:]))
				ok = slotSum(number, b[:28]) == binary.LittleEndian.Uint32(b[28:]) && e.end >= end
			}
			if !ok {
				if at+slotSize < size {
					return nil, fmt.Errorf("%w: slot %d of the journal, of %d", ErrDamaged, number, size/slotSize)
				}
				return entries, nil // nobody was told of it
			}
			entries = append(entries, e)
			end = e.end
			b = b[slotSize:]
			at += slotSize
		}
	}
	return entries, nil
}

// writeJournal writes the journal anew, with the newest entries.
func (s *Sink) writeJournal(entries []entry) (err error) {
	entries = entries[max(0, len(entries)-s.o.Remember):]
	s.slots = 1 + uint64(len(entries))
	known := make(map[key]bool, len(entries))
	s.journal, err = s.replace(s.name+".journal", func(f vfs.File) error {
		b := headSlot()
		at := int64(0)
		for i, e := range entries {
			known[e.key] = true
			if b = appendSlot(b, uint64(i+1), e.key, e.end); len(b) >= 64<<10 {
				if _, err := f.WriteAt(b, at); err != nil {
					return err
				}
				at += int64(len(b))
				b = b[:0]
			}
		}
		_, err := f.WriteAt(b, at)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = known
	return err
}

// forget writes the journal anew when it has twice as many ids as are to be kept.
func (s *Sink) forget() error {
	if s.slots-1 <= 2*uint64(s.o.Remember) {
		return nil
	}
	entries, err := s.readJournal()
	if err != nil {
		return err
	}
	old := s.journal // closed before it is replaced
	s.journal = nil
	if err := old.Close(); err != nil {
		return err
	}
	return s.writeJournal(entries)
}

// Write is sink.Sink.Write. Errors: *sink.Rejected when the encoder refuses rows,
// ErrClosed, ErrPoisoned, ctx's if it ends before it is the batch's turn, and those of the
// file system.
func (s *Sink) Write(ctx context.Context, b sink.Batch) error {
	if b.ID == "" || len(b.ID) > sink.MaxID {
		return fmt.Errorf("filesink: an id of %d bytes; it has 1 to %d", len(b.ID), sink.MaxID)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	k := keyOf(b.ID)
	if done, err := s.state(k); done || err != nil {
		return err
	}
	// The encoder is the caller's, and runs before it is our turn.
	body := bodies.Get().(*[]byte)
	defer bodies.Put(body)
	out, err := s.o.Encode.Encode((*body)[:0], b)
	if err != nil {
		return err
	}
	if cap(out) <= maxBody {
		*body = out
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-s.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	if done, err := s.state(k); done || err != nil {
		return err
	}
	if err := s.write(k, out); err != nil {
		s.poison(err)
		return fmt.Errorf("filesink: %q: %w", s.name, err)
	}
	if err := s.forget(); err != nil {
		s.poison(err) // this batch is written
	}
	return nil
}

// state says whether a batch is written, and why nothing can be.
func (s *Sink) state(k key) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[k], s.err
}

func (s *Sink) poison(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = fmt.Errorf("%w: %w", ErrPoisoned, err)
}

// write brings a batch into the file, and then into the journal.
func (s *Sink) write(k key, out []byte) error {
	at := s.Size()
	if len(out) > 0 {
		if _, err := s.data.WriteAt(out, at); err != nil {
			return err
		}
		if err := s.data.SyncData(); err != nil {
			return err
		}
	}
	end := at + int64(len(out))
	if _, err := s.journal.WriteAt(appendSlot(nil, s.slots, k, end), int64(s.slots)*slotSize); err != nil {
		return err
	}
	if err := s.journal.SyncData(); err != nil {
		return err
	}
	s.slots++
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = end
	s.known[k] = true
	return nil
}

// Size returns how many bytes of the file are whole batches.
func (s *Sink) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// Close closes the file, behind a write that is under way; those that wait for it get
// ErrClosed. A second call does nothing.
func (s *Sink) Close() (err error) {
	s.once.Do(func() {
		close(s.closing)
		s.turn <- struct{}{}
		s.mu.Lock()
		s.err = ErrClosed
		s.mu.Unlock()
		err = s.closeFiles()
	})
	return err
}

func (s *Sink) closeFiles() (err error) {
	for _, f := range []vfs.File{s.data, s.journal} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	s.data, s.journal, s.lock = nil, nil, nil
	return err
}
