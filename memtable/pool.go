package memtable

import (
	"math"
	"sync"

	"github.com/forebaydb/forebay/internal/huge"
)

// Pool keeps the memory of tables that are not needed any more for those that come,
// while these come one after the other: memory that goes back to the operating system
// costs a fault for each page when it comes again, and under a hypervisor that is more
// than it costs to fill it. Its methods may be called at once. A nil *Pool keeps
// nothing.
type Pool struct {
	mu   sync.Mutex
	max  int
	kept []huge.Memory // of pieceMax each
	open bool
	// has is how many bytes the tables have that are from here, and bound how many they
	// and what is kept may be together.
	has, bound int64
}

// NewPool returns a pool that keeps at most so many bytes, nil if that is less than one
// piece; it is shut.
func NewPool(bytes int64) *Pool {
	if bytes < pieceMax || huge.Checked {
		return nil
	}
	return &Pool{max: int(bytes / pieceMax), bound: math.MaxInt64}
}

// Open has the pool keep what comes from now on.
func (p *Pool) Open() {
	if p != nil {
		p.mu.Lock()
		p.open = true
		p.mu.Unlock()
	}
}

// Bound has the pool keep nothing from now on that would be above so many bytes together
// with what the tables have: of a table that is let go of late, when the next one is half
// full, less is wanted.
func (p *Pool) Bound(bytes int64) {
	if p != nil {
		p.mu.Lock()
		p.bound = bytes
		p.mu.Unlock()
	}
}

// Shut has the pool keep nothing more, and returns what gives all that it kept to the
// operating system: that takes a while, and nobody need hold a lock meanwhile.
func (p *Pool) Shut() (free func()) {
	if p == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.kept
	p.open, p.kept = false, nil
	return func() {
		for i := range kept {
			kept[i].Free()
		}
	}
}

// Max returns how many bytes an open pool keeps at most.
func (p *Pool) Max() int64 {
	if p == nil {
		return 0
	}
	return int64(p.max) * pieceMax
}

// take returns a piece of n bytes, whatever is in it.
func (p *Pool) take(n int) (m huge.Memory) {
	if p == nil {
		return huge.Map(n)
	}
	p.mu.Lock()
	if i := len(p.kept); i > 0 && n == pieceMax {
		m, p.kept = p.kept[i-1], p.kept[:i-1]
	}
	p.has += int64(n)
	p.mu.Unlock()
	if m.Bytes() == nil {
		m = huge.Map(n)
	}
	return m
}

// put takes a piece back, and keeps it or gives it back.
func (p *Pool) put(m huge.Memory) {
	if p != nil && p.keep(m) {
		return
	}
	m.Free()
}

func (p *Pool) keep(m huge.Memory) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := int64(len(m.Bytes()))
	p.has -= n
	if n != pieceMax || !p.open || len(p.kept) >= p.max || p.has+int64(len(p.kept)+1)*pieceMax > p.bound {
		return false
	}
	p.kept = append(p.kept, m)
	return true
}
