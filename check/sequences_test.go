package check

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/recovery"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// sequenced is a store with sequences, and a model of them.
type sequenced struct {
	*store
	seqs map[uint64]*sequence
	// small makes a salvage spill what it replays, and write small segments.
	small bool
}

// sequence is the model of one: item n has offset n, and those below first are gone.
type sequence struct {
	name    string
	items   []string
	first   int
	appends []appends
}

type appends struct {
	lsn       base.LSN
	first, n  int
	size      uint64
	givenBack bool
}

func newSequenced(t *testing.T) *sequenced {
	return &sequenced{store: newStore(t), seqs: map[uint64]*sequence{}}
}

func (st *sequenced) make(id uint64, name string) {
	st.t.Helper()
	full := keyspace.SequencePrefix + name
	st.commit(put(string(keyspace.NameKey(full)), string(keyspace.EncodeID(id))), put(string(keyspace.IDKey(id)), full))
	st.seqs[id] = &sequence{name: name}
}

// append commits n items for each of some sequences, and a put beside them.
func (st *sequenced) append(n int, ids ...uint64) {
	st.t.Helper()
	b := &batch.Batch{}
	now := maps.Clone(st.last())
	k, v := fmt.Sprintf("k%03d", len(st.states)%100), fmt.Sprint("beside ", len(st.states))
	require.NoError(st.t, b.Put([]byte(k), []byte(v)))
	now[k] = v
	st.old[k] = append(st.old[k], v)
	for _, id := range ids {
		s := st.seqs[id]
		for i := range n {
			item := fmt.Sprintf("item %d of %s, %0*d", len(s.items)+i, s.name, (len(st.states)*37)%200, 0)
			require.NoError(st.t, b.AppendItem(keyspace.AppendPrefix(nil, id), []byte(item)))
		}
	}
	rec := b.Bytes()
	sizes := map[uint64]uint64{}
	batch.Place(rec, func(key []byte, n int) uint64 {
		id, _, _ := keyspace.Cut(key)
		return uint64(len(st.seqs[id].items))
	})
	r, err := batch.Decode(rec)
	require.NoError(st.t, err)
	for r.Next() {
		if id, _, _ := keyspace.Cut(r.Key()); r.Kind() == base.KindAppend {
			s := st.seqs[id]
			s.appends = append(s.appends, appends{lsn: base.LSN(len(st.states)), first: len(s.items), n: n, size: uint64(len(r.Value()))})
			for i := batch.ItemsOf(r.Value()); i.Next(); {
				s.items = append(s.items, string(i.Item()))
			}
			sizes[id] = uint64(len(r.Value()))
		}
	}
	require.Len(st.t, sizes, len(ids))
	st.write(rec, now)
}

// trim takes out the appends that end at or below an offset.
func (st *sequenced) trim(id uint64, before int) {
	st.t.Helper()
	s, b, prefix := st.seqs[id], &batch.Batch{}, keyspace.AppendPrefix(nil, id)
	end, all := s.first, true
	for _, a := range s.appends {
		if a.first+a.n > before {
			all = false
			break
		}
		end = a.first + a.n
	}
	s.first = end
	if all {
		end--
	}
	require.NoError(st.t, b.DeleteRange(prefix, batch.IndexKey(nil, prefix, uint64(end))))
	if all {
		require.NoError(st.t, b.Put(batch.IndexKey(nil, prefix, uint64(end)), batch.EntryOfNothing()))
	}
	st.write(b.Bytes(), maps.Clone(st.last()))
	for i := range s.appends {
		if a := &s.appends[i]; a.first+a.n <= s.first && !a.givenBack {
			a.givenBack = true
			require.NoError(st.t, st.s.Log.Unkeep(a.lsn, a.size))
		}
	}
}

// want is what can be read of a sequence.
func (s *sequence) want() map[int]string {
	out := map[int]string{}
	for i := s.first; i < len(s.items); i++ {
		out[i] = s.items[i]
	}
	return out
}

const (
	seqA = 2
	seqB = 300 // with a prefix of three bytes
)

