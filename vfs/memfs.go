package vfs

import (
	"io"
	"io/fs"
	"strings"
	"syscall"
)

func memErr(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Create is FS.Create.
func (m *Mem) Create(name string, mode Mode) (File, error) {
	h := m.lock()
	ino, err := m.create(memName(name), false)
	if err != nil {
		m.unlock(h, Op{}, false)
		return nil, memErr("create", name, err)
	}
	m.counts(ino).handles++
	m.unlock(h, Op{Call: CallCreate, Name: name}, true)
	return &memFile{m: m, ino: ino, mode: mode | ReadWrite, name: name}, nil
}

// Open is FS.Open.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.lookup(memName(name))
	if err == nil && m.inodes[ino].dir {
		err = ErrNotRegular
	}
	if err != nil {
		return nil, memErr("open", name, err)
	}
	m.counts(ino).handles++
	return &memFile{m: m, ino: ino, mode: mode, name: name}, nil
}

// Remove is FS.Remove.
func (m *Mem) Remove(name string) error {
	h := m.lock()
	err := m.remove(memName(name))
	m.unlock(h, Op{Call: CallRemove, Name: name}, err == nil)
	if err != nil {
		return memErr("remove", name, err)
	}
	return nil
}

func (m *Mem) remove(name string) error {
	ino, err := m.lookup(name)
	if err != nil {
		return err
	}
	if ino == 0 {
		return syscall.EBUSY
	}
	if m.inodes[ino].dir {
		below := name + "/"
		if i, _ := search(m.names, below); i < len(m.names) && strings.HasPrefix(m.names[i].path, below) {
			return syscall.ENOTEMPTY
		}
	}
	m.enter(entryOp{call: CallRemove, name: name, ino: ino})
	m.unname(ino)
	return nil
}

// Rename is FS.Rename. Directories cannot be renamed.
func (m *Mem) Rename(oldName, newName string) error {
	h := m.lock()
	effect, err := m.rename(memName(oldName), memName(newName))
	m.unlock(h, Op{Call: CallRename, Name: oldName, To: newName}, effect)
	if err != nil {
		return memErr("rename", oldName, err)
	}
	return nil
}

func (m *Mem) rename(from, to string) (effect bool, err error) {
	ino, err := m.lookup(from)
	if err != nil {
		return false, err
	}
	if m.inodes[ino].dir {
		return false, ErrNotRegular
	}
	if err := m.lookupParent(to); err != nil {
		return false, err
	}
	gone, err := m.lookup(to)
	if err == nil && m.inodes[gone].dir {
		return false, fs.ErrExist
	}
	if from == to {
		return false, nil
	}
	m.enter(entryOp{call: CallRename, name: to, from: from, ino: ino})
	if err == nil {
		m.unname(gone)
	}
	return true, nil
}

// MkdirAll is FS.MkdirAll. Each directory that it makes is an entry of its
// parent, and durable after SyncDir of that.
func (m *Mem) MkdirAll(dir string) error {
	clean := memName(dir)
	for end := 0; end < len(clean); {
		if k := strings.IndexByte(clean[end+1:], '/'); k >= 0 {
			end += 1 + k
		} else {
			end = len(clean)
		}
		h := m.lock()
		ino, err := m.lookup(clean[:end])
		made := false
		if err == nil && !m.inodes[ino].dir {
			err = syscall.ENOTDIR
		} else if err == fs.ErrNotExist {
			_, err = m.create(clean[:end], true)
			made = err == nil
		}
		m.unlock(h, Op{Call: CallMkdir, Name: clean[:end]}, made)
		if err != nil {
			return memErr("mkdir", dir, err)
		}
	}
	return nil
}

// List is FS.List.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	below := memName(dir)
	if err := m.isDir(below); err != nil {
		return nil, memErr("list", dir, err)
	}
	i := 0
	if below != "" {
		below += "/"
		i, _ = search(m.names, below)
	}
	t := m.names[i:]
	var out []string
	for _, d := range t {
		if !strings.HasPrefix(d.path, below) {
			break
		}
		if name := d.path[len(below):]; strings.IndexByte(name, '/') < 0 {
			out = append(out, name)
		}
	}
	return out, nil
}

