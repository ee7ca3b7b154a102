package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/vfs"
)

// Part is a stretch of a segment's file that does not verify.
type Part struct {
	Offset, Length int64
	// What stood there, in words: "data", "filter", "index", "range deletes",
	// "properties", "footer", or "unknown", which may be any of them.
	What   string
	Reason string
	// Err is the cause, where there is one.
	Err error
	// Lo and Hi bound, both inclusive, the keys of the versions that it may have
	// held; nil is no bound.
	Lo, Hi []byte
}

// Remains is what can be read of a segment that does not verify.
type Remains struct {
	// Lost are the parts that cannot, by offset.
	Lost []Part
	// Finished says that the footer is intact: the file was written to its end.
	Finished bool
	// Count is the number of versions that can be read, and MinLSN and MaxLSN
	// their lowest and highest LSN.
	Count          uint64
	MinLSN, MaxLSN base.LSN
	// Lo is the first key, Hi is behind the last: those of the versions alone.
	Lo, Hi []byte
	// Dels are the range deletes, where they can be read.
	Dels *rangedel.Set

	id     ID
	name   string
	size   uint64
	blocks []place
	keys   []byte // the first key of each block
}

// place is a data block that verifies.
type place struct {
	off, n       uint64
	keyAt, keyTo int
	lsn          base.LSN // with the key: the first version
}

// ReadID returns the identity that the footer of a segment gives.
func ReadID(f vfs.File, name string) (ID, error) {
	size, err := f.Size()
	if err != nil {
		return ID{}, fmt.Errorf("segment: size of %s: %w", name, err)
	}
	var id ID
	b := make([]byte, footerSize)
	if uint64(size) < footerSize {
		return id, &base.CorruptionError{File: name, Offset: -1, Reason: fmt.Sprintf("segment of %d bytes is shorter than its footer", size)}
	}
	r := &Reader{f: f, name: name}
	if err := r.readAt(b, uint64(size)-footerSize); err != nil {
		return id, err
	}
	copy(id.Store[:], b[24:])
	id.Number = binary.LittleEndian.Uint64(b[40:])
	_, err = decodeFooter(b, name, uint64(size), &id)
	return id, err
}

// Survey reads the whole of a segment that may be damaged anywhere and tells
// what remains. It uses the index where that verifies; without it, it finds the
// blocks by their checksums, which are bound to place and segment: a block whose
// neighbours are gone is found too. What is lost is part of the result; an error
// is one of ctx, of the file's size, or an *UnsupportedError. What cannot be read
// is lost.
func Survey(ctx context.Context, f vfs.File, name string, id ID) (*Remains, error) {
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("segment: size of %s: %w", name, err)
	}
	v := &surveyor{ctx: ctx, m: &Remains{id: id, name: name, size: uint64(size), MinLSN: base.MaxLSN}}
	v.r = v.m.reader(f)
	v.s = getScratch()
	defer v.s.release()
	if err := v.footer(); err != nil {
		return nil, err
	}
	if v.m.Finished {
		v.finished()
	} else {
		v.unfinished()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := v.m
	sort.SliceStable(m.Lost, func(i, j int) bool { return m.Lost[i].Offset < m.Lost[j].Offset })
	if m.Count == 0 {
		m.MinLSN = 0
	} else {
		m.Hi = append(append(m.Hi, v.lastKey...), 0)
	}
	return m, nil
}

func (m *Remains) reader(f vfs.File) *Reader {
	return &Reader{f: f, name: m.name, foot: footer{id: m.id, fileLen: m.size}}
}

// surveyor is one Survey.
type surveyor struct {
	ctx context.Context
	r   *Reader
	m   *Remains
	s   *scratch

	lastKey []byte // of the last good data block
	lastLSN base.LSN
	footErr error // why there is no footer
}

// lose notes a part. cause is why, if it is more than damage.
func (v *surveyor) lose(off, n uint64, what string, err error) *Part {
	p := Part{Offset: int64(off), Length: int64(n), What: what, Err: err}
	if c := (*base.CorruptionError)(nil); errors.As(err, &c) {
		p.Reason, p.Err = c.Reason, c.Err
	} else if err != nil {
		p.Reason = "cannot be read"
	}
	v.m.Lost = append(v.m.Lost, p)
	return &v.m.Lost[len(v.m.Lost)-1]
}

