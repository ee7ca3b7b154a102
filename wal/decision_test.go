package wal_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// memCatalog is a catalog that a test can change behind the log's back.
type memCatalog struct {
	mu    sync.Mutex // guards state
	state wal.State
}

func (c *memCatalog) StoreID() [16]byte { return [16]byte{'t', 'e', 's', 't'} }

func (c *memCatalog) LogState() wal.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Clone()
}

func (c *memCatalog) EditLog(e *wal.Edit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Apply(e)
	return nil
}

// Err is for catalogs that can fail.
func (c *memCatalog) Err() error { return nil }

// bench is a directory with a log that a row builds and then damages.
type bench struct {
	t    *testing.T
	mem  *vfs.Mem
	cat  *memCatalog
	opts wal.Options
	l    *wal.Log
	n    int // records so far
}

func newBench(t *testing.T, align int64) *bench {
	b := &bench{t: t, mem: vfs.NewMem(), cat: &memCatalog{}}
	require.NoError(t, b.mem.MkdirAll("db"))
	require.NoError(t, b.mem.SyncDir("/"))
	b.opts = wal.Options{Align: align, FirstFileSize: 64 << 10, FileSize: 64 << 10, MarkDelay: -1, NoSpares: true}
	return b
}

func (b *bench) options() *wal.Options {
	o := b.opts
	o.FS, o.Catalog = b.mem, b.cat
	return &o
}

func (b *bench) open() *bench {
	b.t.Helper()
	l, err := wal.Open("db", b.options())
	require.NoError(b.t, err)
	b.l, b.n = l, int(l.LastLSN())
	return b
}

func longRecord(n int) string { return fmt.Sprintf("record %d %s", n, strings.Repeat("x", 700)) }

// put appends k records, each a group.
func (b *bench) put(level wal.Level, k int) *bench {
	b.t.Helper()
	for range k {
		b.n++
		require.Equal(b.t, wal.LSN(b.n), put(b.t, b.l, level, longRecord(b.n)))
	}
	return b
}

// fill appends until a new file has its first record.
func (b *bench) fill(level wal.Level) *bench {
	b.t.Helper()
	for files := max(1, len(b.l.Files())); len(b.l.Files()) <= files; {
		b.put(level, 1)
	}
	return b
}

// recycled opens a log, brings it into a recycled file that holds a few records,
// and kills it. It returns the file's number and how many spares are listed.
func (b *bench) recycled() (n uint64, spares int) {
	b.t.Helper()
	b.opts.NoSpares = false
	b.open().fill(wal.Durable)
	for range 20 {
		require.NoError(b.t, b.l.TruncateFront(wal.LSN(b.n-1)))
		b.fill(wal.Durable).put(wal.Durable, 2)
		files := b.l.Files()
		n = files[len(files)-1].Number
		head, err := frame.DecodeFileHeader(b.mem.Bytes(path(n)))
		require.NoError(b.t, err)
		if head.Recycled() {
			b.kill()
			for _, f := range b.cat.state.Files {
				if f.Number > n {
					spares++
				}
			}
			return n, spares
		}
	}
	require.Fail(b.t, "no file was recycled")
	return 0, 0
}

// kill ends the process: what was written stays. What the old log still does in
// the background reaches neither files nor catalog any more.
func (b *bench) kill() *bench {
	b.cat = &memCatalog{state: b.cat.LogState()}
	b.mem = b.mem.Snapshot()
	return b
}

func (b *bench) close() *bench {
	b.t.Helper()
	require.NoError(b.t, b.l.Close())
	return b
}

func path(n uint64) string { return filepath.Join("db", wal.FileName(n)) }

// frames returns the frames of a file, without their payload.
func (b *bench) frames(n uint64) (out []frame.Frame) {
	b.t.Helper()
	bytes := b.mem.Bytes(path(n))
	head, err := frame.DecodeFileHeader(bytes)
	require.NoError(b.t, err)
	f, err := b.mem.Open(path(n), vfs.ReadOnly)
	require.NoError(b.t, err)
	defer f.Close()
	r := frame.NewReader(f, int64(len(bytes)), head)
	for {
		fr, end, err := r.Next()
		require.NoError(b.t, err)
		if end != nil {
			return out
		}
		fr.Payload = nil
		out = append(out, *fr)
	}
}

