package forebay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/wal"
)

// Position names a commit of a history: the epoch in which it was made, and its
// LSN. After a crash the same LSN may be given again, in another epoch. The zero
// Position is before the first commit.
type Position = wal.Position

// OpKind says what one operation of a commit does.
type OpKind uint8

// Kinds of operations.
const (
	// OpPut sets Key to Value.
	OpPut OpKind = iota + 1
	// OpDelete removes Key.
	OpDelete
	// OpDeleteRange removes the keys in [Key, Value) that were there before the
	// commit; a nil Key or Value is an open bound.
	OpDeleteRange
	// OpCreateKeyspace makes Keyspace, and OpDropKeyspace removes it.
	OpCreateKeyspace
	OpDropKeyspace
	// OpAppend appends Value to Sequence, where it gets Offset.
	OpAppend
	// OpTrim takes the items before Offset out of Sequence.
	OpTrim
	// OpCreateSequence makes Sequence, and OpDropSequence removes it.
	OpCreateSequence
	OpDropSequence
)

// String returns the kind's name.
func (k OpKind) String() string {
	if k < OpPut || k > OpDropSequence {
		return fmt.Sprintf("op(%d)", uint8(k))
	}
	return [...]string{"put", "delete", "delete range", "create keyspace", "drop keyspace", "append", "trim", "create sequence", "drop sequence"}[k-1]
}

// Op is one operation of a commit.
type Op struct {
	Kind OpKind
	// Keyspace is its name, "" for the default one.
	Keyspace   string
	Key, Value []byte
	// Sequence is the name of one; of the operations on sequences.
	Sequence string
	Offset   uint64
}

// Change is one commit. Its operations have been collapsed: each key occurs once,
// and range deletes come first, behind the keyspaces that it makes. Nothing of it is used again: it may be kept.
type Change struct {
	Position
	Ops []Op
}

// Position returns the position of the last durable commit: Changes from there
// shows what is committed from now on.
func (db *DB) Position() Position {
	if db.readOnly {
		return Position{Epoch: db.rep.Epoch, LSN: db.pipe.Visible()}
	}
	return db.log.DurablePosition()
}

// Changes iterates over the durable commits behind a position, in their order, up
// to those that are durable when it comes to them; reads show each of them by
// then. What is not durable yet is never shown: a power cut could take it back. An
// error ends it and comes as the last pair: ErrDiverged when the position is of a
// history that was cut off, a *CompactedError when the log does not hold all
// behind it any more (see Pin), ctx's.
func (db *DB) Changes(ctx context.Context, from Position) iter.Seq2[Change, error] {
	return db.changes(ctx, from, false)
}

// Follow is Changes that then waits for more, until ctx ends or the store is
// closed.
func (db *DB) Follow(ctx context.Context, from Position) iter.Seq2[Change, error] {
	return db.changes(ctx, from, true)
}

