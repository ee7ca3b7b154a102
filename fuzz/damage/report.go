package damage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// Row counts the verdicts of one kind of damage to one kind of file.
type Row struct {
	Store string `json:"store"`
	File  string `json:"file"`
	Kind  Kind   `json:"kind"`
	// Cases is how many damages were made; those that would have changed nothing
	// are in Same, and in no other count.
	Cases     int `json:"cases"`
	Same      int `json:"same"`
	Harmless  int `json:"harmless"`
	Detected  int `json:"detected"`
	Elsewhere int `json:"elsewhere"`
	Prefix    int `json:"prefix"`
	Refused   int `json:"refused"`
	NoFile    int `json:"nofile"`
	Panicked  int `json:"panic"`
	Silent    int `json:"silent"`
}

func (r *Row) count(v Verdict) *int {
	switch v {
	case Harmless:
		return &r.Harmless
	case Detected:
		return &r.Detected
	case Elsewhere:
		return &r.Elsewhere
	case Prefix:
		return &r.Prefix
	case Refused:
		return &r.Refused
	case NoFile:
		return &r.NoFile
	case Panicked:
		return &r.Panicked
	}
	return &r.Silent
}

func (r *Row) add(o *Row) {
	r.Cases += o.Cases
	r.Same += o.Same
	for _, v := range []Verdict{Harmless, Detected, Elsewhere, Prefix, Refused, NoFile, Panicked, Silent} {
		*r.count(v) += *o.count(v)
	}
}

// StoreInfo describes a store that was damaged.
type StoreInfo struct {
	Name    string `json:"name"`
	Files   int    `json:"files"`
	Bytes   int    `json:"bytes"`
	Batches int    `json:"batches"`
	// Bound says how much of what could be done was done.
	Bound string `json:"bound"`
	// WindowBits are the single bits whose flip gave a legal prefix, and
	// WindowBytes the bytes that they lie in.
	WindowBits  int `json:"windowBits"`
	WindowBytes int `json:"windowBytes"`
}

// Report is what Run found. Its fields are for reading.
type Report struct {
	Subject string      `json:"subject"`
	Seed    uint64      `json:"seed"`
	Stores  []StoreInfo `json:"stores"`
	Rows    []*Row      `json:"rows"`
	Total   Row         `json:"total"`
	// Bad are the first of what must not be: silent, and refused, no file and
	// panics behind them. BadCount is how many there were of all.
	Bad      []Result `json:"bad"`
	BadCount int      `json:"badCount"`
	Seconds  float64  `json:"seconds"`

	mu     sync.Mutex // guards all, while Run runs
	window map[string]map[int64]bool
}

// maxBad is how many bad results a report keeps of each verdict.
const maxBad = 20

func newReport(sub Subject, cfg *Config) *Report {
	return &Report{Subject: sub.Name(), Seed: cfg.Seed, window: map[string]map[int64]bool{}}
}

func (r *Report) store(p *plan) {
	info := StoreInfo{Name: p.s.Name, Files: len(p.files), Batches: len(p.s.Batches)}
	n := 0
	for _, file := range p.files {
		info.Bytes += len(p.s.Image[file])
		n += int(sectors(p.s.Image[file]))
	}
	swaps, pairs := p.cfg.Swaps, n*(n-1)/2
	if swaps < 0 || swaps > pairs {
		swaps = pairs
	}
	info.Bound = fmt.Sprintf("one in %d of %d bits, one in %d of %d sectors, %d of %d pairs of sectors, every file",
		p.cfg.step(p.cfg.BitStep), 8*info.Bytes, p.cfg.step(p.cfg.SectorStep), n, swaps, pairs)
	r.Stores = append(r.Stores, info)
}

// tally is what one worker has counted.
type tally struct {
	rows   map[Row]*Row // by a Row with only store, file and kind
	bad    []Result
	window map[string][]int64
}

