package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// layoutFile builds a small file of each kind of frame, with zeros behind.
func layoutFile(t testing.TB, align int64, codec Codec, compat uint32) ([]byte, FileHeader) {
	head := FileHeader{Kind: FileLog, Align: align, Number: 7, Salt: 0x1122334455667788, Epoch: 2, Compat: compat}
	copy(head.Store[:], "a store's own id")
	out := head.Encode()
	var b Builder
	b.Reset(&head, codec, head.Start(), 0)
	b.Link(Link{Pred: 6, Kept: 40, Hash: 99, Copies: 41, CopyEpoch: 1, PredIndex: 4096}, 40)
	b.Record(41, 3, []byte("copied"), 40, FlagCopy)
	b.Record(42, 0, []byte(strings.Repeat("record forty-two ", 20)), 40, 0)
	b.Record(43, 0, nil, 40, 0)
	out = append(out, b.Bytes()...)
	b.Advance()
	b.Record(44, 0, []byte("a second group"), 43, 0)
	b.Mark(45, 44, 0)
	b.Index(45, 44, []IndexEntry{{41, 600}, {42, 700}})
	b.Mark(45, 44, FlagClose)
	out = append(out, b.Bytes()...)
	require.Zero(t, len(out)%int(align))
	return append(out, make([]byte, 3000)...), head
}

// tiled checks that fields cover a file, each byte once and in order.
func tiled(t testing.TB, size int, fields []Field) {
	at := int64(0)
	for _, f := range fields {
		require.Equal(t, at, f.Offset, f.Name)
		require.Positive(t, f.Len, f.Name)
		require.NotEmpty(t, f.Name)
		require.Equal(t, f.OK, f.Reason == "")
		at += f.Len
	}
	require.Equal(t, int64(size), at)
}

// walk returns where a Reader says that the frames end.
func walk(t testing.TB, b []byte, head FileHeader) (int, End) {
	r := NewReader(bytes.NewReader(b), int64(len(b)), head)
	for n := 0; ; n++ {
		_, end, err := r.Next()
		require.NoError(t, err)
		if end != nil {
			return n, *end
		}
	}
}

func layoutOf(t testing.TB, b []byte) ([]Field, Walked) {
	var fields []Field
	w, err := Layout(bytes.NewReader(b), int64(len(b)), func(f Field) error {
		fields = append(fields, f)
		return nil
	})
	require.NoError(t, err)
	tiled(t, len(b), fields)
	return fields, w
}

func bad(fields []Field) (names []string) {
	for _, f := range fields {
		if !f.OK {
			names = append(names, f.Name)
		}
	}
	return names
}

func TestLayoutOfAnIntactFile(t *testing.T) {
	for _, align := range []int64{FrameAlign, BlockAlign} {
		for _, codec := range []Codec{CodecNone, CodecS2, CodecZstd} {
			b, head := layoutFile(t, align, codec, 0)
			fields, w := layoutOf(t, b)
			require.Empty(t, bad(fields))
			require.True(t, w.HeadOK)
			require.Equal(t, head, w.Head)
			require.Equal(t, LSN(45), w.Next)
			n, end := walk(t, b, head)
			require.Equal(t, end, w.End)
			frames, records := map[int64]bool{}, []LSN{}
			for _, f := range fields {
				if f.Part == PartFrame {
					frames[f.Frame] = true
				}
				if f.Name == FieldRecord {
					records = append(records, f.LSN)
				}
			}
			require.Len(t, frames, n)
			if codec == CodecNone {
				require.Equal(t, []LSN{41, 42, 44}, records) // 43 has no bytes
			}
		}
	}
}

