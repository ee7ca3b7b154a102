package filesink_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/filesink"
	"github.com/forebaydb/forebay/sink/sinktest"
	"github.com/forebaydb/forebay/vfs"
)

const name = "out/rows"

func open(t *testing.T, fsys vfs.FS) *filesink.Sink {
	t.Helper()
	s, err := filesink.Open(name, &filesink.Options{FS: fsys})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// lines decodes NDJSON.
func lines(t *testing.T, b []byte) (rows []sink.Row) {
	t.Helper()
	in := bufio.NewScanner(bytes.NewReader(b))
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var l struct {
			Offset                 uint64
			Time                   time.Time
			Key, Value             string
			KeyBase64, ValueBase64 []byte
		}
		var raw map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(in.Bytes(), &raw))
		require.NoError(t, json.Unmarshal(in.Bytes(), &l))
		r := sink.Row{Offset: l.Offset, Time: l.Time, Key: []byte(l.Key), Value: []byte(l.Value)}
		if b, ok := raw["key_base64"]; ok {
			require.NoError(t, json.Unmarshal(b, &r.Key))
		}
		if b, ok := raw["value_base64"]; ok {
			require.NoError(t, json.Unmarshal(b, &r.Value))
		}
		rows = append(rows, r)
	}
	require.NoError(t, in.Err())
	return rows
}

// reopening is a sink that opens its file again when a write has failed.
type reopening struct {
	t    *testing.T
	fsys vfs.FS
	mu   sync.Mutex
	s    *filesink.Sink
}

func (r *reopening) Write(ctx context.Context, b sink.Batch) error {
	r.mu.Lock()
	s := r.s
	if s == nil {
		var err error
		if s, err = filesink.Open(name, &filesink.Options{FS: r.fsys, Encode: refusing}); err != nil {
			r.mu.Unlock()
			return err
		}
		r.s = s
	}
	r.mu.Unlock()
	err := s.Write(ctx, b)
	if errors.Is(s.Write(ctx, b), filesink.ErrPoisoned) {
		r.mu.Lock()
		if r.s == s {
			r.s = nil
			require.NoError(r.t, s.Close())
		}
		r.mu.Unlock()
	}
	return err
}

// refusing is NDJSON without bad rows.
func refusing(dst []byte, b sink.Batch) ([]byte, error) {
	for i, r := range b.Rows {
		if bytes.HasPrefix(r.Value, []byte("bad")) {
			return nil, &sink.RowError{Row: i, Err: errors.New("bad")}
		}
	}
	return sink.NDJSON(dst, b)
}

func TestSuite(t *testing.T) {
	var in *vfs.Injector
	fail := func(r vfs.Rule) func(*testing.T) {
		return func(*testing.T) { in.Add(r) }
	}
	var down *vfs.Armed
	sinktest.Run(t, sinktest.Harness{
		New: func(t *testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
			mem := vfs.NewMem()
			in = vfs.NewInjector(mem)
			r := &reopening{t: t, fsys: in}
			return r, func(t *testing.T) []sink.Row { return lines(t, mem.Bytes(name)) }
		},
		ExactlyOnce: true,
		Bad:         func() []byte { return []byte("bad") },
		Stop:        func(*testing.T) { down = in.Add(vfs.Rule{Call: vfs.CallWrite, Err: syscall.EIO, Forever: true}) },
		Start:       func(*testing.T) { down.Remove() },
		Faults: map[string]func(*testing.T){
			"a write fails":           fail(vfs.Rule{Call: vfs.CallWrite, Name: "rows", Err: syscall.EIO}),
			"a short write":           fail(vfs.Rule{Call: vfs.CallWrite, Name: "rows", Err: syscall.ENOSPC, Part: 77}),
			"a sync fails":            fail(vfs.Rule{Call: vfs.CallSyncData, Name: "rows", Err: syscall.EIO}),
			"a journal write fails":   fail(vfs.Rule{Call: vfs.CallWrite, Name: "*.journal", Err: syscall.EIO, Part: 9}),
			"a journal sync fails":    fail(vfs.Rule{Call: vfs.CallSyncData, Name: "*.journal", Err: syscall.EIO}),
			"a journal sync, behind":  fail(vfs.Rule{Call: vfs.CallSyncData, Name: "*.journal", Err: syscall.EIO, After: true}),
			"a journal write, behind": fail(vfs.Rule{Call: vfs.CallWrite, Name: "*.journal", Err: syscall.EIO, After: true}),
		},
	})
}

