package fuzz

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// Forebay is the engine that this module is about.
type Forebay struct{}

const (
	storeDir = "db"
	logDir   = "log"
)

func (Forebay) options(fsys vfs.FS, s Settings) *forebay.Options {
	o := &forebay.Options{
		FS: fsys, LogAlign: s.Align, LogFileSize: s.FileSize, MemtableSize: s.TableSize, MarkDelay: s.MarkDelay,
		Compression: forebay.Compression(s.Compression), Mechanism: forebay.Mechanism(s.Mechanism),
		MemoryLimit: 1 << 20, Rand: s.Rand,
		SettleShare:  -1, // it makes commits of its own, and the explorer counts them
		DefaultLevel: forebay.Level(s.Level),
	}
	if s.LogDir {
		o.LogDir = logDir
	}
	switch s.Policy {
	case Each:
		o.Sync = forebay.SyncEach
	case Never:
		o.Sync = forebay.SyncNever
	case EveryBytes:
		o.Sync = forebay.SyncBytes(2 << 10)
	case EveryInterval:
		o.Sync = forebay.SyncInterval(2 * time.Millisecond)
	}
	return o
}

// Abilities is Able.Abilities: all.
func (Forebay) Abilities() Abilities {
	return Abilities{Batches: true, Ranges: true, Levels: true, Writers: true, Settings: true}
}

// Failure is FailureTeller.Failure.
func (Forebay) Failure(err error) Failure {
	var damage *forebay.CorruptionError
	switch {
	case errors.As(err, &damage), errors.Is(err, forebay.ErrClosed), errors.Is(err, forebay.ErrLocked), errors.Is(err, forebay.ErrNotFound):
		return Improper
	case errors.Is(err, forebay.ErrUnknown):
		return Unknown
	case errors.Is(err, forebay.ErrPoisoned):
		return Poisoned
	}
	return Refused
}

// Open is Engine.Open.
func (e Forebay) Open(fsys vfs.FS, s Settings) (Store, error) {
	dir := s.Dir
	if dir == "" {
		dir = storeDir
	}
	db, err := forebay.Open(dir, e.options(fsys, s))
	if err != nil {
		return nil, err
	}
	return &forebayStore{db: db, dir: dir, logDir: s.LogDir, level: s.Level}, nil
}

// Audit is Engine.Audit. What a compaction is making, or has made needless, is
// there for a while: the audit waits until the store is at rest.
func (e Forebay) Audit(fsys vfs.FS, s Store) (err error) {
	f := s.(*forebayStore)
	for wait := 50 * time.Microsecond; wait < 2*time.Second; wait *= 2 {
		if err = f.audit(fsys); err == nil {
			return nil
		}
		time.Sleep(wait)
	}
	return err
}

// audit counts: one manifest; the live segments; the files of the log's history,
// and no more than those beside them that an open keeps until something
// supersedes them, and spares.
func (f *forebayStore) audit(fsys vfs.FS) error {
	names, err := fsys.List(f.dir)
	if err != nil {
		return err
	}
	if f.logDir {
		more, err := fsys.List(logDir)
		if err != nil {
			return err
		}
		names = append(names, more...)
	}
	var manifests, segments, logs int
	for _, name := range names {
		switch {
		case strings.HasPrefix(name, "MANIFEST-"):
			manifests++
		case filepath.Ext(name) == ".seg":
			segments++
		case filepath.Ext(name) == ".log":
			logs++
		case name != "LOCK":
			return fmt.Errorf("stray file %s", name)
		}
	}
	st := f.db.Stats()
	// An open that wrote nothing keeps what it walked without finding a record.
	rec, most := f.db.Recovery(), st.Log.Files
	if rec.Copied == 0 {
		most = rec.Files + len(rec.Void) + st.Log.Retained
	}
	if st.Log.SpareBytes > 0 {
		most += 2 // one made ahead, one to be used again
	}
	if manifests != 1 || segments != st.Segments || logs < st.Log.Files || logs > most {
		return fmt.Errorf("on disk are %d manifests, %d segments, %d log files; the store has 1, %d, %d to %d: %v",
			manifests, segments, logs, st.Segments, st.Log.Files, most, names)
	}
	return nil
}

