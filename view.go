package forebay

import (
	"bytes"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/segment"
)

// view is what a reader looks at. But for what is committed to the active
// memtable it never changes: DB.view does. Its gate counts who looks at it, and
// when it has been replaced and the last has left, the memory of the memtables that no
// later view has is given back, and such segments are closed, and removed when the manifest no longer names them.
type view struct {
	active *memtable.Table
	frozen []*frozen // newest first
	zero   []*table  // level 0, newest first
	levels [][]*table
	// settled: all commits up to it are in the segments, and none above.
	settled base.LSN
	gate    gate
	// idle are cursors that were closed, to be used again while this is the view:
	// to make one costs more than a seek. plain says that no table but the active
	// one has range deletes.
	idle  [8]atomic.Pointer[lease]
	plain bool
}

// frozen is a memtable that takes no more writes; high is the LSN behind which
// the next one begins.
type frozen struct {
	table *memtable.Table
	high  base.LSN
}

// table is a live segment in its place.
type table struct {
	meta manifest.Segment
	file *segmentFile
}

// segmentFile is an open segment. gone says that the manifest does not name it
// any more.
type segmentFile struct {
	r    *segment.Reader
	refs atomic.Int32 // views that have it
	gone atomic.Bool
}

// high returns the LSN behind which the active memtable begins.
func (v *view) high() base.LSN {
	if len(v.frozen) > 0 {
		return v.frozen[0].high
	}
	return v.settled
}

// tables calls each for every segment.
func (v *view) tables(each func(*table)) {
	for _, t := range v.zero {
		each(t)
	}
	for _, level := range v.levels {
		for _, t := range level {
			each(t)
		}
	}
}

// segments lists what the manifest says of all segments.
func (v *view) segments() []manifest.Segment {
	var out []manifest.Segment
	v.tables(func(t *table) { out = append(out, t.meta) })
	return out
}

// place puts a segment where it belongs.
func (v *view) place(t *table) {
	if t.meta.Level == 0 {
		i, _ := slices.BinarySearchFunc(v.zero, t, func(a, b *table) int {
			if a.meta.MaxLSN != b.meta.MaxLSN {
				if a.meta.MaxLSN > b.meta.MaxLSN {
					return -1
				}
				return 1
			}
			if a.meta.Number > b.meta.Number {
				return -1
			}
			return 1
		})
		v.zero = slices.Insert(slices.Clone(v.zero), i, t)
		return
	}
	for len(v.levels) < t.meta.Level {
		v.levels = append(v.levels[:len(v.levels):len(v.levels)], nil)
	}
	l := t.meta.Level - 1
	i := sort.Search(len(v.levels[l]), func(i int) bool { return bytes.Compare(v.levels[l][i].meta.Lo, t.meta.Lo) > 0 })
	v.levels = slices.Clone(v.levels)
	v.levels[l] = slices.Insert(slices.Clone(v.levels[l]), i, t)
}

// without takes segments away and returns them.
func (v *view) without(numbers []uint64) (out []*table) {
	gone := make(map[uint64]bool, len(numbers))
	for _, n := range numbers {
		gone[n] = true
	}
	strip := func(in []*table) []*table {
		keep := make([]*table, 0, len(in))
		for _, t := range in {
			if gone[t.meta.Number] {
				out = append(out, t)
			} else {
				keep = append(keep, t)
			}
		}
		if len(keep) == len(in) {
			return in
		}
		return keep
	}
	v.zero = strip(v.zero)
	v.levels = slices.Clone(v.levels)
	for i := range v.levels {
		v.levels[i] = strip(v.levels[i])
	}
	return out
}

