package real

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// slow is a file system in which something happens while a sync is under way.
type slow struct {
	vfs.FS
	meanwhile func()
}

func (s slow) Create(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := s.FS.Create(name, mode)
	return slowFile{f, s}, err
}

func (s slow) SyncDir(dir string) error {
	s.meanwhile()
	return s.FS.SyncDir(dir)
}

type slowFile struct {
	vfs.File
	s slow
}

func (f slowFile) WriteAt(p []byte, off int64) (int, error) {
	f.s.meanwhile()
	return f.File.WriteAt(p, off)
}

func (f slowFile) Sync() error {
	f.s.meanwhile()
	return f.File.Sync()
}

func (f slowFile) SyncData() error {
	f.s.meanwhile()
	return f.File.SyncData()
}

// TestOutageFailsSyncsUnderWay: a sync that was under way when the power went has
// failed; what only writes goes on, as a process does that does not know it yet.
func TestOutageFailsSyncsUnderWay(t *testing.T) {
	for name, call := range map[string]struct {
		mode  vfs.Mode
		call  func(fsys vfs.FS, f vfs.File) error
		syncs bool
	}{
		"sync":        {0, func(_ vfs.FS, f vfs.File) error { return f.Sync() }, true},
		"sync data":   {0, func(_ vfs.FS, f vfs.File) error { return f.SyncData() }, true},
		"sync dir":    {0, func(fsys vfs.FS, _ vfs.File) error { return fsys.SyncDir("d") }, true},
		"write":       {0, func(_ vfs.FS, f vfs.File) error { _, err := f.WriteAt([]byte("x"), 0); return err }, false},
		"dsync write": {vfs.DSync, func(_ vfs.FS, f vfs.File) error { _, err := f.WriteAt([]byte("x"), 0); return err }, true},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			require.NoError(t, mem.MkdirAll("d"))
			o := &outage{}
			cut := func() {}
			o.FS = slow{mem, func() { cut() }}
			f, err := o.Create(filepath.Join("d", "f"), call.mode)
			require.NoError(t, err)
			require.NoError(t, call.call(o, f))
			cut = func() { o.off.Store(true) }
			if err := call.call(o, f); call.syncs {
				require.ErrorIs(t, err, syscall.EIO)
			} else {
				require.NoError(t, err)
			}
		})
	}
}
