package check

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/checkpoint"
	"github.com/forebaydb/forebay/compaction"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/recovery"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// store is a small engine made of the real rooms, and a model of it.
type store struct {
	t     *testing.T
	mem   *vfs.Mem
	s     *recovery.Store
	table *memtable.Table
	// states[n] is what a reader sees after n commits, and old all values that a
	// key ever had.
	states []map[string]string
	old    map[string][]string
	level  wal.Level
}

var writer = segment.WriterOptions{BlockSize: 256}

func recoveryConfig(fs vfs.FS, dir string, table *memtable.Table) *recovery.Config {
	return &recovery.Config{
		FS: fs, Dir: dir, LogDir: dir, Rand: rand.Reader, SegmentName: segment.FileName, ParseSegment: segment.ParseFileName,
		Log:   wal.Options{MarkDelay: -1, NoSpares: true, FileSize: 16 << 10, FirstFileSize: 16 << 10},
		Apply: func(lsn base.LSN, rec []byte) error { return enter(table, lsn, rec) },
	}
}

func enter(table *memtable.Table, lsn base.LSN, rec []byte) error {
	r, err := batch.Decode(rec)
	if err != nil {
		return err
	}
	for r.Next() && err == nil {
		switch r.Kind() {
		case base.KindRangeDelete:
			err = table.AddRangeDelete(lsn, r.Key(), r.Value())
		case base.KindAppend:
			k, v := batch.IndexEntry(nil, nil, r.Key(), r.Value())
			err = table.Add(lsn, base.KindPut, k, v)
		default:
			err = table.Add(lsn, r.Kind(), r.Key(), r.Value())
		}
	}
	return err
}

func newStore(t *testing.T) *store {
	t.Helper()
	mem := vfs.NewMem()
	require.NoError(t, vfs.MkdirDurable(mem, "db"))
	st := &store{t: t, mem: mem, table: memtable.New(0), states: []map[string]string{{}}, old: map[string][]string{}}
	st.open()
	return st
}

func (st *store) open() {
	st.t.Helper()
	var err error
	st.table = memtable.New(0)
	st.s, err = recovery.Open(recoveryConfig(st.mem, "db", st.table))
	require.NoError(st.t, err)
}

func (st *store) close() {
	st.t.Helper()
	require.NoError(st.t, st.s.Log.Close())
	require.NoError(st.t, st.s.Close())
}

// op is one operation: a put, with v "" a delete, with hi a range delete.
type op struct{ k, v, hi string }

func put(k, v string) op    { return op{k: k, v: v} }
func del(k string) op       { return op{k: k} }
func dels(lo, hi string) op { return op{k: lo, hi: hi} }

// commit commits a batch and follows it in the model.
func (st *store) commit(ops ...op) base.LSN {
	st.t.Helper()
	b := &batch.Batch{}
	now := map[string]string{}
	for k, v := range st.states[len(st.states)-1] {
		now[k] = v
	}
	for _, o := range ops {
		switch {
		case o.hi != "":
			require.NoError(st.t, b.DeleteRange([]byte(o.k), []byte(o.hi)))
			for k := range now {
				if k >= o.k && k < o.hi {
					delete(now, k)
				}
			}
		case o.v == "":
			require.NoError(st.t, b.Delete([]byte(o.k)))
			delete(now, o.k)
		default:
			require.NoError(st.t, b.Put([]byte(o.k), []byte(o.v)))
			now[o.k] = o.v
			st.old[o.k] = append(st.old[o.k], o.v)
		}
	}
	return st.write(b.Bytes(), now)
}

// write commits a record, after which a reader sees now.
func (st *store) write(rec []byte, now map[string]string) base.LSN {
	st.t.Helper()
	r := &wal.Request{Records: []wal.Record{{Data: rec, Keep: batch.AppendedBytes(rec)}}, Level: st.level}
	require.NoError(st.t, st.s.Log.Commit(r))
	lsn := r.First
	require.Len(st.t, st.states, int(lsn))
	st.states = append(st.states, now)
	require.NoError(st.t, enter(st.table, lsn, rec))
	return lsn
}

