package segment

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// resealFooter makes the checksum of the last bytes of a file right again.
func resealFooter(b []byte) {
	f := b[len(b)-footerSize:]
	id := ID{Number: binary.LittleEndian.Uint64(f[40:])}
	copy(id.Store[:], f[24:])
	sum := xxhash.Sum64(f[:120]) ^ bind(&id, uint64(len(b)-footerSize), kindFooter)
	binary.LittleEndian.PutUint64(f[120:], sum)
}

// resealBlock makes the trailer of the block b[off:off+n] right again: its kind,
// its checksum and, when it is not compressed, its length.
func resealBlock(b []byte, off, n uint64, kind blockKind) {
	if n < trailerSize || off > uint64(len(b)) || n > uint64(len(b))-off {
		return
	}
	k := b[off : off+n]
	t := k[n-trailerSize:]
	t[0] = byte(kind)
	if t[1] == 0 || t[1] > byte(Zstd) || kind != kindData {
		t[1] = byte(NoCompression)
	}
	if t[3] = 0; t[2] != flagLone || kind != kindData || n < trailerSize+loneSize {
		t[2] = 0
	}
	if Compression(t[1]) == NoCompression {
		binary.LittleEndian.PutUint32(t[4:], uint32(n-trailerSize-between(t)))
	}
	sum := xxhash.Sum64(k[:n-8]) ^ bind(&testID, off, kind)
	binary.LittleEndian.PutUint64(t[8:], sum)
}

// reseal does what an adversary would: it keeps the changed content of a file
// and makes all checksums and lengths around it right, as far as that goes.
func reseal(b []byte) {
	if len(b) < footerSize {
		return
	}
	le := binary.LittleEndian
	f := b[len(b)-footerSize:]
	copy(f, magic)
	le.PutUint32(f[8:], formatVersion)
	le.PutUint32(f[20:], footerSize)
	copy(f[24:], testID.Store[:])
	le.PutUint64(f[40:], testID.Number)
	le.PutUint64(f[48:], uint64(len(b)))
	clear(f[102:104])
	defer resealFooter(b)

	data, filter, index, dels := le.Uint64(f[56:]), le.Uint64(f[64:]), le.Uint64(f[72:]), le.Uint64(f[104:])
	required := le.Uint32(f[12:]) & featureLone
	if dels > 0 {
		required |= featureDels
	}
	le.PutUint32(f[12:], required)
	size := uint64(len(b) - footerSize)
	if data > size || filter > size || index > size || dels > size || data+filter+index+dels > size {
		return
	}
	props := size - data - filter - index - dels
	le.PutUint64(f[80:], props)
	resealBlock(b, data+filter, index, kindIndex)
	resealBlock(b, data+filter+index, dels, kindDels)
	resealBlock(b, data+filter+index+dels, props, kindProps)
	if n := uint64(le.Uint32(f[96:])) + trailerSize; n <= maxPage+trailerSize {
		for off := data; off < data+filter; off += n {
			resealBlock(b, off, n, kindFilter)
		}
	}
	if index < trailerSize+4 {
		return
	}
	// The data blocks, as far as the index can be followed.
	x := b[data+filter : data+filter+index-trailerSize]
	p, off := 4, uint64(0)
	for p > 0 && p < len(x) && off < data {
		var n, keyLen uint64
		n, p = uvarint(x, p)
		keyLen, p = uvarint(x, p)
		_, p = uvarint(x, p)
		if p < 0 || n == 0 || n > data || keyLen > uint64(len(x)-p) {
			return
		}
		resealBlock(b, off, n, kindData)
		p += int(keyLen)
		off += n
	}
}
