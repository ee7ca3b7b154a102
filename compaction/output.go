package compaction

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

// Files says where segments are made and how.
type Files struct {
	FS  vfs.FS
	Dir string
	// Store is bound to every checksum; Next gives segment numbers that were
	// never used.
	Store [16]byte
	Next  func() (uint64, error)
	// Writer configures the segments, Reader the readers of them.
	Writer segment.WriterOptions
	Reader segment.Options
}

// Output makes new segments, one after the other. None of them counts before
// the manifest lists it: what a crash leaves of them, the next open removes. It
// is used by one goroutine at a time, and ends with Finish or Abort.
type Output struct {
	files Files
	level int
	made  []made
	w     *segment.Writer // of the last of made; nil between two segments
	f     vfs.File
	// syncs are those of large segments that run beside the writing of the next: one
	// result comes of each.
	syncs []chan error
}

// syncBeside is how large a segment is, in bytes, whose sync runs beside what follows:
// it takes a third as long as its merge. Tests have smaller ones.
var syncBeside uint64 = 1 << 20

// mostSyncs run at the same time.
const mostSyncs = 2

type made struct {
	number uint64
	meta   segment.Meta
	r      *segment.Reader
}

// NewOutput returns an Output whose segments are of a level.
func NewOutput(files Files, level int) *Output { return &Output{files: files, level: level} }

// open begins a segment, if none is being written. A file of its name is
// somebody else's, and stays.
func (o *Output) open() error {
	if o.w != nil {
		return nil
	}
	for {
		number, err := o.files.Next()
		if err != nil {
			return err
		}
		f, err := o.files.FS.Create(o.path(number), vfs.ReadWrite)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("segment %d: %w", number, err)
		}
		o.made, o.f = append(o.made, made{number: number}), f
		o.w, err = segment.NewWriter(f, o.id(number), o.files.Writer)
		return err
	}
}

func (o *Output) path(number uint64) string {
	return filepath.Join(o.files.Dir, segment.FileName(number))
}

func (o *Output) id(number uint64) segment.ID {
	return segment.ID{Store: o.files.Store, Number: number}
}

// Add appends a version; see segment.Writer.
func (o *Output) Add(key []byte, lsn base.LSN, kind base.Kind, value []byte) error {
	if o.w == nil {
		if err := o.open(); err != nil {
			return err
		}
	}
	return o.w.Add(key, lsn, kind, value)
}

// Size is about how large the segment that is being written is, 0 when there is
// none.
func (o *Output) Size() int64 {
	if o.w == nil {
		return 0
	}
	return int64(o.w.EstimatedSize())
}

// Cut ends the segment that is being written, with these range deletes in it; the
// next Add begins another. With neither versions nor range deletes it makes
// nothing.
func (o *Output) Cut(dels *rangedel.Set) error {
	if o.w == nil && dels.Len() == 0 {
		return nil
	}
	if err := o.open(); err != nil {
		return err
	}
	last := &o.made[len(o.made)-1]
	err := o.w.AddRangeDeletes(dels)
	if err == nil {
		last.meta, err = o.w.Finish()
	}
	o.w = nil
	if err != nil {
		return err
	}
	f, number := o.f, last.number
	o.f = nil
	if last.meta.Size < syncBeside {
		return syncAndClose(f, number)
	}
	for len(o.syncs) >= mostSyncs && err == nil {
		err = o.waitSync()
	}
	done := make(chan error, 1)
	go func() { done <- syncAndClose(f, number) }()
	o.syncs = append(o.syncs, done)
	return err
}

func syncAndClose(f vfs.File, number uint64) error {
	err := f.Sync()
	if err != nil {
		err = fmt.Errorf("segment %d: sync: %w", number, err)
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("segment %d: close: %w", number, cerr)
	}
	return err
}

// waitSync waits for the oldest sync that runs.
func (o *Output) waitSync() error {
	done := o.syncs[0]
	o.syncs = o.syncs[1:]
	return <-done
}

// Finish makes all segments and their names durable, opens each and compares it
// with what was written. The last segment must have been cut. After an error
// nothing remains; else the caller owns the readers, and Abort still takes all
// back.
func (o *Output) Finish() ([]manifest.Segment, []*segment.Reader, error) {
	if len(o.made) == 0 {
		return nil, nil, nil
	}
	var err error
	for len(o.syncs) > 0 && err == nil {
		err = o.waitSync()
	}
	var segs []manifest.Segment
	var readers []*segment.Reader
	if err == nil {
		segs, readers, err = o.finish()
	}
	if err != nil {
		o.Abort()
		return nil, nil, err
	}
	return segs, readers, nil
}

func (o *Output) finish() (segs []manifest.Segment, readers []*segment.Reader, err error) {
	if err := o.files.FS.SyncDir(o.files.Dir); err != nil {
		return nil, nil, err
	}
	for i := range o.made {
		m := &o.made[i]
		g := Listed(&m.meta, o.level)
		if m.r, err = Open(o.files.FS, o.path(m.number), o.files.Store, &g, o.files.Reader); err != nil {
			return nil, nil, err
		}
		segs, readers = append(segs, g), append(readers, m.r)
	}
	return segs, readers, nil
}

// Abort closes and removes what was made. That a file cannot be removed is
// nothing to act on: nobody names it, and the next open removes it.
func (o *Output) Abort() {
	if o.f != nil {
		_ = o.f.Close()
		o.f = nil
	}
	for len(o.syncs) > 0 {
		_ = o.waitSync()
	}
	for _, m := range o.made {
		if m.r != nil {
			_ = m.r.Close()
		}
		_ = o.files.FS.Remove(o.path(m.number))
	}
	o.made, o.w = nil, nil
}

// Listed is what the manifest says of a segment that was written.
func Listed(m *segment.Meta, level int) manifest.Segment {
	return manifest.Segment{
		Number: m.Number, Level: level, Size: m.Size, Count: m.Count, Tombstones: m.Tombstones, RangeDeletes: m.RangeDeletes,
		MinLSN: m.MinLSN, MaxLSN: m.MaxLSN, Hash: m.Hash, Lo: m.Lo, Hi: m.Hi,
	}
}

// Open opens a segment and checks that it is the one that is listed. That it is
// missing is a *base.CorruptionError, too.
func Open(fsys vfs.FS, path string, store [16]byte, g *manifest.Segment, opts segment.Options) (*segment.Reader, error) {
	f, err := fsys.Open(path, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &base.CorruptionError{File: path, Offset: -1, Reason: "listed segment is missing"}
	}
	if err != nil {
		return nil, err
	}
	r, err := segment.Open(f, path, segment.ID{Store: store, Number: g.Number}, opts)
	if err != nil {
		f.Close()
		return nil, err
	}
	if r.Hash() != g.Hash || r.Size() != g.Size {
		r.Close()
		return nil, &base.CorruptionError{File: path, Offset: 0, Reason: fmt.Sprintf("not the segment that is listed: hash %x of %d bytes, listed %x of %d", r.Hash(), r.Size(), g.Hash, g.Size)}
	}
	return r, nil
}
