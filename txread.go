package forebay

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/memtable"
)

// wrote takes what the batch took into the transaction's own table, if there is one.
func (tx *Tx) wrote(kind base.Kind, key, value []byte) error {
	if tx.done {
		return ErrTxDone
	}
	if tx.own == nil {
		return nil
	}
	tx.seq++
	var err error
	if kind == base.KindRangeDelete {
		err = tx.own.AddRangeDelete(tx.seq, key, value)
	} else {
		err = tx.own.Add(tx.seq, kind, key, value)
	}
	if err != nil {
		tx.err = err
	}
	return err
}

// owns makes a table of what was written so far, if anything was: an iterator
// needs it in order, and range deletes among many other writes are looked through
// faster there than in the batch.
func (tx *Tx) owns() error {
	if tx.own != nil || tx.batch.Len() == 0 {
		return nil
	}
	ops, err := batch.Decode(tx.batch.b.Bytes())
	if err != nil {
		return tx.fail(err)
	}
	tx.own = memtable.New(0)
	for ops.Next() {
		if err := tx.wrote(ops.Kind(), ops.Key(), ops.Value()); err != nil {
			return err
		}
	}
	return nil
}

// mine returns what the transaction itself has done to a key.
func (tx *Tx) mine(key []byte) (value []byte, found, done bool, err error) {
	if tx.own == nil && tx.batch.b.Ranges() {
		if err := tx.owns(); err != nil {
			return nil, false, false, err
		}
	}
	if tx.own != nil {
		value, _, found, done = fromMemory(tx.own, key, base.MaxLSN)
		return value, found, done, nil
	}
	value, kind, done := tx.batch.b.Get(key)
	return bytes.Clone(value), kind == base.KindPut, done, nil // a later write may move it
}

// ready is asked before a read.
func (tx *Tx) ready() error {
	if tx.done {
		return ErrTxDone
	}
	return tx.err
}

// Fail has this attempt of the transaction come to nothing, whatever its function
// returns: reads fail from then on, nothing is written, and Update returns the error of
// the first Fail, which Fail returns, too. It is for code that works in a transaction of
// somebody else's and can neither finish nor undo what it began. A nil err does nothing,
// and forebay.ErrConflict has the function called again.
func (tx *Tx) Fail(err error) error {
	if err == nil {
		return nil
	}
	return tx.fail(err)
}

// fail makes the attempt come to nothing.
func (tx *Tx) fail(err error) error {
	if tx.err == nil {
		tx.err = err
	}
	return tx.err
}

// get is source.get.
func (tx *Tx) get(key []byte) (held, bool, error) {
	if err := tx.ready(); err != nil {
		return held{}, false, err
	}
	if value, found, done, err := tx.mine(key); done || err != nil {
		return held{b: value}, found, err
	}
	db := tx.db
	if err := tx.mayTurn(key); err != nil {
		return held{}, false, tx.fail(err)
	}
	if tx.hold != nil {
		if value, kind, from, ok := tx.hold.Get(key); ok {
			tx.reads.KeyFrom(key, from)
			tx.ahead = true
			return held{b: value}, kind == base.KindPut, nil
		}
	}
	tx.reads.Key(key)
	v, shard, err := db.enter()
	if err != nil {
		return held{}, false, tx.fail(err)
	}
	value, found, err := v.get(key, tx.at)
	if !found {
		v.gate.exit(shard)
		if err != nil {
			return held{}, false, tx.fail(db.seen(err))
		}
		return held{}, false, nil
	}
	value.v, value.shard = v, shard
	return value, true, nil
}

// mayTurn takes a turn from the start when many want the key that is the first to be
// read, but for names of keyspaces: these it reads again. A cursor would go on at
// the LSN of before.
func (tx *Tx) mayTurn(key []byte) error {
	if tx.hold != nil || tx.mode != optimistic || tx.reads.Len() != tx.names || len(tx.cursors) > 0 || !tx.db.pipe.Hot(key) {
		return nil
	}
	if err := tx.enterLane(tx.ctx); err != nil {
		return err
	}
	for _, ks := range tx.spaces {
		if id, err := lookUp(tx, ks.name); err != nil || id != ks.id {
			return errors.Join(err, errAgain)
		}
	}
	return nil
}

// open is source.open.
func (tx *Tx) open(lo, hi []byte) (*lease, error) {
	if err := tx.ready(); err != nil {
		return nil, err
	}
	tx.ranges = true
	if tx.hold != nil && !tx.hold.Clean() {
		if !tx.reads.Empty() {
			return nil, tx.fail(errAgain) // the next attempt waits before it reads
		}
		if err := tx.hold.Drain(tx.ctx); err != nil {
			return nil, tx.fail(err)
		}
		tx.at = tx.hold.At()
		tx.reads.Reset(tx.at)
	}
	if err := tx.owns(); err != nil {
		return nil, err
	}
	v, shard, err := tx.db.enter()
	if err != nil {
		return nil, tx.fail(err)
	}
	c, err := tx.db.cursor(v, shard, tx.at, lo, hi, tx.own, tx.seq)
	if err != nil {
		return nil, tx.fail(err)
	}
	c.seen = tx.reads.Range
	if len(tx.cursors) > 16 {
		tx.cursors = slices.DeleteFunc(tx.cursors, func(c *cursor) bool { return c.shut })
	}
	tx.cursors = append(tx.cursors, c)
	return &lease{c: c}, nil // tx closes what is forgotten
}

// Space is a keyspace inside of a transaction.
type Space struct {
	Reader
	Writer
}

// Keyspace returns the keyspace with a name of 1 to 255 bytes, inside of the
// transaction, which makes it when there is none. The Space is of this call of the
// transaction's function, and not of the next.
func (tx *Tx) Keyspace(name string) (Space, error) {
	if err := keyspace.CheckName(name); err != nil {
		return Space{}, fmt.Errorf("forebay: %w", err)
	}
	ks, err := tx.keyspace(name)
	if err != nil {
		return Space{}, err
	}
	return Space{Reader{from: tx, prefix: ks.prefix}, Writer{&tx.batch, ks}}, nil
}

// keyspace returns a handle of the transaction's own. That the keyspace was not
// dropped meanwhile is validated: its name was read.
func (tx *Tx) keyspace(name string) (*Keyspace, error) {
	before := tx.reads.Len()
	id, err := lookUp(tx, name)
	if errors.Is(err, ErrNoKeyspace) {
		id, err = tx.create(name)
	}
	if err != nil {
		return nil, err
	}
	for _, ks := range tx.spaces {
		if ks.id == id {
			return ks, nil
		}
	}
	if before == tx.names && tx.reads.Len() == before+1 {
		tx.names++
	}
	ks := newKeyspace(tx.db, id, name)
	tx.spaces = append(tx.spaces, ks)
	return ks, nil
}

// create gives the next id to a name.
func (tx *Tx) create(name string) (uint64, error) {
	id := keyspace.First
	value, found, err := tx.get(keyspace.NextKey())
	if err == nil && found {
		id, err = decodeID(value.b)
		value.release()
	}
	if err != nil {
		return 0, err
	}
	for _, kv := range [][2][]byte{
		{keyspace.NameKey(name), keyspace.EncodeID(id)},
		{keyspace.IDKey(id), []byte(name)},
		{keyspace.NextKey(), keyspace.EncodeID(id + 1)},
	} {
		if err := tx.batch.b.Put(kv[0], kv[1]); err != nil {
			return 0, err
		}
		if err := tx.wrote(base.KindPut, kv[0], kv[1]); err != nil {
			return 0, err
		}
	}
	return id, nil
}
