package vfs

const (
	pageSize       = 4096
	sectorsPerPage = pageSize / SectorSize
	// maxMemFile bounds a file in memory, because a page table has an entry
	// for every page below the last one written.
	maxMemFile = 1 << 36

	// MaxVersions is how many versions of a sector, or of a size, a Mem
	// remembers between two barriers; of older ones it forgets the oldest.
	MaxVersions = 4
)

type (
	page   [pageSize]byte
	sector [SectorSize]byte
)

// depth is how far the bytes of a write get before the call returns.
type depth uint8

const (
	toCache depth = iota // an ordinary write
	toDisk               // a write with DSync
	toLimbo              // a write with DSync that failed: clean in the cache, not on the disk
)

// inode is a file or a directory. Inodes, slot tables, dirt and pages are
// shared between a Mem and its snapshots: each is written only by the Mem whose
// gen it carries, and copied first by every other.
type inode struct {
	gen      uint64
	dir      bool
	ownTable bool   // slots belongs to this inode alone
	slots    []slot // by page; what lies behind it is zero
	dirty    []int32
	zeros    []zeroRange // replaced, never changed in place
	size     int64
	durSize  int64
	reach    int64 // a sync that succeeds makes the size at least this
	sizes    [MaxVersions]sizeVersion
	nsizes   int
}

type slot struct {
	p   *page  // nil: zeros
	gen uint64 // of p
	d   *dirt  // nil: all of p is durable
}

// dirt is what the disk may hold in place of a page.
type dirt struct {
	gen     uint64
	base    *page  // durable content of the sectors in mask; nil: zeros; never the slot's p
	baseGen uint64 // of base, 0 until it is copied
	mask    uint8  // sectors with unsynced content
	fresh   uint8  // of mask: never durable before
	limbo   uint8  // of mask: a failed sync left them clean, the next does not write them
	seq     [sectorsPerPage]uint64
	old     [sectorsPerPage]*chain
}

// chain is the older unsynced versions of a sector, newest first. Chains are
// never changed once they are in a dirt.
type chain struct {
	n int
	v [MaxVersions - 1]struct {
		seq  uint64
		data *sector
	}
}

// zeroRange is an unsynced write of zeros over sectors that held zeros.
type zeroRange struct {
	first, end int64 // sectors
	seq        uint64
	fresh      bool
	limbo      bool
}

type sizeVersion struct {
	seq  uint64
	size int64
}

func sectorOf(p *page, s int) []byte {
	return p[s*SectorSize : (s+1)*SectorSize]
}

// readAt fills p, which must lie below the size.
func (n *inode) readAt(p []byte, off int64) {
	for len(p) > 0 {
		idx, at := int(off/pageSize), int(off%pageSize)
		c := min(len(p), pageSize-at)
		if idx < len(n.slots) && n.slots[idx].p != nil {
			copy(p[:c], n.slots[idx].p[at:])
		} else {
			clear(p[:c])
		}
		p, off = p[c:], off+int64(c)
	}
}

// clean tells whether nothing is unsynced.
func (n *inode) clean() bool {
	return len(n.dirty) == 0 && len(n.zeros) == 0 && n.nsizes == 0
}

// slotAt returns the slot of page idx for writing; the table grows to hold it.
func (n *inode) slotAt(idx int) *slot {
	n.own()
	if idx >= len(n.slots) {
		if idx < cap(n.slots) {
			n.slots = n.slots[:idx+1]
		} else {
			n.slots = append(n.slots, make([]slot, idx+1-len(n.slots))...)
		}
	}
	return &n.slots[idx]
}

// own makes the slot table this inode's own.
func (n *inode) own() {
	if !n.ownTable {
		n.slots = append(make([]slot, 0, len(n.slots)+2), n.slots...)
		n.ownTable = true
	}
}

// writable returns the page of s for changing in place.
func (s *slot) writable(gen uint64) *page {
	if s.p == nil {
		s.p, s.gen = new(page), gen
	} else if s.gen != gen {
		p := *s.p
		s.p, s.gen = &p, gen
	}
	return s.p
}

// ownDirt returns the dirt of s for changing in place.
func (s *slot) ownDirt(gen uint64) *dirt {
	if s.d.gen != gen {
		d := *s.d
		d.gen = gen
		s.d = &d
	}
	return s.d
}

