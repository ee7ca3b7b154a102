package vfs

import (
	"math/rand/v2"
	"slices"
)

// UnitKind is a kind of thing that a power cut takes or leaves.
type UnitKind uint8

const (
	// EntryUnit is one change of directory entries that no SyncDir covered: a
	// name made, removed or renamed.
	EntryUnit UnitKind = iota
	// SizeUnit is the size of a file.
	SizeUnit
	// SectorUnit is one sector of a file, or a range of sectors that Zero
	// wrote over zeros.
	SectorUnit
)

// Unit is one thing that is not durable, and whose fate in a power cut is its
// own (but see PowerCut for entries of one name).
type Unit struct {
	Kind UnitKind
	// Fresh is true for sectors that were never durable: a disk may hold
	// anything there.
	Fresh bool
	// Zeros is true for a range of sectors that Zero wrote over zeros.
	Zeros bool
	// Partway is true for a size that grew past multiples of 4096 bytes: a disk may
	// have come to one of them, for it gets the bytes of a write, and with them the
	// size, in pieces.
	Partway bool
	// Failed is true where a failed sync covered the newest version, so that
	// only writing again makes it durable.
	Failed bool
	// Call is what changed the entry: CallCreate, CallMkdir, CallRemove or
	// CallRename.
	Call Call
	// Name is the name of the file, without a leading slash; its last durable
	// one where it has none now. Of a rename it is the new name.
	Name string
	// From is the old name of a rename.
	From string
	// Ino tells files apart; it is the same in all copies of a Mem.
	Ino int
	// Sector is the number of the (first) sector in the file, Sectors how many
	// there are: more than 1 only where Zeros is set.
	Sector, Sectors int64
	// Versions counts what was written since it was durable, at most
	// MaxVersions, and Seqs says by which operation (Op.Seq), newest first.
	Versions int
	Seqs     [MaxVersions]uint64
}

// Fate is what a power cut does to a unit.
type Fate uint8

const (
	// Lost leaves the durable content, size or entry; zeros in a sector that
	// was never durable.
	Lost Fate = iota
	// Kept leaves what reads showed.
	Kept
	// Zeroed makes the sector zeros.
	Zeroed
	// Garbage makes the sector noise, always the same for the same unit.
	Garbage
	// Stale makes the sector what another file, if possible one that is gone,
	// held at the same offset, or elsewhere, or else Garbage.
	Stale
	// Torn mixes the newest and the durable bytes inside the sector. Of a size it
	// makes a multiple of 4096 between the durable one and the newest, always the
	// same for the same unit.
	Torn
	older1
)

// Older is the version k before the newest, from k = 1 to Versions-1; of larger
// k it makes Lost.
func Older(k int) Fate {
	if k < 1 || k >= MaxVersions {
		return Lost
	}
	return older1 + Fate(k-1)
}

// Model is what a power cut is assumed to do (docs/durability).
type Model uint8

const (
	// SectorAtomic: each sector holds one version that was written to it since
	// it was durable, or its durable content; one that never was durable may
	// also be zero or stale. Sizes and entries are independent, and a size may be
	// one that the file has only come through (Unit.Partway).
	SectorAtomic Model = iota
	// NothingAssumed: as SectorAtomic, and each sector that an unsynced write
	// touched, also one with synced bytes, may be zero, garbage or torn.
	NothingAssumed
	// Ordered: the disk holds all changes up to one and none after it. It is
	// the strongest model; choose with KeepThrough.
	Ordered
	numModels
)

// fates holds what LegalFates returns, by model, kind, fresh (of a size: partway),
// zeros, versions.
var fates = func() (t [numModels][3][2][2][MaxVersions + 1][]Fate) {
	for m := range numModels {
		for kind := range 3 {
			for fresh := range 2 {
				for zeros := range 2 {
					for v := range MaxVersions + 1 {
						t[m][kind][fresh][zeros][v] = makeFates(m, UnitKind(kind), fresh == 1, zeros == 1, v)
					}
				}
			}
		}
	}
	return t
}()

