package fuzz

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// Sequenced is Forebay with a sequence beside the keys: each commit also appends what
// it does, and a scan compares the keys with what all items come to, one after the
// other. So no state may have the one half of a commit without the other, nor items
// out of the order of the commits, nor a gap.
type Sequenced struct{ Forebay }

// Open is Engine.Open.
func (e Sequenced) Open(fsys vfs.FS, s Settings) (Store, error) {
	st, err := e.Forebay.Open(fsys, s)
	if err != nil {
		return nil, err
	}
	return &sequencedStore{f: st.(*forebayStore)}, nil
}

// Audit is Engine.Audit.
func (e Sequenced) Audit(fsys vfs.FS, s Store) error {
	return e.Forebay.Audit(fsys, s.(*sequencedStore).f)
}

// sequencedStore numbers its commits without the one that makes the sequence, which
// comes first.
type sequencedStore struct{ f *forebayStore }

func (s *sequencedStore) number(lsn uint64) uint64 { return max(lsn, 1) - 1 }

// event is what the sequence has of an operation: its kind, the length of the key, key
// and value.
func event(op Op) []byte {
	b := binary.AppendUvarint([]byte{byte(op.Kind)}, uint64(len(op.Key)))
	return append(append(b, op.Key...), op.Value...)
}

// replay does what an event says to a state.
func replay(live map[string]string, item []byte) error {
	if len(item) == 0 {
		return errors.New("an empty event")
	}
	n, size := binary.Uvarint(item[1:])
	if size <= 0 || n > uint64(len(item)-1-size) {
		return fmt.Errorf("event %x", item)
	}
	key, value := item[1+size:][:n], item[1+size:][n:]
	switch kind := OpKind(item[0]); kind {
	case Put:
		live[string(key)] = string(value)
	case Delete:
		delete(live, string(key))
	case DeleteRange:
		maps.DeleteFunc(live, func(k, _ string) bool {
			return k >= string(key) && (len(value) == 0 || k < string(value))
		})
	default:
		return fmt.Errorf("event of kind %d", kind)
	}
	return nil
}

// add adds operations to a batch or a transaction, and their events.
func (s *sequencedStore) add(w forebay.Writer, ops []Op) error {
	seq, err := s.f.db.Sequence("events")
	if err != nil {
		return err
	}
	for _, op := range ops {
		if err := errors.Join(do(w, op), w.Append(seq, event(op))); err != nil {
			return err
		}
	}
	return nil
}

func (s *sequencedStore) batch(ops []Op) (*forebay.Batch, error) {
	if _, err := s.f.db.Sequence("events"); err != nil {
		return nil, err
	}
	b := s.f.db.NewBatch()
	return b, s.add(b.In(nil), ops)
}

func (s *sequencedStore) Apply(ops []Op, l Level) (uint64, error) {
	b, err := s.batch(ops)
	if err == nil {
		err = s.f.db.Apply(b, forebay.Level(l))
	}
	return s.number(s.f.lsnOf(ops)), err
}

func (s *sequencedStore) Submit(ops []Op, l Level) (func() (uint64, error), error) {
	b, err := s.batch(ops)
	if err != nil {
		return nil, err
	}
	c, err := s.f.db.Submit(b, forebay.Level(l))
	if err != nil {
		return nil, err
	}
	return func() (uint64, error) {
		err := c.Wait(context.Background())
		return s.number(c.LSN()), err
	}, nil
}

func (s *sequencedStore) Update(ops []Op, l Level) (lsn uint64, seen map[string]string, err error) {
	if _, err := s.f.db.Sequence("events"); err != nil {
		return 0, nil, err
	}
	err = s.f.db.UpdateLevel(context.Background(), forebay.Level(l), func(tx *forebay.Tx) error {
		seen = map[string]string{}
		for _, op := range ops {
			if err := look(tx.Reader, op, seen); err != nil {
				return err
			}
		}
		return s.add(tx.Writer, ops)
	})
	return s.number(s.f.lsnOf(ops)), seen, err
}

func (s *sequencedStore) Scan(each func(space int, key, value []byte)) error {
	db := s.f.db
	if db.DurableLSN() < db.LastLSN() { // what is not durable is in no sequence that is read
		if err := db.Sync(context.Background()); err != nil {
			return err
		}
	}
	keys := map[string]string{}
	if err := walk(0, db.Range(nil, nil), func(space int, key, value []byte) {
		keys[string(key)] = string(value)
		each(space, key, value)
	}); err != nil {
		return err
	}
	live := map[string]string{}
	names, err := db.Sequences()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		seq, err := db.Sequence(names[0])
		if err != nil {
			return err
		}
		next, lsn := uint64(0), uint64(0)
		for it, err := range seq.Read(context.Background(), 0) {
			if err == nil && (it.Offset != next || it.LSN < lsn) {
				err = fmt.Errorf("item %d of commit %d behind item %d of commit %d", it.Offset, it.LSN, next, lsn)
			}
			if err == nil {
				err = replay(live, it.Value)
			}
			if err != nil {
				return fmt.Errorf("sequence: %w", err)
			}
			next, lsn = next+1, it.LSN
		}
	}
	if d := differing(keys, live); len(d) > 0 {
		return fmt.Errorf("the keys are not what the sequence says: %s", bytes.Join(quoted(d), []byte(", ")))
	}
	return nil
}

func quoted(names []string) (out [][]byte) {
	for _, n := range slices.Sorted(slices.Values(names)) {
		out = append(out, fmt.Appendf(nil, "%q", n))
	}
	return out
}

func (s *sequencedStore) Get(space int, key []byte) ([]byte, bool, error) { return s.f.Get(space, key) }
func (s *sequencedStore) Sync() error                                     { return s.f.Sync() }
func (s *sequencedStore) Checkpoint() error                               { return s.f.Checkpoint() }
func (s *sequencedStore) Compact() error                                  { return s.f.Compact() }
func (s *sequencedStore) Compactions() int64                              { return s.f.Compactions() }
func (s *sequencedStore) Last() uint64                                    { return s.number(s.f.Last()) }
func (s *sequencedStore) DurableLSN() uint64                              { return s.number(s.f.DurableLSN()) }
func (s *sequencedStore) Close() error                                    { return s.f.Close() }
func (s *sequencedStore) Backup(dir string) (uint64, error) {
	lsn, err := s.f.Backup(dir)
	return s.number(lsn), err
}
