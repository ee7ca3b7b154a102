package vfs

// starter is a File that can begin to write to the disk what was written to it.
type starter interface {
	StartWriteback(off, n int64)
}

// StartWriteback asks the system to begin to bring n bytes at off to the disk, and
// does not wait: so that a later sync finds little to do, and whoever else syncs
// meanwhile does not wait behind all of it. It makes nothing durable, and tells no
// error: the sync does. Where the file or the system has nothing of the kind, nothing
// happens.
func StartWriteback(f File, off, n int64) {
	if s, ok := f.(starter); ok && n > 0 {
		s.StartWriteback(off, n)
	}
}

// StartWriteback is for StartWriteback. It is no call that is counted or fails.
func (f *injFile) StartWriteback(off, n int64) { StartWriteback(f.f, off, n) }

// StartWriteback is for StartWriteback. It is no call that is reported.
func (f *recFile) StartWriteback(off, n int64) { StartWriteback(f.f, off, n) }
