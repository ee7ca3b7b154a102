package fuzz

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// history is every commit of one line of time, in LSN order, and the hash H(n)
// of the pairs and keyspaces that are live after the first n.
type history struct {
	commits []commit // commits[i] has LSN i+1; no operations: not known yet
	hashes  []uint64 // H(0) … H(len(commits)); made by finish
}

// keyName is what a key is called in a state: those of keyspace 3 begin with
// "s3/", which stands alone for the keyspace itself.
func keyName(space int, key []byte) string {
	if space == 0 {
		return string(key)
	}
	return fmt.Sprintf("s%d/%s", space, key)
}

// spaceOf takes a name apart.
func spaceOf(name string) (space int, key string) {
	if home, key, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(home, "s") {
		if n, err := strconv.Atoi(home[1:]); err == nil && n > 0 && strconv.Itoa(n) == home[1:] {
			return n, key
		}
	}
	return 0, name
}

// pairHash is the hash of one pair, or of a keyspace, which has no key; H is the
// sum of those of all that are live.
func pairHash(space int, key, value []byte) uint64 {
	return mix(mix(uint64(space), xxhash.Sum64(key)), xxhash.Sum64(value))
}

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

// fill records a commit whose LSN nobody was told: of those up to last, one is
// free.
func (h *history) fill(last uint64, c commit) error {
	for lsn := uint64(1); lsn <= last; lsn++ {
		if lsn > uint64(len(h.commits)) || h.commits[lsn-1].ops == nil {
			return h.set(lsn, c)
		}
	}
	return fmt.Errorf("commit %s has no LSN: all up to %d are of others", c, last)
}

// prefix returns a copy that ends at LSN n.
func (h *history) prefix(n uint64) *history {
	return &history{commits: slices.Clone(h.commits[:n])}
}

// finish computes the hashes, and checks that commits to keyspaces that were not
// there were refused, and that transactions saw the state before them.
func (h *history) finish() error {
	h.hashes = make([]uint64, 1, len(h.commits)+1)
	live := map[string]string{}
	sum := uint64(0)
	tell := func(name, value string, added bool) {
		space, key := spaceOf(name)
		x := pairHash(space, []byte(key), []byte(value))
		if !added {
			x = -x
		}
		sum += x
	}
	for i, c := range h.commits {
		if c.ops == nil {
			return fmt.Errorf("no commit was given LSN %d", i+1)
		}
		for name, saw := range c.seen {
			if v, ok := live[name]; ok && saw != "="+v || !ok && saw != "" {
				return fmt.Errorf("transaction %d saw of %s what was not there before it", i+1, name)
			}
		}
		if err := apply(live, c, tell); err != nil {
			return fmt.Errorf("commit %d: %w", i+1, err)
		}
		h.hashes = append(h.hashes, sum)
	}
	return nil
}

// state returns S(n), made anew.
func (h *history) state(n uint64) map[string]string {
	live := map[string]string{}
	for _, c := range h.commits[:n] {
		_ = apply(live, c, nil) // finish has seen it
	}
	return live
}

// apply does a commit to a state, and tells, if tell is not nil, of each name
// that goes or comes.
func apply(live map[string]string, c commit, tell func(name, value string, added bool)) (err error) {
	drop := func(name string) {
		if v, ok := live[name]; ok {
			delete(live, name)
			if tell != nil {
				tell(name, v, false)
			}
		}
	}
	add := func(name, value string) {
		drop(name)
		live[name] = value
		if tell != nil {
			tell(name, value, true)
		}
	}
	for _, op := range c.ops {
		if op.Space > 0 {
			home := keyName(op.Space, nil)
			if _, ok := live[home]; !ok {
				if op.Kind != Create && c.how != byUpdate {
					err = fmt.Errorf("%s was done while keyspace %d was not there", c, op.Space)
				}
				add(home, "")
			}
		}
		switch op.Kind {
		case Put:
			add(keyName(op.Space, op.Key), string(op.Value))
		case Delete:
			drop(keyName(op.Space, op.Key))
		case DeleteRange, Drop:
			for name := range live {
				if op.covers(name) {
					drop(name)
				}
			}
		}
	}
	return err
}

// covers says whether a range delete or a drop removes a name of a state.
func (op *Op) covers(name string) bool {
	space, key := spaceOf(name)
	switch {
	case space != op.Space:
		return false
	case op.Kind == Drop:
		return true
	}
	return key != "" && key >= string(op.Key) && (op.Value == nil || key < string(op.Value))
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
			if keyName(op.Space, op.Key) == key && op.Kind == Put && string(op.Value) == v {
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
		_ = apply(live, c, nil) // of a part anything may be asked
	}
	return len(differing(live, got)) == 0
}