// frame returns the i-th frame of file n; from the end where i is negative.
func (b *bench) frame(n uint64, i int) frame.Frame {
	b.t.Helper()
	all := b.frames(n)
	if i < 0 {
		i += len(all)
	}
	return all[i]
}

// damage changes bytes of file n.
func (b *bench) damage(n uint64, off, count int64, f func([]byte)) *bench {
	b.t.Helper()
	require.NoError(b.t, b.mem.Corrupt(path(n), off, count, f))
	return b
}

func flip(b []byte) { b[0] ^= 0x10 }

func zero(b []byte) { clear(b) }

func garbage(b []byte) {
	for i := range b {
		b[i] = byte(i*7 + 1)
	}
}

// forge makes file n by hand, in an epoch, with a link and records behind it.
func (b *bench) forge(n, epoch uint64, link frame.Link, records int, marks ...wal.LSN) {
	b.t.Helper()
	align := b.opts.Align
	if align == 0 {
		align = frame.FrameAlign
	}
	h := frame.FileHeader{Kind: frame.FileLog, Align: align, Store: b.cat.StoreID(), Number: n, Salt: 1000 + n, Epoch: epoch}
	var fb frame.Builder
	fb.Reset(&h, frame.CodecNone, h.Start(), 0)
	fb.Link(link, 0)
	for i := range records {
		fb.Record(link.Kept+1+wal.LSN(i), 0, []byte(longRecord(int(link.Kept)+1+i)), 0, 0)
	}
	for _, m := range marks {
		fb.Mark(link.Kept+1+wal.LSN(records), m, 0)
	}
	bytes := append(h.Encode(), fb.Bytes()...)
	require.NoError(b.t, b.mem.SetBytes(path(n), append(bytes, make([]byte, 8192)...)))
	require.NoError(b.t, b.cat.EditLog(&wal.Edit{Put: []wal.FileMeta{{Number: n, Salt: h.Salt, Epoch: epoch}}}))
}

// last returns the place of the last record of file n, as a link names it.
func (b *bench) last(n uint64) frame.Link {
	b.t.Helper()
	l := frame.Link{Pred: n}
	for _, f := range b.frames(n) {
		if f.Kind == frame.KindData {
			l.Kept, l.Copies, l.Hash = f.Next()-1, f.Next()-1, f.Hash
		}
	}
	return l
}

// found is what a scan must say.
type found struct {
	corrupt      bool
	verdict      wal.Verdict
	closed       bool
	last, proven int
	file         string // "" for an empty log; "missing" has offset -1
	offset       int64
	void         int
}

func clean(last, proven int, n uint64, offset int64) found {
	return found{last: last, proven: proven, file: path(n), offset: offset}
}

func torn(last, proven int, n uint64, offset int64) found {
	return found{verdict: wal.Torn, last: last, proven: proven, file: path(n), offset: offset}
}

func corrupt(n uint64, offset int64) found {
	return found{corrupt: true, file: path(n), offset: offset}
}

