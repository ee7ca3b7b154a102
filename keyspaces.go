package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
)

// Keyspace is a named set of keys of its own within a store. All keyspaces share
// the one log: a batch or a transaction over several is atomic. It is a handle,
// which costs nothing to keep and is used by any number of goroutines; once the
// keyspace is dropped, everything through it is ErrKeyspaceDropped, also when one
// with the same name has been made since.
type Keyspace struct {
	Reader
	db   *DB
	id   uint64
	name string
	// ending: a commit that drops it is in the log; nothing is written to it
	// behind that. ended: that commit has reached its level.
	ending, ended atomic.Bool
}

// spaces are the handles of a store's keyspaces.
type spaces struct {
	mu    sync.Mutex // guards both; it is a leaf
	byID  map[uint64]*Keyspace
	named map[string]*Keyspace // those of which it is known that they exist
}

func (s *spaces) defaults(db *DB) *Keyspace {
	ks := &Keyspace{db: db, id: keyspace.Default}
	ks.Reader = Reader{from: db, prefix: defaultPrefix}
	return ks
}

func newKeyspace(db *DB, id uint64, name string) *Keyspace {
	ks := &Keyspace{db: db, id: id, name: name}
	ks.Reader = Reader{from: db, prefix: prefixOf(id), check: ks.exists}
	return ks
}

// handle returns the handle of an id, whether the keyspace exists or not. That of
// a keyspace that was dropped is forgotten when nobody sees the name any more: who
// then comes with its id gets another one, and must look at the name again.
func (s *spaces) handle(db *DB, id uint64, name string) *Keyspace {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ks := s.byID[id]; ks != nil && ks.name == name {
		return ks
	}
	ks := newKeyspace(db, id, name)
	if s.byID == nil {
		s.byID, s.named = map[uint64]*Keyspace{}, map[string]*Keyspace{}
	}
	s.byID[id] = ks
	return ks
}

func (s *spaces) get(name string) *Keyspace {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ks := s.named[name]; ks != nil && !ks.ending.Load() {
		return ks
	}
	return nil
}

func (s *spaces) know(ks *Keyspace) *Keyspace {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named[ks.name] = ks
	return ks
}

// exists is ErrKeyspaceDropped once the keyspace was dropped.
func (ks *Keyspace) exists() error {
	if ks.ended.Load() {
		return fmt.Errorf("%w: %q", ErrKeyspaceDropped, ks.name)
	}
	return nil
}

// mayWrite is asked in the order of the log.
func (ks *Keyspace) mayWrite() error {
	if ks.ending.Load() {
		return fmt.Errorf("%w: %q", ErrKeyspaceDropped, ks.name)
	}
	return nil
}

// Keyspace returns the keyspace with a name of 1 to 255 bytes, and makes it, by a
// commit at the default level, when there is none. A store that is open for
// reading only returns ErrNoKeyspace then.
func (db *DB) Keyspace(name string) (*Keyspace, error) {
	if err := keyspace.CheckName(name); err != nil {
		return nil, fmt.Errorf("forebay: %w", err)
	}
	return db.keyspace(name)
}

// keyspace is Keyspace of any name.
func (db *DB) keyspace(name string) (*Keyspace, error) {
	for {
		if ks := db.spaces.get(name); ks != nil {
			return ks, nil
		}
		id, err := lookUp(db, name)
		if errors.Is(err, ErrNoKeyspace) && !db.readOnly {
			err = db.Update(func(tx *Tx) error {
				_, err := tx.keyspace(name)
				return err
			})
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		ks := db.spaces.handle(db, id, name)
		if now, err := lookUp(db, name); err != nil || now != id {
			continue
		}
		if !ks.ending.Load() {
			return db.spaces.know(ks), nil
		}
		// It is being dropped, which a write may have told already.
		if err := db.pipe.Barrier(context.Background()); err != nil {
			return nil, public(err)
		}
	}
}

// lookUp finds the id of a name, or returns ErrNoKeyspace.
func lookUp(from source, name string) (uint64, error) {
	value, found, err := from.get(keyspace.NameKey(name))
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 0, fmt.Errorf("%w: %q", ErrNoKeyspace, name)
	}
	defer value.release()
	return decodeID(value.b)
}

