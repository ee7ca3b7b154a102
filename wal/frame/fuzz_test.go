package frame

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
)

func resealHeader(b []byte) {
	binary.LittleEndian.PutUint64(b[headerChecksum:], xxhash.Sum64(b[:headerChecksum]))
}

func FuzzFileHeader(f *testing.F) {
	for _, align := range []int64{FrameAlign, BlockAlign} {
		h := testHead(FileLog, align)
		f.Add(h.Encode()[:HeaderSize], false)
		f.Add(h.Encode()[:HeaderSize], true)
	}
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, b []byte, repair bool) {
		if repair && len(b) >= HeaderSize {
			b = slices.Clone(b)
			copy(b, magic)
			resealHeader(b)
		}
		h, err := DecodeFileHeader(b)
		if err != nil {
			return
		}
		again, err := DecodeFileHeader(h.Encode())
		if err != nil || again != h {
			t.Fatalf("%+v was read back as %+v, %v", h, again, err)
		}
		if h.Bind().Tag() == 0 {
			t.Fatal("a tag of zero")
		}
	})
}

// walkFile reads a file as a scan does, and checks what holds of any bytes.
func walkFile(t *testing.T, head FileHeader, b []byte) {
	size := int64(len(b))
	src := bytes.NewReader(b)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := NewReader(src, size, head)
	off, next := r.Offset(), LSN(0)
	for {
		fr, end, err := r.Next()
		if err != nil {
			t.Fatalf("an error of the file, which has none: %v", err)
		}
		if end != nil {
			if end.Offset != off {
				t.Fatalf("the end is at %d, the last frame ended at %d", end.Offset, off)
			}
			break
		}
		if fr.Offset != off || fr.End < off+FrameOverhead || fr.End > size || fr.End%FrameAlign != 0 {
			t.Fatalf("frame from %d to %d, due at %d, in %d bytes", fr.Offset, fr.End, off, size)
		}
		if next != 0 && fr.First != next {
			t.Fatalf("LSN %d where %d is due", fr.First, next)
		}
		if len(fr.Payload) != int(fr.Raw) {
			t.Fatalf("payload of %d bytes, the header says %d", len(fr.Payload), fr.Raw)
		}
		if fr.Kind == KindData {
			n := fr.First
			err := fr.EachRecord(func(lsn LSN, _ uint64, rec []byte) error {
				if lsn != n || len(rec) > len(fr.Payload) {
					t.Fatalf("record %d where %d is due", lsn, n)
				}
				n++
				return nil
			})
			if err != nil || n != fr.Next() {
				t.Fatalf("records of a verified frame: %v", err)
			}
		}
		off, next = fr.End, fr.Next()
	}
	p, err := Search(src, size, &head, min(off, size), nil)
	if err != nil || p.Used < 0 || p.Used > size {
		t.Fatalf("search: %+v, %v", p, err)
	}
	runtime.ReadMemStats(&after)
	// One frame decompressed, one window, and what an index decodes to; the
	// fuzzing engine allocates beside it.
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(MaxBigPayload+64*size+8<<20); got > limit {
		t.Fatalf("%d bytes allocated for a file of %d", got, size)
	}
}

func FuzzReader(f *testing.F) {
	for _, codec := range []Codec{CodecNone, CodecS2, CodecZstd} {
		b := smallImage(FrameAlign, codec).bytes
		f.Add(b)
		f.Add(b[:len(b)-9])
	}
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		head, err := DecodeFileHeader(b)
		if err != nil {
			head = testHead(FileLog, FrameAlign)
		}
		walkFile(t, head, b)
		head.Compat ^= CompatRecycled
		head.Kind = FileManifest
		walkFile(t, head, b)
	})
}

// FuzzReaderResealed changes an intact file and makes its checksums right
// again: what an adversary does, and what a checksum cannot help against.
func FuzzReaderResealed(f *testing.F) {
	patch := func(at uint16, bytes ...byte) []byte {
		var p []byte
		for i, b := range bytes {
			p = append(p, byte((at+uint16(i))>>8), byte(at+uint16(i)), b)
		}
		return p
	}
	f.Add(byte(0), patch(520, 0xff, 0xff), uint16(0))
	f.Add(byte(1), patch(516, 2, 1), uint16(7))
	f.Add(byte(2), patch(524, 0, 0, 0, 4), uint16(0))   // raw length
	f.Add(byte(3), patch(4096+56+48+8+8, 9), uint16(0)) // behind the link
	f.Add(byte(4), patch(533, 0x10), uint16(100))
	f.Add(byte(5), patch(4096+5, 0x1f), uint16(4000))
	f.Fuzz(func(t *testing.T, which byte, patches []byte, grow uint16) {
		m := smallImage([]int64{FrameAlign, BlockAlign}[which/3%2], Codec(which%3))
		b := append(m.bytes, make([]byte, grow)...)
		for ; len(patches) >= 3; patches = patches[3:] {
			at := int(patches[0])<<8 | int(patches[1])
			if start := int(m.head.Start()); at >= start && at < len(b) {
				b[at] ^= patches[2]
			}
		}
		reseal(&m.head, b)
		walkFile(t, m.head, b)
	})
}

func FuzzLink(f *testing.F) {
	f.Add(make([]byte, LinkSize))
	f.Add([]byte(nil))
	f.Add(bytes.Repeat([]byte{0xff}, LinkSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLink(b)
		if err != nil {
			return
		}
		var again [LinkSize]byte
		l.encode(again[:])
		if !bytes.Equal(b, again[:]) {
			t.Fatalf("%x was written back as %x", b, again)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add(AppendIndex(nil, []IndexEntry{{1, 512}, {900, 66_000}, {901, 140_000}}))
	f.Add([]byte{0x80})
	f.Add(bytes.Repeat([]byte{0xff}, 20))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeIndex(b)
		if err != nil {
			return
		}
		if len(e) > len(b)/2 {
			t.Fatalf("%d entries of %d bytes", len(e), len(b))
		}
		for i := 1; i < len(e); i++ {
			if e[i].LSN < e[i-1].LSN || e[i].Offset < e[i-1].Offset {
				t.Fatal("entries do not ascend")
			}
		}
		again, err := DecodeIndex(AppendIndex(nil, e))
		if err != nil || !slices.Equal(e, again) {
			t.Fatalf("%v was read back as %v, %v", e, again, err)
		}
	})
}