// TestLayoutNamesTheFlippedBit flips bits all over a file: the field that holds it
// is named, and nothing before it.
func TestLayoutNamesTheFlippedBit(t *testing.T) {
	for _, align := range []int64{FrameAlign, BlockAlign} {
		b, head := layoutFile(t, align, CodecS2, 0)
		good := Fields(b)
		step := 11 // prime to 8, so that every bit of a byte has its turn
		if align == BlockAlign {
			step = 151
		}
		for bit := 0; bit < len(b)*8; bit += step {
			at := int64(bit / 8)
			b[at] ^= 1 << (bit % 8)
			fields, w := layoutOf(t, b)
			i := slices.IndexFunc(fields, func(f Field) bool { return f.Offset <= at && at < f.Offset+f.Len })
			require.False(t, fields[i].OK, "bit %d of byte %d, in %s", bit%8, at, fields[i].Name)
			if at < HeaderSize {
				require.False(t, w.HeadOK)
				require.True(t, w.Bound, "a header with one flipped bit can still be read")
			} else {
				_, end := walk(t, b, head)
				require.Equal(t, end, w.End)
				for j := range fields[:i] {
					require.Equal(t, good[j].Name, fields[j].Name)
					require.True(t, fields[j].OK || fields[j].Frame == fields[i].Frame)
				}
			}
			b[at] ^= 1 << (bit % 8)
		}
	}
}

// TestLayoutOfACutFile cuts a file at every byte.
func TestLayoutOfACutFile(t *testing.T) {
	whole, head := layoutFile(t, FrameAlign, CodecNone, 0)
	for n := range whole {
		fields, w := layoutOf(t, whole[:n])
		require.Equal(t, n >= HeaderSize, w.HeadOK)
		if n < HeaderSize {
			continue
		}
		_, end := walk(t, whole[:n], head)
		require.Equal(t, end, w.End)
		require.Equal(t, end.Reason == "" && end.Offset == int64(n) || allZero(whole[end.Offset:n]), len(bad(fields)) == 0, "cut at %d", n)
	}
}

// TestLayoutFindsStrandedFrames zeroes a frame in the middle.
func TestLayoutFindsStrandedFrames(t *testing.T) {
	b, head := layoutFile(t, FrameAlign, CodecNone, 0)
	var offsets []int64
	for _, f := range Fields(b) {
		if f.Part == PartFrame && (len(offsets) == 0 || offsets[len(offsets)-1] != f.Frame) {
			offsets = append(offsets, f.Frame)
		}
	}
	clear(b[offsets[2]:offsets[3]])
	fields, w := layoutOf(t, b)
	require.Equal(t, End{Offset: offsets[2]}, w.End)
	require.Equal(t, LSN(42), w.Next)
	var stranded []int64
	for _, f := range fields {
		if f.Part == PartStranded && f.Name == "tag" {
			stranded = append(stranded, f.Frame)
		}
	}
	require.Equal(t, offsets[3:], stranded)
	p, err := Search(bytes.NewReader(b), int64(len(b)), &head, w.End.Offset, nil)
	require.NoError(t, err)
	require.Equal(t, LSN(44), p.Durable)
}

// TestLayoutOfStaleBytes: behind the frames of a recycled file anything may lie.
func TestLayoutOfStaleBytes(t *testing.T) {
	b, _ := layoutFile(t, FrameAlign, CodecNone, CompatRecycled)
	for i := len(b) - 2000; i < len(b)-500; i++ {
		b[i] = byte(i)
	}
	fields, w := layoutOf(t, b)
	require.Empty(t, bad(fields))
	require.Empty(t, w.End.Reason)
}

// TestLayoutOfGarbage: whatever the bytes are, they are tiled, and the frames
// end where a Reader says.
func TestLayoutOfGarbage(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		b := garbage(t, rng, i)
		fields, w := layoutOf(t, b)
		if !w.HeadOK {
			continue
		}
		_, end := walk(t, b, w.Head)
		require.Equal(t, end, w.End)
		require.NotEmpty(t, fields)
	}
}

