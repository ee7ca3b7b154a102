package damage

import (
	"bytes"
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/vfs"
)

// Image is the files of a store: slash path within its directory → content. The
// contents are shared and never changed in place.
type Image map[string][]byte

// Names returns the names of the files, sorted.
func (im Image) Names() []string { return slices.Sorted(maps.Keys(im)) }

// Op is one operation of a batch: a put; or a delete of Key; or, with End, of the
// keys in [Key, End).
type Op struct {
	Key, Value string
	Delete     bool
	End        string
}

// Batch is one acknowledged, durable commit.
type Batch struct {
	// At is the engine's own number of the state after it; ascending from above 0.
	At  uint64
	Ops []Op
}

// Write is a range of bytes that the engine wrote and synced. If it is intact, it
// shows that batch After was durable; and it may hold the next one.
type Write struct {
	After    uint64 // At of the last batch acknowledged when it was written
	File     string
	From, To int64
}

// Store is one store to be damaged. It is not changed once it is given to Run.
type Store struct {
	Name string
	// Image is the store, Older the same one earlier. Older may be nil.
	Image, Older Image
	// Batches is what was acknowledged before Image was taken, in order.
	Batches []Batch
	// Writes are the last ones to what recovery reads as a log, in order: all from
	// some batch on. Without any, no state but the last is legal.
	Writes []Write
	// Absent are keys that no batch has and that are asked for too.
	Absent []string

	once sync.Once
	past *past
	mem  sync.Map // dir → *vfs.Mem
}

type pair struct {
	key, value string
	version    uint64
}

// past is what a store held, batch by batch.
type past struct {
	final []pair
	// states are sums of contents, states[0] of none.
	states []uint64
	at     []uint64
	// ever holds each value that a key had.
	ever map[string][]string
	keys []string
	// answers are what the last state has of keys; nil: nothing.
	answers []*pair
	seed    maphash.Seed
}

func (s *Store) history() *past {
	s.once.Do(func() {
		p := &past{seed: maphash.MakeSeed(), ever: map[string][]string{}, states: []uint64{0}, at: []uint64{0}}
		now := map[string]pair{}
		for _, b := range s.Batches {
			for _, o := range b.Ops {
				p.play(now, o, b.At)
			}
			sum := uint64(0)
			for _, v := range now {
				sum += p.hash(v.key, v.value)
			}
			p.states, p.at = append(p.states, sum), append(p.at, b.At)
		}
		p.final = sorted(now)
		p.keys = append(slices.Sorted(maps.Keys(p.ever)), s.Absent...)
		p.answers = make([]*pair, len(p.keys))
		for i, k := range p.keys {
			if v, ok := now[k]; ok {
				p.answers[i] = &v
			}
		}
		s.past = p
	})
	return s.past
}

func sorted(now map[string]pair) (out []pair) {
	for _, k := range slices.Sorted(maps.Keys(now)) {
		out = append(out, now[k])
	}
	return out
}

// contents are those after n batches.
func (s *Store) contents(n int) []pair {
	p, now := &past{ever: map[string][]string{}}, map[string]pair{}
	for _, b := range s.Batches[:n] {
		for _, o := range b.Ops {
			p.play(now, o, b.At)
		}
	}
	return sorted(now)
}

func (p *past) play(now map[string]pair, o Op, at uint64) {
	switch {
	case o.End != "":
		maps.DeleteFunc(now, func(k string, _ pair) bool { return k >= o.Key && k < o.End })
	case o.Delete:
		delete(now, o.Key)
	default:
		now[o.Key] = pair{o.Key, o.Value, at}
		p.ever[o.Key] = append(p.ever[o.Key], o.Value)
	}
}

// hash is that of a pair; a state's sum is the sum over its pairs.
func (p *past) hash(key, value string) uint64 {
	return maphash.String(p.seed, key)*31 + maphash.String(p.seed, value)
}

// state returns after how many batches the contents were those, the most if
// several; not ok: never.
func (p *past) state(pairs []pair) (n int, ok bool) {
	sum := uint64(0)
	for _, v := range pairs {
		sum += p.hash(v.key, v.value)
	}
	for n = len(p.states) - 1; n >= 0; n-- {
		if p.states[n] == sum {
			return n, true
		}
	}
	return 0, false
}

func (p *past) had(key, value string) bool { return slices.Contains(p.ever[key], value) }

// Copy is a damaged copy of a store.
type Copy struct {
	Store *Store
	// Image is all of its files.
	Image Image
	// Changed are the names that differ from Store.Image, gone ones among them.
	Changed []string
}

// Mem returns the copy in directory dir of a file system of its own, durable. It
// takes time for what differs alone.
func (c *Copy) Mem(dir string) (*vfs.Mem, error) {
	base, ok := c.Store.mem.Load(dir)
	if !ok {
		mem := vfs.NewMem()
		if err := mem.MkdirAll(dir); err != nil {
			return nil, err
		}
		for name, b := range c.Store.Image {
			if err := mem.SetBytes(dir+"/"+name, b); err != nil {
				return nil, err
			}
		}
		if err := mem.SyncDir(""); err != nil {
			return nil, err
		}
		base, _ = c.Store.mem.LoadOrStore(dir, mem)
	}
	mem := base.(*vfs.Mem).Snapshot()
	for _, name := range c.Changed {
		if err := change(mem, dir+"/"+name, c.Store.Image[name], c.Image[name]); err != nil {
			return nil, err
		}
	}
	return mem, nil
}

// change makes content b what was a.
func change(mem *vfs.Mem, name string, a, b []byte) error {
	switch {
	case b == nil:
		return mem.Remove(name)
	case len(a) != len(b):
		return mem.SetBytes(name, b)
	}
	from, to := differ(a, b)
	return mem.Corrupt(name, from, to-from, func(p []byte) { copy(p, b[from:to]) })
}

// differ returns the range outside of which a and b, of one length, are equal.
func differ(a, b []byte) (from, to int64) {
	const step = 512
	i, j := 0, len(a)
	for i+step <= j && bytes.Equal(a[i:i+step], b[i:i+step]) {
		i += step
	}
	for i+step <= j && bytes.Equal(a[j-step:j], b[j-step:j]) {
		j -= step
	}
	for i < j && a[i] == b[i] {
		i++
	}
	for i < j && a[j-1] == b[j-1] {
		j--
	}
	return int64(i), int64(j)
}

// touched tells whether any byte of a write is changed.
func (c *Copy) touched(w Write) bool {
	a, b := c.Store.Image[w.File], c.Image[w.File]
	if int64(len(b)) < w.To || int64(len(a)) < w.To {
		return true
	}
	return !bytes.Equal(a[w.From:w.To], b[w.From:w.To])
}

// lost tells whether all that shows a batch behind at is changed: what was written
// for the next one, in part, and every later write.
func (c *Copy) lost(at uint64) bool {
	if len(c.Store.Writes) == 0 || c.Store.Writes[0].After > at {
		return false
	}
	next := false
	for _, w := range c.Store.Writes {
		switch {
		case w.After == at:
			next = next || c.touched(w)
		case w.After > at && !c.touched(w):
			return false
		}
	}
	return next
}
