package frame

import (
	"bytes"
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

func TestRoundTrip(t *testing.T) {
	variants(t, func(t *testing.T, align int64, codec Codec) {
		m := newImage(testHead(FileLog, align), codec)
		link := Link{Pred: 6, Kept: 99, Hash: 77, Copies: 101, CopyEpoch: 2, PredIndex: 8192}
		var want []record
		next, durable := LSN(100), LSN(99)
		var entries []IndexEntry
		put := func(data []byte, flags Flags) {
			want = append(want, record{next, uint64(len(data)) / 2, string(data)})
			m.b.Record(next, uint64(len(data))/2, data, durable, flags)
			next++
		}
		group := func() {
			require.Zero(t, m.b.Offset()%align, "a group begins at its alignment")
			m.flush()
		}
		m.b.Link(link, durable)
		put([]byte("copied one"), FlagCopy)
		put(nil, FlagCopy)
		group()
		durable = next - 1
		m.b.Mark(next, durable, 0)
		group()
		for _, size := range []int{0, 1, 7, 8, 100, 448, 512, 4000, 4096, 65536} {
			put(compressible(size), 0)
			put(noise(size), 0)
		}
		group()
		for i := 0; i < 40; i++ { // several frames, and several a write
			put(noise(20_000), 0)
		}
		put(compressible(MaxPayload), 0)
		put(noise(3<<20), 0)
		put(compressible(5<<20), 0)
		put([]byte("behind the big ones"), 0)
		entries = append(entries, m.b.Frames()...)
		group()
		m.b.Index(next, durable, entries)
		group()
		m.b.Mark(next, next-1, FlagClose)
		group()

		frames, end := read(t, m.head, m.bytes)
		require.Equal(t, End{int64(len(m.bytes)), ""}, *end)
		var got []record
		for i, f := range frames {
			require.Zero(t, f.offset%FrameAlign)
			if i > 0 {
				require.Equal(t, frames[i-1].hash, f.Prev)
				require.Equal(t, frames[i-1].end, f.offset)
				if frames[i-1].Flags&FlagGroupEnd != 0 {
					require.Zero(t, f.offset%align)
				}
			}
			if len(f.records) > 1 {
				require.LessOrEqual(t, len(f.payload), MaxPayload)
			}
			got = append(got, f.records...)
		}
		require.Equal(t, len(want), len(got))
		for i := range want {
			require.True(t, want[i] == got[i], "record %d", i)
		}
		require.Equal(t, KindLink, frames[0].Kind)
		l, err := DecodeLink([]byte(frames[0].payload))
		require.NoError(t, err)
		require.Equal(t, link, l)
		require.NotZero(t, frames[1].Flags&FlagCopy)
		require.Zero(t, frames[3].Flags&FlagCopy)
		last := frames[len(frames)-1]
		require.Equal(t, KindMark, last.Kind)
		require.NotZero(t, last.Flags&FlagClose)
		require.Equal(t, next-1, last.Durable)
		index := frames[len(frames)-2]
		require.Equal(t, KindIndex, index.Kind)
		e, err := DecodeIndex([]byte(index.payload))
		require.NoError(t, err)
		require.Equal(t, entries, e)
		at := map[IndexEntry]bool{}
		for _, f := range frames {
			at[IndexEntry{f.First, f.offset}] = true
		}
		for _, x := range e {
			require.True(t, at[x], "an index entry names a frame")
		}
		if codec != CodecNone {
			require.Less(t, len(m.bytes), 5<<20, "what compresses is compressed")
		}
	})
}

// TestBytesAreAligned: direct writes need memory at a multiple of the block, at
// every growth of the buffer.
func TestBytesAreAligned(t *testing.T) {
	m := newImage(testHead(FileLog, BlockAlign), CodecNone)
	m.b.Link(Link{}, 0)
	for i := range 12 {
		m.b.Record(LSN(i+1), 0, noise(1<<(2*i)), 0, 0)
		b := m.b.Bytes()
		require.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(b)))%BlockAlign)
		require.Zero(t, len(b)%BlockAlign)
		require.Zero(t, m.b.Offset()%BlockAlign)
		m.flush()
	}
}

