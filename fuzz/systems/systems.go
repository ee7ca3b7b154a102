// Package systems has engines for the explorer of package fuzz that are made of the
// systems on top of the store: what is put into such an engine goes through a queue, a
// buffer or an event store before it is seen. So each crash of the explorer is one in
// the middle of an enqueue, a delivery, a cut, a batch, a projection, and its rule says
// of the systems what it says of a store: after any crash what is shown is what the
// first n commits come to, for one n, and no acknowledged one is missing. A message that
// was lost, or had its effect twice or out of order, shows as another state.
//
// Each engine also looks at the system's own books whenever it is scanned: in = done +
// dead + pending, with nothing dead or pending, and as many effects as messages.
package systems

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/fuzz"
	"github.com/forebaydb/forebay/vfs"
)

// system is what the commits of an engine go through.
type system interface {
	// put takes the operations of a commit and returns when their effect is durable.
	put(ctx context.Context, ops []byte) error
	// count returns how many commits the books know as done.
	count(ctx context.Context) (uint64, error)
	// rows calls read with what the effects come to, and how many there were.
	rows(read func(rows forebay.Reader, effects uint64) error) error
	close() error
}

// Engine is a fuzz.Engine.
type Engine struct {
	begin func(ctx context.Context, db *forebay.DB) (system, error)
}

// Abilities is fuzz.Able.
func (Engine) Abilities() fuzz.Abilities {
	return fuzz.Abilities{Batches: true, Ranges: true, Settings: true}
}

// Failure is fuzz.FailureTeller.
func (Engine) Failure(err error) fuzz.Failure { return fuzz.Forebay{}.Failure(err) }

// Open is fuzz.Engine. It returns when all that an earlier life has left is done.
func (e Engine) Open(fsys vfs.FS, s fuzz.Settings) (fuzz.Store, error) {
	o := &forebay.Options{
		FS: fsys, LogAlign: s.Align, LogFileSize: s.FileSize, MemtableSize: s.TableSize, MarkDelay: s.MarkDelay,
		Compression: forebay.Compression(s.Compression), Mechanism: forebay.Mechanism(s.Mechanism),
		MemoryLimit: 1 << 20, Rand: s.Rand, SettleShare: 1,
	}
	dir := s.Dir
	if dir == "" {
		dir = "db"
	}
	db, err := forebay.Open(dir, o)
	if err != nil {
		return nil, err
	}
	sys, err := e.begin(context.Background(), db)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &store{db: db, sys: sys}, nil
}

type store struct {
	db  *forebay.DB
	sys system
}

// Apply is fuzz.Store.
func (s *store) Apply(ops []fuzz.Op, _ fuzz.Level) (uint64, error) {
	return 0, s.sys.put(context.Background(), encode(ops))
}

// Scan is fuzz.Store.
func (s *store) Scan(each func(space int, key, value []byte)) error {
	done, err := s.sys.count(context.Background())
	if err != nil {
		return err
	}
	return s.sys.rows(func(rows forebay.Reader, effects uint64) error {
		if effects != done {
			return fmt.Errorf("%d are done, and %d had an effect", done, effects)
		}
		for e, err := range rows.Range(nil, nil) {
			if err != nil {
				return err
			}
			each(0, e.Key, e.Value)
		}
		return nil
	})
}

// Checkpoint is fuzz.Checkpointer.
func (s *store) Checkpoint() error { return s.db.Checkpoint(context.Background()) }

// Compact is fuzz.Compacter.
func (s *store) Compact() error { return s.db.Compact(context.Background()) }

// Close is fuzz.Store.
func (s *store) Close() error { return errors.Join(s.sys.close(), s.db.Close()) }

// encode makes one payload of operations: for each its kind, and key and value with
// their lengths, 0 for nil and else one more.
func encode(ops []fuzz.Op) (out []byte) {
	for _, op := range ops {
		out = append(out, byte(op.Kind))
		for _, b := range [][]byte{op.Key, op.Value} {
			if b == nil {
				out = append(out, 0)
				continue
			}
			out = append(binary.AppendUvarint(out, uint64(len(b)+1)), b...)
		}
	}
	return out
}

// apply does what a payload says.
func apply(w forebay.Writer, payload []byte) error {
	for len(payload) > 0 {
		kind := fuzz.OpKind(payload[0])
		payload = payload[1:]
		var args [2][]byte
		for i := range args {
			n, size := binary.Uvarint(payload)
			if size <= 0 || n > uint64(len(payload)-size)+1 {
				return fmt.Errorf("systems: payload %x", payload)
			}
			if payload = payload[size:]; n > 0 {
				args[i], payload = payload[:n-1:n-1], payload[n-1:]
			}
		}
		var err error
		switch kind {
		case fuzz.Put:
			err = w.Put(args[0], args[1])
		case fuzz.Delete:
			err = w.Delete(args[0])
		case fuzz.DeleteRange:
			err = w.DeleteRange(args[0], args[1])
		default:
			err = fmt.Errorf("systems: operation %d", kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// effectsKey counts effects, in a keyspace of its own.
const (
	booksName  = "books"
	effectsKey = "effects"
)

// effect does what a payload says in a transaction, and counts it.
func effect(tx *forebay.Tx, payload []byte) error {
	books, err := tx.Keyspace(booksName)
	if err != nil {
		return err
	}
	n, err := effects(books.Reader)
	if err != nil {
		return err
	}
	return errors.Join(apply(tx.Writer, payload), books.Put([]byte(effectsKey), binary.BigEndian.AppendUint64(nil, n+1)))
}

func effects(books forebay.Reader) (uint64, error) {
	b, err := books.Get([]byte(effectsKey))
	switch {
	case errors.Is(err, forebay.ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("systems: %x effects", b)
	}
	return binary.BigEndian.Uint64(b), nil
}

// both reads the default keyspace and the books at one moment.
func both(db *forebay.DB, read func(rows forebay.Reader, effects uint64) error) error {
	return db.View(func(s *forebay.Snapshot) error {
		books, err := s.Keyspace(booksName)
		n := uint64(0)
		if err == nil {
			n, err = effects(books)
		} else if errors.Is(err, forebay.ErrNoKeyspace) {
			err = nil
		}
		if err != nil {
			return err
		}
		return read(s.Reader, n)
	})
}