func batch(i, n int) sink.Batch {
	b := sink.Batch{ID: fmt.Sprint("batch-", i)}
	for j := range n {
		b.Rows = append(b.Rows, sink.Row{Offset: uint64(1000*i + j), Value: bytes.Repeat([]byte{'v'}, 10*j)})
	}
	return b
}

// TestCrashes cuts the power behind each change of the disk, in every way that seeds
// give, and twice: what was acknowledged is there once, and of the rest nothing or all.
func TestCrashes(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 4
	}
	play := func(mem *vfs.Mem, from int, acked map[int]bool) { // until something fails
		s, err := filesink.Open(name, &filesink.Options{FS: mem})
		if err != nil {
			return
		}
		defer s.Close()
		for i := from; i < from+4; i++ {
			if s.Write(context.Background(), batch(i, 1+i*7%20)) == nil {
				acked[i] = true
			}
		}
	}
	check := func(mem *vfs.Mem, acked map[int]bool, all int) {
		s := open(t, mem)
		defer s.Close()
		require.Len(t, mem.Bytes(name), int(s.Size()))
		seen := map[int]int{}
		for _, r := range lines(t, mem.Bytes(name)) {
			seen[int(r.Offset/1000)]++
		}
		for i, n := range seen {
			require.Equal(t, 1+i*7%20, n, "a part of batch %d", i)
		}
		for i := range acked {
			require.Positive(t, seen[i], "batch %d", i)
		}
		for i := range all { // and all of them again
			require.NoError(t, s.Write(t.Context(), batch(i, 1+i*7%20)))
		}
		require.NoError(t, s.Close())
		rows := map[uint64]int{}
		for _, r := range lines(t, mem.Bytes(name)) {
			rows[r.Offset]++
		}
		total := 0
		for i := range all {
			total += 1 + i*7%20
		}
		require.Len(t, rows, total)
		for _, n := range rows {
			require.Equal(t, 1, n)
		}
	}
	type cut struct {
		mem   *vfs.Mem
		acked int
	}
	cuts := func(mem *vfs.Mem, from int) (out []cut) {
		acked := map[int]bool{}
		n := uint64(0)
		mem.OnIO(func(vfs.Op) {
			n++
			for seed := range seeds {
				out = append(out, cut{mem.PowerCutSeed(n*1000+seed, vfs.SectorAtomic), len(acked)})
			}
			out = append(out, cut{mem.Snapshot(), len(acked)})
		})
		play(mem, from, acked)
		mem.OnIO(nil)
		return out
	}
	first := cuts(vfs.NewMem(), 0)
	require.NotEmpty(t, first)
	for i, c := range first {
		acked := map[int]bool{}
		for j := range c.acked {
			acked[j] = true
		}
		if i%37 == 0 { // once more, while it opens and goes on
			for j, d := range cuts(c.mem.Snapshot(), 4) {
				if j%29 == 0 {
					check(d.mem, acked, 8)
				}
			}
		}
		check(c.mem, acked, 4)
	}
}

