package serial

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/forebaydb/forebay"
)

// names of the keys, ascending.
var names = [maxKeys + 1]string{"a", "a\x00", "aa", "ab", "b", "b\xff", "c", "cc", "d"}

func keyOf(name []byte) int {
	for i, n := range names {
		if n == string(name) {
			return i
		}
	}
	return maxKeys // a violation in any case
}

// errGiveUp is what a transaction's function returns when it is to fail.
var errGiveUp = errors.New("serial: give up")

// reader and writer are what the parts of the store have in common.
type (
	reader interface {
		Get(key []byte) ([]byte, error)
		NewIterator(opts *forebay.IterOptions) *forebay.Iterator
	}
	writer interface {
		Put(key, value []byte) error
		Delete(key []byte) error
		DeleteRange(lo, hi []byte) error
	}
)

// client is one goroutine of a history.
type client struct {
	*run
	id  int
	rng *rand.Rand
	op  *op // under way
}

func (c *client) begin(name string) time.Duration {
	c.op = &op{name: name}
	return time.Since(c.start)
}

func (c *client) step(s step) { c.op.steps = append(c.op.steps, s) }

func (c *client) level() forebay.Level {
	if c.shape.Mixed {
		return forebay.Level(c.rng.IntN(3))
	}
	return c.shape.Level
}

// operation does something and puts it into the history.
func (c *client) operation() {
	if c.shape.Hostile {
		if c.calm() {
			c.update()
		} else {
			c.plain()
		}
		return
	}
	switch k := c.rng.IntN(20); {
	case k < 11:
		c.update()
	case k < 13:
		c.view()
	case k < 15:
		c.single()
	case k < 17:
		c.batch()
	default:
		c.plain()
	}
}

// calm says that the client is one of the two who have transactions among writers.
func (c *client) calm() bool { return c.id <= 2 }

// plain is one Put, Delete or DeleteRange of the store.
func (c *client) plain() {
	call := c.begin("plain")
	space := c.rng.IntN(spaces)
	if c.shape.Cut { // so that it is found in the log
		c.done(call, c.putKey(c.space(space), space, c.rng.IntN(c.shape.Keys)))
		return
	}
	c.done(call, c.write(c.space(space), space))
}

func (c *client) space(space int) interface {
	reader
	writer
} {
	if space == 0 {
		return c.db
	}
	return c.other
}

// done ends an operation that must succeed.
func (c *client) done(call time.Duration, err error) {
	if err != nil {
		c.fail(fmt.Errorf("%v: %w", c.op, err))
		return
	}
	c.note(c.id, c.op, call)
}

// batch applies or submits a batch.
func (c *client) batch() {
	call := c.begin("batch")
	b := c.db.NewBatch()
	var err error
	for range 1 + c.rng.IntN(4) {
		if c.rng.IntN(2) == 0 {
			err = errors.Join(err, c.write(b, 0))
		} else {
			err = errors.Join(err, c.write(b.In(c.other), 1))
		}
	}
	if c.shape.Cut {
		err = errors.Join(err, c.putKey(b, 0, 0))
	}
	if err == nil && c.rng.IntN(2) == 0 {
		err = c.db.Apply(b, c.level())
	} else if err == nil {
		var commit *forebay.Commit
		if commit, err = c.db.Submit(b, c.level()); err == nil {
			err = commit.Wait(context.Background())
		}
	}
	c.done(call, err)
}

// single reads from the store once.
func (c *client) single() {
	call := c.begin("read")
	space := c.rng.IntN(spaces)
	var err error
	if c.rng.IntN(2) == 0 {
		err = c.get(c.space(space), space)
	} else {
		err = c.iterate(c.space(space), space)
	}
	c.done(call, err)
}

// view reads from one snapshot.
func (c *client) view() {
	call := c.begin("view")
	c.done(call, c.db.View(func(s *forebay.Snapshot) error {
		other, err := s.Keyspace("other")
		for range 1 + c.rng.IntN(4) {
			if space := c.rng.IntN(spaces); space == 0 {
				err = errors.Join(err, c.read(s, 0))
			} else {
				err = errors.Join(err, c.read(other, 1))
			}
			c.pause(20)
		}
		return err
	}))
}

