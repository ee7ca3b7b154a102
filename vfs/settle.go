package vfs

import "slices"

// This file carries out the fates of a power cut. It works on a private
// snapshot, so that it needs no lock.

// settle makes a snapshot what the disk holds.
func (m *Mem) settle(units []Unit, chosen []Fate) {
	m.names = m.settleEntries(chosen[:len(m.ops)])
	rest := units[len(m.ops):]
	chosen = chosen[len(m.ops):]
	m.durable, m.ops, m.orphans = m.names, nil, nil
	m.barrier, m.floor = m.seq, 0

	alive := make([]bool, len(m.inodes))
	alive[0] = true
	for _, d := range m.names {
		alive[d.ino] = true
	}
	for len(rest) > 0 {
		k := 1
		for k < len(rest) && rest[k].Ino == rest[0].Ino {
			k++
		}
		if alive[rest[0].Ino] {
			m.settleFile(rest[:k], chosen[:k])
		}
		rest, chosen = rest[k:], chosen[k:]
	}
	m.used = 0
	for ino, n := range m.inodes {
		if n == nil {
			continue
		}
		if !alive[ino] {
			m.forgetInode(int32(ino))
			continue
		}
		m.used += n.size
	}
}

// settleEntries returns the names that are there: the durable ones, and the
// kept changes that do not build upon a lost one.
func (m *Mem) settleEntries(chosen []Fate) []dent {
	whole := true
	for _, f := range chosen {
		whole = whole && f == Kept
	}
	if whole {
		return m.names
	}
	t := m.durable
	var lost []int
	for i := range m.ops {
		o := &m.ops[i]
		if chosen[i] != Kept || slices.ContainsFunc(lost, func(j int) bool { return o.touches(&m.ops[j]) }) {
			lost = append(lost, i)
			continue
		}
		t = o.apply(t)
	}
	// Directories come before what lies in them.
	orphaned := func(d dent) bool {
		dir := parentOf(d.path)
		_, ok := search(t, dir)
		return dir != "" && !ok
	}
	for slices.ContainsFunc(t, orphaned) {
		t = slices.DeleteFunc(slices.Clone(t), orphaned)
	}
	return t
}

// settleFile carries out the fates of the units of one file.
func (m *Mem) settleFile(units []Unit, chosen []Fate) {
	n := m.own(int32(units[0].Ino))
	n.own()
	size := n.size
	for i, u := range units {
		switch {
		case chosen[i] == Kept:
		case u.Kind == SizeUnit:
			size = n.durSize
			if c := n.partway(); chosen[i] == Torn && c > 0 {
				size = (n.durSize/pageSize + 1 + int64(mix(uint64(u.Ino), u.Seqs[0])%uint64(c))) * pageSize
			} else if k := int(chosen[i]) - int(older1) + 1; k >= 1 && k < n.nsizes {
				size = n.sizes[n.nsizes-1-k].size
			}
		case u.Zeros:
			m.settleZeros(n, u, chosen[i])
		default:
			m.settleSector(n, u, chosen[i])
		}
	}
	for _, idx := range n.dirty {
		n.slots[idx].d = nil
	}
	n.dirty, n.zeros, n.nsizes = nil, nil, 0
	n.truncate(m.gen, size)
	n.durSize, n.reach = size, size
}

// truncate cuts a file that is all durable to size.
func (n *inode) truncate(gen uint64, size int64) {
	n.size = size
	pages := int((size + pageSize - 1) / pageSize)
	if pages < len(n.slots) {
		clear(n.slots[pages:])
		n.slots = n.slots[:pages]
	}
	if at := int(size % pageSize); at != 0 && pages <= len(n.slots) && n.slots[pages-1].p != nil {
		if slices.ContainsFunc(n.slots[pages-1].p[at:], func(b byte) bool { return b != 0 }) {
			clear(n.slots[pages-1].writable(gen)[at:])
		}
	}
}

func (m *Mem) settleSector(n *inode, u Unit, f Fate) {
	s, at := &n.slots[u.Sector/sectorsPerPage], int(u.Sector%sectorsPerPage)
	var to sector
	m.sectorAfter(&to, n, u, f)
	if string(to[:]) != string(sectorOf(s.p, at)) {
		copy(sectorOf(s.writable(m.gen), at), to[:])
	}
}