func (t *tally) add(p *plan, f Fault, res Result, ok bool) {
	key := Row{Store: p.s.Name, File: p.kind(f.File), Kind: f.Kind}
	if t.rows == nil {
		t.rows = map[Row]*Row{}
	}
	row := t.rows[key]
	if row == nil {
		r := key
		row = &r
		t.rows[key] = row
	}
	if !ok {
		row.Same++
		return
	}
	row.Cases++
	*row.count(res.Verdict)++
	switch res.Verdict {
	case Silent, Refused, NoFile, Panicked:
		t.bad = append(t.bad, res)
	case Prefix:
		if f.Kind == Flip {
			if t.window == nil {
				t.window = map[string][]int64{}
			}
			t.window[f.File] = append(t.window[f.File], f.At)
		}
	}
}

func (r *Report) merge(t tally) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info := &r.Stores[len(r.Stores)-1]
	for key, row := range t.rows {
		i := slices.IndexFunc(r.Rows, func(o *Row) bool { return o.Store == key.Store && o.File == key.File && o.Kind == key.Kind })
		if i < 0 {
			r.Rows = append(r.Rows, &key)
			i = len(r.Rows) - 1
		}
		r.Rows[i].add(row)
		r.Total.add(row)
	}
	r.BadCount += len(t.bad)
	for _, res := range t.bad {
		n := 0
		for _, o := range r.Bad {
			if o.Verdict == res.Verdict {
				n++
			}
		}
		if n < maxBad {
			r.Bad = append(r.Bad, res)
		}
	}
	for file, bits := range t.window {
		at := info.Name + "/" + file
		if r.window[at] == nil {
			r.window[at] = map[int64]bool{}
		}
		for _, bit := range bits {
			info.WindowBits++
			if !r.window[at][bit/8] {
				r.window[at][bit/8] = true
				info.WindowBytes++
			}
		}
	}
}

// finish sorts what came in any order.
func (r *Report) finish(took time.Duration) {
	r.Seconds = took.Seconds()
	storeAt := func(name string) int {
		return slices.IndexFunc(r.Stores, func(s StoreInfo) bool { return s.Name == name })
	}
	slices.SortFunc(r.Rows, func(a, b *Row) int {
		return cmp.Or(cmp.Compare(storeAt(a.Store), storeAt(b.Store)), cmp.Compare(a.File, b.File),
			cmp.Compare(slices.Index(Kinds, a.Kind), slices.Index(Kinds, b.Kind)))
	})
	slices.SortFunc(r.Bad, func(a, b Result) int {
		first := func(v Verdict) int {
			if v == Silent {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(first(a.Verdict), first(b.Verdict)), cmp.Compare(a.Verdict, b.Verdict),
			cmp.Compare(storeAt(a.Store), storeAt(b.Store)), cmp.Compare(a.Fault, b.Fault))
	})
}

// String returns the report as a table.
func (r *Report) String() string {
	var b strings.Builder
	for _, s := range r.Stores {
		fmt.Fprintf(&b, "%s, store %s: %d files, %d bytes, %d batches; %s\n", r.Subject, s.Name, s.Files, s.Bytes, s.Batches, s.Bound)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "store\tfile\tdamage\tcases\tdetected\telsewhere\tharmless\tprefix\trefused\tno file\tpanic\tsilent\t\n")
	line := func(o *Row) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", o.Store, o.File, o.Kind, o.Cases,
			o.Detected, o.Elsewhere, o.Harmless, o.Prefix, o.Refused, o.NoFile, o.Panicked, o.Silent)
	}
	for _, o := range r.Rows {
		if o.Cases > 0 {
			line(o)
		}
	}
	total := r.Total
	total.Store = "total"
	line(&total)
	w.Flush()
	for _, s := range r.Stores {
		if s.WindowBits > 0 {
			fmt.Fprintf(&b, "window of store %s: %d bits in %d bytes\n", s.Name, s.WindowBits, s.WindowBytes)
		}
	}
	for _, res := range r.Bad {
		fmt.Fprintf(&b, "%s: %s/%s: %s\n", res.Verdict, res.Store, res.Fault, res.How)
	}
	fmt.Fprintf(&b, "%d damages, silent %d, in %.1f s\n", r.Total.Cases, r.Total.Silent, r.Seconds)
	return b.String()
}