func (m *Mem) isDir(name string) error {
	ino, err := m.lookup(name)
	if err == nil && !m.inodes[ino].dir {
		err = syscall.ENOTDIR
	}
	return err
}

// Stat is FS.Stat.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	ino, err := m.lookup(memName(name))
	if err != nil {
		return Info{}, memErr("stat", name, err)
	}
	if n := m.inodes[ino]; !n.dir {
		return Info{Size: n.size, Regular: true}, nil
	}
	return Info{Dir: true}, nil
}

// SyncDir is FS.SyncDir.
func (m *Mem) SyncDir(dir string) error {
	h := m.lock()
	clean := memName(dir)
	err := m.isDir(clean)
	if err == nil {
		m.syncDir(clean)
	}
	m.unlock(h, Op{Call: CallSyncDir, Name: dir}, err == nil)
	if err != nil {
		return memErr("syncdir", dir, err)
	}
	return nil
}

type memLock struct {
	m    *Mem
	ino  int32
	name string
	// shared tells which of the two locks it is.
	shared bool
	done   bool // guarded by m.mu
}

// Lock is FS.Lock.
func (m *Mem) Lock(name string) (io.Closer, error) {
	h := m.lock()
	clean := memName(name)
	ino, err := m.lookup(clean)
	made := false
	switch {
	case err == fs.ErrNotExist:
		ino, err = m.create(clean, false)
		made = err == nil
	case err == nil && m.inodes[ino].dir:
		err = ErrNotRegular
	case err == nil && (m.counts(ino).locked || m.counts(ino).readers > 0):
		err = ErrLocked
	}
	if err == nil {
		c := m.counts(ino)
		c.locked = true
		c.handles++
	}
	m.unlock(h, Op{Call: CallLock, Name: name}, made)
	if err != nil {
		return nil, memErr("lock", name, err)
	}
	return &memLock{m: m, ino: ino, name: name}, nil
}

// LockShared is FS.LockShared.
func (m *Mem) LockShared(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.lookup(memName(name))
	switch {
	case err == nil && m.inodes[ino].dir:
		err = ErrNotRegular
	case err == nil && m.counts(ino).locked:
		err = ErrLocked
	}
	if err != nil {
		return nil, memErr("lock", name, err)
	}
	c := m.counts(ino)
	c.readers++
	c.handles++
	return &memLock{m: m, ino: ino, name: name, shared: true}, nil
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.done {
		return memErr("unlock", l.name, fs.ErrClosed)
	}
	l.done = true
	if c := l.m.counts(l.ino); l.shared {
		c.readers--
	} else {
		c.locked = false
	}
	l.m.release(l.ino)
	return nil
}

// release gives one handle back.
func (m *Mem) release(ino int32) {
	m.counts(ino).handles--
	if len(m.orphans) > 0 {
		m.bury()
	}
}

type memFile struct {
	m      *Mem
	ino    int32
	mode   Mode
	closed bool // guarded by m.mu
	name   string
}

// check returns the inode, or why a transfer of p at off is refused.
func (f *memFile) check(p []byte, off int64) (*inode, error) {
	switch {
	case f.closed:
		return nil, fs.ErrClosed
	case off < 0:
		return nil, syscall.EINVAL
	case f.mode&Direct != 0 && !directAligned(p, off):
		return nil, syscall.EINVAL
	}
	return f.m.inodes[f.ino], nil
}

// ReadAt is io.ReaderAt.
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	n, err := f.check(p, off)
	if err != nil {
		return 0, memErr("read", f.name, err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= n.size {
		return 0, io.EOF
	}
	if left := n.size - off; int64(len(p)) > left {
		p, err = p[:left], io.EOF
	}
	n.readAt(p, off)
	return len(p), err
}

// WriteAt is io.WriterAt.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	how := toCache
	if f.mode&DSync != 0 {
		how = toDisk
	}
	return f.write(p, off, how)
}