// install replaces the view by a changed copy of it. mu is held.
func (db *DB) install(change func(v *view)) {
	old := db.view.Load()
	v := &view{active: old.active, frozen: old.frozen, zero: old.zero, levels: old.levels, settled: old.settled}
	change(v)
	v.plain = !slices.ContainsFunc(v.frozen, func(f *frozen) bool { return f.table.HasRangeDeletes() })
	v.tables(func(t *table) {
		t.file.refs.Add(1)
		v.plain = v.plain && t.meta.RangeDeletes == 0
	})
	v.retain()
	db.view.Store(v)
	old.gate.shut(func() { db.drop(old) })
	db.share(v)
}

// retain takes hold of the memtables.
func (v *view) retain() {
	v.active.Retain()
	for _, f := range v.frozen {
		f.table.Retain()
	}
}

// release is the reverse of retain.
func (v *view) release() {
	v.active.Release()
	for _, f := range v.frozen {
		f.table.Release()
	}
}

// drop lets go of the memtables and segments of a view that nobody looks at any more.
func (db *DB) drop(v *view) {
	v.dropIdle()
	v.release()
	var last []*segmentFile
	v.tables(func(t *table) {
		if t.file.refs.Add(-1) == 0 {
			last = append(last, t.file)
		}
	})
	if len(last) > 0 {
		db.letGo(last)
	}
}

// letGo closes segments, and removes those that are gone, in the background: a
// reader who leaves does not wait for it.
func (db *DB) letGo(files []*segmentFile) {
	if !db.spawn(func() { db.closeSegments(files, db.opts.FS.Remove) }) {
		db.closeSegments(files, db.removeWhileOpen)
	}
}

func (db *DB) closeSegments(files []*segmentFile, remove func(name string) error) {
	for _, f := range files {
		name := f.r.Name()
		if err := f.r.Close(); err != nil {
			db.opts.Logger.Warn("a segment does not close", "error", err)
		}
		if !f.gone.Load() {
			continue
		}
		// What stays behind nobody names, and the next open removes it.
		if err := remove(name); err != nil {
			db.opts.Logger.Warn("a segment that is no longer needed stays", "file", name, "error", err)
		}
	}
}

// removeWhileOpen removes a file while the store is closing. Once the directory
// was given back, which may then be somebody else's, it does nothing.
func (db *DB) removeWhileOpen(name string) error {
	db.bgMu.Lock()
	defer db.bgMu.Unlock()
	if db.shut.Load() {
		return nil
	}
	return db.opts.FS.Remove(name)
}

// share divides the memory between memtables and cache. mu is held, or nobody
// else knows the store yet.
func (db *DB) share(v *view) {
	reserved := db.reservedFor(v.active)
	db.reserved.Store(reserved)
	tables := reserved
	for _, f := range v.frozen {
		tables += f.table.Bytes()
	}
	if db.pooling { // what is kept is there for what the active one still takes
		tables += max(0, db.pool.Max()-max(0, db.opts.MemtableSize-v.active.Bytes()))
	}
	db.pool.Bound(tables)
	left := db.opts.MemoryLimit - tables
	v.tables(func(t *table) { left -= t.file.r.Memory() })
	db.cache.Resize(max(left, db.opts.MemoryLimit/8))
}

// lendStep is in how many steps the cache gives the room back to the active memtable
// that this does not use yet.
const lendStep = 8

// reservedFor returns how much memory is kept for the active memtable: all that it will
// take while one comes after the other, for the cache would only lose now what it gained
// a moment ago; else a step more than it has.
func (db *DB) reservedFor(active *memtable.Table) int64 {
	most := db.opts.MemtableSize
	if db.pooling {
		return most
	}
	step := max(most/lendStep, 1)
	return min(most, (active.Bytes()/step+1)*step)
}

// cacheBudget is the most that share ever leaves to the cache.
func (o *Options) cacheBudget() int64 {
	return max(o.MemoryLimit-o.MemtableSize/lendStep, o.MemoryLimit/8)
}

// enter lets a reader in to the present view; he leaves by v.gate.exit(shard).
func (db *DB) enter() (v *view, shard int, err error) {
	for {
		v = db.view.Load()
		if shard, ok := v.gate.enter(); ok {
			return v, shard, nil
		}
		if db.shut.Load() {
			return nil, 0, ErrClosed
		}
	}
}

