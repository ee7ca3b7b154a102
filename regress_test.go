// The tests of this file are bugs that were found by attacking the code: each
// failed before its bug was mended.

package forebay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

func loseAllA(int, vfs.Unit) vfs.Fate { return vfs.Lost }

// A Checkpoint that waits while Close runs goes on after Close and removes a
// live segment of the next open.
func TestRegressStaleCheckpointRemovesLiveSegment(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	db1 := open(t, small(in))
	g := vfs.NewGate()
	in.Add(vfs.Rule{Call: vfs.CallCreate, Name: "*.seg", Gate: g})
	require.NoError(t, db1.Put([]byte("k1"), []byte("v1")))
	b, c := make(chan error, 1), make(chan error, 1)
	db1.checkMu.Lock() // a checkpoint in progress
	go func() { c <- db1.Close() }()
	time.Sleep(20 * time.Millisecond)
	go func() { b <- db1.Checkpoint(context.Background()) }()
	time.Sleep(20 * time.Millisecond)
	db1.checkMu.Unlock()
	require.NoError(t, <-c)
	g.Release()
	require.ErrorIs(t, <-b, ErrClosed) // it must not make a segment now
	db2 := open(t, small(mem))
	require.NoError(t, db2.Put([]byte("k3"), []byte("v3")))
	require.NoError(t, db2.Checkpoint(context.Background()))
	require.NoError(t, db2.Close())
	db3, err := Open("db", small(mem))
	require.NoError(t, err)
	t.Log(contents(t, db3))
}

func junk(t *testing.T, mem *vfs.Mem, name string) {
	f, err := mem.Create(filepath.Join("db", name), vfs.ReadWrite)
	require.NoError(t, err)
	f.Close()
	require.NoError(t, mem.SyncDir("db"))
}

func TestRegressStrayNames(t *testing.T) {
	for _, name := range []string{"18446744073709551615.seg", "18446744073709551615.log", "MANIFEST-18446744073709551615", "18446744073709551614.log", "18446744073709551614.seg"} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			db := open(t, small(mem))
			for i := 0; i < 3; i++ {
				require.NoError(t, db.Put([]byte(fmt.Sprint("k", i)), []byte("v")))
				require.NoError(t, db.Checkpoint(context.Background()))
			}
			require.NoError(t, db.Close())
			junk(t, mem, name)
			db, err := Open("db", small(mem))
			if err != nil {
				t.Log("refused:", err)
				return
			}
			for i := 3; i < 6; i++ {
				if err := db.Put([]byte(fmt.Sprint("k", i)), []byte("v")); err != nil {
					t.Log("put", i, err)
				}
				if err := db.Checkpoint(context.Background()); err != nil {
					t.Log("checkpoint", i, err)
				}
			}
			db.Close()
			names, _ := mem.List("db")
			t.Log(names)
			db, err = Open("db", small(mem))
			require.NoError(t, err)
			t.Log(contents(t, db))
		})
	}
}

func TestRegressManifestErrorLeaks(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	o := small(in)
	o.LogFileSize = 0
	db := open(t, o)
	require.NoError(t, db.Put([]byte("k"), []byte("v")))
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "MANIFEST*", Err: syscall.EIO}) // once
	refused := 0
	for i := 0; refused < 8 && i < 20000; i++ {
		if err := db.Put([]byte(fmt.Sprint("k", i%10)), bytes.Repeat([]byte("v"), 100000)); err != nil {
			if refused == 0 {
				t.Log(err)
			}
			refused++
		}
	}
	time.Sleep(700 * time.Millisecond)
	names, _ := mem.List("db")
	seg, log := 0, 0
	var bytes int64
	for _, n := range names {
		if strings.HasSuffix(n, ".seg") {
			seg++
		}
		if strings.HasSuffix(n, ".log") {
			log++
		}
		i, _ := mem.Stat("db/" + n)
		bytes += i.Size
	}
	t.Logf("%d refused puts: %d segments, %d logs, %d bytes on disk", refused, seg, log, bytes)
	db.Close()
	require.LessOrEqual(t, seg, 2)
	require.LessOrEqual(t, log, 4)
}

