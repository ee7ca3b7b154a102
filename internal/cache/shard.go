package cache

import (
	"sync"
	"sync/atomic"
)

// name is what a block is called.
type name struct{ file, offset uint64 }

// maxUses is where an entry's use counter stops (S3-FIFO: two bits).
const maxUses = 3

// entry is one block in one queue of one shard.
type entry struct {
	name       name
	block      []byte
	prev, next *entry
	uses       atomic.Int32
	main       bool
}

func (e *entry) cost() int64 { return int64(cap(e.block)) + entryOverhead }

// queue is a list of entries, oldest at the front, with its cost in bytes.
type queue struct {
	front, back *entry
	bytes       int64
}

func (q *queue) push(e *entry) {
	e.prev, e.next = q.back, nil
	if q.back != nil {
		q.back.next = e
	} else {
		q.front = e
	}
	q.back = e
	q.bytes += e.cost()
}

func (q *queue) remove(e *entry) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		q.front = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		q.back = e.prev
	}
	e.prev, e.next = nil, nil
	q.bytes -= e.cost()
}

// shard is one part of the cache.
type shard struct {
	hits, misses atomic.Uint64

	// mu guards what stands below, but for the entries' use counters.
	mu     sync.RWMutex
	budget int64
	blocks map[name]*entry
	small  queue // seen once
	main   queue // seen again
	ghosts ghosts
}

func (s *shard) get(n name) []byte {
	s.mu.RLock()
	e := s.blocks[n]
	s.mu.RUnlock()
	if e == nil {
		s.misses.Add(1)
		return nil
	}
	s.hits.Add(1)
	// A lost count between two readers does no harm.
	if u := e.uses.Load(); u < maxUses {
		e.uses.Store(u + 1)
	}
	return e.block
}

func (s *shard) put(n name, b []byte) {
	e := &entry{name: n, block: b}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.cost() > s.budget/2 || s.blocks[n] != nil {
		return
	}
	if s.blocks == nil {
		s.blocks = make(map[name]*entry)
	}
	s.blocks[n] = e
	if s.ghosts.take(n) {
		e.main = true
		s.main.push(e)
	} else {
		s.small.push(e)
	}
	s.shrink()
}

// shrink evicts what is above the budget. mu is held.
func (s *shard) shrink() {
	for s.small.bytes+s.main.bytes > s.budget {
		s.evictOne()
	}
}

func (s *shard) resize(budget int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget = budget
	s.shrink()
	if len(s.blocks) == 0 {
		// Maps keep the room that they once needed: a cache that gave all its
		// memory away must not hold on to that.
		s.blocks, s.ghosts = nil, ghosts{}
	}
	s.ghosts.trim(len(s.blocks))
}

// evictOne drops one entry, or moves one towards its end: as counters only
// fall here, calling it again and again frees everything. mu is held.
func (s *shard) evictOne() {
	if e := s.small.front; e != nil && (s.small.bytes > s.budget/10 || s.main.front == nil) {
		s.small.remove(e)
		if e.uses.Load() > 0 {
			e.uses.Store(0)
			e.main = true
			s.main.push(e)
			return
		}
		delete(s.blocks, e.name)
		s.ghosts.add(e.name, len(s.blocks))
		return
	}
	e := s.main.front
	s.main.remove(e)
	if u := e.uses.Load(); u > 0 {
		e.uses.Store(u - 1)
		s.main.push(e)
		return
	}
	delete(s.blocks, e.name)
}

func (s *shard) evictFile(file uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, e := range s.blocks {
		if n.file != file {
			continue
		}
		if e.main {
			s.main.remove(e)
		} else {
			s.small.remove(e)
		}
		delete(s.blocks, n)
	}
}

func (s *shard) addStats(t *Stats) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t.Bytes += s.small.bytes + s.main.bytes
	t.Blocks += len(s.blocks)
	t.Hits += s.hits.Load()
	t.Misses += s.misses.Load()
}

// ghosts remembers the names of blocks that left the small queue unused, as
// many as there are blocks in the shard.
type ghosts struct {
	at    map[name]uint64 // name to its turn
	turns []ghost         // by turn; those taken or renewed since do not match at
	turn  uint64
}

type ghost struct {
	name name
	turn uint64
}

func (g *ghosts) add(n name, limit int) {
	if g.at == nil {
		g.at = make(map[name]uint64)
	}
	g.turn++
	g.at[n] = g.turn
	g.turns = append(g.turns, ghost{n, g.turn})
	g.trim(limit)
}

// trim forgets the oldest names above limit, but for the last one.
func (g *ghosts) trim(limit int) {
	for len(g.turns) > max(limit, 1) {
		old := g.turns[0]
		g.turns = g.turns[1:]
		if g.at[old.name] == old.turn {
			delete(g.at, old.name)
		}
	}
}

func (g *ghosts) take(n name) bool {
	if _, ok := g.at[n]; !ok {
		return false
	}
	delete(g.at, n)
	return true
}
