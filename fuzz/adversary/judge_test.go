package adversary

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// What one call may do with a directory of n bytes, where what is compressed
// counts with its length when unpacked.
const (
	// It allocates, over its whole length and whether it is freed or not, this
	// many bytes for each of the n and a constant.
	allocPerByte = 96
	allocBeside  = 24 << 20
	// It reads as many, in this many calls.
	readPerByte = 64
	readBeside  = 4 << 20
	readCalls   = 20_000
	// It has ended by then. (Nothing here takes a hundredth of that.)
	patience = 2 * time.Minute
)

// meter is a file system that counts reads, and knows what names a store has.
type meter struct {
	*vfs.Mem
	bytes, calls atomic.Int64

	mu    sync.Mutex // guards stray
	stray []string
}

var ours = regexp.MustCompile(`^(db|out)(/(LOCK|damaged|(damaged/)?((MANIFEST|CATALOG)-\d{6,}|\d{6,}\.(log|seg))))?$`)

func (m *meter) see(name string) {
	if name = filepath.ToSlash(name); name != "." && name != "/" && !ours.MatchString(name) {
		m.mu.Lock()
		m.stray = append(m.stray, name)
		m.mu.Unlock()
	}
}

func (m *meter) Create(name string, mode vfs.Mode) (vfs.File, error) {
	m.see(name)
	return m.Mem.Create(name, mode)
}

func (m *meter) Open(name string, mode vfs.Mode) (vfs.File, error) {
	m.see(name)
	f, err := m.Mem.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &meterFile{f, m}, nil
}

func (m *meter) Remove(name string) error { m.see(name); return m.Mem.Remove(name) }

func (m *meter) Rename(from, to string) error {
	m.see(from)
	m.see(to)
	return m.Mem.Rename(from, to)
}

func (m *meter) MkdirAll(dir string) error { m.see(dir); return m.Mem.MkdirAll(dir) }

type meterFile struct {
	vfs.File
	m *meter
}

func (f *meterFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.m.bytes.Add(int64(n))
	f.m.calls.Add(1)
	return n, err
}

// disk puts files into memory.
func disk(files map[string][]byte) *vfs.Mem {
	mem := vfs.NewMem()
	if err := vfs.MkdirDurable(mem, "db"); err != nil {
		panic(err)
	}
	for name, b := range files {
		if err := mem.SetBytes("db/"+name, b); err != nil {
			panic(err)
		}
	}
	return mem
}

// contents returns what is in a directory, but for the lock.
func contents(fsys *vfs.Mem, dir string) map[string][]byte {
	names, _ := fsys.List(dir)
	out := map[string][]byte{}
	for _, name := range names {
		if b := fsys.Bytes(dir + "/" + name); b != nil && name != "LOCK" {
			out[name] = b
		}
	}
	return out
}

func same(a, b map[string][]byte) bool {
	return maps.EqualFunc(a, b, slices.Equal[[]byte])
}

// court judges one directory.
type court struct {
	t     *testing.T
	files map[string][]byte
	size  int64
	most  uint64 // what a call allocated at most, beyond its share of size
}

// call runs fn with a disk of its own that holds the files, and measures it. fn
// must not change a file unless it is told that it may.
func (c *court) call(what string, mayWrite bool, fn func(fsys *meter) error) (*vfs.Mem, error) {
	c.t.Helper()
	m := &meter{Mem: disk(c.files)}
	before := contents(m.Mem, "db")
	watch := time.AfterFunc(patience, func() {
		pprof.Lookup("goroutine").WriteTo(os.Stderr, 2)
		panic("adversary: " + what + " hangs")
	})
	defer watch.Stop()
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	err := fn(m)
	runtime.ReadMemStats(&end)
	fail := func(format string, args ...any) {
		c.t.Helper()
		c.t.Errorf("%s of %d bytes: %s (error: %v)", what, c.size, fmt.Sprintf(format, args...), err)
	}
	if got := end.TotalAlloc - start.TotalAlloc; got > uint64(allocPerByte*c.size+allocBeside) {
		fail("%d bytes allocated", got)
	} else if share := uint64(allocPerByte * c.size); got > share {
		c.most = max(c.most, got-share)
	}
	if n := m.bytes.Load(); n > readPerByte*c.size+readBeside || m.calls.Load() > readCalls {
		fail("%d bytes read in %d calls", n, m.calls.Load())
	}
	if len(m.stray) > 0 {
		fail("touches %q", m.stray)
	}
	if !typed(err) {
		fail("error of no type that says what to do")
	}
	if (!mayWrite || err != nil) && !same(before, contents(m.Mem, "db")) {
		fail("files have changed: %v, were %v", slices.Sorted(maps.Keys(contents(m.Mem, "db"))), slices.Sorted(maps.Keys(before)))
	}
	return m.Mem, err
}

