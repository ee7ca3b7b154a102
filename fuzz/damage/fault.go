package damage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Sector is what is damaged at a time, in bytes, where it is not a bit or a file.
const Sector = 512

// Kind is a kind of damage.
type Kind string

// Kinds. What At and OtherAt mean is written at each.
const (
	Flip      Kind = "flip"      // bit At of the file
	Zero      Kind = "zero"      // sector At is zeros
	Swap      Kind = "swap"      // sector At and sector OtherAt of Other change places
	Stale     Kind = "stale"     // sector At as it was in the older version
	Truncate  Kind = "truncate"  // cut to At bytes
	Empty     Kind = "empty"     // no bytes left
	Remove    Kind = "remove"    // gone
	Duplicate Kind = "duplicate" // a copy named Other, maybe in the place of a file
	Older     Kind = "older"     // as it was in the older version; maybe gone since
	Mixed     Kind = "mixed"     // all other files as in the older version
	Torn      Kind = "torn"      // from byte At on, zeros in place of the last write
	TornNoise Kind = "tornnoise" // likewise, noise
	Garbage   Kind = "garbage"   // a sector of noise at byte At, behind the last write or the end
	Grown     Kind = "grown"     // 4 KiB of zeros at the end
)

// Kinds lists all kinds, in the order of a report.
var Kinds = []Kind{Flip, Zero, Swap, Stale, Truncate, Empty, Remove, Duplicate, Older, Mixed, Torn, TornNoise, Garbage, Grown}

// Fault is one damage to a store.
type Fault struct {
	Kind    Kind
	File    string
	At      int64
	Other   string
	OtherAt int64
}

// String returns the line that ParseFault reads.
func (f Fault) String() string {
	s := string(f.Kind) + ":" + f.File
	switch f.Kind {
	case Flip, Zero, Stale, Truncate, Torn, TornNoise, Garbage:
		s += ":" + strconv.FormatInt(f.At, 10)
	case Swap:
		s += fmt.Sprintf(":%d:%s:%d", f.At, f.Other, f.OtherAt)
	case Duplicate:
		s += ":" + f.Other
	}
	return s
}

// ParseFault reads what Fault.String wrote.
func ParseFault(s string) (Fault, error) {
	words := strings.Split(s, ":")
	f := Fault{Kind: Kind(words[0])}
	numbers := []*int64{}
	ok := len(words) >= 2
	if ok {
		f.File = words[1]
		for i, w := range words[2:] {
			switch {
			case f.Kind == Duplicate && i == 0, f.Kind == Swap && i == 1:
				f.Other = w
			default:
				numbers = append(numbers, [...]*int64{&f.At, &f.OtherAt}[min(len(numbers), 1)])
				n, err := strconv.ParseInt(w, 10, 64)
				*numbers[len(numbers)-1] = n
				ok = ok && err == nil
			}
		}
	}
	if !ok || f.String() != s {
		return f, fmt.Errorf("damage: %q is no fault; one is a kind, a file and numbers, such as %q", s, Fault{Kind: Flip, File: "FILE", At: 17})
	}
	return f, nil
}

// Apply returns a damaged copy; not ok where the damage changes nothing, or does
// not fit the store.
func (f Fault) Apply(s *Store) (c *Copy, ok bool) {
	set := Image{f.File: nil}
	was, there := s.Image[f.File]
	old, hasOld := s.Older[f.File]
	if !there && f.Kind != Older && f.Kind != Mixed {
		return nil, false
	}
	switch f.Kind {
	case Flip:
		if ok = f.At>>3 < int64(len(was)); ok {
			b := bytes.Clone(was)
			b[f.At>>3] ^= 1 << (f.At & 7)
			set[f.File] = b
		}
	case Zero:
		ok = f.patch(set, was, f.At, make([]byte, Sector))
	case Stale:
		ok = hasOld && f.patch(set, was, f.At, padded(sectorOf(old, f.At)))
	case Swap:
		ok = f.swap(set, s)
	case Truncate:
		ok = f.At < int64(len(was))
		set[f.File] = was[:min(f.At, int64(len(was)))]
	case Empty:
		ok = len(was) > 0
		set[f.File] = []byte{}
	case Remove:
		ok = true
	case Duplicate:
		ok = true
		set = Image{f.Other: was}
	case Older:
		ok = hasOld
		set[f.File] = old
	case Mixed:
		ok = f.mix(set, s)
	case Torn, TornNoise:
		set[f.File], ok = f.tear(s, was)
	case Garbage:
		b := bytes.Clone(was)
		b = append(b, make([]byte, max(0, f.At+Sector-int64(len(b))))...)
		copy(b[f.At:], noise(Sector, f.At))
		set[f.File], ok = b, true
	case Grown:
		set[f.File], ok = append(bytes.Clone(was), make([]byte, 4096)...), true
	}
	if !ok {
		return nil, false
	}
	return s.with(set)
}

