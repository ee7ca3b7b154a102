package merge

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
)

// Compacted walks forward over the versions that some reader may still see.
// It is used by one goroutine at a time.
type Compacted struct {
	it   base.Iterator
	keep base.LSN
	// floor is the key whose newest version at or below keep was shown, if
	// has; all its further versions are out of sight.
	floor []byte
	has   bool
	valid bool
	err   error
}

// Compact returns an iterator over what readers at or above keepAbove may see
// of it: every version with an LSN above keepAbove, and of each key the newest
// at or below it. Deletes are kept, since older versions of their key may be
// in sources that are not part of it. No reader may be below keepAbove. The
// result owns it: Close closes it.
func Compact(it base.Iterator, keepAbove base.LSN) *Compacted {
	return &Compacted{it: it, keep: keepAbove}
}

// First moves to the first version and says whether there is one. A false
// result of this and of Next is an end or a failure: see Err.
func (c *Compacted) First() bool {
	c.has, c.valid, c.err = false, false, nil
	return c.settle(c.it.First())
}

// Next moves to the next version. It is false if the iterator stood nowhere.
func (c *Compacted) Next() bool {
	if !c.valid {
		return false
	}
	return c.settle(c.it.Next())
}

func (c *Compacted) settle(ok bool) bool {
	for steps := 0; ok; {
		key := c.it.Key()
		if !c.has || !bytes.Equal(key, c.floor) {
			c.has = c.it.LSN() <= c.keep
			if c.has {
				c.floor = append(c.floor[:0], key...)
			}
			c.valid = true
			return true
		}
		if steps++; steps < stepMax {
			ok = c.it.Next()
			continue
		}
		// Many hidden versions: jump to the first key that can follow.
		steps = 0
		c.floor = append(c.floor, 0)
		c.has = false
		ok = c.it.SeekGE(c.floor, base.MaxLSN)
	}
	c.valid = false
	c.err = c.it.Err()
	return false
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