// footer reads the footer; without one the survey does not know the parts.
func (v *surveyor) footer() error {
	size := v.m.size
	if size < footerSize {
		v.footErr = v.r.corrupt(size, "segment ends before its footer", nil)
		return nil
	}
	b := make([]byte, footerSize)
	err := v.r.readAt(b, size-footerSize)
	if err == nil {
		var foot footer
		if foot, err = decodeFooter(b, v.m.name, size, &v.m.id); err == nil {
			v.r.foot, v.m.Finished = foot, true
			return nil
		}
	}
	if newer := (*UnsupportedError)(nil); errors.As(err, &newer) {
		return err
	}
	v.footErr = err
	return nil
}

// finished surveys a file of which the footer is intact, so that all places but
// those of the single data blocks are known.
func (v *surveyor) finished() {
	f := &v.r.foot
	x, _, err := v.r.readIndex()
	if err != nil {
		v.lose(f.indexOff(), f.indexLen, "index", err)
		v.take(v.walk(0, f.dataLen), 0, f.dataLen, "data")
	} else {
		v.indexed(x)
	}
	n := uint64(f.pageLen) + trailerSize
	for off := f.filterOff(); off < f.indexOff() && v.ctx.Err() == nil; off += n {
		if _, _, err := v.r.load(off, n, kindFilter, v.s, false); err != nil {
			v.lose(off, n, "filter", err)
		}
	}
	if f.delsLen > 0 {
		dels, _, err := v.r.readDels()
		if err != nil {
			v.lose(f.delsOff(), f.delsLen, "range deletes", err)
		}
		v.m.Dels = rangedel.New(dels)
	}
	if _, _, err := v.r.readProps(); err != nil {
		v.lose(f.propsOff(), f.propsLen, "properties", err)
	}
}

// indexed surveys the data blocks that an index names. Bad ones that follow each
// other are one part, between their separators.
func (v *surveyor) indexed(x *index) {
	bad := (*Part)(nil)
	for i := range x.blocks {
		if v.ctx.Err() != nil {
			return
		}
		off, n := x.block(i)
		err := v.data(off, n)
		if err == nil {
			if bad != nil {
				bad.Hi, bad = bytes.Clone(x.key(i)), nil
			}
			continue
		}
		if bad != nil {
			bad.Length += int64(n)
			continue
		}
		bad = v.lose(off, n, "data", err)
		if i > 0 {
			bad.Lo = bytes.Clone(x.key(i))
		}
	}
}

// data checks a data block and takes it in when all of it holds.
func (v *surveyor) data(off, n uint64) error {
	payload, _, err := v.r.load(off, n, kindData, v.s, false)
	if err != nil {
		return err
	}
	var b blockIter
	if !b.init(payload) {
		return v.r.corruptBlock(off)
	}
	m := v.m
	p := place{off: off, n: n, keyAt: len(m.keys)}
	count, low, high := uint64(0), m.MinLSN, m.MaxLSN
	last, lsn := v.lastKey, v.lastLSN
	var own []byte // last, once it is a key of this block
	for ok := b.first(); ok; ok = b.nextEntry() {
		if m.Count+count > 0 && base.Compare(last, lsn, b.key, b.lsn) >= 0 ||
			b.lsn >= base.OwnLSN || b.kind == base.KindDelete && len(b.value) != 0 {
			m.keys = m.keys[:p.keyAt]
			return v.r.corrupt(off, "data block verifies, but its versions cannot be", nil)
		}
		if count == 0 {
			m.keys, p.lsn = append(m.keys, b.key...), b.lsn
		}
		count++
		own = append(own[:0], b.key...)
		last, lsn = own, b.lsn
		low, high = min(low, lsn), max(high, lsn)
	}
	if b.bad || count == 0 {
		m.keys = m.keys[:p.keyAt]
		return v.r.corruptBlock(off)
	}
	p.keyTo = len(m.keys)
	if m.Count == 0 {
		m.Lo = bytes.Clone(m.keys[p.keyAt:p.keyTo])
	}
	m.blocks = append(m.blocks, p)
	m.Count, m.MinLSN, m.MaxLSN = m.Count+count, low, high
	v.lastKey, v.lastLSN = append(v.lastKey[:0], last...), lsn
	return nil
}

