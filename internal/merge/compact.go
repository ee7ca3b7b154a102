package merge

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// Compacted walks forward over the versions that some reader may still see.
// It is used by one goroutine at a time.
type Compacted struct {
	it   base.Iterator
	keep Keep
	// oldest is keep.Oldest.
	oldest base.LSN

	// key is the one at hand, if has, and above the LSN of its version that
	// was passed last, shown or not, if passed: readers at or above it see
	// nothing of what is older.
	key    []byte
	has    bool
	above  base.LSN
	passed bool

	spans []rangedel.Span // those that end behind key
	all   []rangedel.Span
	span  *rangedel.Span // the one with key, nil if none has it

	valid bool
	err   error
}

// Compact returns an iterator over those versions of it that some reader may
// see, where keep says who reads and dels are the range deletes that go with
// it. A version is left out if every reader who could see it sees instead a
// newer version of its key or a range delete that hides it; a delete also if
// every reader sees it and keep.Elide says that it hides nothing outside of
// it. What remains of the range deletes says keep.Dels.
//
// Versions that a range delete hides from all readers are read, and left out
// here; over many of them NewUncovered gets in larger steps.
//
// The result owns it: Close closes it.
func Compact(it base.Iterator, dels *rangedel.Set, keep Keep) *Compacted {
	return &Compacted{it: it, all: dels.Spans(), keep: keep, oldest: keep.Oldest()}
}

// First moves to the first version and says whether there is one. A false
// result of this and of Next is an end or a failure: see Err.
func (c *Compacted) First() bool {
	c.has, c.valid, c.err = false, false, nil
	c.spans = c.all
	return c.settle(c.it.First())
}

// Next moves to the next version. It is false if the iterator stood nowhere.
func (c *Compacted) Next() bool {
	if !c.valid {
		return false
	}
	return c.settle(c.it.Next())
}

// settle goes on from where c.it stands, if ok, to the next version to show.
func (c *Compacted) settle(ok bool) bool {
	for steps := 0; ok; {
		if key := c.it.Key(); !c.has || !bytes.Equal(key, c.key) {
			c.enter(key)
			steps = 0
		}
		if c.wanted() {
			c.valid = true
			return true
		}
		if steps++; steps < stepMax {
			ok = c.it.Next()
			continue
		}
		// Many hidden versions: jump to where the next one is that a reader
		// may see, or to the first key that can follow.
		steps = 0
		if lsn, some := c.keep.below(c.above); some {
			ok = c.it.SeekGE(c.key, lsn)
			continue
		}
		c.key = append(c.key, 0)
		c.has = false
		ok = c.it.SeekGE(c.key, base.MaxLSN)
	}
	c.valid = false
	c.err = c.it.Err()
	return false
}

// enter begins with the versions of another key.
func (c *Compacted) enter(key []byte) {
	c.key = append(c.key[:0], key...)
	c.has, c.passed = true, false
	for len(c.spans) > 0 && bytes.Compare(c.spans[0].Hi, key) <= 0 {
		c.spans = c.spans[1:]
	}
	c.span = nil
	if len(c.spans) > 0 && bytes.Compare(c.spans[0].Lo, key) <= 0 {
		c.span = &c.spans[0]
	}
}

// wanted says whether the version on which c.it stands is to be kept, and
// takes it over as the last that was passed.
func (c *Compacted) wanted() bool {
	lsn := c.it.LSN()
	// Of all that hides the version from newer readers the oldest counts.
	by, hidden := c.above, c.passed
	if c.span != nil {
		if d := c.span.Above(lsn); d > 0 && (!hidden || d < by) {
			by, hidden = d, true
		}
	}
	c.above, c.passed = lsn, true
	if hidden && c.keep.reader(lsn) >= by {
		return false
	}
	if c.it.Kind() != base.KindDelete || lsn > c.oldest || c.keep.Elide == nil {
		return true
	}
	return !c.keep.Elide(c.key)
}

// Valid says whether the iterator stands on a version.
func (c *Compacted) Valid() bool { return c.valid }

// Key returns the key. Key and Value are valid until the next move and no
// longer than Close, and must not be changed; they, LSN and Kind are called
// only while Valid.
func (c *Compacted) Key() []byte { return c.it.Key() }

// LSN returns the LSN of the version.
func (c *Compacted) LSN() base.LSN { return c.it.LSN() }

// Kind returns the kind of the version.
func (c *Compacted) Kind() base.Kind { return c.it.Kind() }

// Value returns the value, empty for a delete; see Key.
func (c *Compacted) Value() []byte { return c.it.Value() }

// Err returns the error that ended the walk, nil if it ended behind the last
// version. First clears it.
func (c *Compacted) Err() error { return c.err }

// Close closes the iterator below and returns its error.
func (c *Compacted) Close() error {
	c.valid = false
	return c.it.Close()
}
