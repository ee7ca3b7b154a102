package memtable

import (
	"bytes"
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/huge"
	"github.com/forebaydb/forebay/internal/prefetch"
	"github.com/forebaydb/forebay/internal/radix"
)

// Loader fills a table that nobody reads meanwhile: versions go into the arena as
// they come, and Table sorts them once and makes the index from its leaves up. That
// costs a fraction of finding the place of each. It is used by one goroutine, once.
type Loader struct {
	t *Table
	// blocks hold in the order of Add each version's address, above it its stamp,
	// and eight bytes of its key from same on, which all keys had in common. Those
	// of the first stale versions are from another place: same was larger.
	blocks   [][]radix.Item
	len      int
	first    []byte
	same     int
	stale    int
	min, max base.LSN
}

const (
	// Blocks double, up to 2 MiB.
	loadBlockMin = 64
	loadBlockMax = 128 << 10
	// loadItem is what a version takes beside its entry at most: an item in a block
	// and twice the same while they are sorted; less when it is in the index.
	loadItem = 48
	// loadFill is how many places of a node are filled: some inserts find one free
	// before it must be split.
	loadFill = 12
	// loadAhead is how many leaves ahead the first loadEntry bytes of entries are asked
	// for: their keys are in any order in memory.
	loadAhead = 2
	loadEntry = prefetch.Line + 1 // wherever it begins these are two lines
	// loadTwo is how many nodes are worth a second goroutine.
	loadTwo = 1 << 10
)

// NewLoader returns a loader of an empty table, which is like one of NewShared;
// capacity is as for New.
func NewLoader(capacity int) *Loader { return &Loader{t: NewShared(capacity, nil)} }

// Add enters one version. It copies key and value. LSNs may come in any order. On
// an error, which is ErrInvalid or ErrFull, the loader holds what it held before.
func (l *Loader) Add(lsn base.LSN, kind base.Kind, key, value []byte) error {
	if err := check(kind, key, value); err != nil {
		return err
	}
	x := &l.t.index
	addr, err := l.t.arena.add(lsn, kind, key, value)
	if err != nil {
		return err
	}
	switch {
	case l.len == 0:
		x.base = lsn
		l.first, l.same = bytes.Clone(key), len(key)
		l.min, l.max = lsn, lsn
	case l.same > 0:
		if n := base.CommonPrefix(l.first[:l.same], key); n < l.same {
			l.same, l.stale = n, l.len
		}
	}
	l.min, l.max = min(l.min, lsn), max(l.max, lsn)
	n := len(l.blocks)
	if n == 0 || len(l.blocks[n-1]) == cap(l.blocks[n-1]) {
		size := min(max(l.len, loadBlockMin), loadBlockMax)
		l.blocks = append(l.blocks, huge.Make[radix.Item](size)[:0])
		n++
	}
	b := &l.blocks[n-1]
	*b = append(*b, radix.Item{Head: base.Head(key[l.same:]), At: uint64(x.stamp(lsn))<<32 | uint64(addr)})
	l.len++
	return nil
}

// AddRangeDelete is Table.AddRangeDelete.
func (l *Loader) AddRangeDelete(lsn base.LSN, lo, hi []byte) error {
	return l.t.AddRangeDelete(lsn, lo, hi)
}

// Drop gives the memory back. The loader is not to be used any more.
func (l *Loader) Drop() { l.t.Release() }

// Bytes returns how much memory the loader has taken, and will take to make the
// table.
func (l *Loader) Bytes() int64 {
	return int64(l.t.arena.size+l.t.ranges.size()) + int64(l.len)*loadItem
}

// Table returns the table, which is like any other from then on; the loader is not
// to be used any more. The error is a *DuplicateError.
func (l *Loader) Table() (*Table, error) {
	t := l.t
	if l.len == 0 {
		return t, nil
	}
	items, _ := radix.SortTwo(l.items())
	if err := l.ties(items); err != nil {
		return nil, err
	}
	t.index.build(&t.arena, items, l.same)
	t.minLSN.Store(l.min)
	t.maxLSN.Store(l.max)
	t.count.Store(int64(l.len))
	t.sum()
	return t, nil
}

// items returns the items of all blocks, the last first: where heads are the same,
// the newest version of a key has to come first, and sorting keeps their order.
func (l *Loader) items() (items, spare []radix.Item) {
	items, spare = huge.Make[radix.Item](l.len), huge.Make[radix.Item](l.len)
	n := 0
	for i, b := range l.blocks {
		for _, it := range b {
			if n < l.stale {
				it.Head = base.Head(l.t.arena.at(uint32(it.At)).key()[l.same:])
			}
			n++
			items[l.len-n] = it
		}
		l.blocks[i] = nil
	}
	return items, spare
}

// DuplicateError is ErrDuplicate with the LSN.
type DuplicateError struct{ LSN base.LSN }

// Error implements error.
func (e *DuplicateError) Error() string { return fmt.Sprintf("%v, %d", ErrDuplicate, e.LSN) }

// Unwrap returns ErrDuplicate.
func (e *DuplicateError) Unwrap() error { return ErrDuplicate }