// puts commits n puts, each of its own, of keys of a prefix.
func (st *store) puts(prefix string, n int) {
	st.t.Helper()
	for i := range n {
		st.commit(put(fmt.Sprintf("%s%04d", prefix, i), fmt.Sprintf("value %s%04d of commit %d", prefix, i, len(st.states))))
	}
}

// settle makes a checkpoint; keepLog leaves the log as long as it was.
func (st *store) settle(keepLog bool) manifest.Segment {
	st.t.Helper()
	high := st.s.Log.LastLSN()
	r, g, err := checkpoint.Settle(context.Background(), &checkpoint.Config{
		FS: st.mem, Dir: "db", Manifest: st.s.Manifest, Writer: writer, Above: high,
		Sync: func(ctx context.Context, _ base.LSN) error { return st.s.Log.Sync(ctx) },
	}, st.table, high)
	require.NoError(st.t, err)
	if r != nil {
		require.NoError(st.t, r.Close())
	}
	if !keepLog {
		require.NoError(st.t, st.s.Log.TruncateFront(high))
	}
	st.table = memtable.New(0)
	return g
}

// compact merges all segments into the last level, and removes them unless keep.
func (st *store) compact(keep bool) {
	st.t.Helper()
	segs := st.s.Manifest.State().Segments
	slices.SortFunc(segs, func(a, b manifest.Segment) int {
		if a.Level != b.Level {
			return a.Level - b.Level
		}
		if a.Level == 0 {
			return int(b.MaxLSN) - int(a.MaxLSN)
		}
		return bytes.Compare(a.Lo, b.Lo)
	})
	readers := map[uint64]*segment.Reader{}
	for i := range segs {
		r, err := compaction.Open(st.mem, st.segPath(segs[i].Number), st.s.Manifest.StoreID(), &segs[i], segment.Options{})
		require.NoError(st.t, err)
		defer r.Close()
		readers[segs[i].Number] = r
	}
	files := compaction.Files{FS: st.mem, Dir: "db", Store: st.s.Manifest.StoreID(), Next: st.s.Manifest.NextSegment, Writer: writer}
	res, err := compaction.Run(context.Background(), &compaction.Config{Files: files, Above: st.s.Log.LastLSN()},
		&compaction.Plan{Inputs: segs, To: 6, SegmentSize: 2 << 10}, func(n uint64) *segment.Reader { return readers[n] })
	require.NoError(st.t, err)
	for _, r := range res.Readers {
		require.NoError(st.t, r.Close())
	}
	require.NoError(st.t, st.s.Manifest.Apply(&res.Edit))
	for _, n := range res.Edit.Remove {
		if !keep {
			require.NoError(st.t, st.mem.Remove(st.segPath(n)))
		}
	}
}

func (st *store) segPath(n uint64) string { return filepath.Join("db", segment.FileName(n)) }

func (st *store) last() map[string]string { return st.states[len(st.states)-1] }

func (st *store) cfg() *Config { return &Config{FS: st.mem, Dir: "db", Writer: writer} }

// logs returns the paths of the log files with records.
func (st *store) logs() (out []string) {
	st.t.Helper()
	m, err := manifest.Load(st.mem, "db")
	require.NoError(st.t, err)
	for _, f := range m.State().Log.Files {
		out = append(out, filepath.Join("db", wal.FileName(f.Number)))
	}
	return out
}

func (st *store) manifestPath() string {
	st.t.Helper()
	m, err := manifest.Load(st.mem, "db")
	require.NoError(st.t, err)
	return filepath.Join("db", m.Name())
}

func (st *store) flip(path string, off int64) {
	st.t.Helper()
	require.NoError(st.t, st.mem.Corrupt(path, off, 1, func(b []byte) { b[0] ^= 0x40 }))
}

func (st *store) zero(path string, off, n int64) {
	st.t.Helper()
	require.NoError(st.t, st.mem.Corrupt(path, off, n, func(b []byte) { clear(b) }))
}

func (st *store) truncate(path string, n int64) {
	st.t.Helper()
	require.NoError(st.t, st.mem.SetBytes(path, st.mem.Bytes(path)[:n]))
}

