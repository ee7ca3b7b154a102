package fuzz

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// history is every commit of one line of time, in LSN order, and the hash H(n)
// of the pairs that are live after the first n.
type history struct {
	commits []commit // commits[i] has LSN i+1; no operations: not known yet
	hashes  []uint64 // H(0) … H(len(commits)); made by finish
}

// pairHash is the hash of one pair; H is the sum of those of all live pairs.
func pairHash(key, value []byte) uint64 { return mix(xxhash.Sum64(key), xxhash.Sum64(value)) }

// set records commit lsn.
func (h *history) set(lsn uint64, c commit) error {
	if lsn == 0 {
		return fmt.Errorf("a commit was given LSN 0")
	}
	for uint64(len(h.commits)) < lsn {
		h.commits = append(h.commits, commit{})
	}
	if h.commits[lsn-1].ops != nil {
		return fmt.Errorf("LSN %d was given twice", lsn)
	}
	h.commits[lsn-1] = c
	return nil
}

// prefix returns a copy that ends at LSN n.
func (h *history) prefix(n uint64) *history {
	return &history{commits: slices.Clone(h.commits[:n])}
}

// finish computes the hashes.
func (h *history) finish() error {
	h.hashes = make([]uint64, 1, len(h.commits)+1)
	live := map[string]uint64{}
	sum := uint64(0)
	for i, c := range h.commits {
		if c.ops == nil {
			return fmt.Errorf("no commit was given LSN %d", i+1)
		}
		for _, op := range c.ops {
			sum -= live[string(op.Key)]
			delete(live, string(op.Key))
			if !op.Delete {
				x := pairHash(op.Key, op.Value)
				live[string(op.Key)] = x
				sum += x
			}
		}
		h.hashes = append(h.hashes, sum)
	}
	return nil
}

// state returns S(n), made anew.
func (h *history) state(n uint64) map[string]string {
	live := map[string]string{}
	for _, c := range h.commits[:n] {
		apply(live, c.ops)
	}
	return live
}

func apply(live map[string]string, ops []Op) {
	for _, op := range ops {
		if op.Delete {
			delete(live, string(op.Key))
		} else {
			live[string(op.Key)] = string(op.Value)
		}
	}
}

// diff tells how what was found differs from the nearest S(n), and what that
// looks like: a hole, a torn batch, or else a wrong value.
func (h *history) diff(got map[string]string) string {
	best, bestN := -1, uint64(0)
	for n := range uint64(len(h.commits) + 1) {
		if d := len(differing(h.state(n), got)); best < 0 || d <= best {
			best, bestN = d, n
		}
	}
	if best == 0 {
		return fmt.Sprintf("it is exactly S(%d)", bestN)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s; nearest is S(%d):", h.classify(got), bestN)
	want := h.state(bestN)
	for _, k := range differing(want, got) {
		fmt.Fprintf(&b, " %s is %s, not %s;", k, h.origin(got, k), h.origin(want, k))
	}
	return b.String()
}

func differing(a, b map[string]string) []string {
	var out []string
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			out = append(out, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// origin says where a value of a key comes from.
func (h *history) origin(m map[string]string, key string) string {
	v, ok := m[key]
	if !ok {
		return "absent"
	}
	for i := len(h.commits) - 1; i >= 0; i-- {
		for _, op := range h.commits[i].ops {
			if string(op.Key) == key && !op.Delete && string(op.Value) == v {
				return fmt.Sprintf("the value of commit %d", i+1)
			}
		}
	}
	return fmt.Sprintf("%d bytes that nobody wrote", len(v))
}

// classify looks for one commit that is missing, or of which a part is.
func (h *history) classify(got map[string]string) string {
	for n := 1; n <= len(h.commits); n++ {
		for skip := range n {
			if len(h.commits[skip].ops) > 1 {
				for part := 1; part < len(h.commits[skip].ops); part++ {
					if h.sameBut(got, n, skip, part) {
						return fmt.Sprintf("torn batch: S(%d) with the first %d operations of commit %d alone", n, part, skip+1)
					}
				}
			}
			if h.sameBut(got, n, skip, 0) {
				return fmt.Sprintf("hole: S(%d) without commit %d", n, skip+1)
			}
		}
	}
	return "wrong value"
}

func (h *history) sameBut(got map[string]string, n, skip, part int) bool {
	live := map[string]string{}
	for i, c := range h.commits[:n] {
		if i == skip {
			c.ops = c.ops[:part]
		}
		apply(live, c.ops)
	}
	return len(differing(live, got)) == 0
}