// TestGroupSize: what the log reserves for a group is never less than the group.
func TestGroupSize(t *testing.T) {
	variants(t, func(t *testing.T, align int64, codec Codec) {
		for _, sizes := range [][]int{{0}, {1}, {0, 0, 0}, {262_000, 262_000}, {131_000, 131_000, 131_000, 131_000}, {5 << 20}, {100, 300_000, 100, 300_000}} {
			m := newImage(testHead(FileLog, align), codec)
			m.b.Link(Link{}, 0)
			m.flush()
			records := int64(0)
			for i, n := range sizes {
				m.b.Record(LSN(i+1), 1<<63, noise(n), 0, 0)
				records += RecordSize(n)
			}
			require.LessOrEqual(t, int64(len(m.b.Bytes())), GroupSize(records, align), "%v", sizes)
		}
	})
}

// TestManySmallRecords: frames are closed at their limit, and a change of flags
// closes one too.
func TestManySmallRecords(t *testing.T) {
	m := newImage(testHead(FileLog, FrameAlign), CodecNone)
	m.b.Link(Link{Copies: 10_000}, 0)
	for i := LSN(1); i <= 20_000; i++ {
		flags := Flags(0)
		if i <= 10_000 {
			flags = FlagCopy
		}
		m.b.Record(i, 0, fmt.Append(nil, "record ", i, " and some words to make it longer"), 0, flags)
	}
	m.flush()
	frames, _ := read(t, m.head, m.bytes)
	n := LSN(0)
	for _, f := range frames[1:] {
		require.LessOrEqual(t, len(f.payload), MaxPayload)
		for _, r := range f.records {
			n++
			require.Equal(t, n, r.lsn)
			require.Equal(t, n <= 10_000, f.Flags&FlagCopy != 0)
		}
	}
	require.Equal(t, LSN(20_000), n)
}

// TestEditFilesBeginAtOne: a manifest's and a catalog's first record is 1, and
// they have no link.
func TestEditFilesBeginAtOne(t *testing.T) {
	for _, kind := range []FileKind{FileManifest, FileCatalog} {
		m := newImage(testHead(kind, BlockAlign), CodecNone)
		m.b.Record(1, 0, []byte("snapshot"), 0, 0)
		m.flush()
		frames, end := read(t, m.head, m.bytes)
		require.Len(t, frames, 1)
		require.Empty(t, end.Reason)

		m = newImage(testHead(kind, BlockAlign), CodecNone)
		m.b.Record(2, 0, []byte("no snapshot"), 0, 0)
		m.flush()
		frames, end = read(t, m.head, m.bytes)
		require.Empty(t, frames)
		require.Contains(t, end.Reason, "LSN 2 where 1 is due")
	}
}

// TestOrderIsVerified: frames that are each intact and do not belong there.
func TestOrderIsVerified(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		build        func(b *Builder)
	}{
		{"no link", "link frame out of place", func(b *Builder) { b.Record(1, 0, nil, 0, 0) }},
		{"two links", "link frame out of place", func(b *Builder) { b.Link(Link{}, 0); b.Link(Link{}, 0) }},
		{"LSN above the link", "LSN 2 where 1 is due", func(b *Builder) { b.Link(Link{}, 0); b.Record(2, 0, nil, 0, 0) }},
		{"LSN below the link", "LSN 1 where 2 is due", func(b *Builder) { b.Link(Link{Kept: 1, Copies: 1}, 0); b.Record(1, 0, nil, 0, 0) }},
		{"mark of another LSN", "LSN 9 where 1 is due", func(b *Builder) { b.Link(Link{}, 0); b.Mark(9, 0, 0) }},
		{"a chain that begins before the file", "chain to the frame before is broken", func(b *Builder) { b.prev = 5; b.Link(Link{}, 0) }},
		{"a chain with a hole", "chain to the frame before is broken", func(b *Builder) { b.Link(Link{}, 0); b.prev++; b.Record(1, 0, nil, 0, 0) }},
		{"a copied link with impossible numbers", "link with impossible numbers", func(b *Builder) { b.Link(Link{Kept: 4, Copies: 3}, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newImage(testHead(FileLog, FrameAlign), CodecNone)
			c.build(&m.b)
			m.flush()
			_, end := read(t, m.head, m.bytes)
			require.Equal(t, c.reason, end.Reason)
		})
	}
}

