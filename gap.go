package forebay

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
)

// gap remembers a stretch of stored keys in which nothing is left, so that who
// looks for the first key of a queue does not pass, each time, over all that was
// taken from it since the last compaction.
//
// A scan that has to pass many versions before its first key tells where it began
// and what it found. From then on the applier watches what is put. The next such
// scan, if it reads at an LSN from which on all puts were watched, makes the
// stretch valid: there was nothing in [lo, hi) at its LSN, and a put behind that
// which lies in it makes it end there. Deletes cannot harm it. Later scans begin
// at hi, and move it on as they find more gone.
type gap struct {
	on atomic.Bool // something is watched

	mu     sync.Mutex // guards all below; it is a leaf
	lo     []byte
	hi     []byte   // valid: nothing is in [lo, hi) for readers at or above lsn
	lsn    base.LSN // 0: not valid
	armed  base.LSN // all puts above this LSN are watched …
	least  []byte   // … and this is the lowest key from hi on; nil: none
	unused int      // puts since the last scan
}

// gapVersions is how many versions a scan passes before it tells.
const gapVersions = 256

// gapUnused is after how many puts, with no scan, the watch ends.
const gapUnused = 1 << 16

// from returns where a reader at lsn finds the first key at or behind key, at the
// earliest: key itself when nothing is known.
func (g *gap) from(key []byte, lsn base.LSN) []byte {
	if !g.on.Load() {
		return key
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unused = 0
	if g.lsn == 0 || lsn < g.lsn || bytes.Compare(key, g.lo) < 0 || bytes.Compare(key, g.hi) >= 0 {
		return key
	}
	return bytes.Clone(g.hi)
}

// note says that a reader at lsn found nothing in [lo, hi). last is asked, with
// the lock held, for the last LSN that was assigned.
func (g *gap) note(lo, hi []byte, lsn base.LSN, last func() base.LSN) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unused = 0
	same := g.on.Load() && (bytes.Equal(lo, g.lo) || g.lsn != 0 && bytes.Compare(g.lo, lo) <= 0 && bytes.Compare(lo, g.hi) <= 0)
	switch {
	case !same:
		g.lo, g.hi, g.lsn = bytes.Clone(lo), bytes.Clone(lo), 0
	case g.armed == base.MaxLSN: // watch anew
	case lsn < g.armed:
		return // it may not have seen what was put before the watch began
	default:
		if g.least != nil && bytes.Compare(g.least, hi) < 0 {
			hi = g.least
		}
		if bytes.Compare(hi, g.hi) > 0 {
			g.hi, g.lsn = append(g.hi[:0], hi...), lsn
		}
	}
	// In this order: who is assigned an LSN behind the answer is applied later than
	// that, and sees that he is watched.
	g.on.Store(true)
	g.armed, g.least = last(), nil
}

// put is called by the applier before a put can be seen.
func (g *gap) put(key []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unused++; g.unused > gapUnused {
		g.on.Store(false)
		return
	}
	switch {
	case bytes.Compare(key, g.lo) < 0:
	case bytes.Compare(key, g.hi) < 0:
		g.hi = append(g.hi[:0], key...)
		g.armed = base.MaxLSN // what was watched is behind the old end
	case g.least == nil || bytes.Compare(key, g.least) < 0:
		g.least = append(g.least[:0:0], key...)
	}
}