func makeFates(m Model, kind UnitKind, fresh, zeros bool, versions int) []Fate {
	out := []Fate{Kept}
	if !zeros {
		out = append(out, Lost)
	}
	for k := 1; k < versions; k++ {
		out = append(out, Older(k))
	}
	switch {
	case m == Ordered, kind == EntryUnit:
		return out
	case kind == SizeUnit:
		if partway := fresh; partway {
			out = append(out, Torn)
		}
		return out
	}
	if fresh {
		out = append(out, Stale)
	}
	if m == NothingAssumed {
		out = append(out, Garbage)
		if !zeros {
			out = append(out, Torn)
			if !fresh {
				out = append(out, Zeroed)
			}
		}
	}
	return out
}

// LegalFates returns the fates of u that model m allows, Kept first and each
// outcome once: a range of zeros that is lost is still zeros, and a fresh
// sector that is lost is Zeroed. In the Ordered model they are those of single
// units, which only KeepThrough combines legally. The slice is shared; do not
// change it.
func LegalFates(u Unit, m Model) []Fate {
	b := func(x bool) int {
		if x {
			return 1
		}
		return 0
	}
	return fates[min(m, numModels-1)][u.Kind][b(u.Fresh || u.Partway)][b(u.Zeros)][min(u.Versions, MaxVersions)]
}

// KeepThrough returns a chooser that keeps what was done up to operation seq
// and loses the rest. Under the Ordered model seq is one of OrderedCuts.
func KeepThrough(seq uint64) func(int, Unit) Fate {
	return func(_ int, u Unit) Fate {
		for k, s := range u.Seqs[:u.Versions] {
			if s <= seq {
				if k == 0 {
					return Kept
				}
				return Older(k)
			}
		}
		return Lost
	}
}

// OrderedCuts returns the first and the last operation at which the Ordered
// model may cut: a sync takes everything before it along, and versions that
// were forgotten (MaxVersions) cannot be had any more.
func (m *Mem) OrderedCuts() (first, last uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return max(m.barrier, m.floor), m.seq
}

// Unsynced lists what a power cut may take: first the entries, in the order in
// which they changed, then by file, in the order of their making, the size, the
// ranges of zeros, and the sectors in order. The same operations give the same
// list.
func (m *Mem) Unsynced() []Unit {
	m.mu.RLock()
	defer m.mu.RUnlock()
	count := len(m.ops)
	for _, n := range m.inodes {
		if n != nil && !n.clean() {
			count += 1 + len(n.zeros) + len(n.dirty)*sectorsPerPage
		}
	}
	if count == 0 {
		return nil
	}
	units := make([]Unit, 0, count)
	for _, o := range m.ops {
		units = append(units, Unit{
			Kind: EntryUnit, Call: o.call, Name: o.name, From: o.from, Ino: int(o.ino),
			Failed: o.limbo, Versions: 1, Seqs: [MaxVersions]uint64{o.seq},
		})
	}
	for ino, n := range m.inodes {
		if n == nil || n.clean() {
			continue
		}
		if name, ok := m.nameOf(int32(ino)); ok {
			units = n.units(units, name, ino)
		}
	}
	return units
}

// nameOf returns a name that inode ino has or may get back; not ok where it has
// none, and only a handle keeps it.
func (m *Mem) nameOf(ino int32) (name string, ok bool) {
	for _, t := range [2][]dent{m.names, m.durable} {
		for i := range t {
			if t[i].ino == ino {
				return t[i].path, true
			}
		}
	}
	for i := len(m.ops) - 1; i >= 0; i-- {
		if m.ops[i].ino == ino {
			return m.ops[i].name, true
		}
	}
	return "", false
}

// partway counts the multiples of the page size between the durable size and the
// newest.
func (n *inode) partway() int64 { return max(0, (n.size-1)/pageSize-n.durSize/pageSize) }

