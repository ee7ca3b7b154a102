package fuzz

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
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

// Open is Engine.Open.
func (e Forebay) Open(fsys vfs.FS, s Settings) (Store, error) {
	db, err := forebay.Open(storeDir, e.options(fsys, s))
	if err != nil {
		return nil, err
	}
	return &forebayStore{db: db, logDir: s.LogDir}, nil
}

// Audit is Engine.Audit. It counts: one manifest; the live segments; the files
// of the log's history, and no more than those beside them that an open keeps
// until something supersedes them.
func (Forebay) Audit(fsys vfs.FS, s Store) error {
	f := s.(*forebayStore)
	names, err := fsys.List(storeDir)
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
		most = rec.Files + len(rec.Void)
	}
	if manifests != 1 || segments != st.Segments || logs < st.Log.Files || logs > most {
		return fmt.Errorf("on disk are %d manifests, %d segments, %d log files; the store has 1, %d, %d to %d: %v",
			manifests, segments, logs, st.Segments, st.Log.Files, most, names)
	}
	return nil
}

type forebayStore struct {
	db     *forebay.DB
	logDir bool
}

func (s *forebayStore) batch(ops []Op) (*forebay.Batch, error) {
	b := s.db.NewBatch()
	for _, op := range ops {
		var err error
		if op.Delete {
			err = b.Delete(op.Key)
		} else {
			err = b.Put(op.Key, op.Value)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (s *forebayStore) Apply(ops []Op, l Level) (uint64, error) {
	var err error
	switch {
	case len(ops) == 1 && l == Durable && ops[0].Delete:
		err = s.db.Delete(ops[0].Key)
	case len(ops) == 1 && l == Durable:
		err = s.db.Put(ops[0].Key, ops[0].Value)
	default:
		var b *forebay.Batch
		if b, err = s.batch(ops); err == nil {
			err = s.db.Apply(b, forebay.Level(l))
		}
	}
	if err != nil {
		return 0, err
	}
	// An entry knows the LSN of its commit.
	if !ops[0].Delete {
		for e, err := range s.db.Range(ops[0].Key, append(ops[0].Key[:len(ops[0].Key):len(ops[0].Key)], 0)) {
			return e.LSN, err
		}
	}
	return s.db.LastLSN(), nil
}

func (s *forebayStore) Submit(ops []Op, l Level) (func() (uint64, error), error) {
	b, err := s.batch(ops)
	if err != nil {
		return nil, err
	}
	c, err := s.db.Submit(b, forebay.Level(l))
	if err != nil {
		return nil, err
	}
	return func() (uint64, error) {
		err := c.Wait(context.Background())
		return c.LSN(), err
	}, nil
}

func (s *forebayStore) Sync() error { return s.db.Sync(context.Background()) }

func (s *forebayStore) Checkpoint() error { return s.db.Checkpoint(context.Background()) }

func (s *forebayStore) Scan(reverse bool, each func(key, value []byte)) error {
	seq := s.db.Range
	if reverse {
		seq = s.db.RangeReverse
	}
	for e, err := range seq(nil, nil) {
		if err != nil {
			return err
		}
		each(e.Key, e.Value)
	}
	return nil
}

func (s *forebayStore) Get(key []byte) ([]byte, bool, error) {
	v, err := s.db.Get(key)
	if errors.Is(err, forebay.ErrNotFound) {
		return nil, false, nil
	}
	return v, err == nil, err
}

func (s *forebayStore) Last() uint64       { return s.db.LastLSN() }
func (s *forebayStore) DurableLSN() uint64 { return s.db.DurableLSN() }
func (s *forebayStore) Close() error       { return s.db.Close() }
