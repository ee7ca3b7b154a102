package damage

// Subject is an engine under damage. All methods may be called at once from many
// goroutines.
type Subject interface {
	// Name of the engine and of its settings, with neither colon nor space.
	Name() string
	// Build makes stores. Two calls should make the same files and write the same
	// at the same places, so that a line of a report makes the same damage again.
	Build() ([]*Store, error)
	// Kind says what a file is for: log, segment, manifest and so on. "" is one
	// that holds nothing of the store (a lock) and is left alone.
	Kind(file string) string
	// Open opens a copy and shows r all that is in it, in every way. The error is
	// the engine's. Whatever it opened is closed when it returns.
	Open(c *Copy, r *Reading) error
	// Blame returns the file, as Image names it, that an error of Open says is
	// damaged; "" where it does not say.
	Blame(err error, c *Copy) string
}

// Reading is where a Subject puts what it reads. It is used by one goroutine.
type Reading struct {
	past *past
	// keep is set in a second run, when the first has differed.
	keep       bool
	differs    bool
	n, m, gets int
	at         uint64
	said       bool
	scan, back []pair
	found      []pair
}

// Keys returns the keys to ask for, in this order; some the store never had.
func (r *Reading) Keys() []string { return r.past.keys }

// Next takes the pairs of a scan, keys ascending; version is the batch (Batch.At)
// that put it, or 0 where the engine does not say.
func (r *Reading) Next(key, value []byte, version uint64) {
	if r.keep {
		r.scan = append(r.scan, pair{string(key), string(value), version})
	}
	if r.n >= len(r.past.final) || !r.past.final[r.n].is(key, value, version) {
		r.differs = true
	}
	r.n++
}

// Prev takes the pairs of a scan, keys descending.
func (r *Reading) Prev(key, value []byte, version uint64) {
	if r.keep {
		r.back = append(r.back, pair{string(key), string(value), version})
	}
	r.m++
	if i := len(r.past.final) - r.m; i < 0 || !r.past.final[i].is(key, value, version) {
		r.differs = true
	}
}

// Got takes the answer for the next of Keys.
func (r *Reading) Got(value []byte, ok bool) {
	if r.gets == len(r.past.keys) {
		r.differs = true
		return
	}
	want := r.past.answers[r.gets]
	if r.keep && ok {
		r.found = append(r.found, pair{key: r.past.keys[r.gets], value: string(value)})
	}
	if (want != nil) != ok || ok && want.value != string(value) {
		r.differs = true
	}
	r.gets++
}

// Says takes the number of the last batch that the engine says it holds. An
// engine that does not say leaves it out.
func (r *Reading) Says(at uint64) {
	r.said, r.at = true, at
	if at != r.past.at[len(r.past.at)-1] {
		r.differs = true
	}
}

func (p *pair) is(key, value []byte, version uint64) bool {
	return p.key == string(key) && p.value == string(value) && (version == 0 || version == p.version)
}

// whole tells whether all of the last state was read, in all ways.
func (r *Reading) whole() bool {
	return !r.differs && r.n == len(r.past.final) && r.m == r.n && r.gets == len(r.past.keys)
}