// fullSequenced has retained log files, index entries in several segments and in the
// log, a sequence that was trimmed, one that was not, and one that was emptied.
func fullSequenced(t *testing.T) *sequenced {
	st := newSequenced(t)
	st.make(seqA, "a")
	st.settle(false)
	st.make(seqB, "b")
	st.make(seqB+1, "empty")
	for i := range 200 {
		st.append(1+i%3, seqA)
		if i%4 == 0 {
			st.append(2, seqA, seqB, seqB+1)
		}
	}
	st.settle(false)
	st.puts("x", 100)
	st.trim(seqB, 40)
	st.trim(seqB+1, 1<<30)
	st.settle(false)
	st.compact(false)
	st.puts("y", 300)
	for range 100 {
		st.append(1, seqA, seqB)
	}
	st.settle(false)
	st.append(3, seqB+1)
	for i := range 60 {
		st.append(1, seqA, seqB)
		if i == 30 {
			st.trim(seqB, 61)
			st.trim(seqB+1, 1<<30)
		}
	}
	require.NotEmpty(t, st.retained())
	require.Equal(t, 60, st.seqs[seqB].first)
	return st
}

// retained are the log files below the floor.
func (st *sequenced) retained() (out []base.LogFile) {
	for _, f := range st.s.Manifest.State().Log.Files {
		if f.Retained {
			out = append(out, f)
		}
	}
	return out
}

func logPath(f base.LogFile) string { return filepath.Join("db", wal.FileName(f.Number)) }

// itemsOf opens a store that was salvaged and reads the items in its log, and those
// that the index names: they must be the same.
func itemsOf(t *testing.T, mem *vfs.Mem, dir string) (items map[uint64]map[int]string, keys map[string]string, next map[uint64]int) {
	t.Helper()
	mem = mem.Snapshot()
	items, keys, next = map[uint64]map[int]string{}, map[string]string{}, map[uint64]int{}
	table := memtable.New(0)
	cfg := recoveryConfig(mem, dir, table)
	apply := cfg.Apply
	lsns := map[string]base.LSN{}
	cfg.Apply = func(lsn base.LSN, rec []byte) error {
		require.Less(t, len(rec), carrySize+carrySize/2)
		r, err := batch.Decode(rec)
		require.NoError(t, err)
		for r.Next() {
			require.Equal(t, base.KindAppend, r.Kind())
			id, own, _ := keyspace.Cut(r.Key())
			require.Empty(t, own)
			if items[id] == nil {
				items[id] = map[int]string{}
			}
			at := int(batch.FirstOffset(r.Value()))
			lsns[string(batch.IndexKey(nil, r.Key(), uint64(at)))] = lsn
			for i := batch.ItemsOf(r.Value()); i.Next(); at++ {
				if _, ok := items[id][at]; ok {
					t.Fatalf("item %d is appended twice", at)
				}
				items[id][at] = string(i.Item())
			}
		}
		return apply(lsn, rec)
	}
	s, err := recovery.Open(cfg)
	require.NoError(t, err)
	require.False(t, s.Report.Created)
	require.Empty(t, s.Report.Removed)
	sources := []merge.Source{{Iter: table.NewIter(), Dels: []*rangedel.Set{table.RangeDeletes()}, MaxLSN: table.PointMaxLSN()}}
	for _, r := range s.Segments {
		sources = append(sources, merge.Source{Iter: r.NewIter(), MaxLSN: s.Report.ReplayStart})
	}
	it := merge.NewReader(sources, s.Log.LastLSN(), nil, nil)
	seqs, err := listSequences(it)
	require.NoError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		e, is, ok := seqs.entry(it.Key(), it.Value(), it.LSN())
		switch {
		case !is:
			keys[string(it.Key())] = string(it.Value())
			continue
		case e.size > 0:
			require.Equal(t, lsns[string(it.Key())], e.lsn)
			delete(lsns, string(it.Key()))
		}
		require.True(t, ok)
		if next[e.id] > 0 {
			require.Equal(t, next[e.id], int(e.offset), "a hole in the index")
		}
		next[e.id] = int(e.end())
	}
	require.NoError(t, it.Err())
	require.Empty(t, lsns, "the index does not name them")
	require.NoError(t, it.Close())
	require.NoError(t, s.Log.Close())
	require.NoError(t, s.Close())
	return items, keys, next
}

// salvageItems salvages the store and checks that what is missing is told.
func (st *sequenced) salvageItems(dst string) (out *Salvaged, missing int) {
	st.t.Helper()
	before := content(st.t, st.mem, "db")
	cfg := st.cfg()
	if st.small {
		cfg.MemtableSize, cfg.SegmentSize = 4<<10, 2<<10
	}
	out, err := Salvage(context.Background(), cfg, dst)
	require.NoError(st.t, err)
	require.Equal(st.t, before, content(st.t, st.mem, "db"), "the source is changed")
	rep, err := Verify(context.Background(), &Config{FS: st.mem, Dir: dst})
	require.NoError(st.t, err)
	require.Empty(st.t, rep.Problems)
	items, _, next := itemsOf(st.t, st.mem, dst)
	for id, s := range st.seqs {
		require.LessOrEqual(st.t, next[id], len(s.items))
		for at, item := range items[id] {
			require.Equal(st.t, s.items[at], item)
		}
		for at := range s.want() {
			i := slices.IndexFunc(s.appends, func(a appends) bool { return at < a.first+a.n })
			if _, ok := items[id][at]; ok || s.appends[i].lsn > out.Through {
				continue
			}
			missing++
			key := batch.IndexKey(nil, keyspace.AppendPrefix(nil, id), uint64(at))
			name := string(keyspace.NameKey(keyspace.SequencePrefix + s.name))
			require.True(st.t, within(out.Losses, string(key)) || within(out.Losses, name), "item %d of %s is gone: %v", at, s.name, out.Losses)
		}
	}
	return out, missing
}

