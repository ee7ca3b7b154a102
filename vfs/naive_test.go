package vfs

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var seedFlag = flag.Uint64("vfs.seed", 0, "seed of TestAgainstNaive; 0 takes the clock")

// naive says what a disk may hold in the plainest way: no pages, no sharing,
// everything a map, and copied whole.
type naive struct {
	files   map[int32]*naiveFile
	names   map[string]int32
	durable map[string]int32
	ops     []naiveOp
	next    int32
}

type naiveFile struct {
	cur     map[int64]string   // by sector; missing is zeros
	durable map[int64]string   // by sector
	since   map[int64][]string // versions since, oldest first
	limbo   map[int64]bool
	size    int64
	durSize int64
	sizes   []int64
	reach   int64
}

type naiveOp struct {
	name, from string
	ino        int32 // of the name afterwards; 0 is none
	limbo      bool
}

func newNaive() *naive {
	return &naive{files: map[int32]*naiveFile{}, names: map[string]int32{}, durable: map[string]int32{}, next: 1}
}

func (v *naive) clone() *naive {
	c := &naive{map[int32]*naiveFile{}, maps.Clone(v.names), maps.Clone(v.durable), slices.Clone(v.ops), v.next}
	for ino, f := range v.files {
		g := *f
		g.cur, g.durable, g.limbo = maps.Clone(f.cur), maps.Clone(f.durable), maps.Clone(f.limbo)
		g.since = map[int64][]string{}
		for s, list := range f.since {
			g.since[s] = slices.Clone(list)
		}
		g.sizes = slices.Clone(f.sizes)
		c.files[ino] = &g
	}
	return c
}

func (f *naiveFile) sector(s int64) string {
	if c, ok := f.cur[s]; ok {
		return c
	}
	return string(make([]byte, SectorSize))
}

func (f *naiveFile) write(p []byte, off int64, how depth) {
	end := off + int64(len(p))
	for s := off / SectorSize; s*SectorSize < end; s++ {
		b := []byte(f.sector(s))
		from := max(off, s*SectorSize)
		copy(b[from-s*SectorSize:], p[from-off:])
		f.cur[s] = string(b)
		if how == toDisk {
			f.durable[s] = string(b)
			delete(f.since, s)
			delete(f.limbo, s)
			continue
		}
		f.since[s] = append(f.since[s], string(b))
		f.since[s] = f.since[s][max(0, len(f.since[s])-MaxVersions):]
		f.limbo[s] = how == toLimbo
	}
	if end > f.size {
		f.size = end
		f.sizes = append(f.sizes, end)
		f.sizes = f.sizes[max(0, len(f.sizes)-MaxVersions):]
	}
	if how == toCache {
		f.reach = max(f.reach, end)
	} else if how == toDisk {
		f.sizeDurable(end)
	}
}

func (f *naiveFile) sizeDurable(size int64) {
	f.durSize = max(f.durSize, size)
	f.sizes = slices.DeleteFunc(f.sizes, func(s int64) bool { return s <= f.durSize })
}

func (f *naiveFile) sync(ok bool) {
	for s := range f.since {
		if !ok {
			f.limbo[s] = true
		} else if !f.limbo[s] {
			f.durable[s] = f.cur[s]
			delete(f.since, s)
		}
	}
	if ok {
		f.sizeDurable(f.reach)
	} else {
		f.reach = 0
	}
}

func (o naiveOp) apply(t map[string]int32) {
	if o.from != "" {
		delete(t, o.from)
	}
	if o.ino == 0 {
		delete(t, o.name)
	} else {
		t[o.name] = o.ino
	}
}

func (v *naive) enter(o naiveOp) {
	o.apply(v.names)
	v.ops = append(v.ops, o)
}

func (v *naive) syncDir() {
	needed := map[string]bool{}
	var take, left []naiveOp
	for _, o := range slices.Backward(v.ops) {
		if !o.limbo || needed[o.name] || o.from != "" && needed[o.from] {
			needed[o.name] = true
			if o.from != "" {
				needed[o.from] = true
			}
			take = append(take, o)
		} else {
			left = append(left, o)
		}
	}
	for _, o := range slices.Backward(take) {
		o.apply(v.durable)
	}
	slices.Reverse(left)
	v.ops = left
}

func (v *naive) cutNames(kept func(i int) bool) map[string]int32 {
	t, lost := maps.Clone(v.durable), map[string]bool{}
	for i, o := range v.ops {
		if !kept(i) || lost[o.name] || o.from != "" && lost[o.from] {
			lost[o.name], lost[o.from] = true, true
			delete(lost, "")
			continue
		}
		o.apply(t)
	}
	return t
}

// pair is a Mem and what it should be.
type pair struct {
	m *Mem
	v *naive
}