// decisionTable says what an open makes of a log's end, and of everything on
// the way there. docs/recovery.md quotes it: a name, once given, stays.
var decisionTable = []struct {
	name, disk, verdict string
	// build makes the state and says what is to be found in it.
	build func(b *bench) found
}{
	// The end.
	{"empty", "no file at all", "clean", func(b *bench) found {
		return found{}
	}},
	{"close mark", "a close mark, then nothing", "clean, closed", func(b *bench) found {
		b.open().put(wal.Durable, 3).close()
		f := clean(3, 3, 1, b.frame(1, -1).End)
		f.closed = true
		return f
	}},
	{"proven end", "zeros, all before proven by a mark", "clean", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().open().kill() // the second open copies, and marks
		return clean(3, 3, 2, b.frame(2, -1).End)
	}},
	{"unproven end", "zeros, the last group not proven", "clean, copied", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		return clean(3, 2, 1, b.frame(1, -1).End)
	}},
	{"recycled end", "stale bytes of an earlier use of the file", "clean", func(b *bench) found {
		n, void := b.recycled()
		f := clean(b.n, b.n-1, n, b.frame(n, -1).End)
		f.void = void
		return f
	}},
	{"recycled end, torn", "the start of a frame of this use, then stale bytes", "torn", func(b *bench) found {
		n, void := b.recycled()
		last := b.frame(n, -1)
		b.damage(n, last.Offset+frame.FrameHeaderSize+100, 1, flip)
		f := torn(b.n-1, b.n-1, n, last.Offset)
		f.void = void
		return f
	}},
	{"exact end", "the end of the file, exactly behind a frame", "clean", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		end := b.frame(1, -1).End
		require.NoError(b.t, b.mem.SetBytes(path(1), b.mem.Bytes(path(1))[:end]))
		return clean(3, 2, 1, end)
	}},
	{"truncated file", "the last frame cut in its payload", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		f := b.frame(1, -1)
		require.NoError(b.t, b.mem.SetBytes(path(1), b.mem.Bytes(path(1))[:f.Offset+200]))
		return torn(2, 2, 1, f.Offset)
	}},
	{"truncated header", "the last frame cut in its header", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		f := b.frame(1, -1)
		require.NoError(b.t, b.mem.SetBytes(path(1), b.mem.Bytes(path(1))[:f.Offset+20]))
		return torn(2, 1, 1, f.Offset)
	}},
	{"truncated below a proof", "the file cut in a frame that another file proves", "corruption", func(b *bench) found {
		b.open().fill(wal.Durable).kill()
		f := b.frame(1, 3)
		require.NoError(b.t, b.mem.SetBytes(path(1), b.mem.Bytes(path(1))[:f.Offset+200]))
		return corrupt(1, f.Offset)
	}},
	{"torn header", "the header of the last frame damaged", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		f := b.frame(1, -1)
		b.damage(1, f.Offset+24, 1, flip)
		return torn(2, 1, 1, f.Offset)
	}},
	{"torn payload", "the payload of the last frame damaged", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		f := b.frame(1, -1)
		b.damage(1, f.Offset+frame.FrameHeaderSize+300, 1, flip)
		return torn(2, 2, 1, f.Offset)
	}},
	{"torn padding", "a byte that is not zero in the padding of the last frame", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 2)
		b.n++
		put(b.t, b.l, wal.Durable, "short") // leaves padding at either alignment
		b.kill()
		f := b.frame(1, -1)
		require.Greater(b.t, f.End, f.Offset+frame.FrameOverhead+int64(f.Stored))
		b.damage(1, f.End-1, 1, flip)
		return torn(2, 2, 1, f.Offset)
	}},
	{"garbage behind", "bytes that are no frame behind the last one", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		end := b.frame(1, -1).End
		b.damage(1, end, 700, garbage)
		return torn(3, 2, 1, end)
	}},
	{"garbage far behind", "zeros, and then bytes that are no frame", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		end := b.frame(1, -1).End
		b.damage(1, end+5000, 700, garbage)
		return torn(3, 2, 1, end)
	}},
	{"hole, no proof", "zeros in place of a frame; intact frames behind it, with durable LSNs below it", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 1).put(wal.Written, 3).kill()
		f := b.frame(1, 2)
		b.damage(1, f.Offset, f.End-f.Offset, zero)
		return torn(1, 1, 1, f.Offset)
	}},
	{"hole, proven by data", "zeros in place of a frame; a data frame behind it with a durable LSN above it", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 4).kill()
		f := b.frame(1, 2)
		b.damage(1, f.Offset, f.End-f.Offset, zero)
		return corrupt(1, f.Offset)
	}},
	{"hole, proven by a header alone", "a frame damaged, and the payload of the one behind it, whose header is intact", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		f, g := b.frame(1, 2), b.frame(1, 3)
		b.damage(1, f.Offset+frame.FrameHeaderSize+9, 1, flip)
		b.damage(1, g.Offset+frame.FrameHeaderSize, 500, garbage)
		return corrupt(1, f.Offset)
	}},
	{"hole, proven by a mark", "the last data frame damaged; a mark behind it", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).close().kill()
		f := b.frame(1, -2)
		b.damage(1, f.Offset+frame.FrameHeaderSize+9, 1, flip)
		return corrupt(1, f.Offset)
	}},
	{"hole, proven by an index", "the last data frame of a full file damaged; its index frame behind it", "corruption", func(b *bench) found {
		b.open().fill(wal.Durable).kill()
		f, g := b.frame(1, -2), b.frame(2, 0)
		b.damage(2, g.Offset, 8192, zero)
		b.damage(1, f.Offset+frame.FrameHeaderSize+9, 1, flip)
		return corrupt(1, f.Offset)
	}},
	{"close mark damaged", "a close mark that does not verify", "torn", func(b *bench) found {
		b.open().put(wal.Durable, 3).close().kill()
		f := b.frame(1, -1)
		b.damage(1, f.Offset+30, 1, flip)
		return torn(3, 2, 1, f.Offset)
	}},
	{"proven from elsewhere", "the end, and a checkpoint above it", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		b.opts.Proven = 4
		return corrupt(1, b.frame(1, -1).End)
	}},
	{"proven from elsewhere, empty", "no file at all, and a checkpoint", "corruption", func(b *bench) found {
		b.opts.Proven = 1
		return found{corrupt: true, file: "db", offset: -1}
	}},
	{"cut", "the cut of a truncation, at its LSN and hash; more frames behind it", "clean", func(b *bench) found {
		b.open().put(wal.Durable, 8)
		require.NoError(b.t, b.l.TruncateBack(4))
		b.kill()
		return clean(4, 4, 1, b.frame(1, 4).End)
	}},
	{"cut, damage behind", "the cut of a truncation; behind it nothing verifies", "clean", func(b *bench) found {
		b.open().put(wal.Durable, 8)
		require.NoError(b.t, b.l.TruncateBack(4))
		f := b.kill().frame(1, 5)
		b.damage(1, f.Offset, 3000, garbage)
		return clean(4, 4, 1, f.Offset)
	}},
	{"cut not reached", "a frame at or below the cut damaged", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 8)
		require.NoError(b.t, b.l.TruncateBack(4))
		f := b.kill().frame(1, 4)
		b.damage(1, f.Offset+frame.FrameHeaderSize, 1, flip)
		return corrupt(1, f.Offset)
	}},
	{"cut at another frame", "the frame at the cut has another hash than the cut", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 8)
		require.NoError(b.t, b.l.TruncateBack(4))
		b.kill().cat.state.Files[0].CutHash++
		return corrupt(1, b.frame(1, 4).End)
	}},

	// Between files.
	{"older tail lost, newer kept", "the predecessor ends before its successor's kept; no proof above it", "torn there", func(b *bench) found {
		b.opts.Policy = wal.SyncNever
		b.open().put(wal.Durable, 1).fill(wal.Written).put(wal.Written, 2).kill()
		f := b.frame(1, 5)
		b.damage(1, f.Offset, 64<<10-f.Offset, zero)
		return found{verdict: wal.Torn, last: 4, proven: 1, file: path(1), offset: f.Offset, void: 1}
	}},
	{"older tail damaged, newer proves it", "the same, and the successor has a durable LSN above it", "corruption", func(b *bench) found {
		b.open().fill(wal.Durable).put(wal.Durable, 2).kill()
		f := b.frame(1, 5)
		b.damage(1, f.Offset, 64<<10-f.Offset, zero)
		return corrupt(1, f.Offset)
	}},
	{"link of another hash", "at kept, the predecessor has another closing hash than the link names", "corruption", func(b *bench) found {
		link := b.open().put(wal.Durable, 3).kill().last(1)
		link.Hash++
		b.forge(2, 2, link, 2)
		return corrupt(2, b.frame(2, 0).Offset)
	}},
	{"floor mismatch, LSN", "the first link names another LSN than the floor", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().cat.state.Floor = wal.Floor{LSN: 2}
		return corrupt(1, b.frame(1, 0).Offset)
	}},
	{"floor mismatch, hash", "the first link names another hash than the floor", "corruption", func(b *bench) found {
		b.open().fill(wal.Durable)
		require.NoError(b.t, b.l.TruncateFront(wal.LSN(b.n-1)))
		b.kill().cat.state.Floor.Hash++
		return corrupt(2, b.frame(2, 0).Offset)
	}},
	{"epoch goes back", "a successor of a lower epoch than its predecessor", "corruption", func(b *bench) found {
		b.open().close()
		b.open().put(wal.Durable, 3).kill()
		b.cat.state.Files[0].Epoch, b.cat.state.Epoch = 5, 5
		b.forge(1, 5, frame.Link{}, 3)
		b.forge(2, 4, b.last(1), 2)
		return corrupt(2, 0)
	}},

	// A listed file.
	{"listed file missing", "a listed file is absent", "corruption", func(b *bench) found {
		b.open().fill(wal.Durable).kill()
		require.NoError(b.t, b.mem.Remove(path(1)))
		return corrupt(1, -1)
	}},
	{"listed file empty", "a listed file has no bytes", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 1).kill()
		require.NoError(b.t, b.mem.SetBytes(path(1), nil))
		return corrupt(1, 0)
	}},
	{"file header damaged", "a file header that does not verify", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().damage(1, 40, 1, flip)
		return corrupt(1, 0)
	}},
	{"header of another use", "an intact header with another salt than listed", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().cat.state.Files[0].Salt++
		return corrupt(1, 0)
	}},
	{"header of another epoch", "an intact header with another epoch than listed", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().cat.state.Files[0].Epoch++
		return corrupt(1, 0)
	}},
	{"header of another file", "a file in the place of another", "corruption", func(b *bench) found {
		b.open().fill(wal.Durable).kill()
		require.NoError(b.t, b.mem.SetBytes(path(2), b.mem.Bytes(path(1))))
		return corrupt(2, 0)
	}},
	{"spare", "a listed file without a frame", "clean; the file does not count", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		b.forge(2, 1, frame.Link{}, 0)
		start := b.frame(2, 0).Offset
		b.damage(2, start, 4096, zero)
		f := clean(3, 2, 1, b.frame(1, -1).End)
		f.void = 1
		return f
	}},
	{"link lost, no mark", "a successor whose link does not verify and whose bytes prove nothing", "torn; the file does not count", func(b *bench) found {
		b.opts.Policy = wal.SyncNever
		b.open().put(wal.Durable, 1).fill(wal.Written).put(wal.Written, 2).kill()
		link := b.frame(2, 0)
		b.damage(2, link.Offset, 112, zero)
		last := b.last(1)
		return found{verdict: wal.Torn, last: int(last.Kept), proven: 1, file: path(1), offset: b.frame(1, -1).End, void: 1}
	}},
	{"link damaged, durable above", "a successor whose link does not verify; in it a durable LSN above the predecessor's end", "corruption", func(b *bench) found {
		b.open().fill(wal.Durable).put(wal.Durable, 2).kill()
		link := b.frame(2, 0)
		b.damage(2, link.Offset+60, 1, flip)
		return corrupt(2, link.Offset)
	}},
	{"link damaged, mark", "a file whose link does not verify, with an intact mark", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		b.forge(2, 2, b.last(1), 0, 3)
		link := b.frame(2, 0)
		b.damage(2, link.Offset+60, 1, flip)
		return corrupt(2, link.Offset)
	}},
	{"copies damaged, no mark", "a link that names copies which do not verify, no mark: an open that was cut short", "clean; the file does not count", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().open().kill()
		copies, mark := b.frame(2, 1), b.frame(2, 2)
		require.NotZero(b.t, copies.Flags&frame.FlagCopy)
		b.damage(2, copies.Offset, mark.End-copies.Offset, zero)
		f := torn(3, 2, 1, b.frame(1, -1).End)
		f.void = 1
		return f
	}},
	{"copies damaged, mark", "a link that names copies which do not verify, with an intact mark", "corruption", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().open().kill()
		copies := b.frame(2, 1)
		b.damage(2, copies.Offset+frame.FrameHeaderSize+9, 1, flip)
		return corrupt(2, copies.Offset)
	}},
	{"copies in part", "a link that names more copies than there are", "clean; the file does not count", func(b *bench) found {
		b.open().put(wal.Durable, 1).put(wal.Written, 2).kill()
		link := frame.Link{Pred: 1, Kept: 1, Copies: 3, CopyEpoch: 1}
		for _, f := range b.frames(1) {
			if f.First == 1 && f.Kind == frame.KindData {
				link.Hash = f.Hash
			}
		}
		b.forge(2, 2, link, 1)
		f := torn(3, 1, 1, b.frame(1, -1).End)
		f.void = 1
		return f
	}},
	{"past epoch", "a file off the walk of an epoch below that of the end, whatever it proves", "clean; the file does not count", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill().open().kill()
		b.forge(9, 1, frame.Link{Pred: 77}, 1, 100)
		f := clean(3, 3, 2, b.frame(2, -1).End)
		f.void = 1
		return f
	}},
	{"retained file", "a file below the floor", "clean; it is not replayed", func(b *bench) found {
		b.open().fill(wal.Durable)
		require.NoError(b.t, b.l.Pin("somebody", 1))
		require.NoError(b.t, b.l.TruncateFront(wal.LSN(b.n-1)))
		b.put(wal.Durable, 1).kill()
		require.True(b.t, b.cat.state.Files[0].Retained)
		return clean(b.n, b.n-1, 2, b.frame(2, -1).End)
	}},
	{"file not listed", "a log file that the catalog does not name", "clean; it is removed", func(b *bench) found {
		b.open().put(wal.Durable, 3).kill()
		require.NoError(b.t, b.mem.SetBytes(path(8), b.mem.Bytes(path(1))))
		return clean(3, 2, 1, b.frame(1, -1).End)
	}},
}