// typed says whether an error is one that docs promise of a directory that may
// hold anything.
func typed(err error) bool {
	var corrupt *forebay.CorruptionError
	var segmentOfAnother *segment.UnsupportedError
	return err == nil || errors.As(err, &corrupt) || errors.As(err, &segmentOfAnother) || errors.Is(err, frame.ErrUnsupported) ||
		errors.Is(err, fs.ErrNotExist) || errors.Is(err, check.ErrNone) || errors.Is(err, forebay.ErrFull)
}

func options(fsys vfs.FS, readOnly bool) *forebay.Options {
	return &forebay.Options{FS: fsys, ReadOnly: readOnly, MemoryLimit: 1 << 20, MemtableSize: 64 << 10, LogFileSize: 16 << 10, MarkDelay: -1}
}

// judge opens a directory in every way.
func (c *court) judge() {
	c.t.Helper()
	defer func() {
		if c.t.Failed() {
			c.t.Logf("files: %s", c.describe())
		}
	}()
	_, explained := c.call("Explain", false, func(fsys *meter) error {
		_, err := forebay.Explain("db", options(fsys, false))
		return err
	})
	var shown, shownToo string
	_, read := c.call("Open for reading", false, func(fsys *meter) error {
		db, err := forebay.Open("db", options(fsys, true))
		if err != nil {
			return err
		}
		defer db.Close()
		shown = c.look(db)
		return nil
	})
	var opened *vfs.Mem
	opened, written := c.call("Open", true, func(fsys *meter) error {
		db, err := forebay.Open("db", options(fsys, false))
		if err != nil {
			return err
		}
		shownToo = c.look(db)
		c.changes(db)
		if _, err := db.Verify(context.Background()); !typed(err) {
			c.t.Errorf("Verify of the open store: %v", err)
		}
		closed(c.t, db)
		return nil
	})
	none := errors.Is(read, fs.ErrNotExist) && written == nil
	switch {
	case errors.Is(written, forebay.ErrFull): // it wants a file, and has no number for it
	case (read == nil) != (written == nil) && !none:
		c.t.Errorf("an open for reading says %v, one for writing %v", read, written)
	case explained != nil && written == nil:
		c.t.Errorf("Explain says %v, and Open opens", explained)
	case read == nil && shown != shownToo && !c.disordered():
		c.t.Errorf("an open for reading shows %.200q, one for writing %.200q", shown, shownToo)
	}
	if written == nil && opened != nil && !c.t.Failed() {
		c.goOn(opened, shownToo)
	}
	c.verify(written)
	c.salvage()
}

func closed(t *testing.T, db *forebay.DB) {
	t.Helper()
	if err := db.Close(); !typed(err) && !errors.Is(err, forebay.ErrPoisoned) {
		t.Errorf("Close: %v", err)
	}
}

// sight is what was shown: its beginning, and a sum of it all, for a small forged store
// may show much.
type sight struct {
	head strings.Builder
	sum  xxhash.Digest
}

func (s *sight) Write(b []byte) (int, error) {
	if s.head.Len() < 4<<10 {
		s.head.Write(b)
	}
	return s.sum.Write(b)
}

func (s *sight) String() string { return fmt.Sprintf("%s\n%x", s.head.String(), s.sum.Sum64()) }