func TestRegressLogLeaks(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	o := &Options{FS: in, MarkDelay: -1}
	db := open(t, o)
	require.NoError(t, db.Put([]byte("k"), []byte("v")))
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "MANIFEST*", Err: syscall.EIO}) // once
	refused := 0
	for i := 0; refused < 8 && i < 20000; i++ {
		if err := db.Put([]byte(fmt.Sprint("k", i%10)), bytes.Repeat([]byte("v"), 1000)); err != nil {
			if refused == 0 || refused == 7 {
				t.Log(err)
			}
			refused++
		}
	}
	time.Sleep(200 * time.Millisecond)
	names, _ := mem.List("db")
	log := 0
	var bytes int64
	for _, n := range names {
		if strings.HasSuffix(n, ".log") {
			log++
			i, _ := mem.Stat("db/" + n)
			bytes += i.Size
		}
	}
	t.Logf("%d refused puts: %d logs, %d bytes on disk", refused, log, bytes)
	db.Close()
	require.LessOrEqual(t, log, 3)
}

// An old manifest is restored: newer log files are removed in silence.
func TestRegressOldManifest(t *testing.T) {
	mem := vfs.NewMem()
	db := open(t, small(mem))
	db.opts.MemtableSize = 1 << 30
	for i := 0; i < 3; i++ {
		require.NoError(t, db.Put([]byte(fmt.Sprint("k", i)), []byte("v")))
	}
	names, _ := mem.List("db")
	var man string
	for _, n := range names {
		if strings.HasPrefix(n, "MANIFEST") {
			man = "db/" + n
		}
	}
	old, err := vfs.ReadFile(mem, man, 1<<20)
	require.NoError(t, err)
	for i := 0; i < 60; i++ {
		require.NoError(t, db.Put([]byte(fmt.Sprint("x", i)), bytes.Repeat([]byte("v"), 1000)))
	}
	require.NoError(t, db.Close())
	require.NoError(t, mem.Remove(man))
	f, err := mem.Create(man, vfs.ReadWrite)
	require.NoError(t, err)
	f.WriteAt(old, 0)
	f.Sync()
	f.Close()
	mem.SyncDir("db")
	before, _ := mem.List("db")
	db, err = Open("db", small(mem))
	if err != nil {
		t.Log("refused", err)
		return
	}
	after, _ := mem.List("db")
	t.Fatalf("opened in silence: verdict %v closed %v, %d of 63 keys; before %v after %v", db.Recovery().Verdict, db.Recovery().Closed, len(contents(t, db)), before, after)
}

func TestRegressEmptyBatch(t *testing.T) {
	mem := vfs.NewMem()
	db := open(t, small(mem))
	require.NoError(t, db.Apply(db.NewBatch(), Durable))
	require.NoError(t, db.Put([]byte("a"), nil))
	require.NoError(t, db.Close())
	db = open(t, small(mem))
	require.NoError(t, db.Close())
}

func TestRegressOpenFull(t *testing.T) {
	mem := vfs.NewMem()
	o := small(mem)
	o.MaxLogBytes = 64 << 10
	o.MemtableSize = 1 << 20
	db := open(t, o)
	for i := 0; ; i++ {
		if err := db.Put([]byte(fmt.Sprint(i)), bytes.Repeat([]byte("v"), 700)); err != nil {
			require.ErrorIs(t, err, ErrFull)
			break
		}
	}
	p := *o
	p.FS = mem.PowerCut(loseAllA)
	_, err := Open("db", &p)
	require.NoError(t, err)
}

func TestRegressFullForEver(t *testing.T) {
	o := &Options{FS: vfs.NewMem(), MarkDelay: -1, MaxLogBytes: 8 << 20}
	db := open(t, o)
	var err error
	i := 0
	for ; err == nil; i++ {
		err = db.Put([]byte(fmt.Sprint(i)), bytes.Repeat([]byte("v"), 7000))
	}
	t.Log(i, err)
	require.NoError(t, db.Checkpoint(context.Background()))
	for i := 0; i < 10; i++ {
		err = db.Put([]byte("k"), bytes.Repeat([]byte("v"), 7000))
	}
	t.Log("log files", db.Stats().Log.FileBytes)
	require.NoError(t, err)
}

