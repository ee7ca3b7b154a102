package forebay_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// The model of a store: for each keyspace a sorted slice that is never changed
// in place, so that every state of the past can be kept and compared with.

type modelEntry struct {
	key, value string
	lsn        uint64 // 0: written by the transaction that looks
}

// modelSpace is one keyspace. gen is the LSN that made it.
type modelSpace struct {
	gen     uint64
	entries []modelEntry
}

// modelState is S(lsn); the default keyspace is "" and always there.
type modelState struct {
	lsn    uint64
	spaces map[string]modelSpace
}

type modelKind uint8

const (
	mPut modelKind = iota
	mDelete
	mRange
	mCreate
	mDrop
)

// modelOp is one operation; b is the value of a put and the end of a range.
type modelOp struct {
	kind  modelKind
	space string
	a, b  string
	open  bool // a range without an end
}

func (o modelOp) String() string {
	name := [...]string{"put", "delete", "deleteRange", "create", "drop"}[o.kind]
	switch {
	case o.kind == mRange && o.open:
		return fmt.Sprintf("%s %q [%s, …)", name, o.space, brief(o.a))
	case o.kind == mRange:
		return fmt.Sprintf("%s %q [%s, %s)", name, o.space, brief(o.a), brief(o.b))
	case o.kind == mPut:
		return fmt.Sprintf("%s %q %s = %s", name, o.space, brief(o.a), brief(o.b))
	}
	return fmt.Sprintf("%s %q %s", name, o.space, brief(o.a))
}

// brief is a key or a value for people.
func brief(s string) string {
	if len(s) <= 24 {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…%q(%d)", s[:10], s[len(s)-8:], len(s))
}

func emptyModel() modelState {
	return modelState{spaces: map[string]modelSpace{"": {}}}
}

// find returns where key is, or belongs.
func (s modelSpace) find(key string) (int, bool) {
	i := sort.Search(len(s.entries), func(i int) bool { return s.entries[i].key >= key })
	return i, i < len(s.entries) && s.entries[i].key == key
}

func (s modelSpace) get(key string) (value string, ok bool) {
	i, ok := s.find(key)
	if !ok {
		return "", false
	}
	return s.entries[i].value, true
}

// clip returns the entries in [lo, hi); nil bounds are open.
func (s modelSpace) clip(lo, hi []byte) []modelEntry {
	from, to := 0, len(s.entries)
	if lo != nil {
		from, _ = s.find(string(lo))
	}
	if hi != nil {
		to, _ = s.find(string(hi))
	}
	return s.entries[from:max(from, to)]
}

// apply returns the state after one commit with that LSN.
func (m modelState) apply(lsn uint64, ops []modelOp) modelState {
	out := modelState{lsn: lsn, spaces: maps.Clone(m.spaces)}
	for _, o := range ops {
		s := out.spaces[o.space]
		switch o.kind {
		case mPut:
			i, ok := s.find(o.a)
			e := modelEntry{o.a, o.b, lsn}
			if s.entries = slices.Clone(s.entries); ok {
				s.entries[i] = e
			} else {
				s.entries = slices.Insert(s.entries, i, e)
			}
		case mDelete:
			if i, ok := s.find(o.a); ok {
				s.entries = slices.Delete(slices.Clone(s.entries), i, i+1)
			}
		case mRange:
			from, _ := s.find(o.a)
			to, _ := s.find(o.b)
			if o.open {
				to = len(s.entries)
			}
			if from < to {
				s.entries = slices.Delete(slices.Clone(s.entries), from, to)
			}
		case mCreate:
			s = modelSpace{gen: lsn}
		case mDrop:
			delete(out.spaces, o.space)
			continue
		}
		out.spaces[o.space] = s
	}
	return out
}

// names lists the keyspaces but for the default one.
func (m modelState) names() []string {
	names := slices.Sorted(maps.Keys(m.spaces))
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

// differ says how two walks differ, "" if they do not.
func differ(want, got []modelEntry) string {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("entry %d of %d is missing: %s", i, len(want), want[i])
		case i >= len(want):
			return fmt.Sprintf("entry %d is too much: %s", i, got[i])
		case want[i] != got[i]:
			return fmt.Sprintf("entry %d is %s, want %s", i, got[i], want[i])
		}
	}
	return ""
}

