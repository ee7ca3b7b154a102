package fuzz

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// toyEngine is a store of log files that keeps every rule, or all but those that
// are set.
type toyEngine struct {
	ackEarly   bool // a Durable commit is not synced
	noDirSync  bool // the names of new files are not made durable
	noChecksum bool // records are believed
	splits     bool // a batch is a record for each operation
	unsynced   bool // an open does not sync what it shows
	twoLogs    bool // commits go to two files in turn, and each syncs its own
	lazyWrite  bool // a Written commit stays in the memory of the process
	idleSync   bool // Sync does nothing
	trusting   bool // a length that is wrong is a panic
}

func (toyEngine) Abilities() Abilities { return Abilities{Batches: true, Levels: true} }

type toyStore struct {
	toyEngine
	files []vfs.File
	sizes []int64
	next  uint64 // serial of the next record
	live  map[string]string
	held  []byte // not written yet; there is one log then
}

func (e toyEngine) Open(fsys vfs.FS, _ Settings) (Store, error) {
	t := &toyStore{toyEngine: e, live: map[string]string{}}
	names := []string{"a.log", "b.log"}
	if !e.twoLogs {
		names = names[:1]
	}
	records := map[uint64][]byte{}
	for _, name := range names {
		f, err := fsys.Open(name, vfs.ReadWrite)
		if err != nil {
			if f, err = fsys.Create(name, vfs.ReadWrite); err == nil && !e.noDirSync {
				err = fsys.SyncDir(".")
			}
		}
		if err != nil {
			return nil, err
		}
		end, err := e.read(f, records)
		if err == nil && !e.unsynced {
			err = f.Sync()
		}
		if err != nil {
			return nil, err
		}
		t.files, t.sizes = append(t.files, f), append(t.sizes, end)
	}
	for _, serial := range slices.Sorted(maps.Keys(records)) {
		t.apply(records[serial])
		t.next = serial + 1
	}
	return t, nil
}

// read returns where the next record of a file goes: a length, a checksum, and
// the checked rest, which begins with a serial.
func (e toyEngine) read(f vfs.File, records map[uint64][]byte) (at int64, err error) {
	end, err := f.Size()
	if err != nil {
		return 0, err
	}
	log := make([]byte, end)
	if _, err := f.ReadAt(log, 0); err != nil && end > 0 {
		return 0, err
	}
	for len(log) >= 8 {
		n := uint64(binary.LittleEndian.Uint32(log))
		if e.trusting {
			_ = log[8 : 8+n][7]
		}
		if n < 8 || n > uint64(len(log)-8) || !e.noChecksum && crc32.ChecksumIEEE(log[8:8+n]) != binary.LittleEndian.Uint32(log[4:]) {
			break
		}
		records[binary.LittleEndian.Uint64(log[8:])] = log[16 : 8+n]
		at, log = at+8+int64(n), log[8+n:]
	}
	return at, nil
}

// apply does the operations of a record: a letter, lengths of key and value, and
// they.
func (t *toyStore) apply(record []byte) {
	for len(record) >= 9 {
		k, v := binary.LittleEndian.Uint32(record[1:]), binary.LittleEndian.Uint32(record[5:])
		if uint64(len(record)) < 9+uint64(k)+uint64(v) {
			return
		}
		key, value := string(record[9:9+k]), string(record[9+k:9+k+v])
		if delete(t.live, key); record[0] == 'p' {
			t.live[key] = value
		}
		record = record[9+k+v:]
	}
}

func (t *toyStore) Apply(ops []Op, l Level) (uint64, error) {
	for len(ops) > 0 {
		part := ops
		if t.splits {
			part = ops[:1]
		}
		if err := t.write(part, l); err != nil {
			return 0, err
		}
		ops = ops[len(part):]
	}
	if l != Durable || t.ackEarly {
		return 0, nil
	}
	return 0, t.files[int((t.next-1)%uint64(len(t.files)))].Sync()
}

