package vfs

import "hash/maphash"

// Sum is a hash of all that reads of the file system can show: the names, the
// sizes and the bytes of the files. Two that show the same have the same sum
// under one seed, unless one of them has pages of zeros that were written and
// the other has not. What is unsynced has no part in it.
func (m *Mem) Sum(seed maphash.Seed) uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var h maphash.Hash
	h.SetSeed(seed)
	number := func(x uint64) {
		var b [8]byte
		for i := range b {
			b[i] = byte(x >> (8 * i))
		}
		h.Write(b[:])
	}
	for _, d := range m.names {
		n := m.inodes[d.ino]
		number(uint64(len(d.path)))
		h.WriteString(d.path)
		if n.dir {
			number(1 << 63) // no size
			continue
		}
		number(uint64(n.size))
		for i := range n.slots {
			if p := n.slots[i].p; p != nil {
				number(uint64(i))
				h.Write(p[:])
			}
		}
	}
	return h.Sum64()
}