// with returns a copy of the store with some files set, nil ones gone; not ok
// where that changes nothing.
func (s *Store) with(set Image) (*Copy, bool) {
	c := &Copy{Store: s, Image: make(Image, len(s.Image)+1)}
	for name, b := range s.Image {
		c.Image[name] = b
	}
	for name, b := range set {
		was, there := s.Image[name]
		if there == (b != nil) && bytes.Equal(was, b) {
			continue
		}
		c.Changed = append(c.Changed, name)
		if b == nil {
			delete(c.Image, name)
		} else {
			c.Image[name] = b
		}
	}
	return c, len(c.Changed) > 0
}

func sectors(b []byte) int64 { return (int64(len(b)) + Sector - 1) / Sector }

func sectorOf(b []byte, at int64) []byte {
	return b[min(at*Sector, int64(len(b))):min((at+1)*Sector, int64(len(b)))]
}

func padded(b []byte) []byte { return append(bytes.Clone(b), make([]byte, Sector-len(b))...) }

// patch puts content into a sector of the file, as far as there is one.
func (f Fault) patch(set Image, was []byte, at int64, content []byte) bool {
	if at >= sectors(was) {
		return false
	}
	b := bytes.Clone(was)
	copy(sectorOf(b, at), content)
	set[f.File] = b
	return true
}

func (f Fault) swap(set Image, s *Store) bool {
	a, b := s.Image[f.File], s.Image[f.Other]
	if f.At >= sectors(a) || f.OtherAt >= sectors(b) {
		return false
	}
	x, y := sectorOf(a, f.At), sectorOf(b, f.OtherAt)
	if len(x) != len(y) {
		return false
	}
	a = bytes.Clone(a)
	if f.Other == f.File {
		b = a
	} else {
		b = bytes.Clone(b)
	}
	x, y = bytes.Clone(x), bytes.Clone(y)
	copy(sectorOf(a, f.At), y)
	copy(sectorOf(b, f.OtherAt), x)
	set[f.File], set[f.Other] = a, b
	return true
}

// mix is all old, but for one file.
func (f Fault) mix(set Image, s *Store) bool {
	if s.Older == nil {
		return false
	}
	for name := range s.Image {
		set[name] = nil
	}
	for name, b := range s.Older {
		set[name] = b
	}
	// A whole older store is no damage that anything in it could show.
	if bytes.Equal(s.Image[f.File], s.Older[f.File]) {
		return false
	}
	set[f.File] = s.Image[f.File]
	return true
}

// tear ends the last write at byte At: what follows of it was never there.
func (f Fault) tear(s *Store, was []byte) ([]byte, bool) {
	w, ok := s.lastWrite()
	if !ok || w.File != f.File || f.At < w.From || f.At >= w.To {
		return nil, false
	}
	b := bytes.Clone(was)
	if f.Kind == TornNoise {
		copy(b[f.At:w.To], noise(int(w.To-f.At), f.At))
	} else {
		clear(b[f.At:w.To])
	}
	return b, true
}

func (s *Store) lastWrite() (Write, bool) {
	if len(s.Writes) == 0 {
		return Write{}, false
	}
	return s.Writes[len(s.Writes)-1], true
}

// mustOpen tells whether a crash alone could have left the damaged bytes, by what
// is said of the last write: it was torn, or there is garbage behind it.
func (f Fault) mustOpen(s *Store) bool {
	w, ok := s.lastWrite()
	if !ok || f.File != w.File {
		return false
	}
	switch f.Kind {
	case Torn, TornNoise, Grown:
		return true
	case Garbage:
		return f.At >= w.To
	case Truncate:
		return f.At >= w.From && w.To == int64(len(s.Image[f.File]))
	}
	return false
}

// noise returns n bytes that are always the same for one salt.
func noise(n int, salt int64) []byte {
	pcg := rand.NewPCG(uint64(salt), 0x6e6f697365)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(pcg.Uint64() >> 56)
	}
	return b
}
