// Package memtable is the ordered table of versions in memory: where a commit
// is found between the log and the segments.
//
// A Table is filled by one goroutine, the commit leader, and read by any
// number at once without a lock. It keeps every version, in the order of
// base.Compare; a reader asks for what is at or below its LSN. Nothing is ever
// removed: a table is frozen, settled into a segment and dropped as a whole.
//
// The versions lie in an arena of byte chunks and the index in slices of
// numbers, so that however many entries there are the garbage collector has a
// few dozen objects to look at. A new table allocates nothing, and its chunks
// double from 4 KiB: a store that is opened and closed pays for what it wrote.
package memtable

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/publish"
)

var (
	// ErrDuplicate says that the key already has a version with this LSN.
	// Batches are collapsed when they are encoded, so that it is seen only
	// in a log record that no Forebay wrote.
	ErrDuplicate = errors.New("memtable: key twice at one LSN")
	// ErrInvalid says that a key, a value or a kind is not one that a batch
	// may hold.
	ErrInvalid = errors.New("memtable: invalid entry")
)

// Table is an ordered table of versions, and beside them of range deletes. One
// goroutine at a time calls Add and AddRangeDelete; all other methods may be
// called by any number of goroutines at the same time, and see at least what
// was added by calls that returned before theirs.
type Table struct {
	arena  arena
	index  index
	ranges ranges

	count  atomic.Int64
	bytes  atomic.Int64
	minLSN atomic.Uint64 // of the versions alone
	maxLSN atomic.Uint64
}

// New returns an empty table. capacity is about how many bytes it is expected
// to hold before it is frozen, 0 if unknown; it bounds how much memory is
// taken at a time, not what the table holds.
func New(capacity int) *Table {
	t := new(Table)
	t.arena.max = chunkMax
	if capacity > 0 {
		t.arena.max = min(max(capacity/16, chunkMin), chunkMax)
		t.arena.blocks = min(capacity/8&^(chunkMax-1), blockMax)
	}
	return t
}

// Add enters one version. It copies key and value. LSNs may come in any order.
// On an error, which is ErrDuplicate, ErrInvalid or ErrFull, the table holds
// what it held before.
func (t *Table) Add(lsn base.LSN, kind base.Kind, key, value []byte) error {
	if err := check(kind, key, value); err != nil {
		return err
	}
	if err := t.index.insert(&t.arena, lsn, kind, key, value); err != nil {
		return err
	}
	n := t.count.Load()
	if n == 0 || lsn < t.minLSN.Load() {
		publish.Uint64(&t.minLSN, lsn)
	}
	if lsn > t.maxLSN.Load() {
		publish.Uint64(&t.maxLSN, lsn)
	}
	publish.Int64(&t.count, n+1)
	t.sum()
	return nil
}

// Ahead says that the next Add will most likely be of key at lsn, so that it finds in
// the processor's cache what it needs. It changes nothing that can be seen. key must
// not change until then. The goroutine that adds calls it.
func (t *Table) Ahead(lsn base.LSN, key []byte) {
	if len(key) > 0 {
		t.index.look(&t.arena, key, lsn)
	}
}

// Near says that versions tend to be entered beside the one before, as of keys in their
// order: then Ahead does nothing. The goroutine that adds calls it.
func (t *Table) Near() bool { return t.index.near }

// check says what of a version no batch may hold.
func check(kind base.Kind, key, value []byte) error {
	switch {
	case len(key) == 0 || len(key) > base.MaxKeySize:
		return fmt.Errorf("%w: key of %d bytes", ErrInvalid, len(key))
	case len(value) > base.MaxValueSize:
		return fmt.Errorf("%w: value of %d bytes", ErrInvalid, len(value))
	case kind != base.KindPut && kind != base.KindDelete:
		return fmt.Errorf("%w: %s", ErrInvalid, kind)
	}
	return nil
}

func (t *Table) sum() {
	if size := int64(t.arena.size + t.index.size() + t.ranges.size()); size != t.bytes.Load() {
		publish.Int64(&t.bytes, size)
	}
}

// Get returns the newest version of key with an LSN at or below lsn; ok says
// whether there is one. It does not ask whether a range delete hides it: see
// Cover. A delete is a version: its value is empty and its kind
// base.KindDelete. The value is the table's own memory: it never changes, lives
// as long as the table does (see NewShared), and must not be changed. Get allocates
// nothing.
func (t *Table) Get(key []byte, lsn base.LSN) (value []byte, kind base.Kind, entryLSN base.LSN, ok bool) {
	addr := t.index.ceiling(&t.arena, key, lsn)
	if addr == 0 {
		return nil, 0, 0, false
	}
	e := t.arena.at(addr)
	if !bytes.Equal(e.key(), key) {
		return nil, 0, 0, false
	}
	return e.value(), e.kind(), e.lsn(), true
}

// Bytes returns how much memory the table has taken for entries, range deletes
// and the indexes of both.
func (t *Table) Bytes() int64 { return t.bytes.Load() + t.ranges.memory() }

// Len returns the number of versions; range deletes are none.
func (t *Table) Len() int { return int(t.count.Load()) }

// MinLSN returns the lowest LSN of all versions and range deletes, 0 if there
// are none.
func (t *Table) MinLSN() base.LSN {
	points, dels := t.minLSN.Load(), t.ranges.min.Load()
	if t.RangeLen() == 0 || t.Len() > 0 && points < dels {
		return points
	}
	return dels
}

// MaxLSN returns the highest LSN of all versions and range deletes, 0 if there
// are none.
func (t *Table) MaxLSN() base.LSN { return max(t.maxLSN.Load(), t.ranges.max.Load()) }

// PointMaxLSN returns the highest LSN of all versions, 0 if there are none.
func (t *Table) PointMaxLSN() base.LSN { return t.maxLSN.Load() }