func (t *toyStore) write(ops []Op, l Level) error {
	body := binary.LittleEndian.AppendUint64(nil, t.next)
	for _, op := range ops {
		letter := byte('d')
		var value []byte
		if op.Kind == Put {
			letter, value = 'p', op.Value
		}
		body = append(body, letter)
		body = binary.LittleEndian.AppendUint32(body, uint32(len(op.Key)))
		body = binary.LittleEndian.AppendUint32(body, uint32(len(value)))
		body = append(append(body, op.Key...), value...)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	t.held = append(binary.LittleEndian.AppendUint32(append(t.held, head...), crc32.ChecksumIEEE(body)), body...)
	t.apply(body[8:])
	i := int(t.next % uint64(len(t.files)))
	if t.next++; t.lazyWrite && l == Written {
		return nil
	}
	return t.flush(i)
}

func (t *toyStore) flush(i int) error {
	_, err := t.files[i].WriteAt(t.held, t.sizes[i])
	t.sizes[i] += int64(len(t.held))
	t.held = nil
	return err
}

func (t *toyStore) Scan(each func(space int, key, value []byte)) error {
	for _, k := range slices.Sorted(maps.Keys(t.live)) {
		each(0, []byte(k), []byte(t.live[k]))
	}
	return nil
}

func (t *toyStore) Sync() error {
	if t.idleSync {
		return nil
	}
	return t.syncAll()
}

func (t *toyStore) syncAll() error {
	if len(t.held) > 0 {
		if err := t.flush(0); err != nil {
			return err
		}
	}
	for _, f := range t.files {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (t *toyStore) Close() error {
	err := t.syncAll()
	for _, f := range t.files {
		f.Close()
	}
	return err
}

// TestToys: an engine that keeps the rules passes, and one that breaks one is
// found by the small workloads, as what it is.
func TestToys(t *testing.T) {
	const lost, hole = "acknowledged commits are lost", "not a prefix"
	const never = "what was written is durable at once, without any sync"
	for name, c := range map[string]struct {
		engine         toyEngine
		kind, property string
	}{
		"nothing":                   {toyEngine{}, "", ""},
		"acknowledged before sync":  {toyEngine{ackEarly: true}, lost, never},
		"no directory sync":         {toyEngine{noDirSync: true}, lost, "changes of directories are durable at once"},
		"no checksum":               {toyEngine{noChecksum: true}, hole, "a file does not grow before its data is there"},
		"half of a batch":           {toyEngine{splits: true}, hole, "none: it is enough to kill the process"},
		"an unsynced tail is shown": {toyEngine{unsynced: true}, "second recovery differs", never},
		"order is lost":             {toyEngine{twoLogs: true}, hole, "everything reaches the disk in its order"},
		"written is not written":    {toyEngine{lazyWrite: true}, lost, "none: it is enough to kill the process"},
		"a panic in an open":        {toyEngine{trusting: true}, "open fails", "a file does not grow before its data is there"},
		"a sync that syncs nothing": {toyEngine{idleSync: true}, lost, never},
	} {
		t.Run(name, func(t *testing.T) {
			rep, cov, err := Exhaust(context.Background(), Config{Engine: c.engine, MaxViolations: 8}, Bound{Ops: 2})
			require.NoError(t, err)
			kinds := map[string]*Violation{}
			for _, v := range slices.Backward(rep.Violations) {
				kinds[v.Kind] = v
			}
			if c.kind == "" {
				require.Empty(t, rep.Violations)
				require.True(t, cov.Done())
				return
			}
			v := kinds[c.kind]
			require.NotNil(t, v, "in %d states: %v", rep.States, slices.Collect(maps.Keys(kinds)))
			t.Logf("after %d states: %s", rep.States, v)
			require.Equal(t, c.property, v.Smallest().Property)
			small, err := ParseWorkload(v.Smallest().Workload)
			require.NoError(t, err)
			require.LessOrEqual(t, small.Operations(), 5)
			again, err := Replay(context.Background(), Config{Engine: c.engine}, v.Smallest().Replay)
			require.NoError(t, err)
			require.NotEmpty(t, again.Violations)
			require.Equal(t, c.kind, again.Violations[0].Kind)
		})
	}
}

// TestPropertyOfLaterLife: what a crash between two lives has broken is prevented
// by what would have prevented that crash.
func TestPropertyOfLaterLife(t *testing.T) {
	cfg := Config{Engine: toyEngine{noDirSync: true}}
	require.NoError(t, prepare(&cfg))
	for seed := range 100 {
		w, err := ParseWorkload(fmt.Sprintf("| d{k1=8} ; at=0.9 seed=%x | d{k2=8}", seed))
		require.NoError(t, err)
		s := &shrinker{cfg: cfg, ctx: t.Context(), kind: "open"}
		if _, v := s.finds(w, nil); v != nil {
			require.Equal(t, "changes of directories are durable at once", s.property(w, v))
			return
		}
	}
	require.Fail(t, "no crash between lives took the name of the log")
}

// TestDeepCutsEveryRecovery: a state whose recovery is to be cut has it cut, also
// where a crash inside another recovery has left the same disk before.
func TestDeepCutsEveryRecovery(t *testing.T) {
	cfg := Config{Engine: toyEngine{}}
	require.NoError(t, prepare(&cfg))
	w, err := ParseWorkload("| d{k1=8}")
	require.NoError(t, err)
	x := newExplorer(t.Context(), &cfg, &shared{})
	x.deep = true
	x.rng = rand.New(rand.NewPCG(0, 0))
	rec := x.run(w)
	require.Empty(t, rec.broken)
	i := len(rec.cuts) - 1
	kept := make([]vfs.Fate, len(rec.cuts[i].disk.Unsynced()))
	for k := range kept {
		kept[k] = vfs.Kept
	}
	require.True(t, x.judge(rec.cuts[i].state(i, kept)))
	before := x.stats.States
	x.power(i, kept, rec.cuts[i])
	require.Greater(t, x.stats.States, before)
	before = x.stats.States
	x.power(i, kept, rec.cuts[i])
	require.Equal(t, before, x.stats.States, "and that once")
}

// TestExplainFilesInRoot: a store need not have a directory of its own.
func TestExplainFilesInRoot(t *testing.T) {
	var out strings.Builder
	require.NoError(t, Explain(t.Context(), Config{Engine: toyEngine{}}, "| d{k1=8}@3:!", &out))
	require.Contains(t, out.String(), "on disk   a.log 35\n")
	require.Contains(t, out.String(), "verdict   as promised")
}