// TestForeignBytes: frames that were intact elsewhere verify nowhere else.
func TestForeignBytes(t *testing.T) {
	m := smallImage(FrameAlign, CodecNone)
	for name, change := range map[string]func(h *FileHeader){
		"another store":  func(h *FileHeader) { h.Store[3]++ },
		"another number": func(h *FileHeader) { h.Number++ },
		"another salt":   func(h *FileHeader) { h.Salt++ },
		"another epoch":  func(h *FileHeader) { h.Epoch++ },
	} {
		t.Run(name, func(t *testing.T) {
			h := m.head
			change(&h)
			frames, end := read(t, h, m.bytes)
			require.Empty(t, frames)
			require.NotEmpty(t, end.Reason)
			h.Compat = CompatRecycled
			frames, end = read(t, h, m.bytes)
			require.Empty(t, frames)
			require.Empty(t, end.Reason, "stale bytes of a recycled file are no damage")
			p, err := Search(bytes.NewReader(m.bytes), int64(len(m.bytes)), &h, 0, nil)
			require.NoError(t, err)
			require.False(t, p.Any)
		})
	}
	t.Run("another offset", func(t *testing.T) {
		start := m.head.Start()
		moved := append(append(bytes.Clone(m.bytes[:start]), make([]byte, 8)...), m.bytes[start:]...)
		r := NewReader(bytes.NewReader(moved), int64(len(moved)), m.head)
		r.SeekTo(start + 8)
		_, end, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, "header hash does not match", end.Reason)
		p, err := Search(bytes.NewReader(moved), int64(len(moved)), &m.head, 0, nil)
		require.NoError(t, err)
		require.False(t, p.Any)
	})
}

// TestGrowingFile: a reader that met the end goes on once more is there.
func TestGrowingFile(t *testing.T) {
	m := newImage(testHead(FileLog, FrameAlign), CodecNone)
	m.b.Link(Link{}, 0)
	file := make([]byte, 64<<10) // preallocated
	copy(file, m.bytes)
	r := NewReader(bytes.NewReader(file), int64(len(file)), m.head)
	_, end, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, End{m.head.Start(), ""}, *end)
	for lsn := LSN(1); lsn <= 100; lsn++ {
		m.b.Record(lsn, 0, fmt.Append(nil, "record ", lsn), lsn-1, 0)
		copy(file[m.b.Offset():], m.b.Bytes())
		m.b.Advance()
		r.Limit(int64(len(file)))
		frames, end := readAll(t, r)
		require.Empty(t, end.Reason)
		last := frames[len(frames)-1]
		require.Equal(t, []record{{lsn, 0, fmt.Sprint("record ", lsn)}}, last.records)
	}
}

// TestSeekTo: the index leads into the middle of a file.
func TestSeekTo(t *testing.T) {
	m := newImage(testHead(FileLog, BlockAlign), CodecS2)
	m.b.Link(Link{}, 0)
	var at []IndexEntry
	for lsn := LSN(1); lsn <= 50; lsn++ {
		m.b.Record(lsn, 0, noise(int(lsn)*100), 0, 0)
		m.b.CloseFrame(true)
		at = append(at, m.b.Frames()[len(m.b.Frames())-1])
	}
	m.flush()
	r := NewReader(bytes.NewReader(m.bytes), int64(len(m.bytes)), m.head)
	for i := len(at) - 1; i >= 0; i-- {
		r.SeekTo(at[i].Offset)
		frames, _ := readAll(t, r)
		require.Len(t, frames, len(at)-i)
		require.Equal(t, at[i].LSN, frames[0].First)
	}
}
