package frame

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
)

// Kind says what a frame holds. The numbers are wire format.
type Kind uint8

const (
	// KindLink is the first frame of each used log file; see Link.
	KindLink Kind = 1
	// KindData holds records.
	KindData Kind = 2
	// KindMark holds nothing but its durable LSN: a proof of how far the log
	// was durable.
	KindMark Kind = 3
	// KindIndex is the last frame of a file that filled up: LSN → offset.
	KindIndex Kind = 4
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindLink:
		return "link"
	case KindData:
		return "data"
	case KindMark:
		return "mark"
	case KindIndex:
		return "index"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Flags of a frame. Wire format.
type Flags uint8

const (
	flagCodec Flags = 3
	// FlagCopy says that the records were copied from an earlier file by an
	// open.
	FlagCopy Flags = 1 << 2
	// FlagGroupEnd says that the frame is the last of its group, so that the
	// next frame begins at the file's group alignment.
	FlagGroupEnd Flags = 1 << 3
	// FlagClose says that the mark is the last frame of an incarnation that
	// closed the log in order.
	FlagClose Flags = 1 << 4

	flagsKnown = flagCodec | FlagCopy | FlagGroupEnd | FlagClose
)

// Codec returns how the payload is compressed.
func (f Flags) Codec() Codec { return Codec(f & flagCodec) }

// Wire format and limits of a frame, in bytes.
const (
	// FrameHeaderSize is the size of a frame's header.
	FrameHeaderSize = 56
	// FrameOverhead is what a frame costs beside its payload, before padding.
	FrameOverhead = FrameHeaderSize + 8
	// MaxPayload is the largest payload of a frame of several records.
	MaxPayload = 256 << 10
	// recordOverhead bounds the two uvarints in front of a record.
	recordOverhead = 20
	// MaxBigPayload is the largest payload of a frame of one record.
	MaxBigPayload = base.MaxRecordSize + recordOverhead
	// LinkSize is the size of a link's payload.
	LinkSize = 48
)

// Header is the decoded header of a frame.
type Header struct {
	Kind  Kind
	Flags Flags
	// Stored and Raw are the payload's length in bytes in the file and when
	// decompressed.
	Stored, Raw uint32
	// Count is the number of records.
	Count uint32
	// First is the LSN of the first record, or, where there is none, the LSN
	// that the next record will have.
	First LSN
	// Durable is the durable LSN when the frame was made: a proof.
	Durable LSN
	// Prev is the closing hash of the frame before this one in the file.
	Prev uint64
}

// Next returns the LSN behind the frame's last record.
func (h *Header) Next() LSN { return h.First + LSN(h.Count) }

// encode writes the header for a frame at file offset off into b and returns
// its hash.
func (h *Header) encode(b []byte, bind Binding, off int64) uint64 {
	le := binary.LittleEndian
	_ = b[FrameHeaderSize-1]
	le.PutUint32(b[0:], bind.tag)
	b[4], b[5], b[6], b[7] = byte(h.Kind), byte(h.Flags), 0, 0
	le.PutUint32(b[8:], h.Stored)
	le.PutUint32(b[12:], h.Raw)
	le.PutUint32(b[16:], h.Count)
	le.PutUint32(b[20:], 0)
	le.PutUint64(b[24:], h.First)
	le.PutUint64(b[32:], h.Durable)
	le.PutUint64(b[40:], h.Prev)
	sum := headerHash(b, bind, off)
	le.PutUint64(b[48:], sum)
	return sum
}

func headerHash(b []byte, bind Binding, off int64) uint64 {
	var t [64]byte
	copy(t[:48], b)
	binary.LittleEndian.PutUint64(t[48:], bind.hash)
	binary.LittleEndian.PutUint64(t[56:], uint64(off))
	return xxhash.Sum64(t[:])
}

func closingHash(payload []byte, header uint64) uint64 {
	var t [16]byte
	binary.LittleEndian.PutUint64(t[:], xxhash.Sum64(payload))
	binary.LittleEndian.PutUint64(t[8:], header)
	return xxhash.Sum64(t[:])
}

// decodeHeader verifies and decodes the header of a frame at file offset off.
// It returns the header's hash and "", or the reason why there is none.
func decodeHeader(b []byte, bind Binding, off int64) (h Header, sum uint64, reason string) {
	le := binary.LittleEndian
	if le.Uint32(b) != bind.tag {
		return h, 0, "no frame tag"
	}
	sum = headerHash(b, bind, off)
	if le.Uint64(b[48:]) != sum {
		return h, 0, "header hash does not match"
	}
	h = Header{
		Kind:    Kind(b[4]),
		Flags:   Flags(b[5]),
		Stored:  le.Uint32(b[8:]),
		Raw:     le.Uint32(b[12:]),
		Count:   le.Uint32(b[16:]),
		First:   le.Uint64(b[24:]),
		Durable: le.Uint64(b[32:]),
		Prev:    le.Uint64(b[40:]),
	}
	if b[6]|b[7]|b[20]|b[21]|b[22]|b[23] != 0 {
		return h, 0, "reserved bytes are not zero"
	}
	return h, sum, h.check()
}

// check says which rule the header breaks, or "".
func (h *Header) check() string {
	limit, flags := uint32(MaxPayload), FlagGroupEnd
	switch h.Kind {
	case KindLink:
		if h.Count != 0 || h.Raw != LinkSize {
			return "link of a wrong size"
		}
	case KindData:
		flags |= flagCodec | FlagCopy
		if h.Count == 0 {
			return "data frame without records"
		}
		if h.Count == 1 {
			limit = MaxBigPayload
		}
	case KindMark:
		flags |= FlagClose
		if h.Count != 0 || h.Raw != 0 {
			return "mark with a payload"
		}
	case KindIndex:
		limit = MaxBigPayload
		if h.Count != 0 {
			return "index with records"
		}
	default:
		return "unknown frame kind"
	}
	switch {
	case h.Flags&^flags != 0 || h.Flags.Codec() > CodecZstd:
		return "unknown frame flags"
	case h.Flags.Codec() == CodecNone && h.Stored != h.Raw:
		return "lengths differ without compression"
	case h.Stored > limit || h.Raw > limit:
		return "payload longer than the limit"
	case h.First == 0 || h.First > base.MaxLSN-LSN(h.Count):
		return "LSN out of range"
	}
	return ""
}

// Link is the payload of the first frame of a used log file: where the history
// comes from.
type Link struct {
	// Pred is the number of the file before this one; 0: the log begins here.
	Pred uint64
	// Kept is the last LSN that is kept of Pred and of all before it.
	Kept LSN
	// Hash is the closing hash of Pred's frame that holds Kept.
	Hash uint64
	// Copies is the last LSN that this file copies from beyond Kept; it equals
	// Kept when the file copies nothing.
	Copies LSN
	// CopyEpoch is the epoch in which the copied records were committed.
	CopyEpoch uint64
	// PredIndex is the offset of Pred's index frame; 0: it has none.
	PredIndex int64
}

func (l *Link) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], l.Pred)
	le.PutUint64(b[8:], l.Kept)
	le.PutUint64(b[16:], l.Hash)
	le.PutUint64(b[24:], l.Copies)
	le.PutUint64(b[32:], l.CopyEpoch)
	le.PutUint64(b[40:], uint64(l.PredIndex))
}