// garbage damages a file in ways of its own, or makes one up.
func garbage(t testing.TB, rng *rand.Rand, i int) []byte {
	align := int64(FrameAlign)
	if i%3 == 0 {
		align = BlockAlign
	}
	b, _ := layoutFile(t, align, Codec(i%3), uint32(i%2))
	switch i % 4 {
	case 0:
		b = b[:rng.IntN(len(b))]
		for range rng.IntN(600) {
			b = append(b, byte(rng.Uint32()))
		}
	case 1:
		for range 1 + rng.IntN(20) {
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		}
	case 2:
		from, n := rng.IntN(len(b)), rng.IntN(600)
		copy(b[rng.IntN(len(b)):], bytes.Clone(b[from:min(from+n, len(b))]))
	default:
		b = b[:HeaderSize+rng.IntN(len(b)-HeaderSize)]
	}
	return b
}

func FuzzLayout(f *testing.F) {
	for i := range 8 {
		f.Add(garbage(f, rand.New(rand.NewPCG(3, uint64(i))), i))
	}
	f.Fuzz(func(t *testing.T, b []byte) { layoutOf(t, b) })
}

// brokenAt is a file of which bytes from an offset on cannot be read.
type brokenAt struct {
	b   []byte
	off int64
}

var errBroken = errors.New("broken")

func (f brokenAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.off {
		return 0, errBroken
	}
	return copy(p, f.b[off:]), nil
}

// TestLayoutOfAFileThatCannotBeRead: what cannot be read is an error, wherever it
// lies, and fields end there.
func TestLayoutOfAFileThatCannotBeRead(t *testing.T) {
	b, _ := layoutFile(t, FrameAlign, CodecNone, 0)
	b = append(b, make([]byte, 3*readWindow)...) // several windows
	copy(b[len(b)-100:], "loose")
	for _, off := range []int64{0, 100, HeaderSize, HeaderSize + 40, readWindow, readWindow + 5, 2 * readWindow, int64(len(b)) - 1} {
		end := int64(0)
		_, err := Layout(brokenAt{b, off}, int64(len(b)), func(f Field) error {
			end = f.Offset + f.Len
			return nil
		})
		require.ErrorIs(t, err, errBroken, "at %d", off)
		require.LessOrEqual(t, end, int64(len(b)))
	}
	_, err := Layout(brokenAt{b, int64(len(b))}, int64(len(b)), func(Field) error { return nil })
	require.NoError(t, err)
	// A long frame, of which the header can be read and the rest cannot.
	head := testHead(FileLog, FrameAlign)
	var fb Builder
	fb.Reset(&head, CodecNone, head.Start(), 0)
	fb.Link(Link{}, 0)
	fb.Record(1, 0, noise(3*readWindow), 0, 0)
	long := append(head.Encode(), fb.Bytes()...)
	for _, off := range []int64{HeaderSize + 60, readWindow + 1, int64(len(long)) - 1} {
		r := NewReader(brokenAt{long, off}, int64(len(long)), head)
		var err error
		for err == nil {
			var end *End
			_, end, err = r.Next()
			require.Nil(t, end, "a read that fails is no end")
		}
		require.ErrorIs(t, err, errBroken)
	}
}

