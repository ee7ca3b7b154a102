package merge

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"
	"time"

	"github.com/forebaydb/forebay/internal/base"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes one from the clock")

func newRand(t *testing.T) *rand.Rand {
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -seed=%d", s)
	return rand.New(rand.NewPCG(s, 0))
}

type ver struct {
	key   string
	lsn   base.LSN
	kind  base.Kind
	value string
}

func (v ver) String() string {
	return fmt.Sprintf("%s@%d %s %s", v.key, v.lsn, v.kind, v.value)
}

func compare(a ver, key string, lsn base.LSN) int {
	return base.Compare([]byte(a.key), a.lsn, []byte(key), lsn)
}

func sorted(vs []ver) []ver {
	sort.Slice(vs, func(i, j int) bool { return compare(vs[i], vs[j].key, vs[j].lsn) < 0 })
	return vs
}

var errInjected = errors.New("injected")

// fuse fails every source that shares it after a number of moves; below zero
// it never does. A fuse that blew stays blown until it is renewed.
type fuse struct{ left int }

func (f *fuse) blown() bool {
	if f.left == 0 {
		return true
	}
	f.left--
	return false
}

// sliceIter is an iterator over a sorted slice that keeps to the letter of
// base.Iterator: what it lent is overwritten at the next move.
type sliceIter struct {
	vs       []ver
	pos      int
	key, val []byte
	fuse     *fuse
	err      error
	closed   *int
}

func newSliceIter(vs []ver, f *fuse) *sliceIter {
	return &sliceIter{vs: vs, pos: -1, fuse: f}
}

func (s *sliceIter) stand(pos int) bool {
	for _, b := range [][]byte{s.key, s.val} {
		for i := range b {
			b[i] = 0xee
		}
	}
	s.err = nil
	if s.fuse.blown() {
		s.err = errInjected
		pos = -1
	}
	s.pos = pos
	if !s.Valid() {
		s.key, s.val = nil, nil
		return false
	}
	s.key, s.val = []byte(s.vs[pos].key), []byte(s.vs[pos].value)
	return true
}

func (s *sliceIter) search(key []byte, lsn base.LSN) int {
	k := string(key)
	return sort.Search(len(s.vs), func(i int) bool { return compare(s.vs[i], k, lsn) >= 0 })
}

func (s *sliceIter) First() bool                      { return s.stand(0) }
func (s *sliceIter) Last() bool                       { return s.stand(len(s.vs) - 1) }
func (s *sliceIter) SeekGE(k []byte, l base.LSN) bool { return s.stand(s.search(k, l)) }
func (s *sliceIter) SeekLT(k []byte, l base.LSN) bool { return s.stand(s.search(k, l) - 1) }
func (s *sliceIter) Valid() bool                      { return s.pos >= 0 && s.pos < len(s.vs) }
func (s *sliceIter) Key() []byte                      { return s.key }
func (s *sliceIter) LSN() base.LSN                    { return s.vs[s.pos].lsn }
func (s *sliceIter) Kind() base.Kind                  { return s.vs[s.pos].kind }
func (s *sliceIter) Value() []byte                    { return s.val }
func (s *sliceIter) Err() error                       { return s.err }

func (s *sliceIter) Next() bool {
	if !s.Valid() {
		panic("Next of an iterator that stands nowhere")
	}
	return s.stand(s.pos + 1)
}

func (s *sliceIter) Prev() bool {
	if !s.Valid() {
		panic("Prev of an iterator that stands nowhere")
	}
	return s.stand(s.pos - 1)
}

func (s *sliceIter) Close() error {
	if s.closed != nil {
		*s.closed++
		return errInjected
	}
	return nil
}

// runIter is a sliceIter that shows runs, as long as it likes.
type runIter struct {
	*sliceIter
	rng  *rand.Rand
	lent []base.Version
	back bool
}

func (r *runIter) Run(dst []base.Version, most int, back bool) []base.Version {
	dst, r.back = dst[:0], back
	n := r.rng.IntN(most + 1)
	for i := r.pos; len(dst) < n && i >= 0 && i < len(r.vs); {
		v := r.vs[i]
		dst = append(dst, base.Version{Key: []byte(v.key), Value: []byte(v.value), LSN: v.lsn, Kind: v.kind,
			Same: len(dst) > 0 && string(dst[len(dst)-1].Key) == v.key})
		if back {
			i--
		} else {
			i++
		}
	}
	r.lent = append(r.lent[:0], dst...)
	return dst
}

func (r *runIter) Advance(n int) {
	if n >= len(r.lent) {
		panic("Advance beyond the run")
	}
	if r.back {
		n = -n
	}
	f := r.fuse
	r.fuse = &fuse{-1} // what was shown does not fail any more
	r.stand(r.pos + n)
	r.fuse = f
	for _, v := range r.lent {
		for _, b := range [][]byte{v.Key, v.Value} {
			for i := range b {
				b[i] = 0xee
			}
		}
	}
}

// spread makes random versions, spreads them over k sources, some in two of
// them, and returns all of them in order with the sources.
func spread(rng *rand.Rand, n, keys, k int, f *fuse) ([]ver, []base.Iterator) {
	parts := make([][]ver, k)
	var all []ver
	for lsn := 1; lsn <= n; lsn++ {
		v := ver{fmt.Sprintf("k%02d", rng.IntN(keys)), base.LSN(lsn), base.KindPut, fmt.Sprint("v", lsn)}
		if rng.IntN(4) == 0 {
			v.kind, v.value = base.KindDelete, ""
		}
		if rng.IntN(3) == 0 && lsn > 1 { // A second key of the batch before.
			v.lsn, v.key = v.lsn-1, v.key+"x"
		}
		all = append(all, v)
		at := rng.IntN(k)
		parts[at] = append(parts[at], v)
		if rng.IntN(4) == 0 && k > 1 {
			parts[(at+1)%k] = append(parts[(at+1)%k], v)
		}
	}
	iters := make([]base.Iterator, k)
	for i := range parts {
		it := newSliceIter(sorted(parts[i]), f)
		if iters[i] = it; rng.IntN(2) == 0 {
			iters[i] = &runIter{sliceIter: it, rng: rng}
		}
	}
	return sorted(all), iters
}