// DecodeLink decodes the payload of a link frame.
func DecodeLink(b []byte) (Link, error) {
	if len(b) != LinkSize {
		return Link{}, fmt.Errorf("link of %d bytes, want %d", len(b), LinkSize)
	}
	le := binary.LittleEndian
	l := Link{
		Pred:      le.Uint64(b[0:]),
		Kept:      le.Uint64(b[8:]),
		Hash:      le.Uint64(b[16:]),
		Copies:    le.Uint64(b[24:]),
		CopyEpoch: le.Uint64(b[32:]),
		PredIndex: int64(le.Uint64(b[40:])),
	}
	if l.Copies < l.Kept || l.PredIndex < 0 {
		return Link{}, fmt.Errorf("link with impossible numbers")
	}
	return l, nil
}

// IndexEntry says that the frame at Offset begins with LSN.
type IndexEntry struct {
	LSN    LSN
	Offset int64
}

// IndexSpacing is the distance in bytes that an index keeps between entries.
const IndexSpacing = 64 << 10

// AppendIndex encodes index entries, which ascend, onto b.
func AppendIndex(b []byte, entries []IndexEntry) []byte {
	var last IndexEntry
	for _, e := range entries {
		b = binary.AppendUvarint(b, e.LSN-last.LSN)
		b = binary.AppendUvarint(b, uint64(e.Offset-last.Offset))
		last = e
	}
	return b
}

// DecodeIndex decodes the payload of an index frame.
func DecodeIndex(b []byte) ([]IndexEntry, error) {
	var out []IndexEntry
	var last IndexEntry
	for len(b) > 0 {
		lsn, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("index entry %d is damaged", len(out))
		}
		off, m := binary.Uvarint(b[n:])
		if m <= 0 || off > 1<<62 || last.Offset+int64(off) < 0 || last.LSN+lsn < last.LSN {
			return nil, fmt.Errorf("index entry %d is damaged", len(out))
		}
		b = b[n+m:]
		last = IndexEntry{last.LSN + lsn, last.Offset + int64(off)}
		out = append(out, last)
	}
	return out, nil
}

func alignUp(n, align int64) int64 { return (n + align - 1) &^ (align - 1) }