// ties puts items of one head in the order of their keys and LSNs.
func (l *Loader) ties(items []radix.Item) error {
	var dup *DuplicateError
	compare := func(x, y radix.Item) int {
		p, q := l.t.arena.at(uint32(x.At)), l.t.arena.at(uint32(y.At))
		if c := bytes.Compare(p.key(), q.key()); c != 0 {
			return c
		}
		return cmp.Compare(q.lsn(), p.lsn())
	}
	radix.Ties(items, func(same []radix.Item) {
		if !slices.IsSortedFunc(same, compare) {
			slices.SortFunc(same, compare)
		}
		for i := range same[1:] {
			if compare(same[i], same[i+1]) == 0 {
				dup = &DuplicateError{l.t.arena.at(uint32(same[i].At)).lsn()}
			}
		}
	})
	if dup != nil {
		return dup
	}
	return nil
}

// built is a node of a level that build has made.
type built struct {
	ref  uint32
	max  uint32
	from radix.Item // its first version
}

// build makes the tree of sorted items, whose keys have their first same bytes in
// common. The tree is empty, and nobody reads it.
func (x *index) build(a *arena, items []radix.Item, same int) {
	n := len(items)
	level := make([]built, (n+loadFill-1)/loadFill)
	x.leaves.reserve(&a.memory, len(level))
	for i := range level {
		level[i].ref, _ = x.leaves.add(&a.memory)
	}
	// from is where the share of node i of some of n elements begins.
	from := func(i, of, n int) int { return int(uint64(i) * uint64(n) / uint64(of)) }
	two(len(level), func(i int) {
		it := items[from(i, len(level), n):from(i+1, len(level), n)]
		if next := i + loadAhead; next < len(level) {
			for _, e := range items[from(next, len(level), n):from(next+1, len(level), n)] {
				b := a.at(uint32(e.At))
				prefetch.Bytes(b[:min(len(b), loadEntry)])
			}
		}
		b := &level[i]
		b.from = it[0]
		l := x.leaves.at(b.ref)
		var hi *radix.Item
		if i < len(level)-1 {
			hi = &items[from(i+1, len(level), n)]
			l.next.Store(level[i+1].ref)
		}
		var lo *radix.Item
		if i > 0 {
			lo = &it[0]
			l.prev.Store(level[i-1].ref)
		}
		for _, e := range it {
			b.max = max(b.max, uint32(e.At>>32))
		}
		l.max.Store(b.max)
		l.load(a, it, loadSkip(a, lo, hi, same), same)
	})
	height := 1
	for ; len(level) > 1; height++ {
		below := level
		n := len(below)
		// A node has one child more than separators.
		level = make([]built, (n+loadFill)/(loadFill+1))
		for i := range level {
			kids := below[from(i, len(level), n):from(i+1, len(level), n)]
			ref, in := x.inners.add(&a.memory)
			level[i] = built{ref: ref, from: kids[0].from}
			in.first.Store(kids[0].ref)
			var seps [fan]radix.Item
			for j, k := range kids {
				level[i].max = max(level[i].max, k.max)
				if j > 0 {
					seps[j-1] = k.from
					in.kids[j-1].Store(k.ref)
				}
			}
			in.max.Store(level[i].max)
			var lo, hi *radix.Item
			if i > 0 {
				lo = &kids[0].from
			}
			if i < len(level)-1 {
				hi = &below[from(i+1, len(level), n)].from
			}
			skip := loadSkip(a, lo, hi, same)
			if (lo == nil || hi == nil) && same >= skipStep {
				skip, in.edge = uint32(same), uint32(items[0].At)
			}
			in.load(a, seps[:len(kids)-1], skip, same)
		}
	}
	x.root.Store(uint64(height)<<32 | uint64(level[0].ref))
}

// two calls fn for 0 to before n, if these are many in two goroutines.
func two(n int, fn func(i int)) {
	mid := 0
	var wg sync.WaitGroup
	if n >= loadTwo {
		mid = n / 2
		wg.Go(func() {
			for i := range mid {
				fn(i)
			}
		})
	}
	for i := mid; i < n; i++ {
		fn(i)
	}
	wg.Wait()
}

// load fills a new node. The items have heads behind same.
func (k *keys) load(a *arena, items []radix.Item, skip uint32, same int) {
	k.skip = skip
	order := uint64(len(items))
	for i, it := range items {
		head, addr := it.Head, uint32(it.At)
		if k.skip != uint32(same) {
			head = headOf(a.at(addr).key(), k.skip)
		}
		k.heads[i], k.addrs[i] = head, addr
		order |= uint64(i) << (4 + 4*i)
	}
	k.order.Store(order)
}

// loadSkip returns the skip of a node, which is bounded by lo and hi, nil for none. All
// keys of the table have their first same bytes in common; a node whose bounds share
// skipStep more makes use of that.
func loadSkip(a *arena, lo, hi *radix.Item, same int) uint32 {
	if lo == nil || hi == nil {
		return 0
	}
	if bits.LeadingZeros64(lo.Head^hi.Head) < 8*skipStep {
		return uint32(same)
	}
	return a.skipFor(uint32(same), uint32(lo.At), uint32(hi.At))
}
