// Package editlog keeps a small durable list of edits: what the manifest of a
// store and the catalog of a log that is used alone stand on.
//
// An edit log is one framed file (see wal/frame) named PREFIX-NNNNNN. Its
// record 1 is a snapshot of the state; each later record is one edit. The rules:
//
//   - One open writes a file front to back, once. The first edit after an open
//     begins a new file.
//   - An edit pays twice: it is written and synced, and then a mark with its
//     number is written and synced. Only then may it be acted on. So damage to
//     an edit that was acted on is always proven, never taken for a torn tail.
//   - Rotation: the new file is made and its directory synced; it gets snapshot,
//     sync, mark, sync; the old file is removed and the directory synced again;
//     only then comes the first new edit. A crash leaves one file or two that say
//     the same, and what a mark proves has its name for good.
//   - Any error of a write or a sync poisons the writer.
package editlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// ErrClosed says that the edit log was closed. The call did nothing.
var ErrClosed = errors.New("edit log is closed")

// ErrNone says that a directory holds no complete edit log.
var ErrNone = errors.New("no complete edit log")

// Kind names a family of edit logs.
type Kind struct {
	// Prefix of the file names, "MANIFEST" say.
	Prefix string
	File   frame.FileKind
}

// Name returns the name of file number n.
func (k Kind) Name(n uint64) string { return fmt.Sprintf("%s-%06d", k.Prefix, n) }

