package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

const (
	// delsFixed is the length of the range deletes' payload before the first.
	delsFixed = 4
	// minDel is the least one takes: two lengths, a byte of a bound and an LSN.
	minDel = 4
	// minDels is the least length of the block.
	minDels = delsFixed + minDel + trailerSize

	// How a lower bound says that it is one of the bounds before it; a length
	// stands above these.
	sameLo = 0
	sameHi = 1
	ownLo  = 2
)

// delsBuilder encodes the range deletes; see the package comment.
type delsBuilder struct {
	buf    []byte
	n      uint32
	lo, hi []byte // of the last one
	lsn    base.LSN
	bounds bounds
}

func (d *delsBuilder) add(lo, hi []byte, lsn base.LSN) {
	if d.n == 0 {
		d.buf = append(d.buf, make([]byte, delsFixed)...)
		d.bounds = bounds{lo: bytes.Clone(lo), minLSN: lsn}
	}
	switch {
	case d.n > 0 && bytes.Equal(lo, d.lo):
		d.buf = append(d.buf, sameLo)
	case d.n > 0 && bytes.Equal(lo, d.hi):
		d.buf = append(d.buf, sameHi)
	default:
		d.buf = binary.AppendUvarint(d.buf, uint64(len(lo))+ownLo)
		d.buf = append(d.buf, lo...)
	}
	d.buf = binary.AppendUvarint(d.buf, uint64(len(hi)))
	d.buf = append(d.buf, hi...)
	d.buf = binary.AppendUvarint(d.buf, lsn)
	d.n++
	d.lo, d.hi, d.lsn = append(d.lo[:0], lo...), append(d.hi[:0], hi...), lsn
	d.bounds.add(hi, lsn)
}

// add takes a range delete that is not the first into its bounds.
func (b *bounds) add(hi []byte, lsn base.LSN) {
	b.minLSN, b.maxLSN = min(b.minLSN, lsn), max(b.maxLSN, lsn)
	if bytes.Compare(hi, b.hi) > 0 {
		b.hi = append(b.hi[:0:0], hi...)
	}
}

func (d *delsBuilder) finish() []byte {
	binary.LittleEndian.PutUint32(d.buf, d.n)
	return d.buf
}

// AddRangeDelete adds a range delete of the keys in [lo, hi). Range deletes come
// by lo ascending, those of one lo by LSN descending (else ErrOrder), and may
// overlap; in which way they stand before, between or behind the versions does
// not matter. lo may be empty and is below hi, both have at most
// base.MaxKeySize+1 bytes, the LSN is above 0 and below base.MaxLSN (else
// ErrLimit). Both errors leave the writer as it was. The slices are copied.
func (w *Writer) AddRangeDelete(lo, hi []byte, lsn base.LSN) error {
	if w.err != nil {
		return w.err
	}
	d := &w.dels
	switch {
	case bytes.Compare(lo, hi) >= 0:
		return fmt.Errorf("%w: range from %q to %q", ErrLimit, brief(lo), brief(hi))
	case len(lo) > maxBound || len(hi) > maxBound:
		return fmt.Errorf("%w: range with bounds of %d and %d bytes", ErrLimit, len(lo), len(hi))
	case lsn == 0 || lsn == base.MaxLSN:
		return fmt.Errorf("%w: range delete at LSN %d", ErrLimit, lsn)
	case len(d.buf)+len(lo)+len(hi)+delsFixed+32 > maxDels:
		return fmt.Errorf("%w: segment has too many range deletes", ErrLimit)
	case d.n > 0 && base.Compare(d.lo, d.lsn, lo, lsn) >= 0:
		return fmt.Errorf("%w: range from %q at LSN %d after one from %q at LSN %d", ErrOrder, brief(lo), lsn, brief(d.lo), d.lsn)
	}
	d.add(lo, hi, lsn)
	return nil
}

// AddRangeDeletes adds all range deletes of a set as AddRangeDelete does, in its
// order. After an error some may have been added: those of the writer so far and
// of the set are out of order, or a bound is too long.
func (w *Writer) AddRangeDeletes(s *rangedel.Set) error {
	for _, d := range s.Ranges() {
		if err := w.AddRangeDelete(d.Lo, d.Hi, d.LSN); err != nil {
			return err
		}
	}
	return nil
}

// writeDels writes the block of range deletes, if there are any.
func (w *Writer) writeDels(f *footer) error {
	if w.dels.n == 0 {
		return nil
	}
	b := w.dels.finish()
	if err := w.block(b, kindDels, trailer{comp: NoCompression, rawLen: len(b)}); err != nil {
		return err
	}
	f.required |= featureDels
	f.delsLen = w.end() - f.delsOff()
	f.pointMax = w.props.points.maxLSN
	w.props.RangeDeletes = uint64(w.dels.n)
	w.props.dels = w.dels.bounds
	return nil
}

