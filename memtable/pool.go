package memtable

import (
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
}

// NewPool returns a pool that keeps at most so many bytes, nil if that is less than one
// piece; it is shut.
func NewPool(bytes int64) *Pool {
	if bytes < pieceMax || huge.Checked {
		return nil
	}
	return &Pool{max: int(bytes / pieceMax)}
}

// Open has the pool keep what comes from now on.
func (p *Pool) Open() {
	if p != nil {
		p.mu.Lock()
		p.open = true
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

// take returns a piece, whatever is in it; no bytes if there is none.
func (p *Pool) take() (m huge.Memory) {
	if p == nil {
		return m
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.kept); n > 0 {
		m, p.kept = p.kept[n-1], p.kept[:n-1]
	}
	return m
}

// put keeps a piece, or gives it back.
func (p *Pool) put(m huge.Memory) {
	if p != nil && len(m.Bytes()) == pieceMax {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.open && len(p.kept) < p.max {
			p.kept = append(p.kept, m)
			return
		}
	}
	m.Free()
}
