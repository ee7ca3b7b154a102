package fuzz

import (
	"context"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// liar is a disk that says it has synced and has not.
type liar struct {
	vfs.FS
	file func(name string) bool // whether it lies of the file, asked when it is made or opened
	dir  bool                   // whether it lies of directories
}

func (l liar) Open(name string, mode vfs.Mode) (vfs.File, error) {
	return l.wrap(l.FS.Open, name, mode)
}

func (l liar) Create(name string, mode vfs.Mode) (vfs.File, error) {
	return l.wrap(l.FS.Create, name, mode)
}

func (l liar) wrap(open func(string, vfs.Mode) (vfs.File, error), name string, mode vfs.Mode) (vfs.File, error) {
	if !l.file(name) {
		return open(name, mode)
	}
	f, err := open(name, mode&^vfs.DSync)
	return lyingFile{f}, err
}

func (l liar) SyncDir(dir string) error {
	if l.dir {
		return nil
	}
	return l.FS.SyncDir(dir)
}

type lyingFile struct{ vfs.File }

func (lyingFile) Sync() error     { return nil }
func (lyingFile) SyncData() error { return nil }

// called says whether a function is among the callers.
func called(name string) bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, name) {
			return true
		}
		if !more {
			return false
		}
	}
}

// TestLyingDisk lets the explorer find what it must: a disk that syncs nothing,
// or no directory, or not the files of one kind, or of one hand.
func TestLyingDisk(t *testing.T) {
	none := func(string) bool { return false }
	for name, l := range map[string]liar{
		"everything":  {file: func(string) bool { return true }, dir: true},
		"files":       {file: func(string) bool { return true }},
		"directories": {file: none, dir: true},
		"manifest":    {file: func(n string) bool { return strings.HasPrefix(filepath.Base(n), "MANIFEST") }},
		"log":         {file: func(n string) bool { return strings.HasSuffix(n, ".log") }},
		"segments":    {file: func(n string) bool { return strings.HasSuffix(n, ".seg") }},
		"compactions": {file: func(n string) bool { return strings.HasSuffix(n, ".seg") && called("compaction.Run") }},
		"backups":     {file: func(n string) bool { return strings.HasPrefix(n, "backup") && called("(*DB).Backup") }},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := bubbled(t)
			cfg.Disk = func(fsys vfs.FS) vfs.FS { l := l; l.FS = fsys; return l }
			cfg.States, cfg.PerWorkload, cfg.MaxViolations, cfg.Seed, cfg.ShrinkFor = 10000, 200, 1, 7, 3*time.Second
			cfg.Modes, cfg.Workers = []bool{false}, 1
			rep, err := Run(context.Background(), cfg)
			require.NoError(t, err)
			require.NotEmpty(t, rep.Violations, "nothing found in %d states", rep.States)
			t.Logf("found after %d states of %d workloads: %s", rep.States, rep.Workloads, rep.Violations[0])
			require.NotEmpty(t, rep.Violations[0].Smallest().Property)
			// The replay id makes it again.
			v := rep.Violations[0]
			again, err := Replay(context.Background(), cfg, v.Replay)
			require.NoError(t, err)
			require.NotEmpty(t, again.Violations)
			require.Equal(t, v.Kind, again.Violations[0].Kind)
		})
	}
}