// look reads everything.
func (c *court) look(db *forebay.DB) string {
	var out sight
	out.sum.Reset()
	names, err := db.Keyspaces()
	if !typed(err) {
		c.t.Errorf("Keyspaces: %v", err)
	}
	fmt.Fprintln(&out, names, db.LastLSN(), err)
	n := 0
	for e, err := range db.Range(nil, nil) {
		if n++; err != nil || n > 100_000 {
			if !typed(err) {
				c.t.Errorf("Range: %v", err)
			}
			fmt.Fprintln(&out, err)
			break
		}
		fmt.Fprintf(&out, "%.40q=%.40q@%d\n", e.Key, e.Value, e.LSN)
	}
	n = 0
	for _, err := range db.RangeReverse(nil, nil) {
		if n++; err != nil || n > 100_000 {
			if !typed(err) {
				c.t.Errorf("RangeReverse: %v", err)
			}
			break
		}
	}
	for _, k := range []string{"key 000", "key 050", "", "\xff"} {
		if _, err := db.Get([]byte(k)); !typed(err) && !errors.Is(err, forebay.ErrNotFound) && !errors.Is(err, forebay.ErrEmptyKey) {
			c.t.Errorf("Get: %v", err)
		}
	}
	return out.String()
}

// changes reads all that the log has.
func (c *court) changes(db *forebay.DB) {
	at := forebay.Position{}
	for range 3 {
		var gone *forebay.CompactedError
		for ch, err := range db.Changes(context.Background(), at) {
			switch {
			case errors.As(err, &gone):
			case err != nil:
				if !typed(err) && !errors.Is(err, forebay.ErrDiverged) {
					c.t.Errorf("Changes: %v", err)
				}
				return
			case ch.LSN != at.LSN+1:
				c.t.Errorf("Changes: %d behind %d", ch.LSN, at.LSN)
				return
			}
			at = ch.Position
		}
		if gone == nil {
			return
		}
		at = forebay.Position{LSN: gone.Oldest - 1}
	}
}

// disordered says whether the manifest has a segment with deletes below another one
// that overlaps it and may hold older versions. No writer leaves that unless the keys
// differ, which the manifest cannot tell; with the same keys a merge, which may run at
// any time, drops a delete below which nothing lies, and what it hid comes back.
func (c *court) disordered() bool {
	m, err := manifest.Load(disk(c.files), "db")
	if err != nil {
		return false
	}
	segments := m.State().Segments
	for _, low := range segments {
		for _, high := range segments {
			if high.Level < low.Level && high.MinLSN < low.MaxLSN && low.Tombstones+low.RangeDeletes > 0 &&
				bytes.Compare(high.Lo, low.Hi) < 0 && bytes.Compare(low.Lo, high.Hi) < 0 {
				return true
			}
		}
	}
	return false
}

// goOn writes to a store that has opened, and opens it again: what was shown and
// acknowledged is there.
func (c *court) goOn(disk *vfs.Mem, shown string) {
	c.t.Helper()
	key, value := []byte("\xfenew"), []byte("value")
	db, err := forebay.Open("db", options(disk, false))
	if err != nil {
		c.t.Errorf("opened once, closed, and then: %v", err)
		return
	}
	if again := c.look(db); again != shown && !c.disordered() {
		c.t.Errorf("opened twice shows %.200q, was %.200q", again, shown)
	}
	err = db.Put(key, value)
	last := db.LastLSN()
	closed(c.t, db)
	if err != nil {
		if !errors.Is(err, forebay.ErrFull) {
			c.t.Errorf("Put: %v", err)
		}
		return
	}
	disk = disk.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	for range 2 {
		db, err := forebay.Open("db", options(disk, false))
		if err != nil {
			c.t.Errorf("opened, written, closed, and then: %v", err)
			return
		}
		if got, err := db.Get(key); string(got) != string(value) || db.LastLSN() < last {
			c.t.Errorf("a durable write is gone: %q, %v, LSN %d of %d", got, err, db.LastLSN(), last)
		}
		closed(c.t, db)
	}
}

func (c *court) verify(written error) {
	c.t.Helper()
	var rep *check.Report
	_, err := c.call("Verify", false, func(fsys *meter) (err error) {
		rep, err = check.Verify(context.Background(), &check.Config{FS: fsys, Dir: "db"})
		return err
	})
	if err == nil && rep.Err() == nil && written != nil && !errors.Is(written, forebay.ErrFull) {
		c.t.Errorf("Open says %v, and Verify finds nothing", written)
	}
}

