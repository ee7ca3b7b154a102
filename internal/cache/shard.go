package cache

import (
	"sync"
	"sync/atomic"
)

// name is what a block is called.
type name struct{ file, offset uint64 }

// maxUses is where a block's use counter stops (S3-FIFO: two bits).
const maxUses = 3

// Block is one block, in the cache or not. What is asked for at each hit comes first,
// so that it lies in one line of the processor's cache.
type Block[T any] struct {
	// pins counts who holds the block; and out is set while no slot has it, for ever
	// once it was evicted. Its memory is given back when it is out and nobody holds it.
	pins    atomic.Int32
	uses    atomic.Int32
	claimed atomic.Bool
	home    *shard[T]
	// Data is what was put in. Nobody writes to it.
	Data []byte
	// Side is what the owner has beside it. Nobody writes to it.
	Side T

	extent *extent // where Data is, nil if that is Go's own
	// home.mu guards the rest.
	main       bool
	name       name
	slot       *Slot[T]
	cost       int64
	prev, next *Block[T]
}

const out = 1 << 30

// pin holds the block, if it is not out.
func (b *Block[T]) pin() bool {
	for {
		n := b.pins.Load()
		if n&out != 0 {
			return false
		}
		if b.pins.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release says that who got the block from Slot.Get, or from a call of the cache, does
// not look at it any more. A nil block is none.
func (b *Block[T]) Release() {
	if b != nil && b.pins.Add(-1) == out {
		b.free()
	}
}

// leave marks a block that no slot has any more.
func (b *Block[T]) leave() {
	if b.pins.Add(out) == out {
		b.free()
	}
}

func (b *Block[T]) free() {
	if b.extent != nil {
		b.home.memory.free(b.extent)
	}
}

// used counts a hit. A lost use between two readers does no harm.
func (b *Block[T]) used() {
	b.home.hits.Add(1)
	if u := b.uses.Load(); u < maxUses {
		b.uses.Store(u + 1)
	}
}

// Claim is true for the first caller alone: for who replaces the block, if anybody.
func (b *Block[T]) Claim() bool { return !b.claimed.Load() && b.claimed.CompareAndSwap(false, true) }

// Slot is where the owner of a file finds one of its blocks. The zero value is an
// empty one. It belongs to one name for ever.
type Slot[T any] struct{ p atomic.Pointer[Block[T]] }

// Get returns the block, for the caller to release, or nil when it is not here. It may
// be called at once with everything else, and takes no lock.
func (s *Slot[T]) Get() *Block[T] {
	b := s.p.Load()
	if b == nil || !b.pin() {
		return nil
	}
	b.used()
	return b
}

// Peek is Get that counts no use, and holds nothing: Data may be used for other
// blocks, and is not to be looked at.
func (s *Slot[T]) Peek() *Block[T] { return s.p.Load() }

// queue is a list of blocks, oldest at the front, with its cost in bytes.
type queue[T any] struct {
	front, back *Block[T]
	bytes       int64
}

func (q *queue[T]) push(e *Block[T]) {
	e.prev, e.next = q.back, nil
	if q.back != nil {
		q.back.next = e
	} else {
		q.front = e
	}
	q.back = e
	q.bytes += e.cost
}

// swap puts e where old is.
func (q *queue[T]) swap(old, e *Block[T]) {
	e.prev, e.next = old.prev, old.next
	if e.prev != nil {
		e.prev.next = e
	} else {
		q.front = e
	}
	if e.next != nil {
		e.next.prev = e
	} else {
		q.back = e
	}
	old.prev, old.next = nil, nil
	q.bytes += e.cost - old.cost
}

func (q *queue[T]) remove(e *Block[T]) {
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
	q.bytes -= e.cost
}

// shard is one part of the cache.
type shard[T any] struct {
	hits   atomic.Uint64
	memory *memory
	_      [48]byte // readers of other shards do not wait for this line
	// mu guards what stands below, but for the blocks' use counters. Slots of
	// blocks that belong here are written under it.
	mu     sync.Mutex
	misses uint64
	budget int64
	blocks int
	small  queue[T] // seen once
	main   queue[T] // seen again
	ghosts ghosts
}

// newBlock makes room for the block first, so that what is evicted for it can be its
// memory.
func (s *shard[T]) newBlock(name name, n int) *Block[T] {
	b := &Block[T]{home: s, name: name, cost: int64(n) + blockOverhead}
	b.pins.Store(1 | out)
	if n >= outsideMin {
		b.cost = int64(units(n))*unit + blockOverhead
		if s.makeRoom(b.cost) {
			b.extent = s.memory.alloc(n)
			b.Data = b.extent.bytes()[:n:n]
			return b
		}
	}
	b.Data = make([]byte, n)
	return b
}

// makeRoom says whether a block of that cost may be kept, and evicts what would have
// to go for it.
func (s *shard[T]) makeRoom(cost int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cost > s.budget/2 {
		return false
	}
	// While memory is above its limit more goes, so that what is idle comes to lie
	// together: twice a shard's part of that, but never half of all.
	s.shrink(max(s.budget/2, s.budget-cost-2*s.memory.over.Load()/maxShards))
	return true
}

// put returns the block that is in the slot afterwards, or e when it is not kept.
func (s *shard[T]) put(e *Block[T]) *Block[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.misses++
	if old := e.slot.p.Load(); old != nil && old.pin() {
		e.Release()
		return old
	}
	if e.cost > s.budget/2 {
		return e
	}
	s.blocks++
	e.enter()
	if s.ghosts.take(e.name) {
		e.main = true
		s.main.push(e)
	} else {
		s.small.push(e)
	}
	s.shrink(s.budget)
	return e
}

func (s *shard[T]) hasRoom(cost int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.small.bytes+s.main.bytes+cost <= s.budget
}

// replace returns the block to use: e, or old when e is not kept in its place.
func (s *shard[T]) replace(old, e *Block[T]) *Block[T] {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case old.slot.p.Load() != old: // it was evicted
		old.Release()
		return e
	case e.cost > s.budget/2:
		e.Release()
		return old
	}
	e.uses.Store(old.uses.Load())
	q := &s.small
	if e.main = old.main; e.main {
		q = &s.main
	}
	q.swap(old, e)
	e.enter()
	old.leave()
	old.Release()
	s.shrink(s.budget)
	return e
}

// enter puts the block in its slot. home.mu is held.
func (b *Block[T]) enter() {
	b.pins.Add(-out)
	b.slot.p.Store(b)
}

// shrink evicts what is above a budget. mu is held.
func (s *shard[T]) shrink(budget int64) {
	for s.small.bytes+s.main.bytes > budget {
		s.evictOne()
	}
}

func (s *shard[T]) resize(budget int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.budget = budget
	s.shrink(budget)
	if s.blocks == 0 {
		// Maps keep the room that they once needed: a cache that gave all its
		// memory away must not hold on to that.
		s.ghosts = ghosts{}
	}
	s.ghosts.trim(s.blocks)
}

// forget empties the slot of a block that is in no queue any more. mu is held.
func (s *shard[T]) forget(e *Block[T]) {
	e.slot.p.Store(nil)
	e.leave()
	s.blocks--
}

// evictOne drops one block, or moves one towards its end: as counters only
// fall here, calling it again and again frees everything. mu is held.
func (s *shard[T]) evictOne() {
	if e := s.small.front; e != nil && (s.small.bytes > s.budget/10 || s.main.front == nil) {
		s.small.remove(e)
		if e.uses.Load() > 0 {
			e.uses.Store(0)
			e.main = true
			s.main.push(e)
			return
		}
		s.forget(e)
		s.ghosts.add(e.name, s.blocks)
		return
	}
	e := s.main.front
	s.main.remove(e)
	if u := e.uses.Load(); u > 0 {
		e.uses.Store(u - 1)
		s.main.push(e)
		return
	}
	s.forget(e)
}

func (s *shard[T]) evict(slot *Slot[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := slot.p.Load()
	switch {
	case e == nil:
		return
	case e.main:
		s.main.remove(e)
	default:
		s.small.remove(e)
	}
	s.forget(e)
}

func (s *shard[T]) addStats(t *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Bytes += s.small.bytes + s.main.bytes
	t.Blocks += s.blocks
	t.Hits += s.hits.Load()
	t.Misses += s.misses
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
