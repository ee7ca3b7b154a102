package crash

import (
	"bytes"
	"math/rand/v2"

	"github.com/forebaydb/forebay/fuzz/damage"
)

// Column is one kind of damage of the table.
type Column struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// What it is, in a sentence.
	What string `json:"what"`

	store  string
	faults func(x *sampler) []damage.Fault
}

// Columns are the columns of the table, in order.
var Columns = []Column{
	{"logbit", "log bit", "one bit flipped in the middle of log data that was synced and acknowledged", inLog, func(x *sampler) []damage.Fault { return x.logAt(damage.Flip, 8) }},
	{"logzero", "log zeroed", "one sector of such log data zeroed", inLog, func(x *sampler) []damage.Fault { return x.logSectors(damage.Zero) }},
	{"logstale", "log stale", "one such sector as it was before", inLog, func(x *sampler) []damage.Fault { return x.logSectors(damage.Stale) }},
	{"torntail", "torn tail", "the last write torn, as a crash does it: it must open", inLog, (*sampler).tail},
	{"logcut", "log cut", "the log cut in the middle", inLog, func(x *sampler) []damage.Fault { return x.logAt(damage.Truncate, 1) }},
	{"databit", "data bit", "one bit flipped in a data file of a closed store", inData, func(x *sampler) []damage.Fault { return x.files("data", damage.Flip, 8) }},
	{"metabit", "meta bit", "one bit flipped in what lists the files", inData, func(x *sampler) []damage.Fault { return x.files("meta", damage.Flip, 8) }},
	{"datazero", "data zeroed", "one sector of a data file zeroed", inData, func(x *sampler) []damage.Fault { return x.sectors(damage.Zero) }},
	{"datastale", "data stale", "one sector of a data file as it was before", inData, func(x *sampler) []damage.Fault { return x.sectors(damage.Stale) }},
	{"datacut", "data cut", "a data file cut in the middle", inData, func(x *sampler) []damage.Fault { return x.files("data", damage.Truncate, 1) }},
	{"removed", "removed", "a file removed", inData, func(x *sampler) []damage.Fault { return x.each(damage.Remove) }},
	{"older", "older", "a file as it was before", inData, func(x *sampler) []damage.Fault { return x.each(damage.Older) }},
}

// sampler draws damages of one store.
type sampler struct {
	sub  *subject
	s    *damage.Store
	n    int
	rng  *rand.Rand
	used map[damage.Fault]bool
}

// draw calls one until it has n different damages that change something.
func (x *sampler) draw(one func() (damage.Fault, bool)) (out []damage.Fault) {
	x.used = map[damage.Fault]bool{}
	for range 20 * x.n {
		f, ok := one()
		if ok && !x.used[f] {
			x.used[f] = true
			if _, ok := f.Apply(x.s); ok {
				out = append(out, f)
			}
		}
		if len(out) == x.n {
			break
		}
	}
	return out
}

// region is where in the log, or where there is none in the data, the values of the
// batches from first to before last lie.
type region struct {
	file     string
	from, to int64
}

func (x *sampler) middle(first, last int) (out []region) {
	for _, kind := range []string{"log", "data"} {
		for _, name := range x.s.Image.Names() {
			if x.sub.Kind(name) != kind {
				continue
			}
			r := region{file: name, from: -1}
			for at := first; at < last; at++ {
				v := []byte(valueOf(at))
				i := int64(bytes.LastIndex(x.s.Image[name], v))
				if i < 0 {
					continue
				}
				if kind == "data" { // values lie in no order, with free pages between
					out = append(out, region{name, i, i + int64(len(v))})
					continue
				}
				if r.from < 0 || i < r.from {
					r.from = i
				}
				r.to = max(r.to, i+int64(len(v)))
			}
			if r.from >= 0 {
				out = append(out, r)
			}
		}
		if len(out) > 0 {
			break
		}
	}
	return out
}

// in draws a place in one of the regions, by their length.
func (x *sampler) in(rs []region, unit int64) (string, int64, bool) {
	total := int64(0)
	for _, r := range rs {
		total += r.to - r.from
	}
	if total == 0 {
		return "", 0, false
	}
	at := x.rng.Int64N(total * unit)
	for _, r := range rs {
		if at < (r.to-r.from)*unit {
			return r.file, r.from*unit + at, true
		}
		at -= (r.to - r.from) * unit
	}
	return "", 0, false
}

func (x *sampler) logAt(k damage.Kind, unit int64) []damage.Fault {
	rs := x.middle(batches/4, batches*3/4)
	return x.draw(func() (damage.Fault, bool) {
		file, at, ok := x.in(rs, unit)
		return damage.Fault{Kind: k, File: file, At: at}, ok
	})
}

// logSectors are of what was written after the older version.
func (x *sampler) logSectors(k damage.Kind) []damage.Fault {
	rs := x.middle(batches/2+1, batches*3/4)
	return x.draw(func() (damage.Fault, bool) {
		file, at, ok := x.in(rs, 1)
		return damage.Fault{Kind: k, File: file, At: at / damage.Sector}, ok
	})
}

// tail tears the last write, in zeros and, where the file ends there, in its size.
func (x *sampler) tail() []damage.Fault {
	if len(x.s.Writes) == 0 {
		return nil
	}
	w := x.s.Writes[len(x.s.Writes)-1]
	kinds := []damage.Kind{damage.Torn}
	if w.To == int64(len(x.s.Image[w.File])) {
		kinds = append(kinds, damage.Truncate)
	}
	return x.draw(func() (damage.Fault, bool) {
		return damage.Fault{Kind: kinds[x.rng.IntN(len(kinds))], File: w.File, At: w.From + x.rng.Int64N(w.To-w.From)}, true
	})
}

func (x *sampler) files(kind string, k damage.Kind, unit int64) []damage.Fault {
	var rs []region
	for _, name := range x.s.Image.Names() {
		if x.sub.Kind(name) == kind {
			rs = append(rs, region{name, 0, int64(len(x.s.Image[name]))})
		}
	}
	return x.draw(func() (damage.Fault, bool) {
		file, at, ok := x.in(rs, unit)
		return damage.Fault{Kind: k, File: file, At: at}, ok
	})
}

func (x *sampler) sectors(k damage.Kind) []damage.Fault {
	out := []damage.Fault{}
	for _, f := range x.files("data", damage.Truncate, 1) {
		f.Kind, f.At = k, f.At/damage.Sector
		if _, ok := f.Apply(x.s); ok && !x.used[f] {
			x.used[f] = true
			out = append(out, f)
		}
	}
	return out
}

func (x *sampler) each(k damage.Kind) (out []damage.Fault) {
	names := x.s.Image.Names()
	if k == damage.Older {
		names = x.s.Older.Names()
	}
	for _, name := range names {
		f := damage.Fault{Kind: k, File: name}
		if x.sub.Kind(name) == "" {
			continue
		}
		c, ok := f.Apply(x.s)
		if ok && !(k == damage.Older && x.allOlder(c)) {
			out = append(out, f)
		}
	}
	return out
}

// allOlder tells whether the whole store is the older one, of which nothing can tell.
func (x *sampler) allOlder(c *damage.Copy) bool {
	for name, b := range c.Image {
		if x.sub.Kind(name) != "" && !bytes.Equal(b, x.s.Older[name]) {
			return false
		}
	}
	return true
}