// sectorAfter makes to, all zeros, what a fate makes of a sector.
func (m *Mem) sectorAfter(to *sector, n *inode, u Unit, f Fate) {
	s, at := &n.slots[u.Sector/sectorsPerPage], int(u.Sector%sectorsPerPage)
	now, base := sectorOf(s.p, at), s.d.baseSector(at)
	switch {
	case f == Zeroed:
	case f == Kept:
		copy(to[:], now)
	case f == Garbage:
		noise(to, u)
	case f == Stale:
		m.stale(to, u)
	case f == Torn:
		tear(to, now, base, u)
	case f >= older1 && int(f-older1) < u.Versions-1:
		*to = *s.d.old[at].v[f-older1].data
	default: // Lost
		copy(to[:], base)
	}
}

// Alike is, for one unit, which fates come to the same: Alike[f] is the first
// fate of LegalFates that leaves what f leaves.
type Alike [older1 + MaxVersions - 1]Fate

// Alike returns for each unit of Unsynced which of its legal fates come to the
// same: a sector that was written with what it held is the same Kept and Lost.
// A Stale sector, which depends on other files, is like no other.
func (m *Mem) Alike(units []Unit, mod Model) []Alike {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]Alike, len(units))
	for i, u := range units {
		legal := LegalFates(u, mod)
		var made [older1 + MaxVersions - 1]sector
		for k, f := range legal {
			out[i][f] = f
			if u.Kind != SectorUnit || u.Zeros || f == Stale {
				continue
			}
			m.sectorAfter(&made[k], m.inodes[u.Ino], u, f)
			for j, g := range legal[:k] {
				if g != Stale && made[j] == made[k] {
					out[i][f] = out[i][g]
					break
				}
			}
		}
	}
	return out
}

// zeroWindow is how many sectors of a range of zeros come out Stale or Garbage:
// enough to hurt, and few enough not to fill the memory.
const zeroWindow = 64

func (m *Mem) settleZeros(n *inode, u Unit, f Fate) {
	if f != Stale && f != Garbage && f != Torn {
		return
	}
	first, end := u.Sector, u.Sector+u.Sectors
	if h := mix(uint64(u.Ino), uint64(u.Sector)); u.Sectors > zeroWindow && h&1 != 0 {
		first += int64(h >> 1 % uint64(u.Sectors-zeroWindow+1))
	}
	for sec := first; sec < min(end, first+zeroWindow); sec++ {
		u.Sector = sec
		var to sector
		if f == Stale {
			m.stale(&to, u)
		} else {
			noise(&to, u)
		}
		s := n.slotAt(int(sec / sectorsPerPage))
		copy(sectorOf(s.writable(m.gen), int(sec%sectorsPerPage)), to[:])
	}
}

// mix is a hash of two numbers (splitmix64).
func mix(a, b uint64) uint64 {
	x := a*0x9e3779b97f4a7c15 + b + 0x632be59bd9b4e019
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func noise(to *sector, u Unit) {
	h := mix(uint64(u.Ino), uint64(u.Sector))
	for i := range to {
		if i%8 == 0 {
			h = mix(h, uint64(i))
		}
		to[i] = byte(h >> (i % 8 * 8))
	}
}

// stale finds bytes that the disk may have held before: of a file that is gone,
// else of another file, at the same offset if there is something.
func (m *Mem) stale(to *sector, u Unit) {
	idx, at := int(u.Sector/sectorsPerPage), int(u.Sector%sectorsPerPage)
	var zero sector
	try := func(n *inode, idx int) bool {
		if n == nil || idx >= len(n.slots) || n.slots[idx].p == nil {
			return false
		}
		b := sectorOf(n.slots[idx].p, at)
		copy(to[:], b)
		return string(b) != string(zero[:])
	}
	for i := len(m.grave) - 1; i >= 0; i-- {
		if try(m.grave[i], idx) {
			return
		}
	}
	for ino, n := range m.inodes {
		if ino != u.Ino && try(n, idx) {
			return
		}
	}
	for i := len(m.grave) - 1; i >= 0; i-- {
		if k := len(m.grave[i].slots); k > 0 && try(m.grave[i], int(mix(uint64(u.Ino), uint64(u.Sector))%uint64(k))) {
			return
		}
	}
	noise(to, u)
}

// tear mixes new and durable bytes: a new head, a new tail, or single bytes.
func tear(to *sector, now, base []byte, u Unit) {
	copy(to[:], base)
	h := mix(uint64(u.Ino)^u.Seqs[0]<<32, uint64(u.Sector))
	cut := 1 + int(h>>8%(SectorSize-1))
	switch h % 3 {
	case 0:
		copy(to[:cut], now)
	case 1:
		copy(to[cut:], now[cut:])
	default:
		for i := range to {
			if mix(h, uint64(i))&1 != 0 {
				to[i] = now[i]
			}
		}
	}
}
