package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/radix"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// ErrDuplicate says that a key has two versions of one LSN. Batches are collapsed
// when they are encoded, so that it is seen only in a log record that no Forebay
// wrote.
var ErrDuplicate = errors.New("checkpoint: key twice at one LSN")

// Run is a table for settling alone: it takes versions in the order of their LSNs,
// as the log has them, and is sorted once when it is full. That costs a fraction of
// inserting each in its place, and nobody can read it meanwhile. It is used by one
// goroutine at a time, and again after Reset.
type Run struct {
	size int64
	// arena holds for each version: LSN, 8 bytes; kind << 24 | length of the key,
	// 4; length of the value, 4; key; value.
	arena []byte
	// items are where each version lies in the arena, and eight bytes of its key
	// behind those that all keys have in common.
	items []radix.Item
	dels  []base.RangeDelete
	delsN int    // bytes of dels
	first []byte // the key that came first …
	same  int    // … and how many bytes all keys have in common with it
	set   *rangedel.Set
	spare []radix.Item // memory for sorting
}

const (
	runHead  = 16
	itemSize = 16
)

// NewRun returns an empty run that has room for about size bytes.
func NewRun(size int64) *Run {
	// Of what is not used nothing is more than an address.
	return &Run{size: size, arena: make([]byte, 0, size), items: make([]radix.Item, 0, size/64), spare: make([]radix.Item, 0, size/64)}
}

// Fits says whether a batch of n bytes has room without taking more memory. In an
// empty run every batch has.
func (r *Run) Fits(n int) bool {
	// A batch of n bytes has less than n/3 operations.
	return r.Len() == 0 || r.Bytes()+int64(n)+int64(n/3+1)*(runHead+itemSize) <= r.size
}

// Len returns the number of versions and range deletes.
func (r *Run) Len() int { return len(r.items) + len(r.dels) }

// Bytes returns how much memory versions and range deletes take.
func (r *Run) Bytes() int64 { return int64(len(r.arena) + len(r.items)*itemSize + r.delsN) }

// Reset empties the run and keeps its memory, but for what one large batch took.
func (r *Run) Reset() {
	if int64(cap(r.arena)) > 2*r.size {
		*r = *NewRun(r.size)
	}
	r.arena, r.items = r.arena[:0], r.items[:0]
	r.dels, r.delsN, r.set = nil, 0, nil
}

// Add enters a version, whose LSN is not below that of the one before. It copies
// key and value.
func (r *Run) Add(lsn base.LSN, kind base.Kind, key, value []byte) error {
	at := len(r.arena)
	if at == 0 {
		r.first, r.same = append(r.first[:0], key...), len(key)
	} else if r.same > 0 {
		r.same = base.CommonPrefix(r.first[:r.same], key)
	}
	r.arena = slices.Grow(r.arena, runHead+len(key)+len(value))[:at+runHead+len(key)+len(value)]
	b := r.arena[at:]
	binary.LittleEndian.PutUint64(b, lsn)
	binary.LittleEndian.PutUint32(b[8:], uint32(kind)<<24|uint32(len(key)))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(value)))
	copy(b[runHead:], key)
	copy(b[runHead+len(key):], value)
	r.items = append(r.items, radix.Item{At: uint64(at)})
	return nil
}

// AddRangeDelete enters a range delete of the keys from lo to before hi. It copies
// both.
func (r *Run) AddRangeDelete(lsn base.LSN, lo, hi []byte) error {
	r.dels = append(r.dels, base.RangeDelete{Lo: bytes.Clone(lo), Hi: bytes.Clone(hi), LSN: lsn})
	r.delsN += len(lo) + len(hi) + 64
	return nil
}

func (r *Run) key(i radix.Item) []byte {
	n := binary.LittleEndian.Uint32(r.arena[i.At+8:]) & (1<<24 - 1)
	return r.arena[i.At+runHead:][:n:n]
}

