package segment

import (
	"bytes"
	"encoding/binary"

	"github.com/forebaydb/forebay/internal/base"
)

const (
	// propsFixed is the length of the properties before the keys, propsDels
	// what range deletes add to it.
	propsFixed = 72
	propsDels  = 32
)

// Properties describes what a segment holds.
type Properties struct {
	// Count is the number of versions, Tombstones how many of them are
	// deletes, Keys how many different keys they have.
	Count, Tombstones, Keys uint64
	// RangeDeletes is the number of range deletes.
	RangeDeletes uint64
	// MinLSN and MaxLSN are the lowest and the highest LSN of a version or a
	// range delete.
	MinLSN, MaxLSN base.LSN
	// KeyBytes and ValueBytes are the sums over all versions, in bytes.
	KeyBytes, ValueBytes uint64
	// DataBytes is the length of all data blocks when decompressed, in bytes.
	DataBytes uint64
	// All keys, and what the range deletes hide, is in [Lo, Hi).
	Lo, Hi []byte
	// Compression is what the writer was asked for; single blocks may have
	// stayed uncompressed.
	Compression Compression

	// What is stored: of versions, where hi is the largest key itself, and of
	// range deletes, where hi is exclusive. A part with nothing is zero.
	points, dels bounds
}

// bounds are those of one part of a segment.
type bounds struct {
	minLSN, maxLSN base.LSN
	lo, hi         []byte
}

func (b *bounds) equal(o *bounds) bool {
	return b.minLSN == o.minLSN && b.maxLSN == o.maxLSN && bytes.Equal(b.lo, o.lo) && bytes.Equal(b.hi, o.hi)
}

// merge makes the bounds of everything from those of the parts.
func (p *Properties) merge() {
	if p.Count > 0 {
		p.MinLSN, p.MaxLSN, p.Lo = p.points.minLSN, p.points.maxLSN, p.points.lo
		p.Hi = append(bytes.Clone(p.points.hi), 0)
	}
	if p.RangeDeletes == 0 {
		return
	}
	d := &p.dels
	if p.Count == 0 {
		p.MinLSN, p.MaxLSN, p.Lo, p.Hi = d.minLSN, d.maxLSN, d.lo, d.hi
		return
	}
	p.MinLSN, p.MaxLSN = min(p.MinLSN, d.minLSN), max(p.MaxLSN, d.maxLSN)
	if bytes.Compare(d.lo, p.Lo) < 0 {
		p.Lo = d.lo
	}
	if bytes.Compare(d.hi, p.Hi) > 0 {
		p.Hi = d.hi
	}
}

func (p *Properties) encode() []byte {
	le := binary.LittleEndian
	keys := [][]byte{p.points.lo, p.points.hi}
	b := make([]byte, 0, propsFixed+propsDels+len(p.points.lo)+len(p.points.hi)+len(p.dels.lo)+len(p.dels.hi)+trailerSize)
	for _, v := range [...]uint64{p.Count, p.Tombstones, p.Keys, p.points.minLSN, p.points.maxLSN, p.KeyBytes, p.ValueBytes, p.DataBytes} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, uint32(len(p.points.lo)))
	b = le.AppendUint32(b, uint32(len(p.points.hi)))
	if p.RangeDeletes > 0 {
		b = le.AppendUint64(b, p.RangeDeletes)
		b = le.AppendUint64(b, p.dels.minLSN)
		b = le.AppendUint64(b, p.dels.maxLSN)
		b = le.AppendUint32(b, uint32(len(p.dels.lo)))
		b = le.AppendUint32(b, uint32(len(p.dels.hi)))
		keys = append(keys, p.dels.lo, p.dels.hi)
	}
	for _, k := range keys {
		b = append(b, k...)
	}
	return b
}

// decodeProps reads a verified payload of a segment with or without versions
// and range deletes; ok is false when it does not hold together. The keys are
// copies.
func decodeProps(b []byte, points, dels bool) (p Properties, ok bool) {
	fixed := propsFixed
	if dels {
		fixed += propsDels
	}
	if len(b) < fixed {
		return p, false
	}
	le := binary.LittleEndian
	for i, v := range [...]*uint64{&p.Count, &p.Tombstones, &p.Keys, &p.points.minLSN, &p.points.maxLSN, &p.KeyBytes, &p.ValueBytes, &p.DataBytes} {
		*v = le.Uint64(b[8*i:])
	}
	keys, ok := bytes.Clone(b[fixed:]), true
	take := func(at int) (k []byte) {
		n := uint64(le.Uint32(b[at:]))
		if n > uint64(len(keys)) {
			ok = false
			return nil
		}
		k, keys = keys[:n:n], keys[n:]
		return k
	}
	p.points.lo, p.points.hi = take(64), take(68)
	if dels {
		p.RangeDeletes, p.dels.minLSN, p.dels.maxLSN = le.Uint64(b[72:]), le.Uint64(b[80:]), le.Uint64(b[88:])
		p.dels.lo, p.dels.hi = take(96), take(100)
	}
	has := func(n uint64, b *bounds) bool { return n > 0 && len(b.hi) > 0 && bytes.Compare(b.lo, b.hi) <= 0 }
	if !ok || len(keys) != 0 || has(p.Count, &p.points) != points || has(p.RangeDeletes, &p.dels) != dels ||
		points && len(p.points.lo) == 0 || !points && (p.Count != 0 || !p.points.equal(&bounds{})) {
		return p, false
	}
	p.merge()
	return p, true
}