func TestSequencesOfAWholeStore(t *testing.T) {
	st := fullSequenced(t)
	st.close()
	require.Empty(t, verify(t, st.store).Problems)
	out, missing := st.salvageItems("new")
	require.Zero(t, missing)
	require.Empty(t, out.Losses)
	items, keys, next := itemsOf(t, st.mem, "new")
	for id, s := range st.seqs {
		require.Equal(t, len(s.want()), len(items[id]), s.name)
		require.Equal(t, len(s.items), next[id], s.name)
	}
	require.Equal(t, st.last(), keys)
	require.Equal(t, uint64(len(st.states)-1)+2, out.LastLSN, "one record for each that is not empty")

	// What was salvaged is a source like any other.
	again, err := Salvage(context.Background(), &Config{FS: st.mem, Dir: "new", Writer: writer}, "again")
	require.NoError(t, err)
	require.Empty(t, again.Losses)
	second, keys2, _ := itemsOf(t, st.mem, "again")
	require.Equal(t, items, second)
	require.Equal(t, keys, keys2)
}

// TestItemsInManyRecords: records stay small, and one that was large stays as it was.
func TestItemsInManyRecords(t *testing.T) {
	st := newSequenced(t)
	st.make(seqA, "a")
	for range 200 {
		st.append(90, seqA)
	}
	st.close()
	out, missing := st.salvageItems("new")
	require.Zero(t, missing)
	require.Equal(t, 18000, int(out.Items))
	require.InDelta(t, len(st.states)-1+3, out.LastLSN, 1)
}

// TestDamagedSequences: each kind of damage is told, and what can be read is there.
func TestDamagedSequences(t *testing.T) {
	segment := func(st *sequenced) string {
		g := st.s.Manifest.State().Segments
		i := slices.IndexFunc(g, func(g manifest.Segment) bool {
			prefix := string(keyspace.AppendPrefix(nil, seqA)) + "\x00"
			return string(g.Lo) <= prefix && prefix < string(g.Hi)
		})
		return st.segPath(g[i].Number)
	}
	remove := func(st *sequenced, path string) { require.NoError(st.t, st.mem.Remove(path)) }
	for _, c := range []struct {
		name   string
		damage func(st *sequenced)
		// lost: items of log files are gone. whole: nothing that a reader would look for.
		lost, whole bool
	}{
		{"retained file gone", func(st *sequenced) { remove(st, logPath(st.retained()[1])) }, true, false},
		{"two retained files gone", func(st *sequenced) { remove(st, logPath(st.retained()[1])); remove(st, logPath(st.retained()[3])) }, true, false},
		{"byte of a retained file", func(st *sequenced) { st.flip(logPath(st.retained()[1]), 6000) }, true, false},
		{"header of a retained file", func(st *sequenced) { st.flip(logPath(st.retained()[1]), 20) }, false, true},
		{"retained file cut short", func(st *sequenced) { st.truncate(logPath(st.retained()[1]), 8000) }, true, false},
		{"segment gone", func(st *sequenced) { remove(st, segment(st)) }, false, true},
		{"byte of a segment", func(st *sequenced) { st.flip(segment(st), 300) }, false, true},
		{"all segments gone", func(st *sequenced) {
			for _, g := range st.s.Manifest.State().Segments {
				remove(st, st.segPath(g.Number))
			}
		}, false, false},
		{"manifest gone", func(st *sequenced) { remove(st, st.manifestPath()) }, false, true},
		{"manifest and a segment gone", func(st *sequenced) { remove(st, segment(st)); remove(st, st.manifestPath()) }, false, true},
		{"manifest and a retained file gone", func(st *sequenced) { remove(st, logPath(st.retained()[1])); remove(st, st.manifestPath()) }, true, false},
		{"segment and a retained file gone", func(st *sequenced) { remove(st, segment(st)); remove(st, logPath(st.retained()[1])) }, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := fullSequenced(t)
			st.close()
			c.damage(st)
			rep := verify(t, st.store)
			require.Error(t, rep.Err())
			tells := slices.ContainsFunc(rep.Problems, func(p Problem) bool { return strings.Contains(p.Reason, "items ") })
			if !strings.Contains(c.name, "manifest") && !strings.Contains(c.name, "segment") {
				require.Equal(t, c.lost, tells, "%v", rep.Problems)
			}
			require.Less(t, len(rep.Problems), 15)
			out, missing := st.salvageItems("new")
			if c.lost {
				require.Positive(t, missing, out.Losses)
				require.Less(t, missing, 200)
				require.GreaterOrEqual(t, int(out.LostItems), missing)
			}
			if c.whole {
				require.Zero(t, missing, "%v", out.Losses)
			}
			for _, l := range out.Losses {
				require.NotEmpty(t, l.Effect)
			}
			if !c.whole {
				return
			}
			items, _, next := itemsOf(t, st.mem, "new")
			for id, s := range st.seqs {
				require.Equal(t, len(s.items), next[id], "offsets of %s go on", s.name)
				if !strings.Contains(c.name, "segment") && !out.Rebuilt {
					require.Len(t, items[id], len(s.want()), "what was trimmed of %s is not back", s.name)
				}
			}
		})
	}
}

