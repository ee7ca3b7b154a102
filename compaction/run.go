package compaction

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
)

// Config is what a compaction needs of its store.
type Config struct {
	Files
	// Snapshots and Above say which readers there are and will be: at the LSN
	// of each snapshot, and at Above and higher. Every LSN in the inputs, and
	// every later reader, is one of theirs. They are taken before the first
	// read; a snapshot that is made later is at or above Above.
	Snapshots []base.LSN
	Above     base.LSN
	// Pace, if not nil, makes what a goroutine that merges calls as its work goes on,
	// with how many bytes of the inputs are done since the last call; that may sleep,
	// and its error ends the compaction.
	Pace func() func(ctx context.Context, done int64) error
	// Quiet, if not nil, makes what such a goroutine asks whether nobody else reads
	// what is merged, so that the system need not keep it in memory once it is.
	Quiet func() func() bool
	// Halve is how large the inputs are, in bytes, from which on two goroutines merge
	// a half of the keys each; 0 is never.
	Halve int64
}

// Result is what a compaction made. Nothing of it counts before its edit is
// applied.
type Result struct {
	// Edit adds the outputs and removes the inputs. Of a plan that moves, it
	// adds the inputs again, on their new level.
	Edit manifest.Edit
	// Readers are those of Edit.Add, in its order; nil for a plan that moves,
	// whose segments keep theirs. They are the caller's.
	Readers []*segment.Reader
	// Read and Written are sizes of segments, in bytes. What was left alone
	// because nothing was to be merged into it counts for neither.
	Read, Written int64

	outs []*Output
}

// Abort closes and removes what was made, when the edit will not be applied. It
// is not for an edit whose fate is unknown.
func (r *Result) Abort() {
	for _, out := range r.outs {
		out.Abort()
	}
}

// Run does a plan: it merges the inputs, drops what no reader can see, and makes
// new segments, durable under their names. It changes no input, applies no edit
// and removes no input: that is for the caller, once the edit is durable.
// readers gives the open readers of the inputs, by number; they must stay open
// until Run returns.
//
// An error leaves nothing behind, unless a file cannot be removed; what the next
// open does. Bytes of an input that do not verify are a *base.CorruptionError
// with file and offset: nothing that cannot be read is ever taken for done.
func Run(ctx context.Context, cfg *Config, p *Plan, readers func(number uint64) *segment.Reader) (*Result, error) {
	res := &Result{}
	switch {
	case p.Move:
		for _, s := range p.Inputs {
			s.Level = p.To
			res.Edit.Add = append(res.Edit.Add, s)
		}
		return res, nil
	case p.Drop:
		res.Edit.Remove = numbers(p.Inputs)
		return res, nil
	}
	m := &merging{cfg: cfg, p: p}
	if err := m.open(readers); err != nil {
		return nil, fmt.Errorf("compaction to level %d: %w", p.To, err)
	}
	parts := m.parts()
	err := inParallel(ctx, parts)
	for _, part := range parts {
		res.outs = append(res.outs, part.out)
		if err == nil {
			var segs []manifest.Segment
			var rs []*segment.Reader
			segs, rs, err = part.out.Finish()
			res.Edit.Add, res.Readers = append(res.Edit.Add, segs...), append(res.Readers, rs...)
		}
	}
	if err != nil {
		res.Abort()
		return nil, fmt.Errorf("compaction to level %d: %w", p.To, err)
	}
	res.Edit.Remove = numbers(m.inputs)
	res.Read, res.Written = sizeOf(m.inputs), sizeOf(res.Edit.Add)
	return res, nil
}

