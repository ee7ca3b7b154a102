package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// sameFrames says whether got are the first of want, bytes and all.
func sameFrames(want, got []kept) bool {
	if len(got) > len(want) {
		return false
	}
	for i, g := range got {
		w := want[i]
		if g.Header != w.Header || g.offset != w.offset || g.end != w.end || g.hash != w.hash || g.payload != w.payload {
			return false
		}
	}
	return true
}

// TestEveryBit flips every single bit of a file, padding and the zeros behind
// the last frame included: the reader yields whole, unchanged frames and stops
// at or before the damage.
func TestEveryBit(t *testing.T) {
	variants(t, func(t *testing.T, align int64, codec Codec) {
		if align == BlockAlign && codec == CodecS2 {
			return // no other layout than with zstd
		}
		m := smallImage(align, codec)
		m.bytes = append(m.bytes, make([]byte, 128)...)
		want, _ := read(t, m.head, m.bytes)
		require.Len(t, want, 6)
		r := &Reader{}
		src := bytes.NewReader(nil)
		step := 1
		if align == BlockAlign {
			step = 11 // every bit of the frames, one in eleven of the long padding
		}
		dense := func(i int) bool {
			for _, f := range want {
				if int64(i) >= f.offset && int64(i) < f.offset+FrameOverhead+int64(f.Stored) {
					return true
				}
			}
			return i < HeaderSize
		}
		for i := 0; i < len(m.bytes); i++ {
			for bit := 0; bit < 8; bit++ {
				if !dense(i) && (i*8+bit)%step != 0 {
					continue
				}
				m.bytes[i] ^= 1 << bit
				head, err := DecodeFileHeader(m.bytes)
				if i < HeaderSize {
					if err == nil {
						t.Fatalf("bit %d of byte %d of the header: not noticed", bit, i)
					}
				} else {
					src.Reset(m.bytes)
					r.Reset(src, int64(len(m.bytes)), head)
					n := 0
					for {
						fr, end, err := r.Next()
						if err != nil {
							t.Fatal(err)
						}
						if end != nil {
							if int64(i) >= head.Start() && end.Offset > int64(i) {
								t.Fatalf("bit %d of byte %d: read on to %d", bit, i, end.Offset)
							}
							break
						}
						w := want[n]
						if fr.Header != w.Header || fr.Hash != w.hash || string(fr.Payload) != w.payload || fr.End != w.end {
							t.Fatalf("bit %d of byte %d: frame %d is another", bit, i, n)
						}
						n++
					}
				}
				m.bytes[i] ^= 1 << bit
			}
		}
	})
}

// TestEveryTruncation cuts a file at every byte: frames are whole or absent.
func TestEveryTruncation(t *testing.T) {
	variants(t, func(t *testing.T, align int64, codec Codec) {
		m := smallImage(align, codec)
		want, _ := read(t, m.head, m.bytes)
		for cut := range m.bytes {
			if align == BlockAlign && cut%7 != 0 && cut%512 > 200 {
				continue // long padding
			}
			if cut < HeaderSize {
				_, err := DecodeFileHeader(m.bytes[:cut])
				require.ErrorIs(t, err, ErrNoHeader)
				continue
			}
			got, end := read(t, m.head, m.bytes[:cut])
			if !sameFrames(want, got) {
				t.Fatalf("cut at %d: other frames", cut)
			}
			n := 0
			for n < len(want) && want[n].end <= int64(cut) {
				n++
			}
			if n != len(got) {
				t.Fatalf("cut at %d: %d frames, %d are there", cut, len(got), n)
			}
			if n < len(want) && want[n].offset+FrameOverhead <= int64(cut) && end.Reason == "" {
				t.Fatalf("cut at %d: a frame in part is called nothing", cut)
			}
		}
	})
}