// TestVerifyReadsWhatIndexesName: an entry that names another record is damage, though
// every byte verifies.
func TestVerifyReadsWhatIndexesName(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		put          func(st *sequenced) op
	}{
		{"another record", "appends nothing to the sequence", func(st *sequenced) op {
			return put(string(batch.IndexKey(nil, []byte{seqA}, 0)), "\x01\x20")
		}},
		{"no entry", "does not decode", func(st *sequenced) op { return put("\x02no entry", "x") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newSequenced(t)
			st.make(seqA, "a")
			for range 10 {
				st.append(1, seqA)
			}
			st.settle(false)
			st.commit(c.put(st))
			st.settle(false)
			st.close()
			rep := verify(t, st.store)
			require.NotEmpty(t, rep.Problems)
			require.Contains(t, rep.Problems[0].Reason, c.reason)
			require.Contains(t, rep.Problems[0].Reason, `sequence "a"`)
		})
	}
}

// TestACrashInASalvageOfSequences: at every point dst is no store, or all of one.
func TestACrashInASalvageOfSequences(t *testing.T) {
	st := fullSequenced(t)
	st.close()
	seed := seedOf(t)
	var early []*vfs.Mem
	n := 0
	st.mem.OnIO(func(vfs.Op) {
		n++
		early = append(early, st.mem.PowerCutSeed(seed+uint64(n), vfs.SectorAtomic), st.mem.Snapshot())
	})
	_, err := Salvage(context.Background(), st.cfg(), "new")
	require.NoError(t, err)
	st.mem.OnIO(nil)
	want, keys, _ := itemsOf(t, st.mem, "new")
	check := func(mem *vfs.Mem) bool {
		if _, err := manifest.Load(mem, "new"); err != nil {
			return false
		}
		got, gotKeys, _ := itemsOf(t, mem, "new")
		require.Equal(t, want, got)
		require.Equal(t, keys, gotKeys)
		return true
	}
	whole := 0
	for _, mem := range early {
		if check(mem) {
			whole++
		}
	}
	require.Greater(t, len(early), 20)
	require.Less(t, whole, len(early)/2)
	for i := range uint64(20) {
		require.True(t, check(st.mem.PowerCutSeed(seed+i, vfs.SectorAtomic)), "it had returned")
	}
}

// drop removes a sequence.
func (st *sequenced) drop(id uint64) {
	st.t.Helper()
	b, now, name := &batch.Batch{}, maps.Clone(st.last()), string(keyspace.NameKey(keyspace.SequencePrefix+st.seqs[id].name))
	require.NoError(st.t, b.Delete([]byte(name)))
	require.NoError(st.t, b.DeleteRange(keyspace.AppendPrefix(nil, id), keyspace.End(id)))
	delete(now, name)
	st.write(b.Bytes(), now)
	delete(st.seqs, id)
}

