package merge

import (
	"bytes"
	"errors"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
)

// Concat returns an iterator over n sources that follow each other: source i
// has keys in bounds(i) only, lo inclusive and hi exclusive, and these are
// ascending and disjoint. A source is opened when the walk comes to it and
// closed when it leaves it, so that at most one is open at a time. What closing
// it told is told by Close. The bytes of bounds must not change.
func Concat(n int, bounds func(i int) (lo, hi []byte), open func(i int) base.Iterator) base.Iterator {
	return &concat{n: n, to: n, bounds: bounds, open: open}
}

type concat struct {
	n      int
	bounds func(i int) (lo, hi []byte)
	open   func(i int) base.Iterator

	from, to int // the sources that are looked at

	it    base.Iterator // source at, nil if none is open
	at    int
	valid bool
	err   error
	errs  []error // of Close
}

// enter opens source i, and leaves the one that was open.
func (c *concat) enter(i int) {
	if c.it != nil && c.at == i {
		return
	}
	c.leave()
	c.it, c.at = c.open(i), i
}

func (c *concat) leave() {
	if c.it == nil {
		return
	}
	if err := c.it.Close(); err != nil {
		c.errs = append(c.errs, err)
	}
	c.it = nil
}

func (c *concat) First() bool {
	if c.start(); c.from >= c.to {
		return false
	}
	c.enter(c.from)
	return c.forward(c.it.First())
}

func (c *concat) Last() bool {
	if c.start(); c.from >= c.to {
		return false
	}
	c.enter(c.to - 1)
	return c.backward(c.it.Last())
}

func (c *concat) SeekGE(key []byte, lsn base.LSN) bool {
	c.start()
	i := max(c.from, c.behind(key))
	if i >= c.to {
		return false
	}
	if c.it != nil && c.at != i {
		key = bytes.Clone(key) // It may be the key of the source that is left.
	}
	c.enter(i)
	return c.forward(c.it.SeekGE(key, lsn))
}

// behind returns the first source that has something at or behind key.
func (c *concat) behind(key []byte) int {
	return sort.Search(c.n, func(i int) bool {
		_, hi := c.bounds(i)
		return bytes.Compare(hi, key) > 0
	})
}

func (c *concat) bound(lo, hi []byte) {
	c.from, c.to = 0, c.n
	if lo != nil {
		c.from = c.behind(lo)
	}
	if hi != nil {
		c.to = sort.Search(c.n, func(i int) bool {
			lo, _ := c.bounds(i)
			return bytes.Compare(lo, hi) >= 0
		})
	}
}

func (c *concat) SeekLT(key []byte, lsn base.LSN) bool {
	c.start()
	// The source that has key itself, or else the last before it.
	i := min(c.to, sort.Search(c.n, func(i int) bool {
		lo, _ := c.bounds(i)
		return bytes.Compare(lo, key) > 0
	})) - 1
	if i < c.from {
		return false
	}
	if c.it != nil && c.at != i {
		key = bytes.Clone(key)
	}
	c.enter(i)
	return c.backward(c.it.SeekLT(key, lsn))
}

func (c *concat) Next() bool { return c.forward(c.it.Next()) }
func (c *concat) Prev() bool { return c.backward(c.it.Prev()) }

// Run implements base.Runner, for sources that do. A run ends with its source.
func (c *concat) Run(dst []base.Version, most int, back bool) []base.Version {
	if r, ok := c.it.(base.Runner); ok && c.valid {
		return r.Run(dst, most, back)
	}
	return dst[:0]
}

// Advance implements base.Runner.
func (c *concat) Advance(n int) { c.it.(base.Runner).Advance(n) }

func (c *concat) start() { c.valid, c.err = false, nil }

// forward goes on to the next sources while one has ended; ok is what the move
// of the open one returned.
func (c *concat) forward(ok bool) bool {
	for !ok && c.it.Err() == nil && c.at+1 < c.to {
		c.enter(c.at + 1)
		ok = c.it.First()
	}
	return c.stand(ok)
}

func (c *concat) backward(ok bool) bool {
	for !ok && c.it.Err() == nil && c.at > c.from {
		c.enter(c.at - 1)
		ok = c.it.Last()
	}
	return c.stand(ok)
}

func (c *concat) stand(ok bool) bool {
	if c.valid = ok; !ok {
		c.err = c.it.Err()
	}
	return ok
}

func (c *concat) Valid() bool     { return c.valid }
func (c *concat) Key() []byte     { return c.it.Key() }
func (c *concat) LSN() base.LSN   { return c.it.LSN() }
func (c *concat) Kind() base.Kind { return c.it.Kind() }
func (c *concat) Value() []byte   { return c.it.Value() }
func (c *concat) Err() error      { return c.err }

// Rest leaves it and the open source nowhere, ready to be placed.
func (c *concat) Rest() {
	c.start()
	if r, ok := c.it.(rester); ok {
		r.Rest()
	}
}

// Close closes the source that is open, and returns its error and those of all
// that were closed before.
func (c *concat) Close() error {
	c.leave()
	c.valid = false
	return errors.Join(c.errs...)
}