// a transient error of the manifest while settling: each retry leaves a segment
func TestRegressSegLeaks(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	db := open(t, &Options{FS: in, MarkDelay: -1, MemtableSize: 4 << 10})
	require.NoError(t, db.Put([]byte("k"), []byte("v")))
	in.Add(vfs.Rule{Call: vfs.CallSyncData, Name: "MANIFEST*", Err: syscall.EIO}) // once
	for i := 0; i < 6; i++ {
		t.Log(db.Put([]byte(fmt.Sprint("k", i)), bytes.Repeat([]byte("v"), 2000)))
	}
	time.Sleep(time.Second)
	seg := func() (n int) {
		names, _ := mem.List("db")
		for _, x := range names {
			if strings.HasSuffix(x, ".seg") {
				n++
			}
		}
		return n
	}
	t.Log("segments after 1 s of retries:", seg())
	for i := 0; i < 10; i++ {
		db.Checkpoint(context.Background())
	}
	t.Log("after 10 refused checkpoints:", seg())
	db.Close()
	require.LessOrEqual(t, seg(), 1)
}

// Each call of a whole life fails, once or for ever; then a crash.
func TestRegressPipelineEvery(t *testing.T) {
	base := func(fs vfs.FS) *Options {
		return &Options{FS: fs, MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 8 << 10}
	}
	key := func(i int) []byte { return []byte(fmt.Sprintf("k%03d", i)) }
	for _, forever := range []bool{false, true} {
		for _, e := range []error{syscall.EIO, syscall.ENOSPC, syscall.EMFILE} {
			step := 1
			if testing.Short() {
				step = 4 // prime to the parts below
			}
			for k := 1; k < 400; k += step {
				mem := vfs.NewMem()
				in := vfs.NewInjector(mem)
				arm := in.Add(vfs.Rule{K: k, Err: e, Forever: forever, Part: k % 3 * 100})
				acked, unknown, refused := map[int]bool{}, map[int]bool{}, map[int]bool{}
				func() {
					db, err := Open("db", base(in))
					if err != nil {
						return
					}
					for i := 0; i < 60; i++ {
						lv := Durable
						if i%5 == 1 {
							lv = Written
						}
						if i%5 == 2 {
							lv = Buffered
						}
						b := db.NewBatch()
						b.Put(key(i), bytes.Repeat([]byte{byte(i)}, 600))
						err := db.Apply(b, lv)
						switch {
						case err == nil && lv == Durable:
							acked[i] = true
						case err == nil:
						case errors.Is(err, ErrUnknown):
							unknown[i] = true
						default:
							refused[i] = true
						}
						if i == 30 {
							db.Checkpoint(context.Background())
						}
					}
					db.Close()
				}()
				if arm.Hits() == 0 {
					break
				}
				for _, img := range []*vfs.Mem{mem.Snapshot(), mem.PowerCut(loseAllA)} {
					db, err := Open("db", base(img))
					if err != nil {
						t.Errorf("k=%d %v forever=%v: reopen: %v", k, e, forever, err)
						continue
					}
					got := contents(t, db)
					high := -1
					for i := 0; i < 60; i++ {
						if _, ok := got[string(key(i))]; ok {
							high = i
						}
					}
					for i := 0; i <= high; i++ {
						if _, ok := got[string(key(i))]; !ok && !refused[i] && !unknown[i] {
							t.Errorf("k=%d %v %v: hole at %d below %d", k, e, forever, i, high)
						}
					}
					for i := range acked {
						if _, ok := got[string(key(i))]; !ok {
							t.Errorf("k=%d %v %v: acked %d lost", k, e, forever, i)
						}
					}
					for i := range refused {
						if _, ok := got[string(key(i))]; ok {
							t.Errorf("k=%d %v %v: refused %d is there", k, e, forever, i)
						}
					}
					db.Close()
				}
			}
		}
	}
}

