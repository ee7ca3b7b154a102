package check

import (
	"errors"
	"fmt"

	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/segment"
)

// replay puts the log's commits into a memtable, and, when that is full, into
// segments beside it, which are gone when the salvage ends.
type replay struct {
	files compaction.Files
	size  int64
	table *memtable.Table
	last  base.LSN // the last commit that was applied
	count uint64
	// appended are the ids of the keyspaces of sequences to which something was appended.
	appended map[uint64]bool
	// spilled holds, for each full memtable, its segments: of ascending keys.
	spilled []spill
	outs    []*compaction.Output
}

// spill is segments that follow each other in the order of keys.
type spill struct {
	segs    []manifest.Segment
	readers []*segment.Reader
}

// maxSpills is how many spills there may be before they are merged into one: each
// is a source of the merge at the end, with an open file.
const maxSpills = 16

func newReplay(files compaction.Files, size int64) *replay {
	return &replay{files: files, size: size, table: memtable.New(int(size)), appended: map[uint64]bool{}}
}

// errBatch says that a record is no batch; nothing of it was applied.
var errBatch = errors.New("record verifies and is no batch")

// apply applies one commit.
func (p *replay) apply(lsn base.LSN, rec []byte) error {
	r, err := batch.Decode(rec)
	if err != nil {
		return fmt.Errorf("%w: %w", errBatch, err)
	}
	for r.Next() {
		if err := p.enter(lsn, r.Kind(), r.Key(), r.Value()); err != nil {
			return err
		}
	}
	p.last = lsn
	p.count++
	return p.relieve()
}

// enter applies one operation of a commit: of an append the entry of the index.
func (p *replay) enter(lsn base.LSN, kind base.Kind, key, value []byte) error {
	if kind == base.KindRangeDelete {
		return p.table.AddRangeDelete(lsn, key, value)
	}
	if kind == base.KindAppend {
		p.saw(key)
		kind = base.KindPut
		key, value = batch.IndexEntry(nil, nil, key, value)
	}
	// A key twice in a batch is what no Forebay writes: the first one counts.
	if err := p.table.Add(lsn, kind, key, value); !errors.Is(err, memtable.ErrDuplicate) {
		return err
	}
	return nil
}

// saw notes that something was appended to the sequence that key names.
func (p *replay) saw(key []byte) {
	if id, own, ok := keyspace.Cut(key); ok && len(own) == 0 {
		p.appended[id] = true
	}
}

// relieve settles the memtable if it is full.
func (p *replay) relieve() error {
	if p.table.Bytes() >= p.size {
		return p.spill()
	}
	return nil
}

// keep says that there will be readers at the end alone: they see what the last
// commit left. Tombstones stay, for they hide what is in older sources.
func (p *replay) keep() merge.Keep { return merge.Keep{Above: p.last} }

// spill settles the memtable.
func (p *replay) spill() error {
	table := p.table
	p.table = memtable.New(int(p.size))
	if err := p.settle(merge.Source{Iter: table.NewIter(), Dels: []*rangedel.Set{table.RangeDeletes()}, MaxLSN: table.PointMaxLSN()}); err != nil {
		return err
	}
	if len(p.spilled) < maxSpills {
		return nil
	}
	old, outs := p.spilled, p.outs
	p.spilled, p.outs = nil, nil
	sources := sourcesOf(old)
	err := p.settle(sources...)
	abort(outs)
	return err
}

// settle merges sources into a spill.
func (p *replay) settle(sources ...merge.Source) error {
	out := compaction.NewOutput(p.files, 0)
	p.outs = append(p.outs, out)
	iters := make([]base.Iterator, len(sources))
	var all []base.RangeDelete
	for i, s := range sources {
		iters[i] = s.Iter
		for _, d := range s.Dels {
			all = append(all, d.Ranges()...)
		}
	}
	dels := rangedel.New(all)
	it := merge.Compact(merge.New(iters...), dels, p.keep())
	defer it.Close()
	dels = p.keep().Dels(dels)
	var start, last []byte
	for ok := it.First(); ok; ok = it.Next() {
		if out.Size() >= 1<<30 && string(last) != string(it.Key()) {
			end := append([]byte(nil), it.Key()...)
			if err := out.Cut(dels.Clip(start, end)); err != nil {
				return err
			}
			start = end
		}
		last = append(last[:0], it.Key()...)
		if err := out.Add(it.Key(), it.LSN(), it.Kind(), it.Value()); err != nil {
			return err
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	if err := out.Cut(dels.Clip(start, nil)); err != nil {
		return err
	}
	segs, readers, err := out.Finish()
	if err == nil && len(segs) > 0 {
		p.spilled = append(p.spilled, spill{segs, readers})
	}
	return err
}

// sources returns all that was applied, newest first.
func (p *replay) sources() []merge.Source {
	out := []merge.Source{{Iter: p.table.NewIter(), Dels: []*rangedel.Set{p.table.RangeDeletes()}, MaxLSN: p.table.PointMaxLSN()}}
	return append(out, sourcesOf(p.spilled)...)
}

func sourcesOf(spills []spill) []merge.Source {
	out := make([]merge.Source, 0, len(spills))
	for _, s := range spills {
		src := merge.Source{Iter: merge.Concat(len(s.segs),
			func(i int) (lo, hi []byte) { return s.segs[i].Lo, s.segs[i].Hi },
			func(i int) base.Iterator { return s.readers[i].NewScanIter() })}
		var dels []base.RangeDelete
		for i, r := range s.readers {
			src.MaxLSN = max(src.MaxLSN, r.PointMaxLSN(s.segs[i].MaxLSN))
			set, err := r.RangeDeletes()
			if err != nil {
				src.Iter = failed{err} // It was written just now.
			}
			dels = append(dels, set.Ranges()...)
		}
		src.Dels = []*rangedel.Set{rangedel.New(dels)}
		out = append(out, src)
	}
	return out
}

// close removes what was spilled.
func (p *replay) close() {
	abort(p.outs)
	p.spilled, p.outs = nil, nil
}

func abort(outs []*compaction.Output) {
	for _, o := range outs {
		o.Abort()
	}
}
