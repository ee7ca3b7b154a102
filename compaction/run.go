package compaction

import (
	"bytes"
	"context"
	"fmt"

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
	// Pace is called as the work goes on, with how many bytes of the inputs are
	// done since the last call; it may sleep, and its error ends the
	// compaction. It may be nil.
	Pace func(ctx context.Context, done int64) error
	// Quiet says whether nobody else reads what is merged, so that the system need
	// not keep it in memory once it is. It may be nil: somebody does.
	Quiet func() bool
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

	out *Output
}

// Abort closes and removes what was made, when the edit will not be applied. It
// is not for an edit whose fate is unknown.
func (r *Result) Abort() {
	if r.out != nil {
		r.out.Abort()
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
	m := &merging{cfg: cfg, p: p, out: NewOutput(cfg.Files, p.To)}
	err := m.open(readers)
	if err == nil {
		err = m.run(ctx)
	}
	if err == nil {
		res.Edit.Add, res.Readers, err = m.out.Finish()
	}
	if err != nil {
		m.out.Abort()
		return nil, fmt.Errorf("compaction to level %d: %w", p.To, err)
	}
	res.out = m.out
	res.Edit.Remove = numbers(m.inputs)
	res.Read, res.Written = sizeOf(m.inputs), sizeOf(res.Edit.Add)
	return res, nil
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
	out    *Output

	dels  *rangedel.Set // that remain
	start []byte        // where the present output may begin, nil at first
	cuts  [][]byte
	last  []byte // the key before
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
	m.cuts = m.p.Cuts
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
func (m *merging) sources() (out []merge.Source, dels *rangedel.Set, err error) {
	var sets []*rangedel.Set
	for i := 0; i < len(m.inputs); {
		j := i + 1
		for m.inputs[i].Level > 0 && j < len(m.inputs) && m.inputs[j].Level == m.inputs[i].Level {
			j++
		}
		run := m.inputs[i:j]
		src := merge.Source{Iter: merge.Concat(len(run),
			func(k int) (lo, hi []byte) { return run[k].Lo, run[k].Hi },
			func(k int) base.Iterator { return m.readers[run[k].Number].NewLastIter(m.cfg.Quiet) })}
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

func (m *merging) run(ctx context.Context) error {
	sources, dels, err := m.sources()
	if err != nil {
		return err
	}
	keep := NewBelow(m.p.Below).Keep(merge.Keep{Snapshots: m.cfg.Snapshots, Above: m.cfg.Above})
	m.dels = keep.Dels(dels)
	it := merge.Compact(newWatched(ctx, merge.NewUncovered(sources, keep.Oldest()), m.cfg.Pace, m.inputs), dels, keep)
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
	return m.end(nil)
}

// enter comes to the first version of another key, and ends the output before
// it where one should end.
func (m *merging) enter(key []byte) error {
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
func (m *merging) pass(key []byte) error {
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
func (m *merging) end(hi []byte) error {
	if err := m.out.Cut(m.dels.Clip(m.start, hi)); err != nil {
		return err
	}
	m.start = hi
	return nil
}

// watched counts the versions that go by, asks for leave to go on from time to
// time, and ends with its context.
type watched struct {
	base.Iterator
	ctx  context.Context
	pace func(context.Context, int64) error
	mean int64 // bytes of a version
	n    int64 // versions since the last leave
	err  error
}

// watchBytes and watchVersions are how much goes by between two looks.
const watchBytes = 128 << 10

var watchVersions int64 = 256 // tests look more often

func newWatched(ctx context.Context, it base.Iterator, pace func(context.Context, int64) error, in []manifest.Segment) *watched {
	var count uint64
	for i := range in {
		count += in[i].Count
	}
	return &watched{Iterator: it, ctx: ctx, pace: pace, mean: 1 + sizeOf(in)/int64(count+1)}
}

func (w *watched) First() bool { return w.look() && w.Iterator.First() }
func (w *watched) Next() bool {
	if w.n++; w.n >= watchVersions || w.n*w.mean >= watchBytes {
		if !w.look() {
			return false
		}
	}
	return w.Iterator.Next()
}

func (w *watched) SeekGE(key []byte, lsn base.LSN) bool {
	return w.look() && w.Iterator.SeekGE(key, lsn)
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
