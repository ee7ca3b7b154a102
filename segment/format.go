package segment

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
)

// ID is what a segment is: every checksum in the file is bound to it.
type ID struct {
	// Store is the random identity of the store.
	Store [16]byte
	// Number is the segment's number, never used twice in one store.
	Number uint64
}

// String returns the identity in words.
func (id ID) String() string {
	return fmt.Sprintf("segment %d of store %x", id.Number, id.Store)
}

// Compression says how the payload of a data block is packed.
type Compression uint8

// The numbers are wire format, but for DefaultCompression, which no file holds.
const (
	DefaultCompression Compression = 0 // S2
	NoCompression      Compression = 1
	S2                 Compression = 2 // fast: about a GB/s
	Zstd               Compression = 3 // smaller and slower
)

// String returns the compression's name.
func (c Compression) String() string {
	switch c {
	case DefaultCompression:
		return "default"
	case NoCompression:
		return "none"
	case S2:
		return "s2"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("compression(%d)", uint8(c))
}

// blockKind says what a block is for. The numbers are wire format.
type blockKind uint8

const (
	kindData   blockKind = 1
	kindFilter blockKind = 2
	kindIndex  blockKind = 3
	kindProps  blockKind = 4
	kindFooter blockKind = 5
	kindDels   blockKind = 6
)

const (
	magic         = "\x89FBSEG\r\n"
	formatVersion = 1
	// featureDels: the file has a block of range deletes. Who does not know it
	// would show what they hide.
	featureDels uint32 = 1 << 0
	// featureLone: the file has lone blocks. Who does not know them would take their
	// trailers for damage.
	featureLone uint32 = 1 << 1
	// knownRequired has a bit for each required feature understood here.
	knownRequired = featureDels | featureLone

	footerSize  = 128
	trailerSize = 16
	// flagLone: the data block has one version, a put; its key is the block's separator,
	// and its LSN stands before the trailer, in loneSize bytes.
	flagLone = 1
	loneSize = 8
	// loneKeyShare: the key of a lone block is at most one byte in so many of its payload.
	loneKeyShare = 32

	// maxPayload bounds a data payload, packed or not: one entry of the
	// largest key and value with its lengths, or a block of maxBlockSize.
	maxPayload = base.MaxValueSize + 2<<20
	// maxBlock bounds a data block, trailer included.
	maxBlock = maxPayload + loneSize + trailerSize
	// maxIndex bounds the index, whose places are kept in 32 bits.
	maxIndex = 1 << 30
	// maxDels bounds the range deletes of a segment, in bytes.
	maxDels = 1 << 30
	// maxBound bounds the bounds of a range delete, in bytes: behind the
	// largest key comes that key and a zero byte.
	maxBound = base.MaxKeySize + 1
	// maxBlockSize is the largest block size a writer can be asked for.
	maxBlockSize = 1 << 20

	// maxKeptBuffer bounds, in bytes, a buffer that is kept for later use.
	maxKeptBuffer = 1 << 20

	// minData is the least length of a data block with its trailer: base LSN,
	// one entry with a key of one byte, one restart and their count.
	minData = 8 + 5 + 4 + 4 + trailerSize
	// minIndex and minProps are the same of index and properties.
	minIndex = 4 + 3 + trailerSize
	minProps = propsFixed + 2 + trailerSize
)

// Errors of a Writer that was used in a way it cannot honour. Nothing of the
// refused call is in the file.
var (
	// ErrOrder: a version not above the one before in the order of Compare, or
	// a range delete whose lower bound is not.
	ErrOrder = errors.New("segment: out of order")
	// ErrEmpty: Finish without a version and without a range delete.
	ErrEmpty = errors.New("segment: neither versions nor range deletes")
	// ErrLimit: a key, value, range, LSN or kind outside of what a segment holds.
	ErrLimit = errors.New("segment: outside the limits")
	// ErrFinished: Add or Finish after Finish, or after an error.
	ErrFinished = errors.New("segment: writer is finished")
)

// UnsupportedError says that a segment is intact and was written by a newer
// program: it has a format version or a required feature unknown here.
type UnsupportedError struct {
	// File is the name of the file.
	File string
	// Version is its format version.
	Version uint32
	// Required has the bits of the required features that are unknown here.
	Required uint32
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("segment: %s: format version %d with unknown required features %#x (this program reads version %d)",
		e.File, e.Version, e.Required, formatVersion)
}

// bind returns what ties a checksum to its place; see the package comment.
func bind(id *ID, offset uint64, kind blockKind) uint64 {
	var b [40]byte
	copy(b[:], id.Store[:])
	binary.LittleEndian.PutUint64(b[16:], id.Number)
	binary.LittleEndian.PutUint64(b[24:], offset)
	binary.LittleEndian.PutUint64(b[32:], uint64(kind))
	return xxhash.Sum64(b[:])
}

// appendTrailer appends the trailer to the payload, which is all of b, and
// returns the checksum too. The block will stand at offset.
func appendTrailer(b []byte, id *ID, offset uint64, kind blockKind, t trailer) ([]byte, uint64) {
	var flags byte
	if t.lone {
		flags = flagLone
		b = binary.LittleEndian.AppendUint64(b, t.lsn)
	}
	b = append(b, byte(kind), byte(t.comp), flags, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(t.rawLen))
	hash := t.hash
	if !t.hashed {
		hash = xxhash.Sum64(b)
	}
	sum := hash ^ bind(id, offset, kind)
	return binary.LittleEndian.AppendUint64(b, sum), sum
}

// unbind puts the hash of a block that was verified, which does not depend on where it
// stands, in the place of its checksum; a second time it makes that of it again.
func unbind(b []byte, id *ID, offset uint64, kind blockKind) {
	sum := b[len(b)-8:]
	binary.LittleEndian.PutUint64(sum, binary.LittleEndian.Uint64(sum)^bind(id, offset, kind))
}

// trailer is what a block says of itself: once it is verified, or is to be written.
type trailer struct {
	comp   Compression
	rawLen int
	sum    uint64
	lone   bool
	lsn    base.LSN // if lone
	hash   uint64   // of the block up to the checksum, if hashed
	hashed bool
}

// checkBlock verifies a whole block and returns its payload. The reason is
// empty when all is well.
func checkBlock(b []byte, id *ID, offset uint64, kind blockKind) (payload []byte, t trailer, reason string) {
	n := len(b) - trailerSize
	if n < 0 {
		return nil, t, "block is shorter than its trailer"
	}
	t.sum = binary.LittleEndian.Uint64(b[n+8:])
	if xxhash.Sum64(b[:n+8])^bind(id, offset, kind) != t.sum {
		return nil, t, "block checksum does not match"
	}
	t.comp = Compression(b[n+1])
	rawLen := binary.LittleEndian.Uint32(b[n+4:])
	flags := b[n+2]
	switch {
	case blockKind(b[n]) != kind:
		return nil, t, "block is of another kind"
	case flags&^flagLone != 0 || flags != 0 && (kind != kindData || n < loneSize) || b[n+3] != 0:
		return nil, t, "block trailer has bytes that must be zero"
	}
	if t.lone = flags != 0; t.lone {
		n -= loneSize
		t.lsn = binary.LittleEndian.Uint64(b[n:])
	}
	switch {
	case t.comp != NoCompression && kind != kindData:
		return nil, t, "block has a compression that its kind does not have"
	case t.comp == NoCompression && int64(rawLen) != int64(n):
		return nil, t, "block length does not match its trailer"
	case kind == kindData && rawLen > maxPayload:
		return nil, t, "block is larger than a block may be"
	}
	t.rawLen = int(rawLen)
	return b[:n:n], t, ""
}

// footer is the fixed end of the file.
type footer struct {
	id                                          ID
	fileLen                                     uint64
	dataLen, filterLen, indexLen, propsLen      uint64
	delsLen                                     uint64
	pointMax                                    base.LSN // of the versions; with range deletes alone
	contentHash                                 uint64
	pageLen                                     uint32
	filter                                      filterKind
	compression                                 Compression
	checksum                                    uint64
	version, required, compatible, footerLength uint32
}

func (f *footer) filterOff() uint64 { return f.dataLen }

// pages is how many pages the filter has.
func (f *footer) pages() uint64 { return f.filterLen / (uint64(f.pageLen) + trailerSize) }

// page returns where page i of the filter lies, trailer included.
func (f *footer) page(i uint64) (off, n uint64) {
	n = uint64(f.pageLen) + trailerSize
	return f.filterOff() + i*n, n
}
func (f *footer) indexOff() uint64 { return f.dataLen + f.filterLen }
func (f *footer) delsOff() uint64  { return f.indexOff() + f.indexLen }
func (f *footer) propsOff() uint64 { return f.delsOff() + f.delsLen }

// encode returns the footer's bytes and sets its checksum.
func (f *footer) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, footerSize)
	copy(b, magic)
	le.PutUint32(b[8:], f.version)
	le.PutUint32(b[12:], f.required)
	le.PutUint32(b[16:], f.compatible)
	le.PutUint32(b[20:], f.footerLength)
	copy(b[24:], f.id.Store[:])
	le.PutUint64(b[40:], f.id.Number)
	le.PutUint64(b[48:], f.fileLen)
	le.PutUint64(b[56:], f.dataLen)
	le.PutUint64(b[64:], f.filterLen)
	le.PutUint64(b[72:], f.indexLen)
	le.PutUint64(b[80:], f.propsLen)
	le.PutUint64(b[88:], f.contentHash)
	le.PutUint32(b[96:], f.pageLen)
	b[100] = byte(f.filter)
	b[101] = byte(f.compression)
	le.PutUint64(b[104:], f.delsLen)
	le.PutUint64(b[112:], f.pointMax)
	f.checksum = xxhash.Sum64(b[:120]) ^ bind(&f.id, f.fileLen-footerSize, kindFooter)
	le.PutUint64(b[120:], f.checksum)
	return b
}