func (e modelEntry) String() string {
	return fmt.Sprintf("%s = %s @%d", brief(e.key), brief(e.value), e.lsn)
}

func reversed(e []modelEntry) []modelEntry {
	e = slices.Clone(e)
	slices.Reverse(e)
	return e
}

// prefixEnd is what a plain reader of the rule would write: the first key behind
// all that begin with p, nil if there is none.
func prefixEnd(p []byte) []byte {
	for len(p) > 0 && p[len(p)-1] == 0xff {
		p = p[:len(p)-1]
	}
	if len(p) == 0 {
		return nil
	}
	p = bytes.Clone(p)
	p[len(p)-1]++
	return p
}

// Keys and values. There are few keys, so that they meet again.

const modelSpaces = 4

var longPrefix = strings.Repeat("shared/prefix/", 60)

func (r *modelRand) key() []byte {
	switch n := r.IntN(100); {
	case n < 45:
		return fmt.Appendf(nil, "k%03d", r.IntN(300))
	case n < 60: // bytes at the edges, short keys that begin longer ones
		key := make([]byte, 1+r.IntN(3))
		for i := range key {
			key[i] = "\x00\x01k\xfe\xff"[r.IntN(5)]
		}
		return key
	case n < 75:
		return fmt.Appendf(nil, "%s%03d", longPrefix[:10+r.IntN(3)*300], r.IntN(40))
	case n < 98:
		return fmt.Appendf(nil, "m/%02d/%02d", r.IntN(12), r.IntN(12))
	case n < 99:
		return []byte(longPrefix[:r.IntN(len(longPrefix))+1])
	}
	return bytes.Repeat([]byte{"\x00a\xff"[r.IntN(3)]}, 1+r.IntN(3)*16000)
}

func (r *modelRand) value() []byte {
	var n int
	switch k := r.IntN(1000); {
	case k < 80:
		return []byte{}
	case k < 700:
		n = r.IntN(40)
	case k < 950:
		n = r.IntN(600)
	case k < 996:
		n = r.IntN(5000)
	default:
		n = r.IntN(60000)
	}
	v := fmt.Appendf(nil, "v%x", r.Uint32())
	for x := r.Uint64(); len(v) < n; x = x*6364136223846793005 + 1442695040888963407 {
		if x>>60 < 8 { // a part can be packed
			v = append(v, longPrefix[:8]...)
		} else {
			v = append(v, byte(x>>32), byte(x>>40), byte(x>>48), byte(x>>56))
		}
	}
	return v
}

// bounds returns the ends of a range, sometimes open, empty or the wrong way
// around.
func (r *modelRand) bounds() (lo, hi []byte) {
	switch r.IntN(10) {
	case 0:
		return nil, r.key()
	case 1:
		return r.key(), nil
	case 2:
		return nil, nil
	case 3:
		p := r.key()
		p = p[:1+r.IntN(len(p))]
		return p, prefixEnd(p)
	case 4:
		return r.key(), r.key()
	}
	lo, hi = r.key(), r.key()
	if bytes.Compare(lo, hi) > 0 {
		lo, hi = hi, lo
	}
	return lo, hi
}

// span is bounds for a range delete: most are short, so that something stays.
func (r *modelRand) span() (lo, hi []byte) {
	switch r.IntN(12) {
	case 0:
		return r.bounds()
	case 1:
		p := fmt.Appendf(nil, "m/%02d", r.IntN(12))
		return p, prefixEnd(p)
	case 2:
		return []byte("m/"), []byte("m0")
	case 3:
		k := r.key()
		return k, append(bytes.Clone(k), 0)
	}
	n := r.IntN(300)
	return fmt.Appendf(nil, "k%03d", n), fmt.Appendf(nil, "k%03d", n+r.IntN(20))
}
