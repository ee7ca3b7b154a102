package segment

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
)

// lookup is what a point read finds in one data block.
type lookup struct {
	value []byte
	lsn   base.LSN
	kind  base.Kind
	found bool
	past  bool // every version of the block is before the place asked for
}

// get finds the first version at or after (key, lsn), if it is one of key. It
// is seekGE without building a single key: it knows how many bytes the entry
// before shares with key (same), and that the entry before comes first. What the
// next entry shares with the one before then decides most comparisons:
//
//	shared > same  it differs from key where the one before did: still before
//	shared < same  it rose at a byte that the one before had from key: after
//	shared = same  compare the bytes that follow
//
// ok is false when the block does not decode.
//
// Most of its time are cache misses. Of a hit among 1M entries that are all in
// the cache findRestart takes 16 %, the steps to the entry 27 %. A hash index in
// the block that names the restart point saves the first alone, for 1.3 bytes an
// entry (2 % of a segment with S2); one that names the entry cannot, as its key
// is known only from those before it. Twice the restart points are 1.1 % more
// bytes, and reading the interval's cache lines ahead is none; neither was faster
// by more than two runs of the same differ. So there is no such index.
func (b *blockIter) get(key []byte, lsn base.LSN) (l lookup, ok bool) {
	r, ok := b.findRestart(key, lsn)
	if !ok {
		return l, false
	}
	p := b.restart(r)
	if p < 8 {
		return l, false
	}
	data := b.data
	same, keyLen := 0, 0
	for n := 0; p < len(data); n++ {
		var shared, unshared, tag, z uint64
		shared, p = uvarint(data, p)
		unshared, p = uvarint(data, p)
		tag, p = uvarint(data, p)
		z, p = uvarint(data, p)
		if p < 0 || n > restartEvery {
			return l, false
		}
		left := uint64(len(data) - p)
		vlen := tag >> kindBits
		if shared > uint64(keyLen) || unshared > left || vlen > left-unshared || shared+unshared > base.MaxKeySize {
			return l, false
		}
		keyLen = int(shared + unshared)
		mid := p + int(unshared)
		end := mid + int(vlen)
		suffix := data[p:mid]
		p = end
		switch {
		case int(shared) > same:
			continue
		case n == restartEvery:
			same = 0 // the next restart point: its key is whole
		case int(shared) < same:
			return l, true
		}
		rest := key[same:]
		if c := bytes.Compare(suffix, rest); c > 0 {
			return l, true
		} else if c < 0 {
			same += commonPrefix(suffix, rest)
			continue
		}
		same = len(key)
		if at := b.base + unzigzag(z); at <= lsn {
			l = lookup{value: data[mid:end:end], lsn: at, kind: base.Kind(tag & (1<<kindBits - 1)), found: true}
			return l, l.kind == base.KindPut || l.kind == base.KindDelete
		}
	}
	l.past = true
	return l, true
}