// decodeFooter reads and verifies the last bytes of a file of size bytes. The
// order matters: damage first, so that a flipped bit is never taken for a
// newer format; then the format; then whose file it is.
func decodeFooter(b []byte, name string, size uint64, want *ID) (footer, error) {
	le := binary.LittleEndian
	at := size - footerSize
	bad := func(reason string) (footer, error) {
		return footer{}, &base.CorruptionError{File: name, Offset: int64(at), Reason: "segment footer: " + reason}
	}
	if string(b[:8]) != magic {
		return bad("no magic at the end of the file (truncated, extended or not a segment)")
	}
	f := footer{
		version: le.Uint32(b[8:]), required: le.Uint32(b[12:]), compatible: le.Uint32(b[16:]),
		footerLength: le.Uint32(b[20:]), fileLen: le.Uint64(b[48:]), dataLen: le.Uint64(b[56:]),
		filterLen: le.Uint64(b[64:]), indexLen: le.Uint64(b[72:]), propsLen: le.Uint64(b[80:]),
		contentHash: le.Uint64(b[88:]), pageLen: le.Uint32(b[96:]), filter: filterKind(b[100]),
		compression: Compression(b[101]), delsLen: le.Uint64(b[104:]), pointMax: le.Uint64(b[112:]), checksum: le.Uint64(b[120:]),
	}
	f.id.Number = le.Uint64(b[40:])
	copy(f.id.Store[:], b[24:])
	if xxhash.Sum64(b[:120])^bind(&f.id, at, kindFooter) != f.checksum {
		return bad("checksum does not match")
	}
	if unknown := f.required &^ knownRequired; unknown != 0 || f.version != formatVersion {
		return footer{}, &UnsupportedError{File: name, Version: f.version, Required: unknown}
	}
	if f.id != *want {
		return bad("file is " + f.id.String() + ", not " + want.String())
	}
	if reason := f.check(b, size); reason != "" {
		return bad(reason)
	}
	return f, nil
}