// inParallel runs all parts; the first error ends the others.
func inParallel(ctx context.Context, parts []*part) error {
	if len(parts) == 1 {
		return parts[0].run(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g sync.WaitGroup
	var once sync.Once
	var first error
	for _, p := range parts {
		g.Go(func() {
			if err := p.run(ctx); err != nil {
				once.Do(func() { first = err })
				cancel()
			}
		})
	}
	g.Wait()
	return first
}

func numbers(segs []manifest.Segment) []uint64 {
	out := make([]uint64, len(segs))
	for i := range segs {
		out[i] = segs[i].Number
	}
	return out
}

// merging is one Run.
type merging struct {
	cfg     *Config
	p       *Plan
	readers map[uint64]*segment.Reader
	inputs  []manifest.Segment // of the plan, less fences
	// fences are the inputs of the output level into which nothing is merged:
	// they stay, and no output reaches over them.
	fences []manifest.Segment
}

// part merges the keys in [lo, hi); nil is no bound.
type part struct {
	*merging
	lo, hi []byte
	fences []manifest.Segment // of those in it, what is still ahead
	out    *Output

	dels  *rangedel.Set // that remain
	start []byte        // where the present output may begin
	cuts  [][]byte
	last  []byte // the key before
}

// parts divides the work. Where a half ends, a segment of the output level begins, so
// that none lies in both.
func (m *merging) parts() []*part {
	at := m.middle()
	all := []*part{{merging: m, hi: at}}
	if at != nil {
		all = append(all, &part{merging: m, lo: at, start: at})
	}
	for _, p := range all {
		p.out, p.cuts = NewOutput(m.cfg.Files, m.p.To), m.p.Cuts
		for _, f := range m.fences {
			if (p.hi == nil || bytes.Compare(f.Lo, p.hi) < 0) && (p.lo == nil || bytes.Compare(f.Lo, p.lo) >= 0) {
				p.fences = append(p.fences, f)
			}
		}
	}
	return all
}

// middle returns the key at which the inputs of the output level fall into halves of
// about the same size, nil if the work is not to be divided.
func (m *merging) middle() []byte {
	if m.cfg.Halve <= 0 || m.p.To == 0 || sizeOf(m.inputs) < m.cfg.Halve {
		return nil
	}
	var level []manifest.Segment
	for _, s := range m.inputs {
		if s.Level == m.p.To {
			level = append(level, s)
		}
	}
	left, all := int64(0), sizeOf(level)
	for i := range level {
		if i > 0 && left >= all/2 {
			return level[i].Lo
		}
		left += int64(level[i].Size)
	}
	return nil
}

// open gets the readers of all inputs and finds the fences.
func (m *merging) open(readers func(uint64) *segment.Reader) error {
	m.readers = make(map[uint64]*segment.Reader, len(m.p.Inputs))
	for _, s := range m.p.Inputs {
		r := readers(s.Number)
		if r == nil {
			return fmt.Errorf("segment %d is not open", s.Number)
		}
		m.readers[s.Number] = r
	}
	touched, err := m.touched()
	if err != nil {
		return err
	}
	for i, s := range m.p.Inputs {
		if touched[i] {
			m.inputs = append(m.inputs, s)
		} else {
			m.fences = append(m.fences, s)
		}
	}
	return nil
}

// touched says of each input whether it takes part: those of the output level do
// if an input from above has anything within their bounds. When all are of the
// output level they are merged for their own sake.
func (m *merging) touched() ([]bool, error) {
	in := m.p.Inputs
	touched := make([]bool, len(in))
	lower := len(in)
	for lower > 0 && in[lower-1].Level == m.p.To && m.p.To > 0 {
		lower--
	}
	for i := range in {
		touched[i] = i < lower || lower == 0
	}
	for _, u := range in[:lower] {
		if lower == len(in) {
			break
		}
		if err := m.touch(&u, in[lower:], touched[lower:]); err != nil {
			return nil, err
		}
	}
	return touched, nil
}

// touch marks those of the sorted segs in which u has something.
func (m *merging) touch(u *manifest.Segment, segs []manifest.Segment, touched []bool) error {
	r := m.readers[u.Number]
	dels, err := r.RangeDeletes()
	if err != nil {
		return err
	}
	it := r.NewIter()
	defer it.Close()
	var at []byte // a key of u before which, from the last place asked for, u has none
	for i := range segs {
		s := &segs[i]
		switch {
		case touched[i] || !overlap(u.Lo, u.Hi, s.Lo, s.Hi):
			continue
		case dels.Overlaps(s.Lo, s.Hi):
			touched[i] = true
			continue
		case at != nil && bytes.Compare(at, s.Hi) >= 0:
			continue
		}
		if at == nil || bytes.Compare(at, s.Lo) < 0 {
			if !it.SeekGE(s.Lo, base.MaxLSN) {
				if err := it.Err(); err != nil {
					return err
				}
				return m.touchDels(dels, segs[i+1:], touched[i+1:])
			}
			at = append(at[:0], it.Key()...)
		}
		touched[i] = bytes.Compare(at, s.Hi) < 0
	}
	return nil
}

// touchDels is touch for range deletes alone.
func (m *merging) touchDels(dels *rangedel.Set, segs []manifest.Segment, touched []bool) error {
	for i := range segs {
		touched[i] = touched[i] || dels.Overlaps(segs[i].Lo, segs[i].Hi)
	}
	return nil
}

// sources returns the inputs as merge wants them: each segment of level 0, and
// the segments of each other level as one.
func (m *part) sources() (out []merge.Source, dels *rangedel.Set, err error) {
	var sets []*rangedel.Set
	var quiet func() bool
	if m.cfg.Quiet != nil {
		quiet = m.cfg.Quiet()
	}
	for i := 0; i < len(m.inputs); {
		j := i + 1
		for m.inputs[i].Level > 0 && j < len(m.inputs) && m.inputs[j].Level == m.inputs[i].Level {
			j++
		}
		run := m.inputs[i:j]
		src := merge.Source{Iter: merge.Concat(len(run),
			func(k int) (lo, hi []byte) { return run[k].Lo, run[k].Hi },
			func(k int) base.Iterator {
				return m.readers[run[k].Number].NewLastIter(quiet, m.cfg.Writer)
			})}
		own := make([]*rangedel.Set, 0, len(run))
		for k := range run {
			r := m.readers[run[k].Number]
			src.MaxLSN = max(src.MaxLSN, r.PointMaxLSN(run[k].MaxLSN))
			if run[k].RangeDeletes > 0 {
				d, err := r.RangeDeletes()
				if err != nil {
					return nil, nil, err
				}
				own = append(own, d)
			}
		}
		src.Dels = []*rangedel.Set{rangedel.Merge(own...)}
		out, sets = append(out, src), append(sets, src.Dels...)
		i = j
	}
	return out, rangedel.Merge(sets...), nil
}

func (m *part) run(ctx context.Context) error {
	sources, dels, err := m.sources()
	if err != nil {
		return err
	}
	keep := NewBelow(m.p.Below).Keep(merge.Keep{Snapshots: m.cfg.Snapshots, Above: m.cfg.Above})
	m.dels = keep.Dels(dels)
	it := merge.Compact(m.watch(ctx, merge.NewUncovered(sources, keep.Oldest(), m.p.Lo, m.p.Hi)), dels, keep)
	for ok := it.First(); ok && err == nil; ok = err == nil && it.Next() {
		key := it.Key()
		if !bytes.Equal(key, m.last) {
			if err = m.enter(key); err != nil {
				break
			}
		}
		err = m.out.Add(key, it.LSN(), it.Kind(), it.Value())
	}
	if err == nil {
		err = it.Err()
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := m.pass(nil); err != nil {
		return err
	}
	return m.end(m.hi)
}

// enter comes to the first version of another key, and ends the output before
// it where one should end.
func (m *part) enter(key []byte) error {
	if err := m.pass(key); err != nil {
		return err
	}
	m.last = append(m.last[:0], key...)
	if m.p.To == 0 {
		return nil
	}
	cut := false
	for len(m.cuts) > 0 && bytes.Compare(m.cuts[0], key) <= 0 {
		cut, m.cuts = true, m.cuts[1:]
	}
	if size := m.out.Size(); size >= m.p.SegmentSize || cut && size >= m.p.SegmentSize/2 {
		return m.end(bytes.Clone(key))
	}
	return nil
}

// pass ends an output before each fence up to key, nil for all.
func (m *part) pass(key []byte) error {
	for len(m.fences) > 0 && (key == nil || bytes.Compare(m.fences[0].Lo, key) <= 0) {
		if err := m.end(m.fences[0].Lo); err != nil {
			return err
		}
		m.start, m.fences = m.fences[0].Hi, m.fences[1:]
	}
	return nil
}

// end ends the output at hi, with the range deletes up to there; nil is the end
// of all.
func (m *part) end(hi []byte) error {
	if err := m.out.Cut(m.dels.Clip(m.start, hi)); err != nil {
		return err
	}
	m.start = hi
	return nil
}

// watched walks over the keys of a part, counts the versions that go by, asks for
// leave to go on from time to time, and ends with its context.
type watched struct {
	base.Iterator
	lo, hi []byte
	ctx    context.Context
	pace   func(context.Context, int64) error
	mean   int64 // bytes of a version
	n      int64 // versions since the last leave
	err    error
}

// watchBytes and watchVersions are how much goes by between two looks.
const watchBytes = 128 << 10

var watchVersions int64 = 256 // tests look more often

func (m *part) watch(ctx context.Context, it base.Iterator) *watched {
	var count uint64
	for i := range m.inputs {
		count += m.inputs[i].Count
	}
	w := &watched{Iterator: it, lo: m.lo, hi: m.hi, ctx: ctx, mean: 1 + sizeOf(m.inputs)/int64(count+1)}
	if m.cfg.Pace != nil {
		w.pace = m.cfg.Pace()
	}
	return w
}

func (w *watched) First() bool {
	if !w.look() {
		return false
	}
	if w.lo != nil {
		return w.within(w.Iterator.SeekGE(w.lo, base.MaxLSN))
	}
	return w.within(w.Iterator.First())
}

func (w *watched) Next() bool {
	if w.n++; w.n >= watchVersions || w.n*w.mean >= watchBytes {
		if !w.look() {
			return false
		}
	}
	return w.within(w.Iterator.Next())
}

func (w *watched) SeekGE(key []byte, lsn base.LSN) bool {
	return w.look() && w.within(w.Iterator.SeekGE(key, lsn))
}

// within says whether the iterator stands, if ok, in front of hi.
func (w *watched) within(ok bool) bool {
	return ok && (w.hi == nil || bytes.Compare(w.Iterator.Key(), w.hi) < 0)
}

func (w *watched) look() bool {
	if w.err = w.ctx.Err(); w.err == nil && w.pace != nil && w.n > 0 {
		w.err = w.pace(w.ctx, w.n*w.mean)
	}
	w.n = 0
	return w.err == nil
}

func (w *watched) Err() error {
	if w.err != nil {
		return w.err
	}
	return w.Iterator.Err()
}