// forgetLog makes the log begin behind its last record. It needs a commit for that.
func (st *store) forgetLog() {
	st.t.Helper()
	high := st.s.Log.LastLSN()
	st.close()
	st.open()
	st.commit(put("zz", "the first of a file"))
	require.NoError(st.t, st.s.Log.TruncateFront(high))
	require.Equal(st.t, high, st.s.Log.Floor())
}

// clear removes a directory of the file system.
func (st *store) clear(dir string) {
	st.t.Helper()
	names, err := st.mem.List(dir)
	require.NoError(st.t, err)
	for _, name := range names {
		if name == damagedDir {
			st.clear(dir + "/" + name)
			continue
		}
		require.NoError(st.t, st.mem.Remove(dir+"/"+name))
	}
	require.NoError(st.t, st.mem.Remove(dir))
}

// content is the bytes of all files below a directory.
func content(t *testing.T, mem *vfs.Mem, dir string) map[string]string {
	t.Helper()
	names, err := mem.List(dir)
	require.NoError(t, err)
	out := map[string]string{}
	for _, name := range names {
		out[name] = string(mem.Bytes(filepath.Join(dir, name)))
	}
	return out
}

// visible opens a store as an engine does, reads all of it, writes to it and opens
// it again.
func visible(t *testing.T, mem *vfs.Mem, dir string) map[string]string {
	t.Helper()
	mem = mem.Snapshot()
	var out map[string]string
	for round := range 2 {
		table := memtable.New(0)
		s, err := recovery.Open(recoveryConfig(mem, dir, table))
		require.NoError(t, err)
		require.False(t, s.Report.Created)
		require.Empty(t, s.Report.Removed)
		sources := []merge.Source{{Iter: table.NewIter(), Dels: []*rangedel.Set{table.RangeDeletes()}, MaxLSN: table.PointMaxLSN()}}
		for i, r := range s.Segments {
			require.NoError(t, r.Verify(context.Background()))
			d, err := r.RangeDeletes()
			require.NoError(t, err)
			sources = append(sources, merge.Source{Iter: r.NewIter(), Dels: []*rangedel.Set{d}, MaxLSN: s.Manifest.State().Segments[i].MaxLSN})
		}
		it := merge.NewReader(sources, s.Log.LastLSN(), nil, nil)
		got := map[string]string{}
		for ok := it.First(); ok; ok = it.Next() {
			got[string(it.Key())] = string(it.Value())
		}
		require.NoError(t, it.Err())
		if round == 0 {
			out = got
			b := &batch.Batch{}
			require.NoError(t, b.Put([]byte("a new one"), []byte("new")))
			lsn, err := s.Log.Append(b.Bytes())
			require.NoError(t, err)
			require.Equal(t, s.Report.Last+1, lsn)
		} else {
			require.Equal(t, "new", got["a new one"])
			require.Len(t, got, len(out)+1)
		}
		require.NoError(t, s.Log.Close())
		require.NoError(t, s.Close())
	}
	return out
}

// salvage salvages the store, and checks what holds of every salvage.
func (st *store) salvage(cfg *Config) (*Salvaged, map[string]string) {
	st.t.Helper()
	before := content(st.t, st.mem, "db")
	out, err := Salvage(context.Background(), cfg, "new")
	require.NoError(st.t, err)
	require.Equal(st.t, before, content(st.t, st.mem, "db"), "the source is changed")
	got := visible(st.t, st.mem, "new")
	require.Len(st.t, got, int(out.Keys))
	for k, v := range got {
		require.Contains(st.t, st.old[k], v, "key %s never had this value", k)
	}
	rep, err := Verify(context.Background(), &Config{FS: st.mem, Dir: "new"})
	require.NoError(st.t, err)
	require.Empty(st.t, rep.Problems)
	require.Equal(st.t, out.Segments, rep.Segments)
	require.Equal(st.t, out.Keys, rep.Versions)
	for _, path := range out.Kept {
		require.Equal(st.t, before[filepath.Base(path)], string(st.mem.Bytes(path)))
	}
	return out, got
}

// harm returns the losses that are not harmless.
func (s *Salvaged) harm() (out []Loss) {
	for _, l := range s.Losses {
		if !l.Harmless {
			out = append(out, l)
		}
	}
	return out
}