// forget makes the current content of the sectors in mask the durable one.
func (d *dirt) forget(mask uint8) {
	d.mask &^= mask
	d.fresh &^= mask
	d.limbo &^= mask
	for s := range sectorsPerPage {
		if mask>>s&1 != 0 {
			d.seq[s], d.old[s] = 0, nil
		}
	}
}

// baseSector returns the durable content of sector s; nil is zeros.
func (d *dirt) baseSector(s int) []byte {
	if d.base == nil {
		return nil
	}
	return sectorOf(d.base, s)
}

// keepBase makes now, which is durable, the base of sector s.
func (d *dirt) keepBase(s int, now []byte, gen uint64) {
	var zero sector
	was := d.baseSector(s)
	if was == nil {
		was = zero[:]
	}
	if string(was) == string(now) {
		return
	}
	if d.base == nil {
		d.base = new(page)
	} else if d.baseGen != gen {
		p := *d.base
		d.base = &p
	}
	d.baseGen = gen
	copy(sectorOf(d.base, s), now)
}

// push makes now, which is not durable, an older version of sector s. It
// returns the sequence number below which versions have been forgotten, or 0.
func (d *dirt) push(s int, now []byte) (floor uint64) {
	c := new(chain)
	c.v[0].seq, c.v[0].data, c.n = d.seq[s], (*sector)(append([]byte(nil), now...)), 1
	if o := d.old[s]; o != nil {
		c.n += copy(c.v[1:], o.v[:o.n])
		if o.n == len(o.v) {
			floor = c.v[c.n-1].seq
		}
	}
	d.old[s] = c
	return floor
}

// writePage writes src, or zeros where src is nil, to bytes a up to b of page idx.
func (n *inode) writePage(m *Mem, idx, a, b int, src []byte, how depth) {
	s := n.slotAt(idx)
	mask := uint8(1<<((b-1)/SectorSize+1) - 1<<(a/SectorSize))
	switch {
	case how == toDisk:
		if s.d != nil {
			d := s.ownDirt(m.gen)
			if d.forget(mask); d.mask == 0 {
				s.d = nil
				n.dropDirty(int32(idx))
			}
		}
	case s.d == nil:
		s.d = &dirt{gen: m.gen, base: s.p}
		n.dirty = append(n.dirty, int32(idx))
		// The old page stays as the base, so that the slot needs another.
		p := new(page)
		if s.p != nil && (a != 0 || b != pageSize) {
			*p = *s.p
		}
		s.p, s.gen = p, m.gen
		n.soil(s.d, idx, mask, how, m.seq)
	default:
		d := s.ownDirt(m.gen)
		for i := range sectorsPerPage {
			if mask>>i&1 == 0 {
				continue
			}
			if now := sectorOf(s.p, i); d.mask>>i&1 != 0 {
				m.floor = max(m.floor, d.push(i, now))
			} else {
				d.keepBase(i, now, m.gen)
			}
		}
		n.soil(d, idx, mask, how, m.seq)
	}
	p := s.writable(m.gen)
	if src != nil {
		copy(p[a:b], src)
	} else {
		clear(p[a:b])
	}
}

// soil marks the sectors in mask as written by operation seq.
func (n *inode) soil(d *dirt, idx int, mask uint8, how depth, seq uint64) {
	for i := range sectorsPerPage {
		if mask>>i&1 == 0 {
			continue
		}
		if d.mask>>i&1 == 0 && n.freshSector(int64(idx)*sectorsPerPage+int64(i)) {
			d.fresh |= 1 << i
		}
		d.seq[i] = seq
	}
	d.mask |= mask
	d.limbo &^= mask
	if how == toLimbo {
		d.limbo |= mask
	}
}

// freshSector tells whether sector sec was never durable.
func (n *inode) freshSector(sec int64) bool {
	for _, z := range n.zeros {
		if z.fresh && z.first <= sec && sec < z.end {
			return true
		}
	}
	return sec*SectorSize >= n.durSize
}

func (n *inode) dropDirty(idx int32) {
	for i, v := range n.dirty {
		if v == idx {
			n.dirty = append(append(make([]int32, 0, len(n.dirty)), n.dirty[:i]...), n.dirty[i+1:]...)
			return
		}
	}
}

