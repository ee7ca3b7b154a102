package check

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// records finds records of a history by their LSNs. Whoever asks for ascending ones
// reads each log file once at most. It holds one frame in memory.
type records struct {
	*source
	pieces []piece // ascending, apart from each other
	holes  []hole

	at    int // of pieces, -1: none is open
	file  vfs.File
	r     *frame.Reader
	first base.LSN // of the frame
	off   int64    // of the frame
	recs  [][]byte // of the frame
}

func newRecords(s *source, h *history) *records {
	f := &records{source: s, at: -1}
	for i := range h.stretches {
		f.pieces = append(f.pieces, h.stretches[i].pieces...)
	}
	for _, d := range h.explain(h.gaps(1), s.cfg.LogDir) {
		// Commits that are in no file are no hole: the files were let go.
		if d.length > 0 || d.file.err != nil {
			f.holes = append(f.holes, d)
		}
	}
	return f
}

func (f *records) close() {
	if f.file != nil {
		f.r.Release()
		f.file.Close()
	}
	f.at, f.file, f.recs = -1, nil, nil
}

// find returns a record, nil if none can be read. It is valid until the next call.
func (f *records) find(lsn base.LSN) ([]byte, error) {
	i := sort.Search(len(f.pieces), func(i int) bool { return f.pieces[i].last >= lsn })
	if i == len(f.pieces) || f.pieces[i].first > lsn {
		return nil, nil
	}
	if f.at != i || lsn < f.first {
		if err := f.open(i); err != nil {
			return nil, err
		}
	}
	p := &f.pieces[i]
	for lsn-f.first >= uint64(len(f.recs)) {
		if f.r.Offset() >= p.end {
			return nil, nil
		}
		fr, end, err := f.r.Next()
		if err == nil && end != nil { // It verified before.
			err = errors.New(end.Reason)
		}
		if err != nil {
			return nil, f.readError(p.file, err)
		}
		if fr.Kind != frame.KindData || fr.Next() <= lsn {
			continue
		}
		f.first, f.off, f.recs = fr.First, fr.Offset, f.recs[:0]
		if err := fr.EachRecord(func(_ base.LSN, _ uint64, rec []byte) error {
			f.recs = append(f.recs, rec)
			return nil
		}); err != nil {
			return nil, err
		}
		if lsn < f.first {
			return nil, nil
		}
	}
	return f.recs[lsn-f.first], nil
}

// open places it at the beginning of a piece.
func (f *records) open(i int) error {
	f.close()
	p := &f.pieces[i]
	file, err := f.fsys.Open(p.file.path, vfs.ReadOnly)
	if err != nil {
		return err
	}
	f.at, f.file, f.first = i, file, p.first
	f.r = frame.NewReader(&tolerant{File: file, ctx: f.ctx}, p.file.size, p.file.head)
	f.r.SeekTo(p.off)
	return nil
}

// appended returns what the record of an index entry appends to its sequence, or, when
// that cannot be had, what is in the way.
func (f *records) appended(e *indexEntry) (value []byte, bad *hole, err error) {
	rec, err := f.find(e.lsn)
	if err != nil {
		return nil, nil, err
	}
	if rec == nil {
		return nil, f.blame(e.lsn), nil
	}
	at := func(reason string, err error) (value []byte, bad *hole, _ error) {
		return nil, &hole{file: f.pieces[f.at].file, offset: f.off, reason: fmt.Sprintf("record %d %s", e.lsn, reason), err: err}, nil
	}
	value, err = batch.Appended(rec, e.prefix)
	switch {
	case err != nil:
		return at("verifies and is no batch", err)
	case value == nil:
		return at("appends nothing to the sequence", nil)
	}
	first, count := batch.FirstOffset(value), uint64(batch.CountItems(value))
	if first != e.offset || count != e.count || uint64(len(value)) != e.size {
		return at(fmt.Sprintf("appends %d items of %d bytes from %d on, and the index says %d of %d from %d on", count, len(value), first, e.count, e.size, e.offset), nil)
	}
	return value, nil, nil
}

// blame returns the damage by which a record cannot be read.
func (f *records) blame(lsn base.LSN) *hole {
	held := func(d *hole) bool {
		m := d.file.listed
		return m != nil && m.Retained && m.First <= lsn && lsn <= m.Last
	}
	within := func(d *hole) bool { return d.first <= lsn && lsn <= d.last }
	for _, is := range []func(*hole) bool{func(d *hole) bool { return held(d) && within(d) }, within, held} {
		if i := slices.IndexFunc(f.holes, func(d hole) bool { return is(&d) }); i >= 0 {
			return &f.holes[i]
		}
	}
	return &hole{file: &logFile{path: f.cfg.LogDir}, offset: -1, reason: "no log file has their records"}
}
