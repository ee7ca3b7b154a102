package damage

import (
	"fmt"
	"path"
	"runtime/debug"
	"slices"
	"strings"
)

// Verdict is what came of a damage; see the package comment.
type Verdict string

// Verdicts.
const (
	Harmless  Verdict = "harmless"
	Detected  Verdict = "detected"  // names a damaged file
	Elsewhere Verdict = "elsewhere" // detected, and another file is named
	Prefix    Verdict = "prefix"
	Refused   Verdict = "refused"
	NoFile    Verdict = "nofile"
	Panicked  Verdict = "panic"
	Silent    Verdict = "silent"
)

// Result is one damage and its verdict.
type Result struct {
	Store   string  `json:"store"`
	Fault   string  `json:"fault"`
	Verdict Verdict `json:"verdict"`
	// How says what is wrong or missing, or is the error.
	How string `json:"how"`
}

// panicked is what an engine panicked with.
type panicked struct{ what any }

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.what) }

// open is Subject.Open without panics.
func open(sub Subject, c *Copy, r *Reading) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // who maps files
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{p}
		}
	}()
	return sub.Open(c, r)
}

// Judge opens a store with one damage; not ok where the damage changes nothing.
func Judge(sub Subject, s *Store, f Fault) (res Result, ok bool) {
	res = Result{Store: s.Name, Fault: f.String()}
	c, ok := f.Apply(s)
	if !ok {
		return res, false
	}
	r := &Reading{past: s.history()}
	err := open(sub, c, r)
	if err == nil && r.whole() {
		res.Verdict = Harmless
		return res, true
	}
	if r.differs || err == nil {
		// Once more, to see what is different.
		r = &Reading{past: r.past, keep: true}
		err = open(sub, c, r)
	}
	if p, ok := err.(*panicked); ok {
		res.Verdict, res.How = Panicked, p.Error()
		return res, true
	}
	if err == nil {
		res.Verdict, res.How = r.judge(c)
		return res, true
	}
	res.How = err.Error()
	if r.keep {
		if wrong := r.wrong(c); wrong != "" {
			res.Verdict, res.How = Silent, wrong+"; only then "+res.How
			return res, true
		}
	}
	blamed := sub.Blame(err, c)
	switch {
	case f.mustOpen(s):
		res.Verdict = Refused
	case blamed == "":
		res.Verdict = NoFile
	case slices.Contains(c.Changed, blamed):
		res.Verdict = Detected
	default:
		res.Verdict = Elsewhere
	}
	return res, true
}

// judge is of a reading that was kept, without an error.
func (r *Reading) judge(c *Copy) (Verdict, string) {
	if how := r.disagree(); how != "" {
		return Silent, how
	}
	if !slices.IsSortedFunc(r.scan, func(a, b pair) int { return strings.Compare(a.key, b.key) }) {
		return Silent, "keys out of order"
	}
	n, ok := r.past.state(r.scan)
	last := len(r.past.at) - 1
	if r.said {
		// It says which state that should be.
		i, known := slices.BinarySearch(r.past.at, r.at)
		sum := uint64(0)
		for _, v := range r.scan {
			sum += r.past.hash(v.key, v.value)
		}
		if ok && (!known || r.past.states[i] != sum) {
			return Silent, fmt.Sprintf("says that it holds batch %d, and shows the state after another", r.at)
		}
		n = i
	}
	if !ok {
		return Silent, r.against()
	}
	if n == last {
		if r.versions() {
			return Harmless, ""
		}
		return Silent, "wrong version of a key"
	}
	how := fmt.Sprintf("lost suffix: %d of %d batches", last-n, last)
	if c.lost(r.past.at[n]) {
		return Prefix, how
	}
	return Silent, how
}

// versions tells whether the versions of a scan are those of the last state.
func (r *Reading) versions() bool {
	for i, v := range r.scan {
		if v.version != 0 && v.version != r.past.final[i].version {
			return false
		}
	}
	return true
}

// disagree says where two ways of reading have differed.
func (r *Reading) disagree() string {
	back := slices.Clone(r.back)
	slices.Reverse(back)
	if !slices.Equal(r.scan, back) {
		return fmt.Sprintf("reads disagree: %d pairs forward, %d backward", len(r.scan), len(back))
	}
	if r.gets != len(r.past.keys) {
		return fmt.Sprintf("%d keys were asked for and %d answered", len(r.past.keys), r.gets)
	}
	scan := map[string]string{}
	for _, v := range r.scan {
		scan[v.key] = v.value
	}
	for _, v := range r.found {
		if got, ok := scan[v.key]; !ok || got != v.value {
			return fmt.Sprintf("reads disagree on key %q", v.key)
		}
	}
	// All found keys are in the scan; each scanned key must be found too.
	if len(r.found) != len(r.scan) {
		return r.against() + "; reads disagree"
	}
	return ""
}

// against says in which way the contents were never a state.
func (r *Reading) against() string {
	scan := map[string]string{}
	for _, v := range r.scan {
		if !r.past.had(v.key, v.value) {
			return fmt.Sprintf("wrong value: key %q never had what it shows", v.key)
		}
		scan[v.key] = v.value
	}
	missing, older := 0, 0
	for _, v := range r.past.final {
		if got, ok := scan[v.key]; !ok {
			missing++
		} else if got != v.value {
			older++
		}
	}
	back := len(scan) + missing - len(r.past.final)
	return fmt.Sprintf("hole: %d keys missing, %d with an older value, %d back that were deleted", missing, older, back)
}

// wrong says what was served, before an error, that the store should not have.
func (r *Reading) wrong(c *Copy) string {
	n := len(r.past.at) - 1
	if r.said {
		i, known := slices.BinarySearch(r.past.at, r.at)
		if !known || i < n && !c.lost(r.at) {
			return fmt.Sprintf("lost suffix: says that it holds batch %d", r.at)
		}
		n = i
	}
	want := r.past.final
	if n < len(r.past.at)-1 {
		want = c.Store.contents(n)
	}
	same := func(a, b pair) bool { return a.key == b.key && a.value == b.value }
	back := slices.Clone(want)
	slices.Reverse(back)
	if len(r.scan) > len(want) || !slices.EqualFunc(r.scan, want[:len(r.scan)], same) || len(r.back) > len(back) || !slices.EqualFunc(r.back, back[:len(r.back)], same) {
		return "wrong contents in a scan"
	}
	var got []pair
	for _, v := range want {
		if i, ok := slices.BinarySearch(r.past.keys[:len(r.past.keys)-len(c.Store.Absent)], v.key); ok && i < r.gets {
			got = append(got, v)
		}
	}
	if !slices.EqualFunc(r.found, got, same) {
		return "wrong answer for a key"
	}
	return ""
}

// BlameText is a Subject.Blame for errors that are only text: it returns the file of
// the copy whose base name stands in it, a damaged one first.
func BlameText(err error, c *Copy) string {
	text := err.Error()
	names := append(slices.Clone(c.Changed), c.Image.Names()...)
	for _, name := range names {
		if strings.Contains(text, path.Base(name)) {
			return name
		}
	}
	return ""
}