func (c *court) salvage() {
	c.t.Helper()
	disk, err := c.call("Salvage", false, func(fsys *meter) error {
		_, err := check.Salvage(context.Background(), &check.Config{FS: fsys, Dir: "db", BeyondHoles: len(c.files)%2 == 0}, "out")
		return err
	})
	if err != nil {
		return
	}
	rep, err := check.Verify(context.Background(), &check.Config{FS: disk, Dir: "out"})
	if err == nil {
		err = rep.Err()
	}
	if err != nil {
		c.t.Errorf("what a salvage made: %v", err)
	}
	db, err := forebay.Open("out", options(disk, false))
	if err != nil {
		c.t.Errorf("what a salvage made: %v", err)
		return
	}
	for _, err := range db.Range(nil, nil) {
		if err != nil {
			c.t.Errorf("what a salvage made: %v", err)
		}
	}
	closed(c.t, db)
}

// judgeLog opens a directory as a log that is used alone.
func (c *court) judgeLog() {
	c.t.Helper()
	defer func() {
		if c.t.Failed() {
			c.t.Logf("files: %s", c.describe())
		}
	}()
	opts := func(fsys vfs.FS, got *[]string) *wal.Options {
		return &wal.Options{FS: fsys, FirstFileSize: 16 << 10, FileSize: 16 << 10, MarkDelay: -1, NoSpares: true,
			OnRecord: func(lsn wal.LSN, _ uint64, rec []byte) error {
				*got = append(*got, fmt.Sprintf("%d %.40q", lsn, rec))
				return nil
			}}
	}
	var a, b, d []string
	_, read := c.call("Inspect", false, func(fsys *meter) error {
		_, err := wal.Inspect("db", opts(fsys, &a))
		return err
	})
	opened, written := c.call("Open", true, func(fsys *meter) error {
		l, err := wal.Open("db", opts(fsys, &b))
		if err != nil {
			return err
		}
		c.tail(l)
		return l.Close()
	})
	if errors.Is(written, wal.ErrFull) {
		return
	}
	if (read == nil) != (written == nil) || read == nil && !slices.Equal(a, b) {
		c.t.Errorf("Inspect says %v, Open %v; %d and %d records", read, written, len(a), len(b))
	}
	if written != nil || c.t.Failed() {
		return
	}
	l, err := wal.Open("db", opts(opened, &d))
	if err != nil || !slices.Equal(b, d) {
		c.t.Errorf("opened once, closed, and then: %v; %d records, were %d", err, len(d), len(b))
		return
	}
	lsn, err := l.Append([]byte("new"))
	switch {
	case err == nil:
		d = append(d, fmt.Sprintf("%d %q", lsn, "new"))
	case !errors.Is(err, wal.ErrFull):
		c.t.Errorf("Append: %v", err)
	}
	if cerr := l.Close(); cerr != nil && err == nil {
		c.t.Errorf("Close: %v", cerr)
	}
	var e []string
	if l, err = wal.Open("db", opts(opened, &e)); err != nil || !slices.Equal(d, e) {
		c.t.Errorf("opened, written, closed, and then: %v; %d records, were %d", err, len(e), len(d))
		return
	}
	l.Close()
}

func (c *court) tail(l *wal.Log) {
	at := wal.Position{}
	for range 3 {
		t, err := l.NewTail(at)
		var gone *wal.CompactedError
		if errors.As(err, &gone) {
			at = wal.Position{LSN: gone.Oldest - 1}
			at.Epoch = l.EpochAt(at.LSN)
			continue
		}
		if err != nil {
			if !typed(err) && !errors.Is(err, wal.ErrDiverged) {
				c.t.Errorf("NewTail: %v", err)
			}
			return
		}
		for {
			pos, _, ok, err := t.TryNext()
			if err != nil || !ok {
				if !typed(err) {
					c.t.Errorf("Tail: %v", err)
				}
				t.Close()
				return
			}
			if pos.LSN != at.LSN+1 {
				c.t.Errorf("Tail: %d behind %d", pos.LSN, at.LSN)
			}
			at = pos
		}
	}
}

func (c *court) describe() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		fmt.Fprintf(&b, " %s (%d)", name, len(c.files[name]))
	}
	return b.String()
}
