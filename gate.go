package forebay

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// gate counts the readers that are inside, without one counter that all fight
// over, so that Close can let the last of them turn off the light.
type gate struct {
	shards [16]struct {
		n atomic.Int64
		_ [56]byte
	}
	closed atomic.Bool
	mu     sync.Mutex // guards last
	last   func()
}

// enter lets a reader in and returns its shard, or false after shut.
func (g *gate) enter() (shard int, ok bool) {
	var here byte
	// Goroutines have stacks of their own: their addresses spread them out.
	shard = int(uintptr(unsafe.Pointer(&here))>>11) & (len(g.shards) - 1)
	g.shards[shard].n.Add(1)
	if g.closed.Load() {
		g.exit(shard)
		return 0, false
	}
	return shard, true
}

func (g *gate) exit(shard int) {
	g.shards[shard].n.Add(-1)
	if g.closed.Load() {
		g.settle()
	}
}

// shut lets nobody in any more and calls last once nobody is inside.
func (g *gate) shut(last func()) {
	g.mu.Lock()
	g.last = last
	g.mu.Unlock()
	g.closed.Store(true)
	g.settle()
}

func (g *gate) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil {
		return
	}
	for i := range g.shards {
		if g.shards[i].n.Load() != 0 {
			return
		}
	}
	g.last()
	g.last = nil
}
