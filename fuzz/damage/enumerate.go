package damage

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"path"
	"regexp"
	"strconv"
)

// plan is what is done to one store.
type plan struct {
	s     *Store
	cfg   *Config
	files []string
	kind  func(file string) string
}

func newPlan(sub Subject, s *Store, cfg *Config) *plan {
	p := &plan{s: s, cfg: cfg, kind: sub.Kind}
	for _, name := range s.Image.Names() {
		if sub.Kind(name) != "" {
			p.files = append(p.files, name)
		}
	}
	return p
}

// faults lists every damage of the store that the settings want, kind by kind.
func (p *plan) faults() iter.Seq[Fault] {
	return func(yield func(Fault) bool) {
		for _, k := range Kinds {
			if !p.cfg.wants(k) {
				continue
			}
			for f := range p.ofKind(k) {
				if !yield(f) {
					return
				}
			}
		}
	}
}

func (p *plan) ofKind(k Kind) iter.Seq[Fault] {
	switch k {
	case Swap:
		return p.swaps()
	case Duplicate:
		return p.duplicates()
	case Older:
		return p.older()
	case Torn, TornNoise:
		return p.torn(k)
	case Garbage:
		return p.garbage()
	}
	return func(yield func(Fault) bool) {
		n := int64(0)
		for _, file := range p.files {
			for at := range p.places(k, file, &n) {
				if !yield(Fault{Kind: k, File: file, At: at}) {
					return
				}
			}
		}
	}
}

// places are the values of At in one file. n counts over files, so that a sample
// does not begin anew in each.
func (p *plan) places(k Kind, file string, n *int64) iter.Seq[int64] {
	b := p.s.Image[file]
	return func(yield func(int64) bool) {
		each := func(from, to, unit, step int64) bool {
			for at := from; at < to; at++ {
				if *n++; *n%step == 0 && !yield(at*unit) {
					return false
				}
			}
			return true
		}
		size := int64(len(b))
		switch k {
		case Flip:
			each(0, 8*size, 1, p.cfg.step(p.cfg.BitStep))
		case Zero, Stale:
			each(0, sectors(b), 1, p.cfg.step(p.cfg.SectorStep))
		case Truncate:
			if each(1, sectors(b), Sector, p.cfg.step(p.cfg.SectorStep)) && size > 1 {
				yield(size - 1)
			}
		default:
			yield(0)
		}
	}
}

// swaps are all pairs of sectors of all files, or Config.Swaps of them by chance.
func (p *plan) swaps() iter.Seq[Fault] {
	type place struct {
		file string
		at   int64
	}
	var all []place
	for _, file := range p.files {
		for at := range sectors(p.s.Image[file]) {
			all = append(all, place{file, at})
		}
	}
	pair := func(i, j int) Fault {
		return Fault{Kind: Swap, File: all[i].file, At: all[i].at, Other: all[j].file, OtherAt: all[j].at}
	}
	return func(yield func(Fault) bool) {
		if n := len(all); n*(n-1)/2 > p.cfg.Swaps && p.cfg.Swaps >= 0 {
			rng := rand.New(rand.NewPCG(p.cfg.Seed, 0x73776170))
			for range p.cfg.Swaps {
				i, j := rng.IntN(n), rng.IntN(n)
				if i != j && !yield(pair(i, j)) {
					return
				}
			}
			return
		}
		for i := range all {
			for j := range i {
				if !yield(pair(j, i)) {
					return
				}
			}
		}
	}
}

var lastNumber = regexp.MustCompile(`^(.*?)([0-9]+)([^0-9]*)$`)

// sibling returns the name whose last number is n away; "" where there is none.
func sibling(file string, n int64) string {
	dir, base := path.Split(file)
	m := lastNumber.FindStringSubmatch(base)
	if m == nil {
		return ""
	}
	number, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil || number+n < 0 {
		return ""
	}
	return dir + m[1] + fmt.Sprintf("%0*d", len(m[2]), number+n) + m[3]
}

// duplicates are copies of a file under the numbers around its own, free or not, in
// the place of each other file of its kind, and under a name that nobody has.
func (p *plan) duplicates() iter.Seq[Fault] {
	return func(yield func(Fault) bool) {
		for _, file := range p.files {
			seen := map[string]bool{file: true, "": true}
			names := []string{sibling(file, -1), sibling(file, 1), sibling(file, 2), sibling(file, 10), file + ".bak"}
			for _, other := range p.files {
				if p.kind(other) == p.kind(file) {
					names = append(names, other)
				}
			}
			for _, name := range names {
				if !seen[name] && !yield(Fault{Kind: Duplicate, File: file, Other: name}) {
					return
				}
				seen[name] = true
			}
		}
	}
}

// older are all files of the older version, those that are gone by now too.
func (p *plan) older() iter.Seq[Fault] {
	return func(yield func(Fault) bool) {
		for _, file := range p.s.Older.Names() {
			if p.kind(file) != "" && !yield(Fault{Kind: Older, File: file}) {
				return
			}
		}
	}
}

func (p *plan) torn(k Kind) iter.Seq[Fault] {
	return func(yield func(Fault) bool) {
		w, ok := p.s.lastWrite()
		if !ok {
			return
		}
		for at := w.From; at < w.To; at += p.cfg.step(p.cfg.SectorStep) {
			if !yield(Fault{Kind: k, File: w.File, At: at}) {
				return
			}
		}
	}
}

// garbage is behind the end of each file, and behind the last write.
func (p *plan) garbage() iter.Seq[Fault] {
	return func(yield func(Fault) bool) {
		w, ok := p.s.lastWrite()
		for _, file := range p.files {
			end := int64(len(p.s.Image[file]))
			if !yield(Fault{Kind: Garbage, File: file, At: end}) {
				return
			}
			if ok && w.File == file && w.To < end && !yield(Fault{Kind: Garbage, File: file, At: w.To}) {
				return
			}
		}
	}
}