// TestLayoutOfResealedDamage changes a field and makes the checksums right again:
// the field that breaks the rule is named, as the reader says it.
func TestLayoutOfResealedDamage(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		reason string
		codec  Codec
		kind   Kind // of the frame that is changed
		change func(h []byte)
	}{
		"kind":              {"link frame out of place", CodecNone, KindMark, func(h []byte) { h[4], h[5] = byte(KindLink), 0 }},
		"no link":           {"link frame out of place", CodecNone, KindLink, func(h []byte) { h[4] = byte(KindIndex) }},
		"stored length":     {"payload longer than the limit", CodecNone, KindData, func(h []byte) { le.PutUint32(h[8:], MaxBigPayload+1); le.PutUint32(h[12:], MaxBigPayload+1) }},
		"payload, zstd":     {"payload does not decompress", CodecZstd, KindData, func(h []byte) { h[FrameHeaderSize] ^= 0xff }},
		"link: copies":      {"below 40", CodecNone, KindLink, func(h []byte) { le.PutUint64(h[FrameHeaderSize+24:], 1) }},
		"link: index":       {"impossible offset", CodecNone, KindLink, func(h []byte) { le.PutUint64(h[FrameHeaderSize+40:], 1<<63) }},
		"record length":     {"longer than its frame", CodecNone, KindData, func(h []byte) { h[FrameHeaderSize] = 0x7f }},
		"keep-count":        {"records do not fill their frame", CodecNone, KindData, func(h []byte) { copy(h[FrameHeaderSize+1:FrameHeaderSize+8], bytes.Repeat([]byte{0xff}, 7)) }},
		"index: half of it": {"not an index entry", CodecNone, KindIndex, func(h []byte) { n := le.Uint32(h[8:]); h[FrameHeaderSize+n-1] |= 0x80 }},
		"index: no LSN": {"not an index entry", CodecNone, KindIndex, func(h []byte) {
			n := le.Uint32(h[8:])
			copy(h[FrameHeaderSize:FrameHeaderSize+n], bytes.Repeat([]byte{0xff}, int(n)))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b, head := layoutFile(t, FrameAlign, c.codec, 0)
			var at int64 = -1
			for _, f := range Fields(b) {
				if k := Kind(b[min(f.Offset+4, int64(len(b))-1)]); f.Name == "tag" && k == c.kind && (c.codec == CodecNone || Flags(b[f.Offset+5]).Codec() == c.codec) {
					at = f.Offset
					break
				}
			}
			require.Positive(t, at)
			c.change(b[at:])
			reseal(&head, b)
			fields, w := layoutOf(t, b)
			require.Equal(t, at, w.End.Offset)
			require.NotEmpty(t, w.End.Reason)
			require.True(t, slices.ContainsFunc(fields, func(f Field) bool { return f.Frame == at && strings.Contains(f.Reason, c.reason) }), "%v", reasons(fields))
		})
	}
}

func reasons(fields []Field) (out []string) {
	for _, f := range fields {
		if !f.OK {
			out = append(out, f.Name+": "+f.Reason)
		}
	}
	return out
}

// TestLayoutGivesUpOnFlippedBits: looking for the one bit that is wrong takes time
// by the square of a frame's length; in long frames, and many, nobody waits for it.
func TestLayoutGivesUpOnFlippedBits(t *testing.T) {
	head := testHead(FileLog, FrameAlign)
	var fb Builder
	fb.Reset(&head, CodecNone, head.Start(), 0)
	fb.Link(Link{}, 0)
	fb.Record(1, 0, noise(200<<10), 0, 0)
	b := append(head.Encode(), fb.Bytes()...)
	b[len(b)/2] ^= 1
	fields, _ := layoutOf(t, b)
	require.Equal(t, []string{"closing hash"}, bad(fields), "the payload is not accused bit by bit")
}

func TestNames(t *testing.T) {
	require.Equal(t, "s2", CodecS2.String())
	require.Equal(t, "codec(3)", Codec(3).String())
	require.Equal(t, "catalog", FileCatalog.String())
	require.Equal(t, "kind(9)", FileKind(9).String())
	require.Equal(t, "kind(9)", Kind(9).String())
	require.Equal(t, []string{"header", "frame", "broken", "stranded", "loose"}, []string{PartHeader.String(), PartFrame.String(), PartBroken.String(), PartStranded.String(), PartLoose.String()})
}

// TestLayoutOfATagAtTheEnd: four bytes that look like a frame's first, with no room
// for a header behind them, are loose bytes.
func TestLayoutOfATagAtTheEnd(t *testing.T) {
	b, head := layoutFile(t, FrameAlign, CodecNone, 0)
	binary.LittleEndian.PutUint32(b[len(b)-20:], head.Bind().Tag())
	fields, _ := layoutOf(t, b)
	require.Equal(t, []string{FieldLoose}, bad(fields))
}
