package idem

import (
	"errors"
	"math"
	"sync"

	"github.com/forebaydb/forebay"
)

// core is what all handles of a name in one open store share.
type core struct {
	at   where
	refs int // handles, and commits whose fate is not known yet; cores.mu guards it

	loading sync.Mutex // held over the first count; guards loaded
	loaded  bool

	sweeping chan struct{} // has the token of the one sweep

	mu      sync.Mutex // guards the rest
	flights map[string]*flight
	last    int64 // time that was seen, or is a stamp
	stats   Stats
}

type where struct {
	db   *forebay.DB
	name string
}

// cores are those that are in use.
var cores struct {
	mu sync.Mutex // guards of, and the refs of all
	of map[where]*core
}

// flight is a call that runs.
type flight struct {
	print fingerprint
	any   bool          // of Resolve or Forget, which know no fingerprint
	done  chan struct{} // closed when it has ended
}

func takeCore(db *forebay.DB, name string) *core {
	at := where{db, name}
	cores.mu.Lock()
	defer cores.mu.Unlock()
	c := cores.of[at]
	if c == nil {
		c = &core{at: at, flights: map[string]*flight{}, sweeping: make(chan struct{}, 1)}
		if cores.of == nil {
			cores.of = map[where]*core{}
		}
		cores.of[at] = c
	}
	c.refs++
	return c
}

func (c *core) retain() {
	cores.mu.Lock()
	c.refs++
	cores.mu.Unlock()
}

func (c *core) release() {
	cores.mu.Lock()
	defer cores.mu.Unlock()
	if c.refs--; c.refs == 0 {
		delete(cores.of, c.at)
	}
}

// load counts what is stored. No handle commits before it has returned.
func (c *core) load(ks *forebay.Keyspace) error {
	c.loading.Lock()
	defer c.loading.Unlock()
	if c.loaded {
		return nil
	}
	var s Stats
	var last int64
	for _, first := range []byte{resultKeys, markKeys} {
		for e, err := range ks.Prefix([]byte{first}) {
			if err != nil {
				return err
			}
			x, err := decodeIndex(e.Key, e.Value)
			if err != nil { // each sweep tells of it
				continue
			}
			last = max(last, x.stamp)
			if first == resultKeys {
				s.Results++
				s.Bytes += x.bytes
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats, c.last, c.loaded = s, last, true
	return nil
}

// begin enters a call, or returns the one of the same key.
func (c *core) begin(key []byte, mine *flight) (other *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[string(key)]; f != nil {
		return f
	}
	mine.done = make(chan struct{})
	c.flights[string(key)] = mine
	return nil
}

func (c *core) end(key []byte, f *flight) {
	c.mu.Lock()
	delete(c.flights, string(key))
	c.mu.Unlock()
	close(f.done)
}

func (c *core) running(key []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flights[string(key)] != nil
}

// clock makes of a time one that is not before any that it gave.
func (c *core) clock(now int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, now)
	return c.last
}

// stamp is clock for what is stored: each is behind all that were given, also while the
// clock stands still, so that the oldest can be told.
func (c *core) stamp(now int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last < math.MaxInt64 {
		c.last++
	}
	c.last = max(c.last, now)
	return c.last
}

// count has figures changed by when the attempt of tx is committed, and only then. It
// is the last that the attempt does.
func (c *core) count(tx *forebay.Tx, by Stats) {
	if by == (Stats{}) {
		return
	}
	c.retain()
	tx.OnDone(func(o forebay.Outcome) {
		defer c.release()
		if o.Err == nil {
			c.mu.Lock()
			c.stats.add(by)
			c.mu.Unlock()
		}
	})
}

func (c *core) figures() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Running = len(c.flights)
	return s
}

// isLimit says that something is too large to be stored.
func isLimit(err error) bool {
	var limit *forebay.LimitError
	return errors.As(err, &limit)
}
