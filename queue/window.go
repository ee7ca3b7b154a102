package queue

import (
	"container/heap"
	"time"
)

// entryState is where in memory an entry is.
type entryState uint8

const (
	blocked entryState = iota // behind another one of its key
	ready                     // to be delivered
	waiting                   // to be ready later
	noting                    // its delivery is being committed
	leased                    // with a receiver
	removed                   // settled, or out of the window: not in memory any more
)

// entry is a message in the window of a group. What is above state never changes.
type entry struct {
	id     ID
	env    envelope
	body   []byte // the envelope; env.payload is a part of it
	size   int64
	time   int64
	order  uint64 // of its coming into the window
	parked bool
	index  int64 // parked: its time in the index of what waits
	broken error // the envelope does not decode

	state    entryState
	delivery uint64
	attempts uint64
	reason   string
	noted    bool      // its next delivery is committed, and nobody has it
	busy     bool      // a commit that settles it or gives it back is under way
	at       time.Time // waiting: until; leased: until
	place    int       // in its heap; -1: in none
	again    bool      // it is parked, by a commit behind one of which memory has not heard
}

// heapOf is a heap of entries.
type heapOf struct {
	less func(a, b *entry) bool
	e    []*entry
}

func (h *heapOf) Len() int           { return len(h.e) }
func (h *heapOf) Less(i, j int) bool { return h.less(h.e[i], h.e[j]) }
func (h *heapOf) Swap(i, j int) {
	h.e[i], h.e[j] = h.e[j], h.e[i]
	h.e[i].place, h.e[j].place = i, j
}
func (h *heapOf) Push(x any) {
	e := x.(*entry)
	e.place = len(h.e)
	h.e = append(h.e, e)
}
func (h *heapOf) Pop() any {
	n := len(h.e) - 1
	e := h.e[n]
	h.e[n], h.e = nil, h.e[:n]
	e.place = -1
	return e
}

func (h *heapOf) add(e *entry) { heap.Push(h, e) }

// first returns the least entry, nil if there is none.
func (h *heapOf) first() *entry {
	if len(h.e) == 0 {
		return nil
	}
	return h.e[0]
}

func (h *heapOf) remove(e *entry) {
	if e.place >= 0 {
		heap.Remove(h, e.place)
	}
}

func byOrder(a, b *entry) bool { return a.order < b.order }
func byTime(a, b *entry) bool  { return a.at.Before(b.at) }

// line is the entries of one key: who may be delivered, and who waits for him, in order.
type line struct {
	owner *entry
	rest  []*entry
}

// window is what a group has in memory. core.mu guards it.
type window struct {
	entries map[ID]*entry
	ready   [MaxPriorities]heapOf // by order of coming
	waiting heapOf                // by time
	leases  heapOf                // by time
	lines   map[string]*line
	order   uint64
	flight  int64 // leased
}

func (w *window) init() {
	w.entries, w.lines = map[ID]*entry{}, map[string]*line{}
	for i := range w.ready {
		w.ready[i].less = byOrder
	}
	w.waiting.less, w.leases.less = byTime, byTime
}

// insert takes an entry into the window, which may be delivered from e.at on.
func (w *window) insert(e *entry, now time.Time) {
	w.order++
	e.order, e.place = w.order, -1
	w.entries[e.id] = e
	if e.env.key != "" {
		l := w.lines[e.env.key]
		if l != nil {
			e.state = blocked
			l.rest = append(l.rest, e)
			return
		}
		w.lines[e.env.key] = &line{owner: e}
	}
	w.put(e, now)
}

// put makes an entry that is in no heap ready, now or later.
func (w *window) put(e *entry, now time.Time) {
	if e.at.After(now) {
		e.state = waiting
		w.waiting.add(e)
		return
	}
	e.state = ready
	w.ready[e.env.priority].add(e)
}

// wake makes ready what has waited.
func (w *window) wake(now time.Time) {
	for e := w.waiting.first(); e != nil && !e.at.After(now); e = w.waiting.first() {
		w.waiting.remove(e)
		w.put(e, now)
	}
}

// next takes out the entry to be delivered next, nil if none is ready.
func (w *window) next() *entry {
	for p := len(w.ready) - 1; p >= 0; p-- {
		if e := w.ready[p].first(); e != nil {
			w.ready[p].remove(e)
			e.state = noting
			return e
		}
	}
	return nil
}

// take takes an entry out of the heap in which it is.
func (w *window) take(e *entry) {
	switch e.state {
	case ready:
		w.ready[e.env.priority].remove(e)
	case waiting:
		w.waiting.remove(e)
	case leased:
		w.leases.remove(e)
		w.flight--
	}
}

// remove takes an entry out of the window, and lets the next one of its key on.
func (w *window) remove(e *entry, now time.Time) {
	w.take(e)
	e.state = removed
	delete(w.entries, e.id)
	l := w.lines[e.env.key]
	if e.env.key == "" || l == nil || l.owner != e {
		return
	}
	if len(l.rest) == 0 {
		delete(w.lines, e.env.key)
		return
	}
	l.owner = l.rest[0]
	l.rest[0] = nil
	l.rest = l.rest[1:]
	w.put(l.owner, now)
}