// snapshotFiles returns every byte of the log's directory.
func snapshotFiles(t *testing.T, mem *vfs.Mem) map[string]string {
	t.Helper()
	names, err := mem.List("db")
	require.NoError(t, err)
	out := map[string]string{}
	for _, name := range names {
		out[name] = string(mem.Bytes(filepath.Join("db", name)))
	}
	return out
}

func TestDecisions(t *testing.T) {
	names := map[string]bool{}
	for _, d := range decisionTable {
		require.False(t, names[d.name], "two rows are named %q", d.name)
		names[d.name] = true
		t.Run(d.name, func(t *testing.T) {
			for _, align := range []int64{0, 4096} {
				b := newBench(t, align)
				decide(t, b, d.build(b))
			}
		})
	}
}

func decide(t *testing.T, b *bench, want found) {
	t.Helper()
	before := snapshotFiles(t, b.mem)
	check := func(rec wal.Recovery, err error) {
		t.Helper()
		if want.corrupt {
			var c *wal.CorruptionError
			require.ErrorAs(t, err, &c)
			require.Equal(t, want.file, c.File, "%v", err)
			require.Equal(t, want.offset, c.Offset, "%v", err)
			require.NotEmpty(t, c.Reason)
			return
		}
		require.NoError(t, err)
		got := found{verdict: rec.Verdict, closed: rec.Closed, last: int(rec.Last), proven: int(rec.Proven), file: rec.File, offset: rec.Offset, void: len(rec.Void)}
		require.Equal(t, want, got, "%+v", rec)
		require.Equal(t, uint64(want.last-want.proven), rec.Copied)
	}
	rec, err := wal.Inspect("db", b.options())
	check(rec, err)
	require.Equal(t, before, snapshotFiles(t, b.mem), "Inspect changed a file")

	o := b.options()
	var got []wal.LSN
	o.OnRecord = func(lsn wal.LSN, _ uint64, rec []byte) error {
		got = append(got, lsn)
		if s := string(rec); s != longRecord(int(lsn)) && s != "short" {
			return errors.New("another record")
		}
		return nil
	}
	l, err := wal.Open("db", o)
	if want.corrupt {
		check(rec, err)
		require.Equal(t, before, snapshotFiles(t, b.mem), "a refused open changed a file")
		return
	}
	require.NoError(t, err)
	check(l.Recovery(), nil)
	first := int(rec.Floor) + 1
	require.Len(t, got, want.last-first+1)
	for i, lsn := range got {
		require.Equal(t, wal.LSN(first+i), lsn)
	}
	require.Equal(t, wal.LSN(want.last), l.DurableLSN())
	if slices.Contains([]string{path(1)}, want.file) {
		require.Nil(t, b.mem.Bytes(path(8)), "a file that is not listed stays")
	}
	// What was shown survives, and so does what comes next.
	b.mem = b.mem.PowerCutSeed(1, vfs.SectorAtomic)
	b.open()
	require.Equal(t, want.last, b.n)
	b.put(wal.Durable, 1).put(wal.Written, 1)
	b.mem = b.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	b.open()
	require.Equal(t, want.last+1, b.n)
	b.close()
}

// TestReadErrorIsNoVerdict: a disk that cannot be read has not lost anything.
func TestReadErrorIsNoVerdict(t *testing.T) {
	for k := 1; ; k++ {
		b := newBench(t, 0)
		b.open().fill(wal.Durable).put(wal.Durable, 2).kill()
		before := snapshotFiles(t, b.mem)
		in := vfs.NewInjector(b.mem)
		rule := in.Add(vfs.Rule{Call: vfs.CallRead, K: k, Err: syscall.EIO})
		o := b.options()
		o.FS = in
		_, err := wal.Inspect("db", o)
		if rule.Hits() == 0 {
			require.NoError(t, err)
			require.Greater(t, k, 4)
			return
		}
		require.ErrorIs(t, err, syscall.EIO)
		var c *wal.CorruptionError
		require.False(t, errors.As(err, &c), "%v", err)
		require.Equal(t, before, snapshotFiles(t, b.mem))
	}
}