// decodeDels reads a verified payload and checks each range delete and their
// order. The reason is empty when all is well. The bounds lie in payload.
func decodeDels(payload []byte) (dels []base.RangeDelete, reason string) {
	if len(payload) < delsFixed+minDel {
		return nil, "range deletes are too short"
	}
	n := uint64(binary.LittleEndian.Uint32(payload))
	// It is known to fit before anything is allocated by it.
	if n == 0 || n > uint64(len(payload)-delsFixed)/minDel {
		return nil, "range deletes have an impossible number"
	}
	dels = make([]base.RangeDelete, n)
	r := delsReader{b: payload, p: delsFixed}
	for i := range dels {
		d := &dels[i]
		switch how := r.uvarint(); {
		case how >= ownLo:
			d.Lo = r.bytes(how - ownLo)
		case i == 0:
			return nil, "first range delete has no lower bound"
		case how == sameLo:
			d.Lo = dels[i-1].Lo
		case how == sameHi:
			d.Lo = dels[i-1].Hi
		}
		d.Hi = r.bytes(r.uvarint())
		d.LSN = r.uvarint()
		switch {
		case r.p < 0:
			return nil, "range delete does not fit"
		case d.LSN == 0 || d.LSN == base.MaxLSN || bytes.Compare(d.Lo, d.Hi) >= 0:
			return nil, "range delete is impossible"
		case i > 0 && base.Compare(dels[i-1].Lo, dels[i-1].LSN, d.Lo, d.LSN) >= 0:
			return nil, "range deletes are out of order"
		}
	}
	if r.p != len(payload) {
		return nil, "range deletes do not end where they should"
	}
	return dels, ""
}

// delsReader reads a payload; p is negative once something did not fit.
type delsReader struct {
	b []byte
	p int
}

func (d *delsReader) uvarint() (v uint64) {
	v, d.p = uvarint(d.b, d.p)
	return v
}

// bytes returns the next n bytes, those of a bound.
func (d *delsReader) bytes(n uint64) []byte {
	if d.p < 0 || n > maxBound || n > uint64(len(d.b)-d.p) {
		d.p = -1
		return nil
	}
	k := d.b[d.p : d.p+int(n) : d.p+int(n)]
	d.p += int(n)
	return k
}

// readDels reads and verifies the range deletes, of which there must be some.
func (r *Reader) readDels() ([]base.RangeDelete, trailer, error) {
	off := r.foot.delsOff()
	payload, t, err := r.load(off, r.foot.delsLen, kindDels, nil, true)
	if err != nil {
		return nil, t, err
	}
	dels, reason := decodeDels(payload)
	if reason != "" {
		return nil, t, r.corrupt(off, reason, nil)
	}
	return dels, t, nil
}

// HasRangeDeletes says whether the segment has any. It costs nothing.
func (r *Reader) HasRangeDeletes() bool { return r.foot.delsLen > 0 }

// RangeDeletes returns the range deletes, nil when there are none. They are read
// and verified at the first need and kept; a segment without any costs nothing.
// The set stays good after Close.
func (r *Reader) RangeDeletes() (*rangedel.Set, error) {
	if r.foot.delsLen == 0 {
		return nil, nil
	}
	if s := r.dels.Load(); s != nil {
		return s, nil
	}
	r.loadMu.Lock()
	defer r.loadMu.Unlock()
	if s := r.dels.Load(); s != nil {
		return s, nil
	}
	dels, _, err := r.readDels()
	if err != nil {
		return nil, err
	}
	s := rangedel.New(dels)
	r.dels.Store(s)
	return s, nil
}

// Bounds returns the half-open bounds of all keys and of what the range deletes
// hide, which are those of Meta. They are read from the properties at the first
// need and kept. Nobody may write to them.
func (r *Reader) Bounds() (lo, hi []byte, err error) {
	b := r.bounds.Load()
	if b == nil {
		p, err := r.Props()
		if err != nil {
			return nil, nil, err
		}
		b = &bounds{lo: p.Lo, hi: p.Hi}
		r.bounds.Store(b)
	}
	return b.lo, b.hi, nil
}

// PointMaxLSN returns the highest LSN of the segment's versions, 0 when it has
// none, given the highest LSN of everything (Meta.MaxLSN): a range delete above
// it hides whatever it covers of the segment. It costs nothing.
func (r *Reader) PointMaxLSN(maxLSN base.LSN) base.LSN {
	if r.HasRangeDeletes() {
		return r.foot.pointMax
	}
	return maxLSN
}