// step does one random thing to both.
func (p pair) step(t *testing.T, r *rand.Rand) {
	name, other := string('a'+rune(r.IntN(3))), string('a'+rune(r.IntN(3)))
	ino, ok := p.v.names[name]
	if !ok {
		if r.IntN(2) == 0 {
			require.NoError(t, create(t, p.m, name, ReadWrite).Close())
			p.v.enter(naiveOp{name: name, ino: p.v.next})
			p.v.files[p.v.next] = &naiveFile{cur: map[int64]string{}, durable: map[int64]string{},
				since: map[int64][]string{}, limbo: map[int64]bool{}}
			p.v.next++
		}
		return
	}
	vf := p.v.files[ino]
	off, n := r.Int64N(20000), 1+r.IntN(600)
	switch r.IntN(8) {
	case 0:
		n = 1 + r.IntN(9000)
	case 1:
		off, n = r.Int64N(5)*pageSize, pageSize
	case 2:
		off = vf.size
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	mode := ReadWrite
	if r.IntN(6) == 0 {
		mode |= DSync
	}
	f, err := p.m.Open(name, mode)
	require.NoError(t, err)
	defer f.Close()
	how := toCache
	if mode&DSync != 0 {
		how = toDisk
	}
	switch op := r.IntN(100); {
	case op < 50:
		write(t, f, string(b), off)
		vf.write(b, off, how)
	case op < 65:
		require.NoError(t, f.Zero(off, int64(n)))
		vf.write(make([]byte, n), off, how)
	case op < 68:
		_, err := f.(SyncFailer).FailWrite(b, off)
		require.NoError(t, err)
		vf.write(b, off, toLimbo)
	case op < 78:
		require.NoError(t, f.Sync())
		vf.sync(true)
	case op < 84:
		f.(SyncFailer).FailSync()
		vf.sync(false)
	case op < 88:
		require.NoError(t, p.m.Remove(name))
		p.v.enter(naiveOp{name: name})
	case op < 94:
		require.NoError(t, p.m.Rename(name, other))
		if name != other {
			p.v.enter(naiveOp{name: other, from: name, ino: ino})
		}
	case op < 97:
		require.NoError(t, p.m.SyncDir("/"))
		p.v.syncDir()
	default:
		p.m.FailSyncDir("/")
		for i := range p.v.ops {
			p.v.ops[i].limbo = true
		}
	}
}

func content(m *Mem) map[string]int32 {
	t := map[string]int32{}
	for _, d := range m.names {
		t[d.path] = d.ino
	}
	return t
}

// check compares what reads show and what a power cut may leave.
func (p pair) check(t *testing.T, r *rand.Rand) {
	require.Equal(t, p.v.names, content(p.m))
	might := map[string]map[string]bool{} // by file and sector, or file: all that may be there
	add := func(where, what string) {
		if might[where] == nil {
			might[where] = map[string]bool{}
		}
		might[where][what] = true
	}
	for _, f := range []Fate{Lost, Kept, Older(1), Older(2), Older(3)} {
		data := p.m.PowerCut(func(_ int, u Unit) Fate {
			if u.Kind == SectorUnit {
				return f
			}
			return Kept
		})
		sizes := p.m.PowerCut(func(_ int, u Unit) Fate {
			if u.Kind == SizeUnit {
				return f
			}
			return Kept
		})
		require.Empty(t, data.Unsynced())
		for name, ino := range p.v.names {
			b := data.Bytes(name)
			b = append(b, make([]byte, (SectorSize-len(b)%SectorSize)%SectorSize)...)
			for s := 0; s < len(b); s += SectorSize {
				add(fmt.Sprint(ino, " ", s/SectorSize), string(b[s:s+SectorSize]))
			}
			add(fmt.Sprint(ino), fmt.Sprint(len(sizes.Bytes(name))))
		}
	}
	for _, ino := range p.v.names {
		f := p.v.files[ino]
		sizes := map[string]bool{fmt.Sprint(f.durSize): true}
		for _, s := range f.sizes {
			sizes[fmt.Sprint(s)] = true
		}
		require.Equal(t, sizes, might[fmt.Sprint(ino)], "sizes")
		for s := int64(0); s*SectorSize < f.size; s++ {
			want := map[string]bool{}
			if d, ok := f.durable[s]; ok {
				want[d] = true
			} else {
				want[string(make([]byte, SectorSize))] = true
			}
			for _, c := range f.since[s] {
				want[c] = true
			}
			if !maps.Equal(want, might[fmt.Sprint(ino, " ", s)]) {
				require.Failf(t, "sector", "ino %d sector %d: %d contents, want %d", ino, s,
					len(might[fmt.Sprint(ino, " ", s)]), len(want))
			}
		}
	}
	bits := r.Uint64()
	kept := func(i int) bool { return bits>>(i%64)&1 != 0 }
	got := p.m.PowerCut(func(i int, u Unit) Fate {
		if u.Kind == EntryUnit && !kept(i) {
			return Lost
		}
		return Kept
	})
	require.Equal(t, p.v.cutNames(kept), content(got))
	for name, ino := range content(got) {
		b, f := got.Bytes(name), p.v.files[ino]
		require.EqualValues(t, f.size, len(b))
		for i := 0; i < len(b); i += SectorSize {
			if string(b[i:min(len(b), i+SectorSize)]) != f.sector(int64(i / SectorSize))[:min(SectorSize, len(b)-i)] {
				require.Failf(t, "content", "%s sector %d", name, i/SectorSize)
			}
		}
	}
}

func TestAgainstNaive(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("again with -vfs.seed=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	deadline := time.Now().Add(time.Second)
	for time.Now().Before(deadline) {
		pairs := []pair{{NewMem(), newNaive()}}
		for range 60 {
			p := pairs[r.IntN(len(pairs))]
			p.step(t, r)
			if r.IntN(10) == 0 && len(pairs) < 5 {
				pairs = append(pairs, pair{p.m.Snapshot(), p.v.clone()})
			}
		}
		for _, p := range pairs {
			p.check(t, r)
		}
	}
}
