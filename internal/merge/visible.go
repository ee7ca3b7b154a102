package merge

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
)

const (
	// stepMax is how many versions of one key are passed by single steps
	// before a seek jumps over the rest.
	stepMax = 8
	// keepMax is the largest buffer for a value, in bytes, that a backward
	// walk keeps from one key to the next.
	keepMax = 1 << 20
	// restMax is the largest that one keeps that rests.
	restMax = 4 << 10
)

// Visible walks the keys that a reader at one LSN sees, in ascending order of
// key or back: of each key the newest version at or below that LSN, or at or
// above base.OwnLSN, and nothing of a key for which this version is a delete.
// A new Visible stands nowhere. It is used by one goroutine at a time.
type Visible struct {
	it  base.Iterator
	lsn base.LSN
	// from is where, among the versions of a key, those begin that can be
	// seen: lsn, or base.MaxLSN if there may be own ones, which come first.
	from   base.LSN
	lo, hi []byte

	// Walking forward, it stands on the version that is shown. Walking
	// backward, it stands before all versions of the key that is shown
	// (or nowhere, if there are none), and what is shown was copied: that a
	// version is the newest is known only when the walk has passed it.
	reverse bool
	valid   bool
	err     error
	key     []byte // backward: the copies
	value   []byte
	version base.LSN
	passed  []byte // forward: a key whose remaining versions are passed over
	skipped int    // forward: versions that were not shown when it was placed

	runs runs
}

// NewVisible returns an iterator over what a reader at lsn sees of it, within
// keys from lo, inclusive, to hi, exclusive; nil is no bound. In it are no
// versions from base.OwnLSN on, and no range delete counts: where there may be
// some, NewReader is to be used. It owns it: Close closes it. lo and hi are
// kept, not copied, and must not change.
func NewVisible(it base.Iterator, lsn base.LSN, lo, hi []byte) *Visible {
	return newVisible(it, lsn, lo, hi)
}

func newVisible(it base.Iterator, lsn base.LSN, lo, hi []byte) *Visible {
	v := &Visible{it: it, lsn: lsn, from: lsn, lo: lo, hi: hi}
	v.runs.from, _ = it.(base.Runner)
	return v
}

// First moves to the first key and says whether there is one. A false result
// of this and of every other move is an end or a failure: see Err.
func (v *Visible) First() bool {
	if v.lo != nil {
		return v.SeekGE(v.lo)
	}
	v.start(false)
	return v.forward(v.it.First())
}

// Last moves to the last key.
func (v *Visible) Last() bool {
	if v.hi != nil {
		return v.SeekLT(v.hi)
	}
	v.start(true)
	return v.backward(v.it.Last())
}

// SeekGE moves to the first key at or after key. A key before the lower bound
// means that bound.
func (v *Visible) SeekGE(key []byte) bool {
	if v.lo != nil && bytes.Compare(key, v.lo) < 0 {
		key = v.lo
	}
	v.start(false)
	// The versions above v.lsn come first and are not wanted.
	return v.forward(v.it.SeekGE(key, v.from))
}

// SeekLT moves to the last key before key. A key after the upper bound means
// that bound.
func (v *Visible) SeekLT(key []byte) bool {
	if v.hi != nil && bytes.Compare(key, v.hi) > 0 {
		key = v.hi
	}
	v.start(true)
	return v.backward(v.it.SeekLT(key, base.MaxLSN))
}

// Step is Next, or Prev, where that needs no work: it is false if it does.
func (v *Visible) Step(reverse bool) bool { return v.runs.next(reverse) }

// Next moves to the next key. It is false if the iterator stood nowhere.
func (v *Visible) Next() bool {
	switch {
	case v.runs.next(false):
		return true
	case !v.valid:
		return false
	}
	v.leaveRun()
	if !v.reverse && v.takeRun() {
		return true
	}
	v.valid = false
	if v.reverse {
		v.reverse = false
		v.passed = append(v.passed[:0], v.key...)
		return v.forward(v.seekPast())
	}
	v.passed = append(v.passed[:0], v.it.Key()...)
	return v.forward(v.pass())
}

// Prev moves to the key before. It is false if the iterator stood nowhere.
func (v *Visible) Prev() bool {
	switch {
	case v.runs.next(true):
		return true
	case !v.valid:
		return false
	}
	v.leaveRun()
	if v.reverse && v.takeRun() {
		return true
	}
	v.valid = false
	if !v.reverse {
		v.reverse = true
		v.key = append(v.key[:0], v.it.Key()...)
		return v.backward(v.it.SeekLT(v.key, base.MaxLSN))
	}
	return v.backward(v.it.Valid())
}

func (v *Visible) start(reverse bool) {
	v.reverse, v.valid, v.err, v.skipped = reverse, false, nil, 0
	v.runs.start()
}

// Skipped returns how many versions a forward walk passed without showing them
// when it was placed, and as long as it was not moved.
func (v *Visible) Skipped() int { return v.skipped }

// end says that the walk is over, because it ended or because it failed.
func (v *Visible) end() bool {
	v.valid = false
	if err := v.it.Err(); err != nil {
		v.err = err
	}
	return false
}

// hidden says whether a version with that LSN is too new for the reader.
func (v *Visible) hidden(lsn base.LSN) bool { return lsn > v.lsn && lsn < base.OwnLSN }

// forward goes on from where v.it stands, if ok, to the next version to show.
func (v *Visible) forward(ok bool) bool {
	for steps := 0; ok; {
		key := v.it.Key()
		if v.hi != nil && bytes.Compare(key, v.hi) >= 0 {
			v.valid = false
			return false
		}
		switch v.skipped++; {
		case v.hidden(v.it.LSN()):
			if steps++; steps < stepMax {
				ok = v.it.Next()
				continue
			}
			steps = 0
			v.passed = append(v.passed[:0], key...)
			ok = v.it.SeekGE(v.passed, v.lsn)
		case v.it.Kind() == base.KindDelete:
			v.passed = append(v.passed[:0], key...)
			ok = v.pass()
		default:
			v.skipped--
			v.valid = true
			return true
		}
	}
	return v.end()
}