// check tells what does not hold in a footer whose checksum does.
func (f *footer) check(b []byte, size uint64) string {
	if f.footerLength != footerSize {
		return "wrong footer length"
	}
	if f.fileLen != size {
		return fmt.Sprintf("file has %d bytes and should have %d", size, f.fileLen)
	}
	if reason := f.checkDels(); reason != "" {
		return reason
	}
	leastData, leastIndex := uint64(minData), uint64(minIndex)
	if f.dataLen == 0 && f.delsLen > 0 { // range deletes alone
		if f.filterLen != 0 || f.indexLen != 0 || f.pointMax != 0 {
			return "a filter or an index without data"
		}
		leastData, leastIndex = 0, 0
	}
	rest := size - footerSize
	for _, part := range [...]struct{ n, least uint64 }{
		{f.dataLen, leastData}, {f.filterLen, 0}, {f.indexLen, leastIndex}, {f.delsLen, 0}, {f.propsLen, minProps},
	} {
		if part.n > rest || part.n < part.least {
			return "lengths of the parts do not fit the file"
		}
		rest -= part.n
	}
	if rest != 0 {
		return "lengths of the parts do not fit the file"
	}
	if f.indexLen > maxIndex+trailerSize {
		return "index is larger than an index may be"
	}
	if b[102] != 0 || b[103] != 0 {
		return "bytes that must be zero are not"
	}
	return checkFilterShape(f.filter, f.filterLen, f.pageLen)
}

// checkDels tells what does not hold in what the footer says of range deletes.
func (f *footer) checkDels() string {
	switch {
	case f.required&featureDels == 0:
		if f.delsLen != 0 || f.pointMax != 0 {
			return "range deletes without their feature"
		}
	case f.delsLen < minDels:
		return "range deletes are too short"
	case f.delsLen > maxDels+trailerSize:
		return "range deletes are larger than they may be"
	}
	return ""
}