// Parse returns the number in a file name of this kind.
func (k Kind) Parse(name string) (uint64, bool) {
	rest, ok := strings.CutPrefix(name, k.Prefix+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, err == nil && n > 0 && n <= base.MaxFileNumber && k.Name(n) == name
}

// Loaded is what Load found.
type Loaded struct {
	Store [16]byte
	// Name and Number are of the file that was read; Number is 0 when there
	// was none.
	Name   string
	Number uint64
	// Highest is the highest number of any file of the kind, complete or not.
	Highest uint64
	// Dirty says that the last edits are not proven durable, or that something
	// torn follows them: a new file must be written before the state is acted
	// on.
	Dirty bool
	// Others names the files of the kind that are not Name; they may be
	// removed once Name is proven.
	Others []string
	// Records is the number of records read, the snapshot included; Size is
	// the length of the file's used part in bytes.
	Records uint64
	Size    int64
}

// Load reads the newest complete edit log of a kind in dir, calls each for the
// snapshot (n = 1) and for every edit behind it, and writes nothing. An edit is
// valid during its call. It returns ErrNone when there is no complete file, and
// a *base.CorruptionError when a proof says that something durable is missing.
func Load(fsys vfs.FS, dir string, k Kind, each func(n uint64, edit []byte) error) (*Loaded, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, name := range names {
		if n, ok := k.Parse(name); ok {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	slices.Reverse(numbers)
	l := &Loaded{}
	if len(numbers) > 0 {
		l.Highest = numbers[0]
	}
	for _, n := range numbers {
		if l.Number == 0 {
			ok, err := l.read(fsys, dir, k, n, each)
			if err != nil {
				return nil, err
			}
			if ok {
				continue
			}
		}
		l.Others = append(l.Others, k.Name(n))
	}
	if l.Number == 0 {
		return l, ErrNone
	}
	if len(l.Others) > 0 {
		l.Dirty = true
	}
	return l, nil
}

// read reads file n and says whether it is complete.
func (l *Loaded) read(fsys vfs.FS, dir string, k Kind, n uint64, each func(uint64, []byte) error) (bool, error) {
	path := filepath.Join(dir, k.Name(n))
	f, err := fsys.Open(path, vfs.ReadOnly)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head, size, err := ReadHeader(f, path)
	if errors.Is(err, frame.ErrNoHeader) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if head.Number != n || head.Kind != k.File {
		// The header of another file: a new file's sectors may hold what a file
		// that is gone held. It was never synced, and so not proven.
		return false, nil
	}
	r := frame.NewReader(f, size, head)
	defer r.Release()
	var last, durable uint64
	marked := false
	for {
		fr, end, err := r.Next()
		if err != nil {
			return false, fmt.Errorf("%s: %w", path, err)
		}
		if end != nil {
			return l.finish(f, path, k, head, size, end, last, durable, marked)
		}
		durable = max(durable, fr.Durable)
		marked = fr.Kind == frame.KindMark && fr.Durable == last
		err = fr.EachRecord(func(lsn frame.LSN, _ uint64, rec []byte) error { return each(lsn, rec) })
		if err != nil {
			return false, &base.CorruptionError{File: path, Offset: fr.Offset, Reason: "edit is not understood", Err: err}
		}
		last = fr.Next() - 1
	}
}

func (l *Loaded) finish(f vfs.File, path string, k Kind, head frame.FileHeader, size int64, end *frame.End, last, durable uint64, marked bool) (bool, error) {
	proof, err := frame.Search(f, size, &head, end.Offset, nil)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	if max(proof.Durable, durable) > last {
		return false, &base.CorruptionError{File: path, Offset: end.Offset,
			Reason: fmt.Sprintf("edit %d is proven durable and does not verify: %s", last+1, orWord(end.Reason, "nothing there"))}
	}
	if last == 0 {
		return false, nil
	}
	l.Store, l.Name, l.Number = head.Store, k.Name(head.Number), head.Number
	l.Records, l.Size = last, end.Offset
	l.Dirty = !marked || durable < last || proof.Used > 0
	return true, nil
}

func orWord(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// ReadHeader reads and decodes the header of a framed file and returns the
// file's size in bytes. name is for errors. frame.ErrNoHeader and
// frame.ErrUnsupported come wrapped.
func ReadHeader(f vfs.File, name string) (frame.FileHeader, int64, error) {
	size, err := f.Size()
	if err != nil {
		return frame.FileHeader{}, 0, err
	}
	var b [frame.HeaderSize]byte
	if size < int64(len(b)) {
		return frame.FileHeader{}, size, fmt.Errorf("%s: %w: %d bytes long", name, frame.ErrNoHeader, size)
	}
	if n, err := f.ReadAt(b[:], 0); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return frame.FileHeader{}, size, fmt.Errorf("%s: read header: %w", name, err)
	}
	h, err := frame.DecodeFileHeader(b[:])
	if err != nil {
		return h, size, fmt.Errorf("%s: %w", name, err)
	}
	return h, size, nil
}

// Writer appends edits. Its methods may be called at once from many
// goroutines; they serialise.
type Writer struct {
	fsys vfs.FS
	dir  string
	kind Kind
	rand io.Reader

	mu       sync.Mutex // guards all below
	store    [16]byte
	f        vfs.File // nil until the first edit
	number   uint64   // of f
	highest  uint64
	old      []string // files to remove once a new one is proven
	b        frame.Builder
	next     uint64
	err      error
	rotateAt int64
}

// rotateSize is the size in bytes beyond which an edit log begins a new file,
// unless its snapshot alone is a large part of that.
const rotateSize = 1 << 20

// NewWriter makes a writer that goes on from what Load found. Nothing is
// written before the first edit. rand gives salts.
func NewWriter(fsys vfs.FS, dir string, k Kind, store [16]byte, from *Loaded, rand io.Reader) *Writer {
	w := &Writer{fsys: fsys, dir: dir, kind: k, rand: rand, store: store}
	if from != nil {
		w.highest = from.Highest
		w.old = slices.Clone(from.Others)
		if from.Number != 0 {
			w.old = append(w.old, from.Name)
		}
	}
	return w
}

// Append makes one edit durable. snapshot gives the state before the edit; it
// is called when a new file is begun. When Append returns nil the edit, and its
// proof, are durable. After an error the writer is poisoned; unless Err is nil:
// then there was no room for the edit, and nothing has changed.
func (w *Writer) Append(edit []byte, snapshot func() []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if w.f == nil || w.b.Offset() > w.rotateAt {
		switch err := w.rotate(snapshot()); {
		case errors.Is(err, errRefused) && w.f != nil:
			w.rotateAt += rotateSize // the present file will do for a while
		case errors.Is(err, errRefused):
			return fmt.Errorf("%s: %w", w.kind.Prefix, err)
		case err != nil:
			return w.poison(err)
		}
	}
	built := w.b
	w.b.Record(w.next, 0, edit, w.next-1, 0)
	// Zeros end a file wherever they stand: on a full disk this fails while
	// nothing of the edit is written.
	if err := w.f.Zero(w.b.Offset(), int64(len(w.b.Bytes()))+frame.BlockAlign); err != nil {
		w.b = built
		return fmt.Errorf("%s: no room for an edit: %w", w.kind.Prefix, err)
	}
	if err := w.write(); err != nil {
		return w.poison(err)
	}
	return nil
}

// Rotate begins a new file with the given snapshot.
func (w *Writer) Rotate(snapshot []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if err := w.rotate(snapshot); err != nil {
		return w.poison(err)
	}
	return nil
}

// Err returns the error that poisoned the writer, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Name returns the name of the current file, "" before the first edit.
func (w *Writer) Name() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		return ""
	}
	return w.kind.Name(w.number)
}

// Close closes the file. It writes nothing: every edit is durable already.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = ErrClosed
	}
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return f.Close()
}

