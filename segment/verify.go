package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
)

// Verify reads every byte of the file again, past the cache, and checks it: all
// checksums, the order of the versions within and across blocks, that the index
// leads to each of them, that the filter is exactly that of the keys, and that
// the properties are true. The error names the first damage. ctx may be nil; when
// it ends, Verify returns its error.
func (r *Reader) Verify(ctx context.Context) error {
	if ctx == nil {
		ctx = context.Background()
	}
	fresh, err := Open(r.f, r.name, r.foot.id, Options{})
	if err != nil {
		return err
	}
	if fresh.foot != r.foot {
		return r.corrupt(r.foot.fileLen-footerSize, "segment footer is not the one that was opened", nil)
	}
	v := verifier{r: fresh, content: xxhash.New()}
	v.seen.points.minLSN = base.MaxLSN
	return v.run(ctx)
}

// verifier is one run of Verify.
type verifier struct {
	r       *Reader
	x       *index
	content *xxhash.Digest

	lastKey []byte
	lastLSN base.LSN
	seen    Properties // what the data says
	shape   bloom
	pages   []byte // the filter that the keys make
}

// sum takes a block's checksum into the content hash.
func (v *verifier) sum(t trailer) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], t.sum)
	_, _ = v.content.Write(b[:]) // a Digest does not fail
}

func (v *verifier) run(ctx context.Context) error {
	r := v.r
	x, indexTrailer, err := r.readIndex()
	if err != nil {
		return err
	}
	v.x = x
	if b, ok := r.filter.(bloom); ok {
		v.shape, v.pages = b, make([]byte, b.pages*b.linesPerPage*lineSize)
	}
	s := getScratch()
	defer s.release()
	for i := range x.blocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := v.data(i, s); err != nil {
			return err
		}
	}
	if err := v.filterPages(s); err != nil {
		return err
	}
	if len(x.blocks) > 0 {
		v.sum(indexTrailer)
	} else {
		v.seen.points = bounds{}
	}
	if err := v.dels(); err != nil {
		return err
	}
	if err := v.props(); err != nil {
		return err
	}
	if v.content.Sum64() != r.foot.contentHash {
		return r.corrupt(r.foot.fileLen-footerSize, "content hash does not match the blocks", nil)
	}
	return nil
}

// data checks data block i.
func (v *verifier) data(i int, s *scratch) error {
	off, n := v.x.block(i)
	payload, t, err := v.r.load(off, n, kindData, s, false)
	if err != nil {
		return err
	}
	v.sum(t)
	v.seen.DataBytes += uint64(len(payload))
	var b blockIter
	if !b.init(payload) {
		return v.r.corruptBlock(off)
	}
	entries := 0
	for ok := b.first(); ok; ok = b.nextEntry() {
		if reason := v.version(i, &b); reason != "" {
			return v.r.corrupt(off, fmt.Sprintf("version %d of the data block %s", entries, reason), nil)
		}
		if t.lone && (b.kind != base.KindPut || i == 0 || b.lsn != t.lsn || !bytes.Equal(b.key, v.x.key(i))) {
			return v.r.corrupt(off, "data block says that it has one version, and that is another", nil)
		}
		entries++
	}
	if b.bad || t.lone && entries != 1 || (entries+restartEvery-1)/restartEvery != b.numRestarts() {
		return v.r.corruptBlock(off)
	}
	return nil
}

// version checks the entry of data block i at which b stands.
func (v *verifier) version(i int, b *blockIter) string {
	if b.kind == base.KindDelete && len(b.value) != 0 {
		return "is a delete with a value"
	}
	p := &v.seen
	newKey := p.Count == 0 || !bytes.Equal(v.lastKey, b.key)
	if p.Count > 0 && base.Compare(v.lastKey, v.lastLSN, b.key, b.lsn) >= 0 {
		return "is out of order"
	}
	if i > 0 && base.Compare(v.x.key(i), v.x.blocks[i].lsn, b.key, b.lsn) > 0 {
		return "is before the block's separator"
	}
	if i+1 < len(v.x.blocks) && base.Compare(b.key, b.lsn, v.x.key(i+1), v.x.blocks[i+1].lsn) >= 0 {
		return "is not before the next block's separator"
	}
	if p.Count == 0 {
		p.points.lo = append([]byte(nil), b.key...)
	}
	p.Count++
	if b.kind == base.KindDelete {
		p.Tombstones++
	}
	if newKey {
		p.Keys++
		if v.pages != nil {
			v.shape.set(v.pages, xxhash.Sum64(b.key))
		}
	}
	p.points.minLSN, p.points.maxLSN = min(p.points.minLSN, b.lsn), max(p.points.maxLSN, b.lsn)
	p.KeyBytes += uint64(len(b.key))
	p.ValueBytes += uint64(len(b.value))
	v.lastKey, v.lastLSN = append(v.lastKey[:0], b.key...), b.lsn
	return ""
}

func (v *verifier) filterPages(s *scratch) error {
	n := uint64(v.r.foot.pageLen)
	for at := uint64(0); at < uint64(len(v.pages)); at += n {
		off, whole := v.r.foot.page(at / n)
		page, t, err := v.r.load(off, whole, kindFilter, s, false)
		if err != nil {
			return err
		}
		v.sum(t)
		if !bytes.Equal(page, v.pages[at:at+n]) {
			return v.r.corrupt(off, "filter is not that of the keys", nil)
		}
	}
	return nil
}

// dels checks the range deletes.
func (v *verifier) dels() error {
	if !v.r.HasRangeDeletes() {
		return nil
	}
	dels, t, err := v.r.readDels()
	if err != nil {
		return err
	}
	v.sum(t)
	v.seen.RangeDeletes = uint64(len(dels))
	v.seen.dels = bounds{lo: dels[0].Lo, minLSN: base.MaxLSN}
	for _, d := range dels {
		v.seen.dels.add(d.Hi, d.LSN)
	}
	return nil
}

func (v *verifier) props() error {
	p, t, err := v.r.readProps()
	if err != nil {
		return err
	}
	v.sum(t)
	v.seen.points.hi = v.lastKey
	same := p.points.equal(&v.seen.points) && p.dels.equal(&v.seen.dels) && p.RangeDeletes == v.seen.RangeDeletes &&
		p.Count == v.seen.Count && p.Tombstones == v.seen.Tombstones && p.Keys == v.seen.Keys &&
		p.KeyBytes == v.seen.KeyBytes && p.ValueBytes == v.seen.ValueBytes && p.DataBytes == v.seen.DataBytes
	if !same {
		return v.r.corrupt(v.r.foot.propsOff(), "properties are not those of the content", nil)
	}
	if r := v.r; r.HasRangeDeletes() && r.foot.pointMax != v.seen.points.maxLSN {
		return r.corrupt(r.foot.fileLen-footerSize, "segment footer has another highest LSN than the versions", nil)
	}
	return nil
}