// sparse is a file of zeros with a few bytes in it.
type sparse struct {
	size int64
	at   int64
	b    []byte
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), s.size-off))
	clear(p[:n])
	for i, c := range s.b {
		if k := s.at + int64(i) - off; k >= 0 && k < int64(n) {
			p[k] = c
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestSearchFindsHeaders: a frame header is found at every offset, those
// included that lie across the windows in which the file is read.
func TestSearchFindsHeaders(t *testing.T) {
	head := testHead(FileLog, FrameAlign)
	bind := head.Bind()
	for _, from := range []int64{512, 1001} {
		s := &sparse{size: from + 2*readWindow + 1000}
		var places []int64
		around := func(at int64) {
			for d := int64(-FrameHeaderSize - 2); d <= FrameHeaderSize+2; d++ {
				if p := from + at + d; p >= from && p+FrameHeaderSize <= s.size {
					places = append(places, p)
				}
			}
		}
		step := int64(readWindow - FrameHeaderSize + 1)
		for _, at := range []int64{0, readWindow, step, 2 * step, s.size - from} {
			around(at)
		}
		buf := make([]byte, 0)
		for i, at := range places {
			h := Header{Kind: KindData, Count: 1, Raw: 9, Stored: 9, First: 5, Durable: 4}
			if i%2 == 1 {
				h = Header{Kind: KindMark, First: 5, Durable: 4}
			}
			s.at, s.b = at, make([]byte, FrameHeaderSize)
			h.encode(s.b, bind, at)
			p, err := Search(s, s.size, &head, from, buf)
			require.NoError(t, err)
			// Behind its last byte that is not zero, a header may have zeros.
			used := at + int64(lastNonZero(s.b)) + 1 - from
			want := Proof{Durable: 4, Offset: at, Any: true, LastAt: at, Used: used}
			if h.Kind == KindMark {
				want.Mark, want.MarkAt = true, at
			}
			if p != want {
				t.Fatalf("from %d, header at %d: %+v, want %+v", from, at, p, want)
			}
			if at > from {
				p, err = Search(s, at+FrameHeaderSize-1, &head, from, buf)
				require.NoError(t, err)
				require.False(t, p.Any, "a header in part")
			}
		}
	}
}

// TestSearchAmongTags: a file full of the prefilter's bytes costs time alone.
func TestSearchAmongTags(t *testing.T) {
	head := testHead(FileLog, FrameAlign)
	bind := head.Bind()
	var tag [FrameHeaderSize]byte
	h := Header{Kind: KindMark, First: 9, Durable: 8}
	h.encode(tag[:], bind, 0)
	b := bytes.Repeat(tag[:4], 300<<10/4)
	at := int64(readWindow - 20)
	h.encode(b[at:], bind, at)
	p, err := Search(bytes.NewReader(b), int64(len(b)), &head, 0, nil)
	require.NoError(t, err)
	require.Equal(t, Proof{Durable: 8, Offset: at, Any: true, LastAt: at, Mark: true, MarkAt: at, Used: int64(len(b))}, p)
}

// TestSearchTakesTheHighest: of several proofs the highest durable LSN counts,
// wherever it lies.
func TestSearchTakesTheHighest(t *testing.T) {
	m := smallImage(FrameAlign, CodecNone)
	p, err := Search(bytes.NewReader(m.bytes), int64(len(m.bytes)), &m.head, m.head.Start(), nil)
	require.NoError(t, err)
	require.Equal(t, LSN(14), p.Durable)
	require.True(t, p.Mark)
	p, err = Search(bytes.NewReader(m.bytes), 100, &m.head, 200, nil)
	require.NoError(t, err)
	require.Equal(t, Proof{}, p)
}

// failing is a file whose reads fail behind an offset.
type failing struct {
	b   []byte
	off int64
	err error
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.off {
		return 0, f.err
	}
	return copy(p, f.b[off:]), nil
}

// TestReadErrorIsNoEnd: an error of the file below is told, never taken for the
// end of the frames.
func TestReadErrorIsNoEnd(t *testing.T) {
	boom := errors.New("boom")
	m := smallImage(FrameAlign, CodecNone)
	for _, err := range []error{boom, io.EOF, nil} {
		want := err
		if want != boom {
			want = io.ErrUnexpectedEOF // the file is shorter than it said
		}
		f := &failing{m.bytes, m.head.Start(), err}
		_, _, got := NewReader(f, int64(len(m.bytes)), m.head).Next()
		require.ErrorIs(t, got, want)
		_, got = Search(f, int64(len(m.bytes)), &m.head, 0, nil)
		require.ErrorIs(t, got, want)
	}
}

func TestZeroHelpers(t *testing.T) {
	for _, n := range []int{0, 1, 7, 4095, 4096, 4097, 8192, 10_000} {
		b := make([]byte, n)
		require.True(t, allZero(b))
		require.Equal(t, -1, lastNonZero(b))
		for i := 0; i < n; i += max(1, n/97) {
			b[i] = 1
			require.False(t, allZero(b))
			require.Equal(t, i, lastNonZero(b))
			b[i] = 0
		}
	}
}

func TestFileHeader(t *testing.T) {
	for _, align := range []int64{FrameAlign, BlockAlign} {
		h := testHead(FileLog, align)
		h.Compat = CompatRecycled | 1<<30
		b := h.Encode()
		require.Len(t, b, int(h.Start()))
		got, err := DecodeFileHeader(b)
		require.NoError(t, err)
		require.Equal(t, h, got)
		require.True(t, got.Recycled())
		_, err = DecodeFileHeader(b[:HeaderSize-1])
		require.ErrorIs(t, err, ErrNoHeader)
	}
	for name, change := range map[string]func(b []byte){
		"a newer version":    func(b []byte) { b[8] = 2 },
		"a required feature": func(b []byte) { b[15] = 0x80 },
		"another alignment":  func(b []byte) { b[11] = 13 },
	} {
		h := testHead(FileLog, FrameAlign)
		b := h.Encode()
		change(b)
		_, err := DecodeFileHeader(b)
		require.ErrorIs(t, err, ErrNoHeader, "%s, damaged", name)
		resealHeader(b)
		_, err = DecodeFileHeader(b)
		require.ErrorIs(t, err, ErrUnsupported, name)
	}
}

// TestLimitsOfHeaders: what no builder makes is refused, checksums or not.
func TestLimitsOfHeaders(t *testing.T) {
	head := testHead(FileLog, FrameAlign)
	bind := head.Bind()
	ok := Header{Kind: KindData, Count: 2, Raw: 9, Stored: 9, First: 5, Durable: 4}
	for name, c := range map[string]struct {
		reason string
		change func(h *Header)
	}{
		"intact":                   {"", func(h *Header) {}},
		"kind":                     {"unknown frame kind", func(h *Header) { h.Kind = 5 }},
		"kind zero":                {"unknown frame kind", func(h *Header) { h.Kind = 0 }},
		"no records":               {"data frame without records", func(h *Header) { h.Count = 0 }},
		"long":                     {"payload longer than the limit", func(h *Header) { h.Raw, h.Stored = MaxPayload+1, MaxPayload+1 }},
		"longest":                  {"", func(h *Header) { h.Raw, h.Stored = MaxPayload, MaxPayload }},
		"one long record":          {"", func(h *Header) { h.Count, h.Raw, h.Stored = 1, MaxBigPayload, MaxBigPayload }},
		"one record too long":      {"payload longer than the limit", func(h *Header) { h.Count, h.Raw, h.Stored = 1, MaxBigPayload+1, MaxBigPayload+1 }},
		"a bomb":                   {"payload longer than the limit", func(h *Header) { h.Flags, h.Raw = 1, MaxPayload+1 }},
		"lengths":                  {"lengths differ without compression", func(h *Header) { h.Raw++ }},
		"codec 3":                  {"unknown frame flags", func(h *Header) { h.Flags = 3 }},
		"flag":                     {"unknown frame flags", func(h *Header) { h.Flags = 1 << 5 }},
		"LSN zero":                 {"LSN out of range", func(h *Header) { h.First = 0 }},
		"LSN wraps":                {"LSN out of range", func(h *Header) { h.First = math.MaxUint64 - 1 }},
		"link with records":        {"link of a wrong size", func(h *Header) { h.Kind, h.Raw, h.Stored = KindLink, LinkSize, LinkSize }},
		"short link":               {"link of a wrong size", func(h *Header) { h.Kind, h.Count = KindLink, 0 }},
		"mark with a payload":      {"mark with a payload", func(h *Header) { h.Kind, h.Count = KindMark, 0 }},
		"index with records":       {"index with records", func(h *Header) { h.Kind = KindIndex }},
		"a compressed index":       {"unknown frame flags", func(h *Header) { h.Kind, h.Count, h.Flags = KindIndex, 0, 1 }},
		"a compressed link":        {"unknown frame flags", func(h *Header) { h.Kind, h.Count, h.Raw, h.Flags = KindLink, 0, LinkSize, 2 }},
		"close mark, and a record": {"unknown frame flags", func(h *Header) { h.Flags = FlagClose }},
	} {
		t.Run(name, func(t *testing.T) {
			h := ok
			c.change(&h)
			var b [FrameHeaderSize]byte
			h.encode(b[:], bind, 512)
			_, _, reason := decodeHeader(b[:], bind, 512)
			require.Equal(t, c.reason, reason)
		})
	}
	var b [FrameHeaderSize]byte
	for _, i := range []int{6, 7, 20, 21, 22, 23} {
		ok.encode(b[:], bind, 512)
		b[i] = 1
		_, _, reason := decodeHeader(b[:], bind, 512)
		require.Equal(t, "header hash does not match", reason)
		binary.LittleEndian.PutUint64(b[48:], headerHash(b[:], bind, 512))
		_, _, reason = decodeHeader(b[:], bind, 512)
		require.Equal(t, "reserved bytes are not zero", reason)
	}
}