// pass moves v.it, which stands on a version of v.passed, to the next key.
func (v *Visible) pass() bool {
	for range stepMax {
		v.skipped++
		if !v.it.Next() {
			return false
		}
		if !bytes.Equal(v.it.Key(), v.passed) {
			return true
		}
	}
	return v.seekPast()
}

// seekPast places v.it behind all versions of v.passed: the first key that can
// follow it is the same with a zero byte added.
func (v *Visible) seekPast() bool {
	v.passed = append(v.passed, 0)
	return v.it.SeekGE(v.passed, base.MaxLSN)
}

// backward goes on from where v.it stands, if ok, which is the oldest version
// of some key, to the next key to show, and to before its versions.
func (v *Visible) backward(ok bool) bool {
	for ok {
		if v.lo != nil && bytes.Compare(v.it.Key(), v.lo) < 0 {
			v.valid = false
			return false
		}
		v.key = append(v.key[:0], v.it.Key()...)
		var found, failed bool
		found, failed = v.newest()
		if failed {
			return v.end()
		}
		if found {
			v.valid = true
			return true
		}
		ok = v.it.Valid()
	}
	return v.end()
}

// newest walks back over the versions of v.key, from the oldest, on which
// v.it stands, to before the newest. It copies the newest that the reader sees
// and says whether that is there and is a value.
func (v *Visible) newest() (found, failed bool) {
	var kind base.Kind
	for range stepMax {
		if v.hidden(v.it.LSN()) {
			if v.from == v.lsn {
				return v.leave(kind)
			}
			return v.pick()
		}
		kind = v.copy()
		if !v.it.Prev() {
			return kind == base.KindPut, v.it.Err() != nil
		}
		if !bytes.Equal(v.it.Key(), v.key) {
			return kind == base.KindPut, false
		}
	}
	return v.pick()
}

// pick is newest by seeks: there are many versions, or own ones may stand
// before some that are too new.
func (v *Visible) pick() (found, failed bool) {
	ok := v.it.SeekGE(v.key, v.from)
	if ok && v.hidden(v.it.LSN()) && bytes.Equal(v.it.Key(), v.key) {
		ok = v.it.SeekGE(v.key, v.lsn)
	}
	switch {
	case !ok && v.it.Err() != nil:
		return false, true
	case ok && bytes.Equal(v.it.Key(), v.key):
		return v.leave(v.copy())
	}
	// All are too new.
	return v.leave(0)
}

// leave moves v.it before all versions of v.key.
func (v *Visible) leave(kind base.Kind) (found, failed bool) {
	if !v.it.SeekLT(v.key, base.MaxLSN) && v.it.Err() != nil {
		return false, true
	}
	return kind == base.KindPut, false
}

// copy keeps the version on which v.it stands and returns its kind.
func (v *Visible) copy() base.Kind {
	kind := v.it.Kind()
	v.version = v.it.LSN()
	if cap(v.value) > keepMax {
		v.value = nil
	}
	v.value = v.value[:0]
	if kind == base.KindPut {
		v.value = append(v.value, v.it.Value()...)
	}
	return kind
}

// Valid says whether the iterator stands on a key.
func (v *Visible) Valid() bool { return v.valid }

// Key returns the key. Key and Value are valid until the next move and no
// longer than Close, and must not be changed; they are called only while
// Valid.
func (v *Visible) Key() []byte {
	if v.runs.cur != nil {
		return v.runs.cur.Key
	}
	if v.reverse {
		return v.key
	}
	return v.it.Key()
}

// Value returns the value; see Key.
func (v *Visible) Value() []byte {
	if v.runs.cur != nil {
		return v.runs.cur.Value
	}
	if v.reverse {
		return v.value
	}
	return v.it.Value()
}

// LSN returns the LSN of the version that is shown.
func (v *Visible) LSN() base.LSN {
	if v.runs.cur != nil {
		return v.runs.cur.LSN
	}
	if v.reverse {
		return v.version
	}
	return v.it.LSN()
}

// rester is what an iterator may be that can give back what it took to walk, and
// stays ready to be placed.
type rester interface{ Rest() }

// Rest gives back what the walk has taken, and leaves v nowhere. Nothing but Resume
// and Close is called then.
func (v *Visible) Rest() {
	v.valid, v.err = false, nil
	v.runs.rest()
	if cap(v.value) > restMax {
		v.value = nil
	}
	if r, ok := v.it.(rester); ok {
		r.Rest()
	}
}

// Resume begins anew behind Rest: with the same sources, as a reader at lsn within
// other bounds. It is only for one whose sources had no range deletes, and no
// versions from base.OwnLSN on, and have none now.
func (v *Visible) Resume(lsn base.LSN, lo, hi []byte) {
	v.lsn, v.from, v.lo, v.hi = lsn, lsn, lo, hi
	if b, ok := v.it.(bounded); ok {
		b.bound(lo, hi)
	}
}

// bounded is what an iterator may be that need not look at anything outside of
// [lo, hi), and so does not meet what cannot be read there.
type bounded interface{ bound(lo, hi []byte) }

// Err returns the error that ended the walk, nil if it ended at a bound or at
// the last key. A positioning call clears it.
func (v *Visible) Err() error { return v.err }

// Close closes the iterator below and returns its error.
func (v *Visible) Close() error {
	v.valid = false
	v.runs.rest()
	v.runs.from = nil
	return v.it.Close()
}
