package vfs

import "io/fs"

// Bytes returns a copy of what reads of a file show; nil where it is missing.
func (m *Mem) Bytes(name string) []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	ino, err := m.lookup(memName(name))
	if err != nil || m.inodes[ino].dir {
		return nil
	}
	b := make([]byte, m.inodes[ino].size)
	m.inodes[ino].readAt(b, 0)
	return b
}

// SetBytes gives a file the content b, longer or shorter than before, or makes
// it. Content, size and entry are durable at once: this is a disk that has
// changed behind everybody's back. It is no change to an OnIO hook and knows
// no capacity. The directory must exist.
func (m *Mem) SetBytes(name string, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clean := memName(name)
	ino, err := m.lookup(clean)
	if err == fs.ErrNotExist {
		capacity := m.capacity
		m.capacity = 0
		ino, err = m.create(clean, false)
		m.capacity = capacity
	} else if err == nil && m.inodes[ino].dir {
		err = ErrNotRegular
	}
	if err != nil {
		return memErr("setbytes", name, err)
	}
	// What the name was before is no longer in question.
	m.settleOps(func(o *entryOp) bool { return o.name == clean || o.from == clean })
	n := m.own(ino)
	m.used += int64(len(b)) - n.size
	*n = inode{gen: m.gen, ownTable: true}
	if len(b) > 0 {
		n.write(m, b, 0, int64(len(b)), toDisk)
		n.grow(m, int64(len(b)), toDisk)
	}
	return nil
}

// Corrupt lets f change the n bytes at off of a file, as a failing disk would:
// reads show the change at once, and the sectors it touches are durable as they
// are then. f runs under the lock of the Mem and must not call it. A range that
// does not lie inside the file is an error.
func (m *Mem) Corrupt(name string, off, n int64, f func(b []byte)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	ino, err := m.lookup(memName(name))
	if err == nil && (m.inodes[ino].dir || off < 0 || n < 0 || off > m.inodes[ino].size-n) {
		err = fs.ErrInvalid
	}
	if err != nil {
		return memErr("corrupt", name, err)
	}
	b := make([]byte, n)
	m.inodes[ino].readAt(b, off)
	f(b)
	if n > 0 {
		m.own(ino).write(m, b, off, n, toDisk)
	}
	return nil
}