func decodeID(value []byte) (uint64, error) {
	id, err := keyspace.DecodeID(value)
	if err != nil {
		err = fmt.Errorf("forebay: %w", err)
	}
	return id, err
}

// Keyspaces returns the names of all keyspaces, sorted; the default one, which
// has none, is not among them.
func (db *DB) Keyspaces() ([]string, error) { return names(db, sequencePrefix, false) }

// names returns the names that begin with a prefix, or that do not.
func names(from source, prefix string, want bool) ([]string, error) {
	lo, hi := keyspace.Names()
	l, err := from.open(lo, hi)
	if err != nil {
		return nil, err
	}
	it := &Iterator{l: l, c: l.c, lo: lo, hi: hi}
	defer it.Close()
	out := []string{}
	for ok := it.First(); ok; ok = it.Next() {
		if name := keyspace.NameOf(it.Key()); strings.HasPrefix(name, prefix) == want {
			out = append(out, name)
		}
	}
	return out, it.Err()
}

// DropKeyspace removes a keyspace and everything in it, by one commit at the
// default level, whatever there is; compactions give the space back. Snapshots
// that were made before still see it. ErrNoKeyspace: there is none with the name.
func (db *DB) DropKeyspace(name string) error {
	if err := keyspace.CheckName(name); err != nil {
		return fmt.Errorf("forebay: %w", err)
	}
	return db.dropKeyspace(name, db.opts.DefaultLevel)
}

// dropKeyspace is DropKeyspace of any name, at a level.
func (db *DB) dropKeyspace(name string, level Level) error {
	var ks *Keyspace
	if err := db.UpdateLevel(context.Background(), level, func(tx *Tx) error {
		id, err := lookUp(tx, name)
		if err != nil {
			return err
		}
		ks = db.spaces.handle(db, id, name)
		tx.drops = ks
		tx.batch.lo = append(tx.batch.lo[:0], keyspace.NameKey(name)...)
		if err := tx.batch.b.Delete(tx.batch.lo); err != nil {
			return err
		}
		return tx.batch.b.DeleteRange(prefixOf(id), keyspace.End(id))
	}); err != nil {
		return err
	}
	ks.ended.Store(true)
	db.spaces.mu.Lock()
	if db.spaces.named[name] == ks {
		delete(db.spaces.named, name)
	}
	delete(db.spaces.byID, ks.id)
	db.spaces.mu.Unlock()
	return nil
}

// Name returns the keyspace's name, "" for the default one.
func (ks *Keyspace) Name() string { return ks.name }

// guard is what Commit needs of the keyspace.
func (ks *Keyspace) guard() func() error {
	if ks.id == keyspace.Default {
		return nil
	}
	return ks.mayWrite
}

// Put sets key to value at the default level. Both are copied. Errors as for
// DB.Put.
func (ks *Keyspace) Put(key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	e := encoders.Get().(*encoder)
	defer e.release()
	rec, err := batch.AppendPut(e.rec[:0], ks.prefix, key, value)
	if err != nil {
		return err
	}
	e.rec = rec
	return e.commit(ks)
}

// Delete removes key at the default level; a key that is not there is no error.
func (ks *Keyspace) Delete(key []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	e := encoders.Get().(*encoder)
	defer e.release()
	e.lo = append(append(e.lo[:0], ks.prefix...), key...)
	rec, err := batch.AppendDelete(e.rec[:0], e.lo)
	if err != nil {
		return err
	}
	e.rec = rec
	return e.commit(ks)
}

// DeleteRange removes all keys in [lo, hi) at the default level, in one commit,
// whatever there is. nil bounds are open.
func (ks *Keyspace) DeleteRange(lo, hi []byte) error {
	e := encoders.Get().(*encoder)
	defer e.release()
	var err error
	if e.lo, e.hi, err = storedRange(e.lo, e.hi, ks.prefix, lo, hi); err != nil || bytes.Compare(e.lo, e.hi) >= 0 {
		return err
	}
	rec, err := batch.AppendDeleteRange(e.rec[:0], e.lo, e.hi)
	if err != nil {
		return err
	}
	e.rec = rec
	return e.commit(ks)
}