// TestADroppedSequenceStaysSo, also where its log files are kept for another, and no
// manifest says what counts.
func TestADroppedSequenceStaysSo(t *testing.T) {
	for _, lose := range []bool{false, true} {
		st := newSequenced(t)
		st.make(seqA, "a")
		st.make(seqB, "b")
		for range 100 {
			st.append(2, seqA, seqB)
		}
		st.settle(false)
		st.drop(seqB)
		st.settle(false)
		st.compact(false)
		st.forgetLog()
		st.close()
		require.NotEmpty(t, st.retained())
		if lose {
			require.NoError(t, st.mem.Remove(st.manifestPath()))
		}
		_, missing := st.salvageItems("new")
		require.Zero(t, missing)
		items, _, next := itemsOf(t, st.mem, "new")
		require.Len(t, items[seqA], 200)
		require.NotContains(t, items, uint64(seqB))
		require.NotContains(t, next, uint64(seqB))
	}
}

// TestSequencesWhoseNamesAreLost get others, and no keyspace gets their ids.
func TestSequencesWhoseNamesAreLost(t *testing.T) {
	st := newSequenced(t)
	st.make(seqA, "a")
	st.make(seqB, "b")
	g := st.settle(false)
	st.forgetLog()
	for range 20 {
		st.append(1, seqA, seqB)
	}
	st.close()
	require.NoError(t, st.mem.Remove(st.segPath(g.Number)))
	out, missing := st.salvageItems("new")
	require.Zero(t, missing)
	_, keys, _ := itemsOf(t, st.mem, "new")
	for _, id := range []uint64{seqA, seqB} {
		full := fmt.Sprintf("%ssalvaged-%d", keyspace.SequencePrefix, id)
		require.Equal(t, string(keyspace.EncodeID(id)), keys[string(keyspace.NameKey(full))])
		require.Equal(t, full, keys[string(keyspace.IDKey(id))])
		require.True(t, slices.ContainsFunc(out.Losses, func(l Loss) bool { return strings.Contains(l.Reason, fmt.Sprintf("salvaged-%d", id)) }))
	}
	require.Equal(t, string(keyspace.EncodeID(seqB+1)), keys[string(keyspace.NextKey())])
}

// TestRandomDamageOfSequences: whatever is damaged, a salvage ends with a store that
// verifies, holds no item but at its offset, and lacks none that it does not tell.
func TestRandomDamageOfSequences(t *testing.T) { eachSeed(t, randomSequences) }

func randomSequences(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	st := newSequenced(t)
	ids := []uint64{seqA, seqA + 1, seqB}
	for _, id := range ids {
		st.make(id, fmt.Sprint("s", id))
	}
	for range 5 + r.IntN(40) {
		switch id := ids[r.IntN(len(ids))]; r.IntN(10) {
		case 0, 1:
			st.settle(r.IntN(3) == 0)
		case 2:
			st.compact(r.IntN(6) == 0)
		case 3:
			st.close()
			st.open()
		case 4:
			if s := st.seqs[id]; len(s.items) > s.first {
				st.trim(id, s.first+1+r.IntN(len(s.items)-s.first))
			}
		case 5:
			st.puts("p", r.IntN(100))
		default:
			for range 1 + r.IntN(40) {
				st.append(1+r.IntN(3), ids[:1+r.IntN(len(ids))]...)
			}
		}
	}
	if r.IntN(2) == 0 {
		st.close()
	} else {
		require.NoError(t, st.s.Log.Sync(context.Background()))
		st.mem = st.mem.Snapshot()
	}
	for range r.IntN(4) {
		randomHarm(st.store, r)
	}
	rep, err := Verify(context.Background(), st.cfg())
	if err != nil {
		require.ErrorIs(t, err, ErrNone)
		return
	}
	st.small = r.IntN(2) == 0
	out, missing := st.salvageItems("new")
	if rep.Err() == nil {
		require.Zero(t, missing, "Verify sees no damage")
		require.Zero(t, out.LostItems)
		require.Empty(t, out.harm())
	}
}

// TestASalvageOfSequencesThatFails leaves nothing behind.
func TestASalvageOfSequencesThatFails(t *testing.T) {
	st := fullSequenced(t)
	st.close()
	in := vfs.NewInjector(st.mem)
	cfg := st.cfg()
	cfg.FS = in
	failed := 0
	for _, call := range []vfs.Call{vfs.CallCreate, vfs.CallWrite, vfs.CallSync, vfs.CallSyncData, vfs.CallSyncDir} {
		for k := 1; ; k++ {
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
			dst := fmt.Sprint("failed", call, k)
			_, err := Salvage(context.Background(), cfg, dst)
			rule.Remove()
			if err == nil {
				break
			}
			failed++
			require.ErrorIs(t, err, syscall.EIO, "%v %d", call, k)
			_, err = st.mem.Stat(dst)
			require.ErrorIs(t, err, fs.ErrNotExist, "%v %d", call, k)
		}
	}
	require.Greater(t, failed, 15)
}