type forebayStore struct {
	db     *forebay.DB
	dir    string
	logDir bool
	level  Level

	mu     sync.Mutex // guards spaces
	spaces map[int]*forebay.Keyspace
}

func spaceName(n int) string { return fmt.Sprintf("space %d", n) }

func spaceNumbers(names []string) ([]int, error) {
	out := make([]int, len(names))
	for i, name := range names {
		if _, err := fmt.Sscanf(name, "space %d", &out[i]); err != nil {
			return nil, fmt.Errorf("keyspace %q was never made: %w", name, err)
		}
	}
	return out, nil
}

// space returns the handle that Spaces or Create has found; it may have been
// dropped since.
func (s *forebayStore) space(n int) (*forebay.Keyspace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ks := s.spaces[n]; ks != nil {
		return ks, nil
	}
	return nil, ErrNoSpace
}

func (s *forebayStore) Create(space int) (uint64, error) {
	ks, err := s.db.Keyspace(spaceName(space))
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spaces == nil {
		s.spaces = map[int]*forebay.Keyspace{}
	}
	s.spaces[space] = ks
	return s.db.LastLSN(), nil
}

func (s *forebayStore) Drop(space int) (uint64, error) {
	err := s.db.DropKeyspace(spaceName(space))
	return s.db.LastLSN(), noSpace(err)
}

func (s *forebayStore) Spaces() ([]int, error) {
	names, err := s.db.Keyspaces()
	if err != nil {
		return nil, err
	}
	spaces, err := spaceNumbers(names)
	for i := 0; i < len(spaces) && err == nil; i++ {
		_, err = s.Create(spaces[i]) // which is there
	}
	return spaces, err
}