// NewIter returns an iterator over the versions that remain. f is the file that
// was surveyed, unchanged; it stays the caller's.
func (m *Remains) NewIter(f vfs.File) base.Iterator {
	return &remainsIter{m: m, r: m.reader(f), at: -1}
}

// remainsIter walks the good blocks as iter does those of an index.
type remainsIter struct {
	m   *Remains
	r   *Reader
	at  int
	b   blockIter
	s   scratch
	err error
}

var _ base.Iterator = (*remainsIter)(nil)

// enter makes block i the present one, where there is one.
func (it *remainsIter) enter(i int) bool {
	it.b.valid = false
	if i < 0 || i >= len(it.m.blocks) {
		return false
	}
	if i == it.at {
		return true
	}
	it.at = -1
	p := &it.m.blocks[i]
	payload, _, err := it.r.load(p.off, p.n, kindData, &it.s, false)
	if err == nil && !it.b.init(payload) {
		err = it.r.corruptBlock(p.off)
	}
	if err != nil {
		it.err = err
		return false
	}
	it.at = i
	return true
}

// find returns the last block that begins at or before (key, lsn), at least 0.
func (it *remainsIter) find(key []byte, lsn base.LSN) int {
	m := it.m
	return max(0, sort.Search(len(m.blocks), func(i int) bool {
		p := &m.blocks[i]
		return base.Compare(m.keys[p.keyAt:p.keyTo], p.lsn, key, lsn) > 0
	})-1)
}

func (it *remainsIter) forward(ok bool) bool {
	for !ok && it.fine() && it.at >= 0 && it.enter(it.at+1) {
		ok = it.b.first()
	}
	return ok && it.fine()
}

func (it *remainsIter) backward(ok bool) bool {
	for !ok && it.fine() && it.at > 0 && it.enter(it.at-1) {
		ok = it.b.last()
	}
	return ok && it.fine()
}

// fine notes what a block's iterator found: the file has changed.
func (it *remainsIter) fine() bool {
	if it.b.bad && it.err == nil && it.at >= 0 {
		it.err = it.r.corruptBlock(it.m.blocks[it.at].off)
	}
	return it.err == nil
}

// First implements base.Iterator.
func (it *remainsIter) First() bool {
	it.err = nil
	return it.enter(0) && it.forward(it.b.first())
}

// Last implements base.Iterator.
func (it *remainsIter) Last() bool {
	it.err = nil
	return it.enter(len(it.m.blocks)-1) && it.backward(it.b.last())
}

// SeekGE implements base.Iterator.
func (it *remainsIter) SeekGE(key []byte, lsn base.LSN) bool {
	it.err = nil
	return it.enter(it.find(key, lsn)) && it.forward(it.b.seekGE(key, lsn))
}

// SeekLT implements base.Iterator.
func (it *remainsIter) SeekLT(key []byte, lsn base.LSN) bool {
	it.err = nil
	return it.enter(it.find(key, lsn)) && it.backward(it.b.seekLT(key, lsn))
}

// Next implements base.Iterator.
func (it *remainsIter) Next() bool { return it.b.valid && it.forward(it.b.nextEntry()) }

// Prev implements base.Iterator.
func (it *remainsIter) Prev() bool { return it.b.valid && it.backward(it.b.prevEntry()) }

// Valid implements base.Iterator.
func (it *remainsIter) Valid() bool { return it.b.valid && it.err == nil }

// Key implements base.Iterator.
func (it *remainsIter) Key() []byte { return it.b.key }

// LSN implements base.Iterator.
func (it *remainsIter) LSN() base.LSN { return it.b.lsn }

// Kind implements base.Iterator.
func (it *remainsIter) Kind() base.Kind { return it.b.kind }

// Value implements base.Iterator.
func (it *remainsIter) Value() []byte { return it.b.value }

// Err implements base.Iterator.
func (it *remainsIter) Err() error { return it.err }

// Close implements base.Iterator.
func (it *remainsIter) Close() error {
	it.b.valid, it.at = false, -1
	return nil
}
