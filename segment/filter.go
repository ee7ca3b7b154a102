package segment

import "math/bits"

// filterKind says which filter a segment has. The numbers are wire format.
type filterKind uint8

const (
	noFilter     filterKind = 0
	blockedBloom filterKind = 1
)

const (
	lineSize    = 64   // bytes: what one lookup touches, one cache line
	maxPage     = 4096 // bytes: what one lookup reads
	bloomProbes = 6
	mixer       = 0x9E3779B97F4A7C15

	defaultBitsPerKey = 10
	maxBitsPerKey     = 64
)

// filter answers from one page whether a key may be in the segment. What it
// answers from has been verified: a filter that lies hides keys.
type filter interface {
	// page says which page has the answer for a key of this hash.
	page(h uint64) uint64
	// mayContain answers from that page.
	mayContain(page []byte, h uint64) bool
}

// checkFilterShape tells what does not hold in the filter's lengths.
func checkFilterShape(kind filterKind, filterLen uint64, pageLen uint32) string {
	switch kind {
	case noFilter:
		if filterLen != 0 || pageLen != 0 {
			return "a filter without a kind"
		}
	case blockedBloom:
		if pageLen == 0 || pageLen > maxPage || pageLen%lineSize != 0 ||
			filterLen == 0 || filterLen%(uint64(pageLen)+trailerSize) != 0 {
			return "lengths of the filter do not fit"
		}
	default:
		return "unknown kind of filter"
	}
	return ""
}

// newFilter returns the filter of a checked footer, nil when it has none.
func newFilter(f *footer) filter {
	if f.filter == noFilter {
		return nil
	}
	return bloom{pages: f.pages(), linesPerPage: uint64(f.pageLen) / lineSize}
}

// bloom is the shape of a blocked Bloom filter; see the package comment.
type bloom struct{ pages, linesPerPage uint64 }

func (b bloom) line(h uint64) uint64 {
	line, _ := bits.Mul64(h, b.pages*b.linesPerPage)
	return line
}

func (b bloom) page(h uint64) uint64 { return b.line(h) / b.linesPerPage }

func (b bloom) mayContain(page []byte, h uint64) bool {
	at := b.line(h) % b.linesPerPage * lineSize
	line := page[at : at+lineSize]
	g := h * mixer >> 10
	for range bloomProbes {
		if line[g&511/8]>>(g&7)&1 == 0 {
			return false
		}
		g >>= 9
	}
	return true
}

// hashes collects those of the keys of a segment, in pieces: one slice that grows with
// a large segment would be copied again and again.
type hashes struct{ pieces [][]uint64 }

// hashPiece is how many hashes lie in a piece.
const hashPiece = 8 << 10

func (h *hashes) add(v uint64) {
	n := len(h.pieces)
	if n == 0 || len(h.pieces[n-1]) == hashPiece {
		var piece []uint64
		if n > 0 { // the first grows: a segment may be small
			piece = make([]uint64, 0, hashPiece)
		}
		h.pieces = append(h.pieces, piece)
		n++
	}
	h.pieces[n-1] = append(h.pieces[n-1], v)
}

func (h *hashes) len() int {
	n := len(h.pieces)
	if n == 0 {
		return 0
	}
	return (n-1)*hashPiece + len(h.pieces[n-1])
}

// buildBloom returns the shape and all pages, one after the other, of a filter
// over the hashes of the keys.
func buildBloom(keys *hashes, bitsPerKey int) (shape bloom, pages []byte) {
	lines := max(1, (uint64(keys.len())*uint64(bitsPerKey)+lineSize*8-1)/(lineSize*8))
	shape = bloom{pages: 1, linesPerPage: lines}
	if lines > maxPage/lineSize {
		shape.linesPerPage = maxPage / lineSize
		shape.pages = (lines + shape.linesPerPage - 1) / shape.linesPerPage
	}
	pages = make([]byte, shape.pages*shape.linesPerPage*lineSize)
	for _, piece := range keys.pieces {
		for _, h := range piece {
			shape.set(pages, h)
		}
	}
	return shape, pages
}

// set enters a key's hash into the pages, which lie one after the other.
func (b bloom) set(pages []byte, h uint64) {
	line := pages[b.line(h)*lineSize:][:lineSize]
	g := h * mixer >> 10
	for range bloomProbes {
		line[g&511/8] |= 1 << (g & 7)
		g >>= 9
	}
}