// FailWrite does what a write with DSync does that fails after the cache has
// the bytes: reads show them, and no sync makes them durable.
func (f *memFile) FailWrite(p []byte, off int64) (int, error) { return f.write(p, off, toLimbo) }

func (f *memFile) write(p []byte, off int64, how depth) (int, error) {
	if len(p) == 0 {
		p = []byte{}
	}
	h := f.m.lock()
	n, err := f.writeLocked(p, off, int64(len(p)), how)
	f.m.unlock(h, Op{Call: CallWrite, Name: f.name, Off: off, Len: n, Failed: how == toLimbo}, n > 0)
	if err != nil {
		return int(n), memErr("write", f.name, err)
	}
	return int(n), nil
}

// Zero is File.Zero, in one piece: the time does not depend on n where there
// were zeros before.
func (f *memFile) Zero(off, n int64) error {
	h := f.m.lock()
	how := toCache
	if f.mode&DSync != 0 {
		how = toDisk
	}
	var err error
	if f.mode&Direct != 0 && n%DirectAlign != 0 {
		n, err = 0, syscall.EINVAL
	} else {
		n, err = f.writeLocked(nil, off, n, how)
	}
	f.m.unlock(h, Op{Call: CallZero, Name: f.name, Off: off, Len: n}, n > 0)
	if err != nil {
		return memErr("zero", f.name, err)
	}
	return nil
}

// writeLocked returns how many bytes it wrote.
func (f *memFile) writeLocked(p []byte, off, length int64, how depth) (int64, error) {
	n, err := f.check(p, off)
	switch {
	case err != nil:
		return 0, err
	case f.mode&ReadWrite == 0:
		return 0, syscall.EBADF
	case length < 0:
		return 0, syscall.EINVAL
	case length == 0:
		return 0, nil
	case off > maxMemFile-length:
		return 0, syscall.EFBIG
	}
	m := f.m
	if c := m.capacity; c > 0 && off+length > n.size && m.used+off+length-n.size > c {
		length, err = max(0, n.size+max(0, c-m.used)-off), syscall.ENOSPC
		if length == 0 {
			return 0, err
		}
		if p != nil {
			p = p[:length]
		}
	}
	m.seq++
	m.used += max(0, off+length-n.size)
	n = m.own(f.ino)
	n.write(m, p, off, length, how)
	n.grow(m, off+length, how)
	if how == toDisk {
		m.barrier = m.seq
	}
	return length, err
}

// Close is io.Closer.
func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return memErr("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	f.m.release(f.ino)
	return nil
}

// Size is File.Size.
func (f *memFile) Size() (int64, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if f.closed {
		return 0, memErr("size", f.name, fs.ErrClosed)
	}
	return f.m.inodes[f.ino].size, nil
}

// Sync is File.Sync.
func (f *memFile) Sync() error { return f.sync(CallSync) }

// SyncData is File.SyncData; in a Mem it is Sync.
func (f *memFile) SyncData() error { return f.sync(CallSyncData) }

func (f *memFile) sync(call Call) error {
	h := f.m.lock()
	if f.closed {
		f.m.unlock(h, Op{}, false)
		return memErr(call.String(), f.name, fs.ErrClosed)
	}
	f.m.seq++
	f.m.barrier = f.m.seq
	if !f.m.inodes[f.ino].clean() {
		f.m.own(f.ino).sync(f.m)
	}
	f.m.unlock(h, Op{Call: call, Name: f.name}, true)
	return nil
}

// FailSync does what a Sync does that fails: the pages are clean and show what
// was written, a power cut may lose it, and a later Sync does not make it
// durable unless it is written again.
func (f *memFile) FailSync() {
	h := f.m.lock()
	if !f.closed {
		f.m.seq++
		if !f.m.inodes[f.ino].clean() {
			f.m.own(f.ino).failSync(f.m)
		}
	}
	f.m.unlock(h, Op{Call: CallSync, Name: f.name, Failed: true}, !f.closed)
}