func (n *inode) units(units []Unit, name string, ino int) []Unit {
	if n.nsizes > 0 {
		u := Unit{Kind: SizeUnit, Name: name, Ino: ino, Versions: n.nsizes, Failed: n.reach < n.size, Partway: n.partway() > 0}
		for k := range n.nsizes {
			u.Seqs[k] = n.sizes[n.nsizes-1-k].seq
		}
		units = append(units, u)
	}
	for _, z := range n.zeros {
		units = append(units, Unit{
			Kind: SectorUnit, Name: name, Ino: ino, Zeros: true, Fresh: z.fresh, Failed: z.limbo,
			Sector: z.first, Sectors: z.end - z.first, Versions: 1, Seqs: [MaxVersions]uint64{z.seq},
		})
	}
	dirty := n.dirty
	if !slices.IsSorted(dirty) {
		dirty = slices.Clone(dirty)
		slices.Sort(dirty)
	}
	for _, idx := range dirty {
		d := n.slots[idx].d
		for s := range sectorsPerPage {
			if d.mask>>s&1 == 0 {
				continue
			}
			u := Unit{
				Kind: SectorUnit, Name: name, Ino: ino, Fresh: d.fresh>>s&1 != 0, Failed: d.limbo>>s&1 != 0,
				Sector: int64(idx)*sectorsPerPage + int64(s), Sectors: 1, Versions: 1,
			}
			u.Seqs[0] = d.seq[s]
			if c := d.old[s]; c != nil {
				u.Versions += c.n
				for k := range c.n {
					u.Seqs[k+1] = c.v[k].seq
				}
			}
			units = append(units, u)
		}
	}
	return units
}

// PowerCut returns what the disk holds when the power fails now: a new Mem, all
// of it durable, without locks, open files or hook, and independent of this
// one, which goes on. choose is called once for each unit of Unsynced, in
// order, without any lock. A fate that makes no sense for the unit is Lost.
//
// The history of a name is kept in order: a change is there only if the
// earlier changes of its names are, whatever choose said, so that a rename is
// never half there. A file without an entry is gone, and so is all that lies in
// a directory without one. A removed file whose removal is Lost is back.
func (m *Mem) PowerCut(choose func(i int, u Unit) Fate) *Mem {
	s := m.Snapshot()
	units := s.Unsynced()
	var buf [64]Fate
	chosen := buf[:0]
	for i := range units {
		chosen = append(chosen, choose(i, units[i]))
	}
	s.settle(units, chosen)
	return s
}

// PowerCutSeed cuts the power with fates of model mod that seed decides: of
// four cuts one keeps most units, one loses most, and two choose freely.
func (m *Mem) PowerCutSeed(seed uint64, mod Model) *Mem {
	s := m.Snapshot()
	f := s.SeedFates(seed, mod)
	return s.PowerCut(func(i int, _ Unit) Fate { return f[i] })
}

// SeedFates returns the fates that PowerCutSeed gives to the units of Unsynced.
func (m *Mem) SeedFates(seed uint64, mod Model) []Fate {
	var pcg rand.PCG
	pcg.Seed(seed, 0x6b6f)
	units := m.Unsynced()
	out := make([]Fate, len(units))
	if mod == Ordered {
		first, last := m.OrderedCuts()
		choose := KeepThrough(first + pcg.Uint64()%(last-first+1))
		for i, u := range units {
			out[i] = choose(i, u)
		}
		return out
	}
	temper := pcg.Uint64() % 4
	for i, u := range units {
		legal := LegalFates(u, mod)
		r := pcg.Uint64()
		if f := Fate(temper); temper < 2 && r>>32%8 != 0 && slices.Contains(legal, f) {
			out[i] = f // Lost or Kept
			continue
		}
		out[i] = legal[uint32(r)%uint32(len(legal))]
	}
	return out
}