func (w *Writer) poison(err error) error {
	w.err = fmt.Errorf("%s: %w", w.kind.Prefix, err)
	return w.err
}

// write writes and syncs the record that was built, then its mark.
func (w *Writer) write() error {
	if err := w.flush(); err != nil {
		return err
	}
	w.next++
	w.b.Mark(w.next, w.next-1, 0)
	return w.flush()
}

func (w *Writer) flush() error {
	if _, err := w.f.WriteAt(w.b.Bytes(), w.b.Offset()); err != nil {
		return err
	}
	if err := w.f.SyncData(); err != nil {
		return err
	}
	w.b.Advance()
	return nil
}

// rotate begins a new file. An error of errRefused says that nothing has changed:
// the file could not be made, or there was no room for it.
func (w *Writer) rotate(snapshot []byte) error {
	head := frame.FileHeader{Kind: w.kind.File, Align: frame.BlockAlign, Store: w.store, Number: w.highest + 1}
	var salt [8]byte
	if _, err := io.ReadFull(w.rand, salt[:]); err != nil {
		return err
	}
	head.Salt = binary.LittleEndian.Uint64(salt[:])
	var b frame.Builder
	b.Reset(&head, frame.CodecNone, head.Start(), 0)
	b.Record(1, 0, snapshot, 0, 0)
	f, err := w.make(w.kind.Name(head.Number), b.Offset()+int64(len(b.Bytes()))+frame.BlockAlign)
	if err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if w.f != nil {
		w.old = append(w.old, w.kind.Name(w.number))
		w.f.Close()
	}
	w.f, w.number, w.b, w.next = f, head.Number, b, 1
	// The mark proves what is before it: by then the file has its name for good.
	if err := w.fsys.SyncDir(w.dir); err != nil {
		return err
	}
	if _, err := f.WriteAt(head.Encode(), 0); err != nil {
		return err
	}
	if err := w.write(); err != nil {
		return err
	}
	w.rotateAt = w.b.Offset() + max(rotateSize, 4*int64(len(snapshot)))
	return w.removeOld()
}

var errRefused = errors.New("no new file")

// make makes a file of so many zeros, which says nothing yet: one that stays
// behind is passed over by a load, and removed by the next rotation.
func (w *Writer) make(name string, size int64) (vfs.File, error) {
	path := filepath.Join(w.dir, name)
	f, err := w.fsys.Create(path, vfs.ReadWrite)
	if err != nil {
		// The file may be there all the same, and in the way of the next attempt.
		if _, serr := w.fsys.Stat(path); serr == nil {
			w.highest++
			w.old = append(w.old, name)
		}
		return nil, err
	}
	w.highest++
	if err := f.Zero(0, size); err != nil {
		f.Close()
		if w.fsys.Remove(path) != nil {
			w.old = append(w.old, name)
		}
		return nil, err
	}
	return f, nil
}

func (w *Writer) removeOld() error {
	if len(w.old) == 0 {
		return nil
	}
	for _, name := range w.old {
		if err := w.fsys.Remove(filepath.Join(w.dir, name)); err != nil {
			return err
		}
	}
	w.old = nil
	return w.fsys.SyncDir(w.dir)
}
