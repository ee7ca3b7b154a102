package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// testHead is the header of the files that these tests make.
func testHead(kind FileKind, align int64) FileHeader {
	return FileHeader{Kind: kind, Align: align, Store: [16]byte{'s', 't', 'o', 'r', 'e', 9}, Number: 7, Salt: 0x5a17, Epoch: 3}
}

// image is the bytes of one framed file, made by a Builder.
type image struct {
	head  FileHeader
	b     Builder
	bytes []byte
}

func newImage(head FileHeader, codec Codec) *image {
	m := &image{head: head, bytes: head.Encode()}
	m.b.Reset(&head, codec, head.Start(), 0)
	return m
}

// flush ends the group and writes it.
func (m *image) flush() {
	buf := m.b.Bytes()
	if off := int(m.b.Offset()); len(m.bytes) < off+len(buf) {
		m.bytes = append(m.bytes, make([]byte, off+len(buf)-len(m.bytes))...)
	}
	copy(m.bytes[m.b.Offset():], buf)
	m.b.Advance()
}

// record is what a reader yields of a record.
type record struct {
	lsn  LSN
	keep uint64
	data string
}

// kept is a copy of a frame that outlives the reader.
type kept struct {
	Header
	offset, end int64
	hash        uint64
	records     []record
	payload     string
}

// readAll reads a file to the end of its frames.
func readAll(t testing.TB, r *Reader) ([]kept, *End) {
	t.Helper()
	var out []kept
	for {
		fr, end, err := r.Next()
		require.NoError(t, err)
		if end != nil {
			require.Equal(t, r.Offset(), end.Offset)
			return out, end
		}
		k := kept{Header: fr.Header, offset: fr.Offset, end: fr.End, hash: fr.Hash, payload: string(fr.Payload)}
		err = fr.EachRecord(func(lsn LSN, keep uint64, rec []byte) error {
			k.records = append(k.records, record{lsn, keep, string(rec)})
			return nil
		})
		if fr.Kind == KindData {
			require.NoError(t, err)
		}
		out = append(out, k)
	}
}

func read(t testing.TB, head FileHeader, b []byte) ([]kept, *End) {
	t.Helper()
	return readAll(t, NewReader(bytes.NewReader(b), int64(len(b)), head))
}

// compressible and noise are records of n bytes.
func compressible(n int) []byte { return bytes.Repeat([]byte("forebay "), n/8+1)[:n] }

func noise(n int) []byte {
	c := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	b := make([]byte, n)
	c.Read(b)
	return b
}

// reseal repairs the checksums of a damaged file: it makes each frame's tag,
// chain, header hash and closing hash right, as far as the lengths lead.
func reseal(head *FileHeader, b []byte) {
	le := binary.LittleEndian
	bind := head.Bind()
	prev := uint64(0)
	for off := head.Start(); off+FrameOverhead <= int64(len(b)); {
		h := b[off:]
		le.PutUint32(h, bind.tag)
		le.PutUint64(h[40:], prev)
		sum := headerHash(h, bind, off)
		le.PutUint64(h[48:], sum)
		tail := off + FrameHeaderSize + int64(le.Uint32(h[8:]))
		if tail+8 > int64(len(b)) {
			return
		}
		prev = closingHash(b[off+FrameHeaderSize:tail], sum)
		le.PutUint64(b[tail:], prev)
		align := int64(FrameAlign)
		if Flags(h[5])&FlagGroupEnd != 0 {
			align = head.Align
		}
		off = alignUp(tail+8, align)
	}
}

// smallImage is a file with a frame of each kind and, unless codec is none, a
// compressed one.
func smallImage(align int64, codec Codec) *image {
	m := newImage(testHead(FileLog, align), codec)
	m.b.Link(Link{Pred: 6, Kept: 10, Hash: 0xabcd, Copies: 12, CopyEpoch: 2, PredIndex: 4096}, 10)
	m.b.Record(11, 0, []byte("copied"), 10, FlagCopy)
	m.b.Record(12, 4, []byte("also copied"), 10, FlagCopy)
	m.flush()
	m.b.Mark(13, 12, 0)
	m.flush()
	m.b.Record(13, 1<<40, compressible(90), 12, 0)
	m.b.Record(14, 0, nil, 12, 0)
	m.flush()
	m.b.Index(15, 14, []IndexEntry{{11, head0(align)}, {13, head0(align) + 512}})
	m.flush()
	m.b.Mark(15, 14, FlagClose)
	m.flush()
	return m
}

func head0(align int64) int64 { h := testHead(FileLog, align); return h.Start() }

// variants calls fn as a subtest for each codec and alignment.
func variants(t *testing.T, fn func(t *testing.T, align int64, codec Codec)) {
	for _, align := range []int64{FrameAlign, BlockAlign} {
		for _, codec := range []Codec{CodecNone, CodecS2, CodecZstd} {
			t.Run(fmt.Sprintf("align%d/%s", align, codec), func(t *testing.T) { fn(t, align, codec) })
		}
	}
}