func (db *DB) changes(ctx context.Context, from Position, follow bool) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		if db.readOnly {
			yield(Change{}, ErrReadOnly)
			return
		}
		if db.shut.Load() {
			yield(Change{}, ErrClosed)
			return
		}
		t, err := db.log.NewTail(from)
		if err != nil {
			yield(Change{}, public(err))
			return
		}
		defer t.Close()
		d := changeDecoder{db: db, names: map[uint64]string{keyspace.Default: ""}}
		for {
			var pos Position
			var rec []byte
			ok := true
			switch {
			case db.shut.Load(): // the files may be somebody else's by now
				err = ErrClosed
			case follow:
				pos, rec, err = t.Next(ctx)
			default:
				if err = ctx.Err(); err == nil {
					pos, rec, ok, err = t.TryNext()
				}
			}
			if !ok && err == nil {
				return
			}
			c := Change{Position: pos}
			if err == nil {
				// It is durable a moment before it is visible, and with it the names
				// of keyspaces that it makes.
				err = db.pipe.WaitVisible(ctx, pos.LSN)
			}
			if err == nil {
				if c.Ops, err = d.decode(rec); err != nil {
					err = db.noBatch(pos, err)
				}
			}
			if err != nil {
				yield(Change{}, db.seen(public(err)))
				return
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

// changeDecoder turns records into operations; it knows the names of keyspaces.
type changeDecoder struct {
	db    *DB
	names map[uint64]string
}

// maxSpaces bounds over how many keyspaces one range delete can reach; a batch
// that deletes from many joins their ranges.
const maxSpaces = 1 << 20

var errChange = errors.New("forebay: a record of the log is not what a store writes")

func (d *changeDecoder) decode(rec []byte) ([]Op, error) {
	r, err := batch.Decode(append([]byte(nil), rec...))
	if err != nil {
		return nil, err
	}
	ops := make([]Op, 0, r.Len())
	// Keyspaces that it makes come first: all else may be about them, and the store
	// may not show them yet.
	for made := r; made.Next(); {
		if id, key, ok := keyspace.Cut(made.Key()); ok && id == keyspace.System && made.Kind() == base.KindPut {
			if ops, err = d.system(ops, base.KindPut, key, made.Value()); err != nil {
				return nil, err
			}
		}
	}
	for r.Next() {
		id, key, ok := keyspace.Cut(r.Key())
		switch {
		case !ok:
			return nil, errChange
		case r.Kind() == base.KindAppend && len(key) > 0:
			return nil, errChange
		case r.Kind() == base.KindAppend:
			if ops, err = d.appends(ops, id, r.Value()); err != nil {
				return nil, err
			}
		case id == keyspace.System && r.Kind() == base.KindPut:
		case id == keyspace.System:
			if ops, err = d.system(ops, r.Kind(), key, nil); err != nil {
				return nil, err
			}
		case r.Kind() == base.KindRangeDelete:
			if ops, err = d.ranges(ops, id, key, r.Value()); err != nil {
				return nil, err
			}
		default:
			name, err := d.name(id)
			if err != nil {
				return nil, err
			}
			op := Op{Kind: OpPut, Keyspace: name, Key: key, Value: r.Value()}
			if seq, ok := sequenceOf(name); ok { // all was taken out
				e, ok := batch.DecodeIndexEntry(key, r.Value(), base.OwnLSN)
				switch {
				case !ok || e.Size > 0 && e.Settled == nil || r.Kind() != base.KindPut:
					return nil, errChange
				case e.Settled == nil:
					ops = append(ops, Op{Kind: OpTrim, Sequence: seq, Offset: e.End()})
				}
				continue // what was settled is where it was, for who reads it
			}
			if r.Kind() == base.KindDelete {
				op.Kind, op.Value = OpDelete, nil
			}
			ops = append(ops, op)
		}
	}
	return ops, nil
}

// system decodes an operation on the list of keyspaces.
func (d *changeDecoder) system(ops []Op, kind base.Kind, key, value []byte) ([]Op, error) {
	if kind == base.KindRangeDelete {
		return nil, errChange
	}
	e, err := keyspace.DecodeEntry(key, value)
	switch {
	case err != nil:
		return nil, err
	case e.ID != 0 && value != nil:
		d.names[e.ID] = e.Name
	}
	switch {
	case !e.Named:
		return ops, nil
	}
	op := Op{Kind: OpCreateKeyspace, Keyspace: e.Name}
	if value == nil {
		op.Kind = OpDropKeyspace
	}
	if name, ok := sequenceOf(e.Name); ok {
		op = Op{Kind: op.Kind - OpCreateKeyspace + OpCreateSequence, Sequence: name}
	}
	return append(ops, op), nil
}

// appends decodes an append.
func (d *changeDecoder) appends(ops []Op, id uint64, value []byte) ([]Op, error) {
	name, err := d.name(id)
	if err != nil {
		return nil, err
	}
	seq, ok := sequenceOf(name)
	if !ok {
		return nil, errChange
	}
	offset := batch.FirstOffset(value)
	for i := batch.ItemsOf(value); i.Next(); offset++ {
		ops = append(ops, Op{Kind: OpAppend, Sequence: seq, Offset: offset, Value: i.Item()})
	}
	return ops, nil
}

// ranges cuts a range delete into those of the keyspaces that it reaches over.
func (d *changeDecoder) ranges(ops []Op, id uint64, lo, hi []byte) ([]Op, error) {
	last, end, ok := keyspace.Cut(hi)
	if !ok || last < id || last-id > maxSpaces {
		return nil, errChange
	}
	for ; id <= last; id++ {
		op := Op{Kind: OpDeleteRange}
		if id == last {
			if len(end) == 0 {
				break
			}
			op.Value = end
		}
		if len(lo) > 0 {
			op.Key = lo
		}
		lo = nil
		var err error
		if op.Keyspace, err = d.name(id); err != nil {
			return nil, err
		}
		if seq, ok := sequenceOf(op.Keyspace); ok {
			if len(op.Value) == 0 {
				continue // it goes as a whole
			}
			if len(op.Value) != 8 || op.Key != nil {
				return nil, errChange
			}
			op = Op{Kind: OpTrim, Sequence: seq, Offset: binary.BigEndian.Uint64(op.Value)}
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// name returns the name of an id, which never goes.
func (d *changeDecoder) name(id uint64) (string, error) {
	if name, ok := d.names[id]; ok {
		return name, nil
	}
	value, found, err := d.db.get(keyspace.IDKey(id))
	if err == nil && !found {
		err = fmt.Errorf("%w: keyspace %d has no name", errChange, id)
	}
	if err != nil {
		return "", err
	}
	defer value.release()
	d.names[id] = string(value.b)
	return d.names[id], nil
}

// Pin keeps, durably and under a name, the log from the commit behind lsn on, so
// that a reader of changes who has come to lsn can go on after however long. A
// pin moves when it is set again, and holds until Unpin. What it holds counts for
// Options.MaxLogBytes.
func (db *DB) Pin(name string, lsn uint64) error {
	if db.readOnly {
		return ErrReadOnly
	}
	return public(db.log.Pin(name, lsn+1))
}

// Unpin removes a pin; one that is not there is no error.
func (db *DB) Unpin(name string) error {
	if db.readOnly {
		return ErrReadOnly
	}
	return public(db.log.Unpin(name))
}

// Pins returns the pins, and to which LSN each reader has come.
func (db *DB) Pins() map[string]uint64 {
	var pins map[string]uint64
	if db.readOnly {
		pins = db.man.LogState().Pins
	} else {
		pins = db.log.Pins()
	}
	out := make(map[string]uint64, len(pins))
	for name, lsn := range pins {
		out[name] = max(lsn, 1) - 1
	}
	return out
}