// TestDamage: what a crash cannot leave is an error, and changes nothing.
func TestDamage(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem)
	for i := range 5 {
		require.NoError(t, s.Write(t.Context(), batch(i, 3)))
	}
	require.NoError(t, s.Close())
	journal, rows := mem.Bytes(name+".journal"), mem.Bytes(name)
	try := func(what string) error {
		s, err := filesink.Open(name, &filesink.Options{FS: mem})
		if err != nil {
			require.Equal(t, rows, mem.Bytes(name), what)
			return err
		}
		return s.Close()
	}
	for i := range len(journal) - 32 { // the last one may be of a crash
		bad := bytes.Clone(journal)
		bad[i] ^= 0x40
		require.NoError(t, mem.SetBytes(name+".journal", bad))
		require.ErrorIs(t, try("journal"), filesink.ErrDamaged, "byte %d", i)
		require.Equal(t, bad, mem.Bytes(name+".journal"))
	}
	require.NoError(t, mem.SetBytes(name+".journal", journal[:20]))
	require.ErrorIs(t, try("short"), filesink.ErrDamaged)
	require.NoError(t, mem.SetBytes(name+".journal", journal))
	require.NoError(t, mem.SetBytes(name, rows[:len(rows)-1]))
	rows = rows[:len(rows)-1]
	require.ErrorIs(t, try("a short file"), filesink.ErrDamaged)
	require.NoError(t, mem.Remove(name))
	rows = nil
	require.ErrorIs(t, try("no file"), filesink.ErrDamaged)
	require.NoError(t, mem.Remove(name+".journal"))
	require.NoError(t, mem.SetBytes(name, []byte("mine")))
	rows = []byte("mine")
	require.ErrorIs(t, try("no journal"), fs.ErrExist)
}

func TestOpenTwiceAndClose(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem)
	_, err := filesink.Open(name, &filesink.Options{FS: mem})
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.Error(t, s.Write(t.Context(), sink.Batch{}))
	require.Error(t, s.Write(t.Context(), sink.Batch{ID: strings.Repeat("x", 201)}))
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.Write(t.Context(), batch(0, 1)), filesink.ErrClosed)
	open(t, mem)
}

// TestRemember: an Open forgets the oldest ids, and where the file ends it does not.
func TestRemember(t *testing.T) {
	mem := vfs.NewMem()
	for i := range 3 {
		s, err := filesink.Open(name, &filesink.Options{FS: mem, Remember: 2})
		require.NoError(t, err)
		require.NoError(t, s.Write(t.Context(), batch(2*i, 1)))
		require.NoError(t, s.Write(t.Context(), batch(2*i+1, 1)))
		require.NoError(t, s.Close())
	}
	s, err := filesink.Open(name, &filesink.Options{FS: mem, Remember: 2})
	require.NoError(t, err)
	defer s.Close()
	require.NoError(t, s.Write(t.Context(), batch(5, 1)))
	require.NoError(t, s.Write(t.Context(), batch(4, 1)))
	require.Len(t, lines(t, mem.Bytes(name)), 6)
	require.NoError(t, s.Write(t.Context(), batch(3, 1)))
	require.Len(t, lines(t, mem.Bytes(name)), 7)
	require.Len(t, mem.Bytes(name+".journal"), 32*4)
}

func TestManyBatchesOnARealDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "rows.ndjson")
	for range 2 {
		s, err := filesink.Open(path, nil)
		require.NoError(t, err)
		for i := range 20 {
			require.NoError(t, s.Write(t.Context(), batch(i, 10)))
		}
		require.NoError(t, s.Close())
	}
	b, err := vfs.ReadFile(vfs.OS(), path, 1<<20)
	require.NoError(t, err)
	require.Len(t, lines(t, b), 200)
}

func Example() {
	mem := vfs.NewMem()
	s, err := filesink.Open("out/rows.ndjson", &filesink.Options{FS: mem})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	b := sink.Batch{ID: "orders/1", Rows: []sink.Row{{Offset: 7, Time: time.Unix(0, 0), Value: []byte("ordered")}}}
	fmt.Println(s.Write(context.Background(), b))
	fmt.Println(s.Write(context.Background(), b)) // it is there
	fmt.Printf("%s", mem.Bytes("out/rows.ndjson"))
	// Output:
	// <nil>
	// <nil>
	// {"offset":7,"time":"1970-01-01T00:00:00Z","value":"ordered"}
}
