package segment

import "github.com/forebaydb/forebay/internal/base"

// lookup is what a point read finds in one data block.
type lookup struct {
	value []byte
	lsn   base.LSN
	kind  base.Kind
	found bool
	block *cachedBlock // where the value lies, to be released; nil: in its own memory
}

// in says that what was found, if anything was, lies in a cached block.
func (l lookup) in(c *cachedBlock) lookup {
	if l.found {
		l.block = c
	} else {
		c.Release()
	}
	return l
}

func (b *blockIter) lookup(h *entryHead) lookup {
	return lookup{value: b.data[h.val:h.end:h.end], lsn: b.base + unzigzag(h.z), kind: h.kind, found: true}
}

// get finds the first version at or after (key, lsn), if it is one of key. ok is
// false when the block does not decode.
func (b *blockIter) get(key []byte, lsn base.LSN) (l lookup, ok bool) {
	n, h, of, ok := b.search(key, lsn)
	if ok && n >= 0 && of {
		l = b.lookup(&h)
	}
	return l, ok
}