func TestRegressSettleHalfBatch(t *testing.T) {
	if testing.Short() {
		t.Skip()
	}
	mem := vfs.NewMem()
	o := &Options{FS: mem, MarkDelay: -1, MemtableSize: 4 << 10, Compression: Zstd}
	db := open(t, o)
	require.NoError(t, db.Put([]byte("first"), []byte("v")))
	b := db.NewBatch()
	n := 0
	for ; n < 6_000_000; n++ {
		if err := b.Delete([]byte{byte(n), byte(n >> 8), byte(n >> 16)}); err != nil {
			t.Log(n, err)
			break
		}
	}
	t.Log("batch of", b.Size(), "bytes")
	err := db.Apply(b, Durable)
	t.Log("apply:", err)
	{
		p := *o
		p.FS = mem.Snapshot()
		_, err := Open("db", &p)
		t.Log("reopen after a process crash here:", err)
	}
	t.Log("checkpoint:", db.Checkpoint(context.Background()))
	t.Log("close:", db.Close())
	db, err = Open("db", o)
	require.NoError(t, err)
	tomb := uint64(0)
	for _, g := range db.man.State().Segments {
		tomb += g.Tombstones
	}
	require.Contains(t, []uint64{0, uint64(n)}, tomb, "a part of the batch")
}

// second open fails at its k-th call; the third must still be right, under random power cuts
func TestRegressOpenEvery(t *testing.T) {
	opt := func(fs vfs.FS) *Options {
		return &Options{FS: fs, MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 8 << 10}
	}
	seeds := uint64(40)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		mem := vfs.NewMem()
		db := open(t, opt(mem))
		acked := 0
		for i := 0; i < 25; i++ {
			lv := Durable
			if i > 20 {
				lv = Written
			}
			b := db.NewBatch()
			b.Put([]byte(fmt.Sprintf("k%03d", i)), bytes.Repeat([]byte{byte(i)}, 600))
			require.NoError(t, db.Apply(b, lv))
			if lv == Durable {
				acked = i + 1
			}
		}
		img := mem.PowerCutSeed(seed, vfs.SectorAtomic)
		if seed%4 == 0 {
			img = mem.Snapshot()
		}
		go db.Close()
		for _, e := range []error{syscall.EIO, syscall.ENOSPC} {
			for k := 1; k < 200; k++ {
				m := img.Snapshot()
				in := vfs.NewInjector(m)
				arm := in.Add(vfs.Rule{K: k, Err: e, Part: k * 37 % 600})
				exposed := 0
				db, err := Open("db", opt(in))
				hit := arm.Hits()
				arm.Remove()
				if err == nil {
					exposed = len(contents(t, db))
					if e := db.Put([]byte("z"), []byte("z")); e == nil {
						exposed++
					}
					go db.Close()
				}
				if hit == 0 {
					break
				}
				for s2 := uint64(0); s2 < 3; s2++ {
					db, err = Open("db", opt(m.PowerCutSeed(s2, vfs.SectorAtomic)))
					if err != nil {
						t.Errorf("seed %d k %d: %v", seed, k, err)
						continue
					}
					n := len(contents(t, db))
					if n < max(acked, exposed) {
						t.Errorf("seed %d k %d: %d acked %d exposed %d", seed, k, n, acked, exposed)
					}
					db.Close()
				}
			}
		}
	}
}

func TestRegressRaceClose(t *testing.T) {
	for round := 0; round < 60; round++ {
		mem := vfs.NewMem()
		db := open(t, small(mem))
		done := make(chan map[string]bool, 8)
		for w := 0; w < 8; w++ {
			go func() {
				acked := map[string]bool{}
				for i := 0; i < 60; i++ {
					k := fmt.Sprint(w, "-", i)
					b := db.NewBatch()
					b.Put([]byte(k), bytes.Repeat([]byte("v"), 300))
					if i%3 == 0 {
						c, err := db.Submit(b, Durable)
						if err == nil && c.Wait(context.Background()) == nil {
							acked[k] = true
						}
					} else if err := db.Apply(b, Durable); err == nil {
						acked[k] = true
					} else if !errors.Is(err, ErrClosed) {
						t.Log("not ErrClosed:", err)
					}
				}
				done <- acked
			}()
		}
		time.Sleep(time.Duration(round*100) * time.Microsecond)
		if err := db.Close(); err != nil {
			t.Log("close", err)
		}
		all := map[string]bool{}
		for w := 0; w < 8; w++ {
			for k := range <-done {
				all[k] = true
			}
		}
		db2 := open(t, small(mem.PowerCut(loseAllA)))
		got := contents(t, db2)
		for k := range all {
			if _, ok := got[k]; !ok {
				t.Errorf("lost %s", k)
			}
		}
		db2.Close()
	}
}