func (r *Run) lsn(i radix.Item) base.LSN { return binary.LittleEndian.Uint64(r.arena[i.At:]) }

// Sort readies a run for being settled. The error is ErrDuplicate.
func (r *Run) Sort() error {
	for i := range r.items {
		it := &r.items[i]
		it.Head = base.Head(r.key(*it)[r.same:])
	}
	r.items, r.spare = radix.Sort(r.items, r.spare)
	dup := r.finish()
	r.set = rangedel.New(r.dels)
	if dup {
		return ErrDuplicate
	}
	return nil
}

// finish sorts items of one head by the rest of their keys. It says whether a key
// is there twice at one LSN.
func (r *Run) finish() (dup bool) {
	radix.Ties(r.items, func(same []radix.Item) {
		slices.SortFunc(same, func(a, b radix.Item) int {
			if c := bytes.Compare(r.key(a)[r.same:], r.key(b)[r.same:]); c != 0 || a.At == b.At {
				return c
			}
			dup = dup || r.lsn(a) == r.lsn(b)
			return cmp.Compare(b.At, a.At) // the later one is the newer
		})
	})
	return dup
}

// RangeDeletes returns all range deletes; the run is sorted.
func (r *Run) RangeDeletes() *rangedel.Set { return r.set }

// NewIter returns an iterator over all versions; the run is sorted.
func (r *Run) NewIter() base.Iterator { return &runIter{r: r, pos: -1} }

type runIter struct {
	r   *Run
	pos int
	// sum is of bytes that are of no use but to have been read; see ahead.
	sum byte
}

func (i *runIter) First() bool { return i.to(0) }
func (i *runIter) Last() bool  { return i.to(len(i.r.items) - 1) }
func (i *runIter) Next() bool  { return i.to(i.pos + 1) }
func (i *runIter) Prev() bool  { return i.to(i.pos - 1) }

const aheadBy = 16

// to stands on an item, or behind the end.
func (i *runIter) to(pos int) bool {
	if pos < 0 {
		pos = len(i.r.items)
	}
	if i.pos = pos; !i.Valid() {
		return false
	}
	if pos%aheadBy == 0 {
		i.ahead()
	}
	return true
}

// ahead reads something of the next few versions, which lie anywhere in memory: so
// the processor waits for them together and not one after the other.
func (i *runIter) ahead() {
	for _, it := range i.r.items[i.pos:min(i.pos+aheadBy, len(i.r.items))] {
		i.sum += i.r.arena[it.At] + i.r.arena[min(it.At+64, uint64(len(i.r.arena)-1))]
	}
}

func (i *runIter) search(key []byte, lsn base.LSN) int {
	return sort.Search(len(i.r.items), func(n int) bool {
		it := i.r.items[n]
		return base.Compare(i.r.key(it), i.r.lsn(it), key, lsn) >= 0
	})
}

func (i *runIter) SeekGE(key []byte, lsn base.LSN) bool { return i.to(i.search(key, lsn)) }
func (i *runIter) SeekLT(key []byte, lsn base.LSN) bool { return i.to(i.search(key, lsn) - 1) }
func (i *runIter) Valid() bool                          { return i.pos >= 0 && i.pos < len(i.r.items) }
func (i *runIter) Key() []byte                          { return i.r.key(i.r.items[i.pos]) }
func (i *runIter) LSN() base.LSN                        { return i.r.lsn(i.r.items[i.pos]) }

func (i *runIter) Kind() base.Kind {
	return base.Kind(i.r.arena[i.r.items[i.pos].At+11])
}

func (i *runIter) Value() []byte {
	at := i.r.items[i.pos].At
	n := uint64(binary.LittleEndian.Uint32(i.r.arena[at+12:]))
	at += runHead + uint64(binary.LittleEndian.Uint32(i.r.arena[at+8:])&(1<<24-1))
	return i.r.arena[at:][:n:n]
}

func (i *runIter) Err() error   { return nil }
func (i *runIter) Close() error { return nil }