// all reads everything from one snapshot.
func (c *client) all() {
	call := c.begin("end")
	c.done(call, c.db.View(func(s *forebay.Snapshot) error {
		other, err := s.Keyspace("other")
		for k := range c.shape.Keys {
			err = errors.Join(err, c.getKey(s, 0, k), c.getKey(other, 1, k))
		}
		return err
	}))
}

// pause gives others a chance, now and then.
func (c *client) pause(most int) {
	switch c.rng.IntN(6) {
	case 0:
		time.Sleep(time.Duration(1+c.rng.IntN(most)) * time.Microsecond)
	case 1, 2:
		runtime.Gosched()
	}
}

// plan is what a transaction does, the same in each attempt.
type plan struct {
	seed             uint64
	steps            int
	fails, readsOnly bool
	increments       bool
	pause            int
}

// update runs a transaction.
func (c *client) update() {
	p := plan{seed: c.rng.Uint64(), steps: 1 + c.rng.IntN(5), fails: c.rng.IntN(10) == 0, readsOnly: c.rng.IntN(6) == 0, increments: c.rng.IntN(3) == 0, pause: 30}
	ctx := context.Background()
	if c.shape.Cancel && c.rng.IntN(2) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.rng.IntN(600))*time.Microsecond)
		defer cancel()
	}
	call := c.begin("update")
	attempts, complete := int64(0), false
	err := c.db.UpdateLevel(ctx, c.level(), func(tx *forebay.Tx) error {
		attempts++
		c.op, complete = &op{name: "update", failed: p.fails}, false
		rng := c.rng
		c.rng = rand.New(rand.NewPCG(p.seed, 0))
		defer func() { c.rng = rng }()
		if err := c.transaction(tx, &p); err != nil {
			return err
		}
		if (c.shape.Cancel || c.shape.Cut) && c.op.writes() { // so that it is found in the log
			if err := c.putKey(tx, 0, 0); err != nil {
				return err
			}
		}
		complete = true
		if p.fails {
			return errGiveUp
		}
		return nil
	})
	c.mu.Lock()
	c.count.Updates++
	c.count.Attempts += attempts
	if p.fails {
		c.count.Failed++
	}
	if err != nil && ctx.Err() != nil {
		c.count.Cancelled++
	}
	c.mu.Unlock()
	switch {
	case err == nil && !p.fails, p.fails && err == errGiveUp:
		c.note(c.id, c.op, call)
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		if complete && !p.fails && c.op.writes() {
			c.op.maybe = true
			c.note(c.id, c.op, call)
		}
	default:
		c.fail(fmt.Errorf("%v: %w", c.op, err))
	}
}

// transaction is what an update does.
func (c *client) transaction(tx *forebay.Tx, p *plan) error {
	other, err := tx.Keyspace("other")
	if err != nil {
		return err
	}
	rs, ws := [spaces]reader{tx, other}, [spaces]writer{tx, other}
	if c.shape.Hostile {
		for space, r := range rs {
			for key := range c.shape.Keys {
				if err := c.getKey(r, space, key); err != nil {
					return err
				}
			}
		}
		c.await(2)
	}
	for range p.steps {
		space := c.rng.IntN(spaces)
		switch k := c.rng.IntN(10); {
		case p.increments && k < 8 || k < 2: // read, modify, write
			key := c.rng.IntN(c.shape.Keys)
			if err = c.getKey(rs[space], space, key); err == nil && !p.readsOnly {
				c.pause(p.pause)
				err = c.putKey(ws[space], space, key)
			}
		case k == 2: // an iterator stays open meanwhile
			err = c.iterateBeside(rs[space], space, func() error {
				other := c.rng.IntN(spaces)
				if p.readsOnly || c.rng.IntN(2) == 0 {
					return c.get(rs[other], other)
				}
				return c.write(ws[other], other)
			})
		case k < 6 || p.readsOnly:
			err = c.read(rs[space], space)
		default:
			err = c.write(ws[space], space)
		}
		if err != nil {
			return err
		}
		c.pause(p.pause)
	}
	return nil
}

// await waits until others have ended n operations, or stopped.
func (c *client) await(n int64) {
	until := c.ended.Load() + n
	for end := time.Now().Add(2 * time.Millisecond); c.ended.Load() < until && time.Now().Before(end); {
		time.Sleep(20 * time.Microsecond)
	}
}

