package real

import (
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/forebaydb/forebay/vfs"
)

// outage is a file system whose power goes at a moment: a sync that comes back
// later has failed, whatever it says.
//
// Nobody sees a sync come back without power. A file system that is shut down goes
// on while it is: what waits for the journal is let go, and for some milliseconds
// a sync or an O_DSYNC write of xfs that was under way finds nothing that it would
// have to wait for, and returns nil. (One that began 2.9 ms before the shutdown
// came back 8.5 ms after it had begun, 6.3 ms before it ended, without an error and
// without the bytes.)
type outage struct {
	vfs.FS
	off atomic.Bool // set before the power goes
}

// after is the error of a sync that came back with err.
func (o *outage) after(op, name string, err error) error {
	if err == nil && o.off.Load() {
		return fmt.Errorf("%s %s: the power was off before it came back: %w", op, name, syscall.EIO)
	}
	return err
}

// Create implements vfs.FS.
func (o *outage) Create(name string, mode vfs.Mode) (vfs.File, error) {
	return o.file(name, mode)(o.FS.Create(name, mode))
}

// Open implements vfs.FS.
func (o *outage) Open(name string, mode vfs.Mode) (vfs.File, error) {
	return o.file(name, mode)(o.FS.Open(name, mode))
}

func (o *outage) file(name string, mode vfs.Mode) func(vfs.File, error) (vfs.File, error) {
	return func(f vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return &outageFile{File: f, o: o, name: name, dsync: mode&vfs.DSync != 0}, nil
	}
}

// SyncDir implements vfs.FS.
func (o *outage) SyncDir(dir string) error { return o.after("sync", dir, o.FS.SyncDir(dir)) }

type outageFile struct {
	vfs.File
	o     *outage
	name  string
	dsync bool
}

// WriteAt implements vfs.File.
func (f *outageFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	if f.dsync {
		if err = f.o.after("write", f.name, err); err != nil {
			n = min(n, max(len(p)-1, 0)) // all bytes written is no error to an io.WriterAt
		}
	}
	return n, err
}

// Sync implements vfs.File.
func (f *outageFile) Sync() error { return f.o.after("sync", f.name, f.File.Sync()) }

// SyncData implements vfs.File.
func (f *outageFile) SyncData() error { return f.o.after("sync", f.name, f.File.SyncData()) }

// Reserve implements vfs.Reserver.
func (f *outageFile) Reserve(off, n int64) error { return vfs.Reserve(f.File, off, n) }

// Map implements vfs.Mapper.
func (f *outageFile) Map(off, n int64) (vfs.Mapping, error) { return vfs.Map(f.File, off, n) }

// StartWriteback is for vfs.StartWriteback.
func (f *outageFile) StartWriteback(off, n int64) { vfs.StartWriteback(f.File, off, n) }

// LetGo is for vfs.LetGo.
func (f *outageFile) LetGo(off, n int64) { vfs.LetGo(f.File, off, n) }
