package policy

import (
	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// target is what a cell commits to.
type target interface {
	// writer returns a function that commits one put at the cell's level. One
	// goroutine uses it.
	writer() func(key, value []byte) error
	stats() wal.Stats
	Close() error
}

// open opens the cell's target in an empty directory.
func (c *Cell) open(fsys vfs.FS, dir string) (target, error) {
	var align int64
	mechanism := mechanisms[c.Mechanism]
	if mechanism == wal.DirectDSync || mechanism == wal.Direct {
		align = 4096
	}
	if c.On == OnStore {
		db, err := forebay.Open(dir, &forebay.Options{FS: fsys, Sync: c.Policy.policy, Mechanism: mechanism, LogAlign: align})
		if err != nil {
			return nil, err
		}
		return &onStore{db, levels[c.Level]}, nil
	}
	l, err := wal.Open(dir, &wal.Options{FS: fsys, Policy: c.Policy.policy, Mechanism: mechanism, Align: align, NoZeros: c.Growing})
	if err != nil {
		return nil, err
	}
	return &onLog{l, levels[c.Level]}, nil
}

type onStore struct {
	db    *forebay.DB
	level forebay.Level
}

func (t *onStore) writer() func(key, value []byte) error {
	b := t.db.NewBatch()
	return func(key, value []byte) error {
		b.Reset()
		if err := b.Put(key, value); err != nil {
			return err
		}
		return t.db.Apply(b, t.level)
	}
}

func (t *onStore) stats() wal.Stats { return t.db.Stats().Log }
func (t *onStore) Close() error     { return t.db.Close() }

type onLog struct {
	log   *wal.Log
	level wal.Level
}

// writer commits key and value as one record.
func (t *onLog) writer() func(key, value []byte) error {
	var rec []byte
	r := &wal.Request{Records: make([]wal.Record, 1)}
	return func(key, value []byte) error {
		rec = append(append(rec[:0], key...), value...)
		*r = wal.Request{Records: r.Records, Level: t.level}
		r.Records[0] = wal.Record{Data: rec}
		return t.log.Commit(r)
	}
}

func (t *onLog) stats() wal.Stats { return t.log.Stats() }
func (t *onLog) Close() error     { return t.log.Close() }
