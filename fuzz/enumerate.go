package fuzz

import (
	"math/rand/v2"

	"github.com/forebaydb/forebay/vfs"
)

// enumeration makes the fates that the units of one cut may have.
type enumeration struct {
	units []vfs.Unit
	model vfs.Model
	most  int // how many units may have all their subsets; 0: exhaustive
	// thorough is to make all pairs, and each unit with each fate, and few draws;
	// inner, of a cut inside a recovery, neither, and few draws.
	thorough, inner bool
	rng             *rand.Rand
	try             func([]vfs.Fate) bool // false ends it

	two []int // units that may be lost as well as kept
}

// run makes them all, some of them twice. It returns whether every subset of the
// units was among them.
func (e *enumeration) run(disk *vfs.Mem) (whole bool) {
	if e.model == vfs.Ordered {
		e.ordered(disk)
		return false
	}
	for i, u := range e.units {
		if losable(u, e.model) {
			e.two = append(e.two, i)
		}
	}
	if e.most == 0 {
		e.most = exhaustive
	}
	whole = len(e.two) <= e.most
	if whole && !e.subsets() || !whole && !(e.prefixes() && (e.inner || e.pairs())) {
		return false
	}
	if e.thorough && !e.alone() {
		return false
	}
	draws := samples
	if e.thorough || e.inner {
		draws = 4
	}
	for range draws {
		if len(e.units) > 0 && !e.try(draw(e.units, e.model, e.rng)) {
			return false
		}
	}
	return whole
}

// seqs lists the operations that made the units what they are.
func (e *enumeration) seqs() []uint64 {
	out := []uint64{0}
	for _, u := range e.units {
		out = append(out, u.Seqs[:u.Versions]...)
	}
	return out
}

func (e *enumeration) ordered(disk *vfs.Mem) {
	first, last := disk.OrderedCuts()
	for _, s := range append(e.seqs(), first) {
		if s >= first && s <= last && !e.try(through(e.units, s)) {
			return
		}
	}
}

// all gives every unit one fate, where it may have it.
func (e *enumeration) all(f vfs.Fate) []vfs.Fate {
	out := make([]vfs.Fate, len(e.units))
	for i := range out {
		out[i] = f
	}
	return legal(e.units, e.model, out)
}

func (e *enumeration) subsets() bool {
	for bits := range 1 << len(e.two) {
		f := e.all(vfs.Kept)
		for k, i := range e.two {
			if bits>>k&1 != 0 {
				f[i] = vfs.Lost
			}
		}
		if !e.try(f) {
			return false
		}
	}
	return true
}

// prefixes makes what is there up to each operation, each prefix of the units,
// each unit lost alone, and each kept alone.
func (e *enumeration) prefixes() bool {
	for _, s := range e.seqs() {
		if !e.try(through(e.units, s)) {
			return false
		}
	}
	for k := range e.two {
		prefix, omit, only := e.all(vfs.Kept), e.all(vfs.Kept), e.all(vfs.Lost)
		for _, i := range e.two[k:] {
			prefix[i] = vfs.Lost
		}
		omit[e.two[k]], only[e.two[k]] = vfs.Lost, vfs.Kept
		if !e.try(prefix) || !e.try(omit) || !e.try(only) {
			return false
		}
	}
	return true
}

// pairs loses each two units, or a draw of them.
func (e *enumeration) pairs() bool {
	n := len(e.two)
	pairs := n * (n - 1) / 2
	for a := range e.two {
		for b := range a {
			if !e.thorough && pairs > maxPairs && e.rng.IntN(pairs) >= maxPairs {
				continue
			}
			f := e.all(vfs.Kept)
			f[e.two[a]], f[e.two[b]] = vfs.Lost, vfs.Lost
			if !e.try(f) {
				return false
			}
		}
	}
	return true
}

// alone gives each unit each fate that is neither kept nor lost, with all others
// kept, and with all others lost.
func (e *enumeration) alone() bool {
	for i, u := range e.units {
		for _, fate := range vfs.LegalFates(u, e.model) {
			if fate == vfs.Kept || fate == vfs.Lost {
				continue
			}
			kept, lost := e.all(vfs.Kept), e.all(vfs.Lost)
			kept[i], lost[i] = fate, fate
			if !e.try(kept) || !e.try(lost) {
				return false
			}
		}
	}
	return true
}

// alikeness knows which fates of the units of a cut come to the same.
type alikeness struct {
	units []vfs.Unit
	alike []vfs.Alike
	// made is, for each unit of a file, the place of the unit that made the only
	// name of that file; -1: none. Where that is lost the others do not matter.
	made []int
}

func newAlikeness(disk *vfs.Mem, units []vfs.Unit, m vfs.Model) *alikeness {
	a := &alikeness{units: units, alike: disk.Alike(units, m), made: make([]int, len(units))}
	entry := map[int]int{}
	for i, u := range units {
		if u.Kind != vfs.EntryUnit {
			break // entries come first
		}
		if _, more := entry[u.Ino]; more || u.Call != vfs.CallCreate {
			entry[u.Ino] = -1
			continue
		}
		entry[u.Ino] = i
	}
	for i, u := range units {
		a.made[i] = -1
		if k, ok := entry[u.Ino]; ok && u.Kind != vfs.EntryUnit {
			a.made[i] = k
		}
	}
	return a
}

// hash is the same for fates that come to the same.
func (a *alikeness) hash(f []vfs.Fate) uint64 {
	h := uint64(len(f))
	for i, v := range f {
		switch k := a.made[i]; {
		case v == vfs.Stale:
			return hashFates(f)
		case k >= 0 && f[k] != vfs.Kept:
			v = vfs.Kept
		default:
			v = a.alike[i][v]
		}
		h = (h ^ uint64(v)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	return h
}