// enterAt is enter with the LSN that mark returns, of which the view then has
// all, and of which nothing has been dropped.
func (db *DB) enterAt(mark func() base.LSN) (v *view, shard int, lsn base.LSN, err error) {
	for {
		if v, shard, err = db.enter(); err != nil {
			return nil, 0, 0, err
		}
		// A view that is replaced lacks what was entered into its successor's
		// memtable; one that comes later may lack what only older readers see.
		if lsn = mark(); db.view.Load() == v {
			return v, shard, lsn, nil
		}
		v.gate.exit(shard)
	}
}

// get returns the value of a stored key for a reader at lsn, who is in the view until
// he has released it.
//
// Tables are asked newest first: of one key all versions in a table are above
// those in the tables behind it, and so are range deletes that cover it.
func (v *view) get(key []byte, lsn base.LSN) (value held, found bool, err error) {
	value, _, found, err = v.newest(key, lsn)
	return value, found, err
}

// newest is get that also tells the LSN of what it met: of the version, or of
// the delete or range delete that hides all; then it is not found.
func (v *view) newest(key []byte, lsn base.LSN) (value held, at base.LSN, found bool, err error) {
	if b, at, found, done := fromMemory(v.active, key, lsn); done {
		return held{b: b}, at, found, nil
	}
	for _, f := range v.frozen {
		if b, at, found, done := fromMemory(f.table, key, lsn); done {
			return held{b: b}, at, found, nil
		}
	}
	for _, t := range v.zero {
		if bytes.Compare(key, t.meta.Lo) < 0 || bytes.Compare(key, t.meta.Hi) >= 0 {
			continue
		}
		if value, at, found, done, err := t.get(key, lsn); done || err != nil {
			return value, at, found, err
		}
	}
	for _, level := range v.levels {
		i := sort.Search(len(level), func(i int) bool { return bytes.Compare(level[i].meta.Hi, key) > 0 })
		if i == len(level) || bytes.Compare(key, level[i].meta.Lo) < 0 {
			continue
		}
		if value, at, found, done, err := level[i].get(key, lsn); done || err != nil {
			return value, at, found, err
		}
	}
	return held{}, 0, false, nil
}

func fromMemory(t *memtable.Table, key []byte, lsn base.LSN) (value []byte, at base.LSN, found, done bool) {
	cover := t.Cover(key, lsn)
	value, kind, at, ok := t.Get(key, lsn)
	if !ok || at < cover {
		return nil, cover, false, cover > 0
	}
	return value, at, kind == base.KindPut, true
}

func (t *table) get(key []byte, lsn base.LSN) (value held, at base.LSN, found, done bool, err error) {
	var cover base.LSN
	if t.meta.RangeDeletes > 0 {
		dels, err := t.file.r.RangeDeletes()
		if err != nil {
			return held{}, 0, false, false, err
		}
		cover = dels.Cover(key, lsn)
	}
	f, err := t.file.r.Find(key, lsn)
	switch {
	case err != nil:
		return held{}, 0, false, false, err
	case !f.OK || f.LSN < cover:
		f.Block.Release()
		return held{}, cover, false, cover > 0, nil
	case f.Kind != base.KindPut:
		f.Block.Release()
		return held{}, f.LSN, false, true, nil
	}
	return held{b: f.Value, block: f.Block}, f.LSN, true, true, nil
}