// cutZeros takes the sectors first up to end out of the zero ranges.
func (n *inode) cutZeros(first, end int64) {
	hit := false
	for _, z := range n.zeros {
		hit = hit || z.first < end && first < z.end
	}
	if !hit {
		return
	}
	out := make([]zeroRange, 0, len(n.zeros)+1)
	for _, z := range n.zeros {
		left, right := z, z
		left.end, right.first = min(z.end, first), max(z.first, end)
		if left.first < left.end {
			out = append(out, left)
		}
		if right.first < right.end {
			out = append(out, right)
		}
	}
	n.zeros = out
}

// addZeros notes a write of zeros over sectors that hold zeros.
func (n *inode) addZeros(first, end int64, how depth, seq uint64) {
	if how == toDisk || first >= end {
		return
	}
	add := func(first, end int64, fresh bool) {
		if first >= end {
			return
		}
		z := zeroRange{first, end, seq, fresh, how == toLimbo}
		if k := len(n.zeros) - 1; k >= 0 {
			if l := n.zeros[k]; l.end == first && l.seq == seq && l.fresh == fresh && l.limbo == z.limbo {
				z.first, n.zeros = l.first, n.zeros[:k]
			}
		}
		n.zeros = append(append(make([]zeroRange, 0, len(n.zeros)+1), n.zeros...), z)
	}
	fresh := min(max((n.durSize+SectorSize-1)/SectorSize, first), end)
	add(first, fresh, false)
	add(fresh, end, true)
}

// grow notes that a write ended at end.
func (n *inode) grow(m *Mem, end int64, how depth) {
	if end > n.size {
		n.size = end
		if n.nsizes == len(n.sizes) {
			copy(n.sizes[:], n.sizes[1:])
			n.nsizes--
			m.floor = max(m.floor, n.sizes[0].seq)
		}
		n.sizes[n.nsizes] = sizeVersion{m.seq, end}
		n.nsizes++
	}
	switch how {
	case toCache:
		n.reach = max(n.reach, end)
	case toDisk:
		n.makeSizeDurable(end)
	}
}

func (n *inode) makeSizeDurable(size int64) {
	n.durSize = max(n.durSize, size)
	k := 0
	for _, v := range n.sizes[:n.nsizes] {
		if v.size > n.durSize {
			n.sizes[k] = v
			k++
		}
	}
	n.nsizes = k
}

// write writes p, or length zeros where p is nil, at off. The size is left to
// grow.
func (n *inode) write(m *Mem, p []byte, off, length int64, how depth) {
	end := off + length
	first, last := off/SectorSize, (end+SectorSize-1)/SectorSize
	if p == nil {
		n.cutZeros(first, last)
	}
	for at := off; at < end; {
		idx, a := int(at/pageSize), int(at%pageSize)
		b := int(min(pageSize, int64(a)+end-at))
		switch {
		case p != nil:
			n.writePage(m, idx, a, b, p[at-off:at-off+int64(b-a)], how)
		case idx >= len(n.slots):
			n.addZeros(at/SectorSize, last, how, m.seq)
			at = end // nothing but zeros from here on
			continue
		case n.slots[idx].p == nil && n.slots[idx].d == nil:
			n.addZeros(at/SectorSize, (at+int64(b-a)+SectorSize-1)/SectorSize, how, m.seq)
		default:
			n.writePage(m, idx, a, b, nil, how)
		}
		at += int64(b - a)
	}
	if p != nil {
		n.cutZeros(first, last) // not before: freshSector looks at them
	}
}

// sync makes what is dirty durable, and leaves what is in limbo as it is.
func (n *inode) sync(m *Mem) {
	n.own()
	var keep []int32
	for _, idx := range n.dirty {
		s := &n.slots[idx]
		if s.d.limbo == 0 {
			s.d = nil
			continue
		}
		d := s.ownDirt(m.gen)
		d.forget(d.mask &^ d.limbo)
		keep = append(keep, idx)
	}
	n.dirty = keep
	var zeros []zeroRange
	for _, z := range n.zeros {
		if z.limbo {
			zeros = append(zeros, z)
		}
	}
	n.zeros = zeros
	n.makeSizeDurable(n.reach)
}

// failSync puts all that is dirty into limbo.
func (n *inode) failSync(m *Mem) {
	n.own()
	for _, idx := range n.dirty {
		d := n.slots[idx].ownDirt(m.gen)
		d.limbo = d.mask
	}
	zeros := append([]zeroRange(nil), n.zeros...)
	for i := range zeros {
		zeros[i].limbo = true
	}
	n.zeros, n.reach = zeros, 0
}