// noSpace makes of the errors for a keyspace that is gone the one that a Store
// has.
func noSpace(err error) error {
	if errors.Is(err, forebay.ErrKeyspaceDropped) || errors.Is(err, forebay.ErrNoKeyspace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// writer is a batch, a keyspace in one, in a transaction, or in a store.
type writer interface {
	Put(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(lo, hi []byte) error
}

func do(w writer, op Op) error {
	switch op.Kind {
	case Put:
		return w.Put(op.Key, op.Value)
	case Delete:
		return w.Delete(op.Key)
	case DeleteRange:
		return w.DeleteRange(op.Key, op.Value)
	}
	return fmt.Errorf("operation %d is not for a batch", op.Kind)
}

func (s *forebayStore) batch(ops []Op) (*forebay.Batch, error) {
	b := s.db.NewBatch()
	for _, op := range ops {
		w := writer(b)
		if op.Space > 0 {
			ks, err := s.space(op.Space)
			if err != nil {
				return nil, err
			}
			w = b.In(ks)
		}
		if err := do(w, op); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// single does one operation at the default level.
func (s *forebayStore) single(op Op) error {
	if op.Space == 0 {
		return do(s.db, op)
	}
	ks, err := s.space(op.Space)
	if err != nil {
		return err
	}
	return do(ks, op)
}

func (s *forebayStore) Apply(ops []Op, l Level) (uint64, error) {
	var err error
	if len(ops) == 1 && l == s.level {
		err = s.single(ops[0])
	} else {
		var b *forebay.Batch
		if b, err = s.batch(ops); err == nil {
			err = s.db.Apply(b, forebay.Level(l))
		}
	}
	if err != nil {
		return 0, noSpace(err)
	}
	return s.lsnOf(ops), nil
}

// lsnOf returns the LSN of a commit that has returned: an entry knows that of
// its own.
func (s *forebayStore) lsnOf(ops []Op) uint64 {
	if op := ops[0]; op.Kind == Put && op.Space == 0 {
		for e, err := range s.db.Range(op.Key, append(op.Key[:len(op.Key):len(op.Key)], 0)) {
			if err != nil { // of a disk that cannot be read: the commit is there
				break
			}
			return e.LSN
		}
	}
	return s.db.LastLSN()
}

func (s *forebayStore) Submit(ops []Op, l Level) (func() (uint64, error), error) {
	b, err := s.batch(ops)
	if err != nil {
		return nil, err
	}
	c, err := s.db.Submit(b, forebay.Level(l))
	if err != nil {
		return nil, noSpace(err)
	}
	return func() (uint64, error) {
		err := c.Wait(context.Background())
		return c.LSN(), noSpace(err)
	}, nil
}

func (s *forebayStore) Update(ops []Op, l Level) (lsn uint64, seen map[string]string, err error) {
	err = s.db.UpdateLevel(context.Background(), forebay.Level(l), func(tx *forebay.Tx) error {
		seen = map[string]string{}
		spaces := map[int]forebay.Space{0: {Reader: tx.Reader, Writer: tx.Writer}}
		for _, op := range ops {
			if _, ok := spaces[op.Space]; !ok {
				sp, err := tx.Keyspace(spaceName(op.Space))
				if err != nil {
					return err
				}
				spaces[op.Space] = sp
			}
			if err := look(spaces[op.Space].Reader, op, seen); err != nil {
				return err
			}
		}
		for _, op := range ops {
			if err := do(spaces[op.Space], op); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		lsn = s.lsnOf(ops)
	}
	return lsn, seen, err
}

// look reads what an operation will change.
func look(r forebay.Reader, op Op, seen map[string]string) error {
	if op.Kind == DeleteRange {
		for e, err := range r.Range(op.Key, op.Value) {
			if err != nil {
				return err
			}
			Seen(seen, op.Space, e.Key, e.Value, true)
		}
		return nil
	}
	v, err := r.Get(op.Key)
	if err != nil && !errors.Is(err, forebay.ErrNotFound) {
		return err
	}
	Seen(seen, op.Space, op.Key, v, err == nil)
	return nil
}

func (s *forebayStore) Sync() error { return s.db.Sync(context.Background()) }

func (s *forebayStore) Checkpoint() error { return s.db.Checkpoint(context.Background()) }

func (s *forebayStore) Compact() error { return s.db.Compact(context.Background()) }

func (s *forebayStore) Compactions() int64 { return s.db.Stats().Compactions }

func (s *forebayStore) Backup(dir string) (uint64, error) {
	info, err := s.db.Backup(context.Background(), dir)
	return info.At.LSN, err
}

func walk(space int, seq iter.Seq2[forebay.Entry, error], each func(space int, key, value []byte)) error {
	for e, err := range seq {
		if err != nil {
			return err
		}
		each(space, e.Key, e.Value)
	}
	return nil
}

func (s *forebayStore) ScanReverse(each func(space int, key, value []byte)) error {
	spaces, err := s.Spaces()
	for i := len(spaces) - 1; i >= 0 && err == nil; i-- {
		var ks *forebay.Keyspace
		if ks, err = s.space(spaces[i]); err == nil {
			err = walk(spaces[i], ks.RangeReverse(nil, nil), each)
			each(spaces[i], nil, nil)
		}
	}
	if err != nil {
		return err
	}
	return walk(0, s.db.RangeReverse(nil, nil), each)
}

func (s *forebayStore) Scan(each func(space int, key, value []byte)) error {
	return s.db.View(func(v *forebay.Snapshot) error {
		if err := walk(0, v.Range(nil, nil), each); err != nil {
			return err
		}
		names, err := v.Keyspaces()
		if err != nil {
			return err
		}
		spaces, err := spaceNumbers(names)
		for i := 0; i < len(spaces) && err == nil; i++ {
			var r forebay.Reader
			if r, err = v.Keyspace(names[i]); err == nil {
				each(spaces[i], nil, nil)
				err = walk(spaces[i], r.Range(nil, nil), each)
			}
		}
		return err
	})
}

func (s *forebayStore) Get(space int, key []byte) (v []byte, ok bool, err error) {
	if space == 0 {
		v, err = s.db.Get(key)
	} else {
		err = s.db.View(func(snap *forebay.Snapshot) error {
			r, err := snap.Keyspace(spaceName(space))
			if err == nil {
				v, err = r.Get(key)
			}
			return err
		})
	}
	if errors.Is(err, forebay.ErrNotFound) || errors.Is(err, forebay.ErrNoKeyspace) {
		return nil, false, nil
	}
	return v, err == nil, err
}

func (s *forebayStore) Last() uint64       { return s.db.LastLSN() }
func (s *forebayStore) DurableLSN() uint64 { return s.db.DurableLSN() }
func (s *forebayStore) Close() error       { return s.db.Close() }