// write makes one write.
func (c *client) write(w writer, space int) error {
	key := c.rng.IntN(c.shape.Keys)
	switch k := c.rng.IntN(10); {
	case k < 7:
		return c.putKey(w, space, key)
	case k < 9:
		c.step(step{kind: kDelete, space: space, key: key})
		return w.Delete([]byte(names[key]))
	}
	lo, hi, from, to := c.bounds()
	c.step(step{kind: kDelRange, space: space, lo: lo, hi: hi})
	return w.DeleteRange(from, to)
}

// putKey writes a value that nobody else writes, of any length.
func (c *client) putKey(w writer, space, key int) error {
	val := c.next.Add(1)
	c.step(step{kind: kPut, space: space, key: key, val: val})
	room := [300]byte{}
	value := binary.BigEndian.AppendUint32(room[:0], val)
	return w.Put([]byte(names[key]), value[:4+c.rng.IntN(200)])
}

func (c *client) bounds() (lo, hi int, from, to []byte) {
	lo = c.rng.IntN(c.shape.Keys)
	hi = min(c.shape.Keys, lo+1+c.rng.IntN(4))
	from, to = []byte(names[lo]), []byte(names[hi])
	if lo == 0 && c.rng.IntN(2) == 0 {
		from = nil
	}
	if hi == c.shape.Keys && c.rng.IntN(2) == 0 {
		to = nil
	}
	return lo, hi, from, to
}

// read makes one read.
func (c *client) read(r reader, space int) error {
	if c.rng.IntN(2) == 0 {
		return c.get(r, space)
	}
	return c.iterate(r, space)
}

func (c *client) get(r reader, space int) error {
	return c.getKey(r, space, c.rng.IntN(c.shape.Keys))
}

func (c *client) getKey(r reader, space, key int) error {
	value, err := r.Get([]byte(names[key]))
	var val uint32
	switch {
	case err == nil:
		val = binary.BigEndian.Uint32(value)
	case !errors.Is(err, forebay.ErrNotFound):
		return err
	}
	c.step(step{kind: kGet, space: space, key: key, val: val})
	return nil
}

// iterate walks a range in one direction, or hops about in it.
func (c *client) iterate(r reader, space int) error { return c.iterateBeside(r, space, nil) }

// iterateBeside does something else between two moves.
func (c *client) iterateBeside(r reader, space int, beside func() error) error {
	lo, hi, from, to := c.bounds()
	it := r.NewIterator(&forebay.IterOptions{Lower: from, Upper: to})
	defer it.Close()
	c.step(step{kind: kOpen, space: space})
	if beside != nil || c.rng.IntN(3) == 0 {
		return c.hop(it, space, lo, hi, beside)
	}
	s := step{kind: kMove, space: space, lo: lo, hi: hi, limit: maxKeys, reverse: c.rng.IntN(2) == 0}
	if c.rng.IntN(2) == 0 {
		s.limit = 1 + c.rng.IntN(3)
	}
	first, next := it.First, it.Next
	if s.reverse {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok; ok = next() {
		s.found = append(s.found, entry(it))
		if len(s.found) == s.limit {
			break
		}
	}
	c.step(s)
	return it.Err()
}

func entry(it *forebay.Iterator) pair {
	return pair{keyOf(it.Key()), binary.BigEndian.Uint32(bytes.Clone(it.Value()))}
}

// hop moves by single steps.
func (c *client) hop(it *forebay.Iterator, space, lo, hi int, beside func() error) error {
	at := -1 // where it stands
	for range 1 + c.rng.IntN(5) {
		if beside != nil && c.rng.IntN(2) == 0 {
			if err := beside(); err != nil {
				return err
			}
		}
		s := step{kind: kMove, space: space, lo: lo, hi: hi, limit: 1}
		var ok bool
		key := c.rng.IntN(c.shape.Keys)
		switch k := c.rng.IntN(6); {
		case k < 2 && at >= 0:
			s.lo, ok = at+1, it.Next()
		case k < 4 && at >= 0:
			s.hi, s.reverse, ok = at, true, it.Prev()
		case k%2 == 0:
			s.lo = min(max(lo, key), hi)
			ok = it.SeekGE([]byte(names[key]))
		default:
			s.hi, s.reverse = max(min(hi, key), lo), true
			ok = it.SeekLT([]byte(names[key]))
		}
		at = -1
		if ok {
			p := entry(it)
			s.found, at = []pair{p}, p.key
		} else if err := it.Err(); err != nil {
			return err
		}
		c.step(s)
		c.pause(20)
	}
	return nil
}
