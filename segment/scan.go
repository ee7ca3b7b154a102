package segment

import (
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// scanRead is the least that a scan reads at once, in bytes, but for the rest of
// the data.
const scanRead = 256 << 10

// ahead is what a scan has read: whole data blocks, as they are in the file. It
// holds blocks from to until (exclusive), the first of which is at off.
type ahead struct {
	from, until int
	off         uint64
	b           []byte
	// quiet, if not nil, says whether what was read may be let go, because nobody
	// else will want it. gone is up to where it was.
	quiet func() bool
	gone  uint64
}

// letGoSize is how much a scan reads before it lets it go.
const letGoSize = 4 << 20

// NewLastIter is NewScanIter for who reads what will then be removed, to write it with
// the given options. Of what it has read the system keeps no copy in memory, as long
// as quiet says so: its memory is there for what is written in its place.
//
// A lone block is not unpacked where a writer with these options would write the same: its
// version is shown as base.KindPacked, and the value is good for Writer.Add alone.
func (r *Reader) NewLastIter(quiet func() bool, opts WriterOptions) base.Iterator {
	it := &iter{r: r, block: -1, scans: true, ahead: ahead{quiet: quiet}}
	if opts, err := opts.withDefaults(); err == nil && r.foot.compression == opts.Compression {
		it.packs = opts.BlockSize
	}
	return it
}

// letGo lets go what was read before off.
func (a *ahead) letGo(r *Reader, off uint64) {
	if a.quiet == nil || off < a.gone+letGoSize {
		return
	}
	if a.quiet() {
		// What the system keeps in one piece with what is still to come stays.
		from := a.gone - min(a.gone, letGoSize)
		vfs.LetGo(r.f, int64(from), int64(off-from))
	}
	a.gone = off
}

// block returns data block i as it is in the file; back says that the blocks
// before it will be wanted and not those behind.
func (a *ahead) block(r *Reader, x *index, i int, back bool, s *scratch) ([]byte, error) {
	off, n := x.block(i)
	if i < a.from || i >= a.until {
		if err := a.read(r, x, i, back, s); err != nil {
			return nil, err
		}
	}
	at := off - a.off
	return a.b[at : at+n], nil
}

// read fills a with block i and those next to it.
func (a *ahead) read(r *Reader, x *index, i int, back bool, s *scratch) error {
	from, until := i, i+1
	off, size := x.block(i)
	for size < scanRead && (back && from > 0 || !back && until < len(x.blocks)) {
		next := until
		if back {
			from--
			next = from
		} else {
			until++
		}
		at, n := x.block(next)
		off = min(off, at)
		size += n
	}
	if !back {
		a.letGo(r, off)
	}
	s.disk = grow(s.disk, int(size))
	a.from, a.until, a.off, a.b = from, until, off, s.disk
	err := r.readAt(a.b, off)
	if err != nil && until-from > 1 {
		// What cannot be read may be a neighbour, which nobody has asked for yet.
		at, n := x.block(i)
		a.from, a.until, a.off, a.b = i, i+1, at, s.disk[:n]
		err = r.readAt(a.b, at)
	}
	if err != nil {
		*a = ahead{quiet: a.quiet, gone: a.gone}
	}
	return err
}

// scan returns the verified payload of data block i, past the cache; or it leaves a lone
// block packed, in b.
func (it *iter) scan(i int, back bool) ([]byte, error) {
	if it.s == nil {
		it.s = getScratch()
	}
	b, err := it.ahead.block(it.r, it.x, i, back, it.s)
	if err != nil {
		return nil, err
	}
	off, _ := it.x.block(i)
	payload, t, reason := checkBlock(b, &it.r.foot.id, off, kindData)
	if reason != "" {
		return nil, it.r.corrupt(off, reason, nil)
	}
	if it.lone = it.packs > 0 && t.lone && t.rawLen > it.packs && i > 0; it.lone {
		if _, _, _, ok := openLone(b, it.x.key(i), t.lsn); !ok {
			it.lone = false
			return nil, it.r.corrupt(off, "lone block verifies, but cannot be one", nil)
		}
		unbind(b, &it.r.foot.id, off, kindData)
		it.b.initLone(it.x.key(i), t.lsn, b)
		return nil, nil
	}
	return it.r.unpacked(payload, t, off, it.s, false, false)
}