// sources returns the tables that may have something in [lo, hi), newest first;
// nil bounds are open. own, which may be nil, is what a transaction has written up
// to seq.
func (v *view) sources(lo, hi []byte, own *memtable.Table, seq base.LSN) ([]merge.Source, error) {
	out := make([]merge.Source, 0, 2+len(v.frozen)+len(v.zero)+len(v.levels))
	if own != nil {
		out = append(out, merge.Source{Iter: merge.UpTo(own.NewIter(), seq), Dels: own.RangeDeleteParts(), MaxLSN: base.MaxLSN})
	}
	out = append(out, merge.Source{Iter: v.active.NewIter(), Dels: v.active.RangeDeleteParts(), MaxLSN: base.OwnLSN - 1})
	for _, f := range v.frozen {
		out = append(out, merge.Source{Iter: f.table.NewIter(), Dels: []*rangedel.Set{f.table.RangeDeletes()}, MaxLSN: f.table.PointMaxLSN()})
	}
	for i, t := range v.zero {
		if !t.overlaps(lo, hi) {
			continue
		}
		src, err := level(v.zero[i : i+1])
		if err != nil {
			return nil, err
		}
		src.Iter = t.file.r.NewIter()
		out = append(out, src)
	}
	for _, l := range v.levels {
		run := overlapping(l, lo, hi)
		if len(run) == 0 {
			continue
		}
		src, err := level(run)
		if err != nil {
			return nil, err
		}
		out = append(out, src)
	}
	return out, nil
}

// level returns the disjoint segments of a level as one source.
func level(run []*table) (merge.Source, error) {
	var it base.Iterator // of the one that is open, or was
	src := merge.Source{Iter: merge.Concat(len(run),
		func(i int) (lo, hi []byte) { return run[i].meta.Lo, run[i].meta.Hi },
		func(i int) base.Iterator {
			it = run[i].file.r.ReuseIter(it)
			return it
		})}
	var dels []*rangedel.Set
	for _, t := range run {
		src.MaxLSN = max(src.MaxLSN, t.file.r.PointMaxLSN(t.meta.MaxLSN))
		if t.meta.RangeDeletes > 0 {
			d, err := t.file.r.RangeDeletes()
			if err != nil {
				return src, err
			}
			dels = append(dels, d)
		}
	}
	src.Dels = []*rangedel.Set{rangedel.Merge(dels...)}
	return src, nil
}

func (t *table) overlaps(lo, hi []byte) bool {
	return (hi == nil || bytes.Compare(t.meta.Lo, hi) < 0) && (lo == nil || bytes.Compare(lo, t.meta.Hi) < 0)
}

// overlapping returns the tables of a level that may have something in [lo, hi).
func overlapping(l []*table, lo, hi []byte) []*table {
	from, to := 0, len(l)
	if lo != nil {
		from = sort.Search(len(l), func(i int) bool { return bytes.Compare(l[i].meta.Hi, lo) > 0 })
	}
	if hi != nil {
		to = sort.Search(len(l), func(i int) bool { return bytes.Compare(l[i].meta.Lo, hi) >= 0 })
	}
	return l[from:max(from, to)]
}

// changed says whether anything in [lo, hi) was written at an LSN above at and
// not above now. The view has all up to now, and nothing above at was dropped.
func (v *view) changed(lo, hi []byte, at, now base.LSN) (bool, error) {
	sources, err := v.sources(lo, hi, nil, 0)
	if err != nil {
		return false, err
	}
	defer func() {
		for _, s := range sources {
			s.Iter.Close()
		}
	}()
	for _, s := range sources {
		for _, d := range s.Dels {
			for _, span := range d.Clip(lo, hi).Spans() {
				if span.Newest(now) > at {
					return true, nil
				}
			}
		}
		if s.MaxLSN <= at {
			continue
		}
		for ok := s.Iter.SeekGE(lo, base.MaxLSN); ok && (hi == nil || bytes.Compare(s.Iter.Key(), hi) < 0); ok = s.Iter.Next() {
			if lsn := s.Iter.LSN(); lsn > at && lsn <= now {
				return true, nil
			}
		}
		if err := s.Iter.Err(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// newCache makes the cache of a store with these options.
func (o *Options) newCache() *segment.Cache { return segment.NewCache(o.cacheBudget()) }