// readers see S(n) while memtables freeze and settle
func TestRegressReadSn(t *testing.T) {
	db := open(t, &Options{FS: vfs.NewMem(), MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 8 << 10})
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for i := 0; i < 4000; i++ {
			b := db.NewBatch()
			v := []byte(fmt.Sprintf("%08d%s", i, strings.Repeat("x", 60)))
			for k := 0; k < 4; k++ {
				b.Put([]byte{'a' + byte(k)}, v)
			}
			lv := Level(i % 3)
			if err := db.Apply(b, lv); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	var readers sync.WaitGroup
	for r := 0; r < 3; r++ {
		readers.Go(func() {
			last := ""
			for {
				select {
				case <-stop:
					return
				default:
				}
				vals := map[string]bool{}
				for e, err := range db.Range(nil, nil) {
					if err != nil {
						t.Error(err)
					}
					vals[string(e.Value[:8])] = true
				}
				if len(vals) > 1 {
					t.Error("torn read", vals)
				}
				v, err := db.Get([]byte("b"))
				if err == nil {
					if string(v[:8]) < last {
						t.Error("back", last, string(v[:8]))
					}
					last = string(v[:8])
				}
			}
		})
	}
	<-stop
	readers.Wait()
	db.Close()
}

func TestRegressNoSpaceGrows(t *testing.T) {
	mem := vfs.NewMem()
	o := &Options{FS: mem, MarkDelay: -1}
	db := open(t, o)
	mem.SetCapacity(1 << 20)
	var err error
	i := 0
	for ; err == nil; i++ {
		err = db.Put([]byte(fmt.Sprint(i)), bytes.Repeat([]byte("v"), 7000))
	}
	t.Log(i, err, mem.Used())
	for i := 0; i < 5; i++ {
		db.Put([]byte("k"), bytes.Repeat([]byte("v"), 7000))
	}
	mem.SetCapacity(8 << 20) // 7 MiB were freed
	err = db.Put([]byte("k"), bytes.Repeat([]byte("v"), 7000))
	t.Log(mem.Used())
	require.NoError(t, err)
}

var _ = errors.New

func TestRegressForeignLogDir(t *testing.T) {
	mem := vfs.NewMem()
	b, err := Open("b", &Options{FS: mem, MarkDelay: -1})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	oa := &Options{FS: mem, MarkDelay: -1, LogDir: "logs"}
	a, err := Open("a", oa)
	require.NoError(t, err)
	require.NoError(t, a.Put([]byte("k"), []byte("v")))
	require.NoError(t, a.Close())
	b, err = Open("b", &Options{FS: mem, MarkDelay: -1, LogDir: "logs"})
	t.Log("open of b with a's LogDir:", err)
	if err == nil {
		b.Close()
	}
	a, err = Open("a", oa)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"k": "v"}, contents(t, a))
	require.NoError(t, a.Close())
}

func TestRegressOpenNewSegmentFails(t *testing.T) {
	mem := vfs.NewMem()
	in := vfs.NewInjector(mem)
	db := open(t, &Options{FS: in, MarkDelay: -1, MemtableSize: 4 << 10})
	r := in.Add(vfs.Rule{Call: vfs.CallOpen, Name: "*.seg", Err: syscall.EMFILE, Forever: true})
	for i := 0; i < 2; i++ {
		db.Put([]byte(fmt.Sprint("k", i)), bytes.Repeat([]byte("v"), 3000))
	}
	time.Sleep(time.Second)
	r.Remove()
	n := len(db.man.State().Segments)
	db.Close()
	require.LessOrEqual(t, n, 2)
}
