package fuzz

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// crooked is Forebay on a disk that something stands before, or with a Store that
// something is wrong with.
type crooked struct {
	Forebay
	disk  func(vfs.FS) vfs.FS
	store func(Store) Store
}

func (c crooked) Open(fsys vfs.FS, s Settings) (Store, error) {
	if c.disk != nil {
		fsys = c.disk(fsys)
	}
	st, err := c.Forebay.Open(fsys, s)
	if err == nil && c.store != nil {
		st = c.store(st)
	}
	return st, err
}

func (c crooked) Audit(vfs.FS, Store) error { return nil }

// bent is a file system that changes what calls of log files, or of all, return.
type bent struct {
	vfs.FS
	all   bool
	write func(vfs.File, []byte, int64) (int, error)
	read  func(vfs.File, []byte, int64) (int, error)
	sync  func(vfs.File) error
}

func (b bent) Open(name string, mode vfs.Mode) (vfs.File, error) {
	return b.wrap(name)(b.FS.Open(name, mode))
}

func (b bent) Create(name string, mode vfs.Mode) (vfs.File, error) {
	return b.wrap(name)(b.FS.Create(name, mode))
}

func (b bent) wrap(name string) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil || !b.all && filepath.Ext(name) != ".log" {
			return f, err
		}
		return bentFile{f, b}, nil
	}
}

type bentFile struct {
	vfs.File
	b bent
}

func (f bentFile) WriteAt(p []byte, off int64) (int, error) {
	if f.b.write != nil {
		return f.b.write(f.File, p, off)
	}
	return f.File.WriteAt(p, off)
}

func (f bentFile) ReadAt(p []byte, off int64) (int, error) {
	if f.b.read != nil {
		return f.b.read(f.File, p, off)
	}
	return f.File.ReadAt(p, off)
}

func (f bentFile) SyncData() error {
	if f.b.sync != nil {
		return f.b.sync(f.File)
	}
	return f.File.SyncData()
}

type bentStore struct {
	Store
	apply func(Store, []Op, Level) (uint64, error)
	close func(Store) error
}

func (s bentStore) Apply(ops []Op, l Level) (uint64, error) {
	if s.apply != nil {
		return s.apply(s.Store, ops, l)
	}
	return s.Store.Apply(ops, l)
}

func (s bentStore) Close() error {
	if s.close != nil {
		return s.close(s.Store)
	}
	return s.Store.Close()
}

// TestFailHasTeeth lets Fail find engines that treat errors as engines have.
func TestFailHasTeeth(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes some seconds")
	}
	onDisk := func(b bent) crooked {
		return crooked{disk: func(fsys vfs.FS) vfs.FS { b.FS = fsys; return b }}
	}
	onStore := func(s bentStore) crooked {
		return crooked{store: func(st Store) Store { s.Store = st; return s }}
	}
	for name, c := range map[string]struct {
		engine crooked
		kinds  string // that it may be found as
	}{
		// PostgreSQL until 2018: the second sync succeeds.
		"a failed sync is repeated": {onDisk(bent{sync: func(f vfs.File) error {
			if f.SyncData() == nil {
				return nil
			}
			return f.SyncData()
		}}), "a wrong state|open fails"},
		"a failed sync is passed over": {onDisk(bent{sync: func(f vfs.File) error { _ = f.SyncData(); return nil }}), "a wrong state|open fails"},
		"a failed write is passed over": {onDisk(bent{write: func(f vfs.File, p []byte, off int64) (int, error) {
			_, _ = f.WriteAt(p, off)
			return len(p), nil
		}}), "a wrong state|open fails"},
		// RocksDB: a block that cannot be read is the end of the file.
		"a failed read is the end": {onDisk(bent{all: true, read: func(f vfs.File, p []byte, off int64) (int, error) {
			n, err := f.ReadAt(p, off)
			if err != nil {
				err = io.EOF
			}
			return n, err
		}}), "an improper error|a wrong state"},
		"a refusal is forgotten": {onStore(bentStore{apply: func(s Store, ops []Op, l Level) (uint64, error) {
			n, err := s.Apply(ops, l)
			if (Forebay{}).Failure(err) == Refused {
				err = nil
			}
			return n, err
		}}), "a wrong state is shown"},
		"half of a batch comes before its error": {onStore(bentStore{apply: func(s Store, ops []Op, l Level) (uint64, error) {
			n, err := s.Apply(ops, l)
			if err != nil && len(ops) > 1 {
				_, _ = s.Apply(ops[:1], l)
			}
			return n, err
		}}), "a wrong state|open fails"},
		"an error without its cause": {onStore(bentStore{apply: func(s Store, ops []Op, l Level) (uint64, error) {
			n, err := s.Apply(ops, l)
			if err != nil {
				err = errors.New("something went wrong")
			}
			return n, err
		}}), "an improper error"},
		"a Close that fails keeps all open": {onStore(bentStore{close: func(s Store) error {
			if err := s.(*forebayStore).db.Sync(context.Background()); err != nil {
				return err
			}
			return s.Close()
		}}), "open fails on a healthy disk"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := failBubbled(t)
			cfg.Engine, cfg.MaxViolations, cfg.Every = c.engine, 1, 5
			cfg.Workloads = []string{
				"| d{a=20} w{b=30} d{c=10 d=5} sync d{-a} checkpoint d{b=40 c=50}",
				"table=4096 | d{a=3000} d{b=3000} checkpoint d{c=3000 d=3} d{a=2000} reopen d{b=7 c=4}",
			}
			rep, err := Fail(context.Background(), cfg)
			require.NoError(t, err)
			require.NotEmpty(t, rep.Violations, "nothing found in %d runs", rep.Runs)
			v := rep.Violations[0]
			t.Logf("after %d runs: %s: %s", rep.Runs, v.Kind, v.Detail)
			found := false
			for kind := range strings.SplitSeq(c.kinds, "|") {
				found = found || strings.HasPrefix(v.Kind, kind)
			}
			require.True(t, found, "%s: %s", v.Kind, v.Detail)
			again, err := ReplayFail(context.Background(), cfg, v.Replay)
			require.NoError(t, err)
			require.NotEmpty(t, again.Violations, v.Replay)
			require.Equal(t, v.Kind, again.Violations[0].Kind)
		})
	}
}
