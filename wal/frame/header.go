package frame

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
)

// FileKind says what a framed file is for. The numbers are wire format.
type FileKind uint8

const (
	// FileLog is a log file.
	FileLog FileKind = 1
	// FileManifest is a manifest.
	FileManifest FileKind = 2
	// FileCatalog is the catalog of a log that is used alone.
	FileCatalog FileKind = 3
)

// String returns the kind's name.
func (k FileKind) String() string {
	switch k {
	case FileLog:
		return "log"
	case FileManifest:
		return "manifest"
	case FileCatalog:
		return "catalog"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Wire format of the file header.
const (
	// HeaderSize is the size in bytes of the encoded file header: one sector.
	HeaderSize = 512
	// BlockAlign is the group alignment in bytes of a file with LogAlign.
	BlockAlign = 4096
	// FrameAlign is the alignment in bytes of every frame.
	FrameAlign = 8
	// Version is the format version that this package writes.
	Version = 1
	// CompatRecycled in FileHeader.Compat says that bytes behind the last
	// frame may be stale rather than zero.
	CompatRecycled = 1 << 0

	magic           = "FOREBAY\x01"
	headerUsed      = 80
	headerChecksum  = HeaderSize - 8
	requiredFeature = 0 // every required feature bit that this version knows
)

// ErrUnsupported says that a file was written by a newer version with
// features that this one does not know. The file was not touched.
var ErrUnsupported = errors.New("format not supported by this version")

// ErrNoHeader says that the bytes are no intact file header.
var ErrNoHeader = errors.New("no intact file header")

// FileHeader is the static head of a framed file. It is written once, synced
// before the file is listed anywhere, and never changed.
type FileHeader struct {
	Kind FileKind
	// Align is the alignment of groups in bytes: FrameAlign or BlockAlign.
	Align int64
	// Compat holds feature bits that an older reader may ignore.
	Compat uint32
	Store  [16]byte
	Number uint64
	Salt   uint64
	Epoch  uint64
}

// Start returns the offset in bytes of the first frame.
func (h *FileHeader) Start() int64 {
	if h.Align == BlockAlign {
		return BlockAlign
	}
	return HeaderSize
}

// Recycled says whether bytes behind the last frame may be stale.
func (h *FileHeader) Recycled() bool { return h.Compat&CompatRecycled != 0 }

// Encode returns the header as it stands in the file, padded with zeros to
// Start bytes.
func (h *FileHeader) Encode() []byte {
	b := make([]byte, h.Start())
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint16(b[8:], Version)
	b[10] = byte(h.Kind)
	b[11] = 3
	if h.Align == BlockAlign {
		b[11] = 12
	}
	le.PutUint32(b[12:], requiredFeature)
	le.PutUint32(b[16:], h.Compat)
	copy(b[20:], h.Store[:])
	le.PutUint64(b[36:], h.Number)
	le.PutUint64(b[44:], h.Salt)
	le.PutUint64(b[52:], h.Epoch)
	le.PutUint64(b[headerChecksum:], xxhash.Sum64(b[:headerChecksum]))
	return b
}

// DecodeFileHeader reads a header from the first HeaderSize bytes of a file.
// It returns ErrNoHeader for bytes that are no intact header and
// ErrUnsupported for an intact one of a newer format.
func DecodeFileHeader(b []byte) (FileHeader, error) {
	var h FileHeader
	if len(b) < HeaderSize || string(b[:8]) != magic {
		return h, ErrNoHeader
	}
	le := binary.LittleEndian
	if le.Uint64(b[headerChecksum:]) != xxhash.Sum64(b[:headerChecksum]) {
		return h, ErrNoHeader
	}
	if v := le.Uint16(b[8:]); v != Version {
		return h, fmt.Errorf("%w: format version %d", ErrUnsupported, v)
	}
	if f := le.Uint32(b[12:]) &^ uint32(requiredFeature); f != 0 {
		return h, fmt.Errorf("%w: required feature bits %#x", ErrUnsupported, f)
	}
	h.Kind = FileKind(b[10])
	switch b[11] {
	case 3:
		h.Align = FrameAlign
	case 12:
		h.Align = BlockAlign
	default:
		return h, fmt.Errorf("%w: alignment 2^%d", ErrUnsupported, b[11])
	}
	h.Compat = le.Uint32(b[16:])
	copy(h.Store[:], b[20:])
	h.Number = le.Uint64(b[36:])
	h.Salt = le.Uint64(b[44:])
	h.Epoch = le.Uint64(b[52:])
	return h, nil
}

// Binding ties frames to one use of one file: to its store id, number, salt
// and epoch.
type Binding struct {
	hash uint64
	tag  uint32
}

// Bind derives the binding of the header's file.
func (h *FileHeader) Bind() Binding {
	var b [40]byte
	le := binary.LittleEndian
	copy(b[:], h.Store[:])
	le.PutUint64(b[16:], h.Number)
	le.PutUint64(b[24:], h.Salt)
	le.PutUint64(b[32:], h.Epoch)
	bind := Binding{hash: xxhash.Sum64(b[:])}
	var t [11]byte
	le.PutUint64(t[:], bind.hash)
	copy(t[8:], "tag")
	bind.tag = uint32(xxhash.Sum64(t[:])) | 1
	return bind
}

// Tag returns the four bytes with which each frame of the file begins, as a
// little-endian number.
func (b Binding) Tag() uint32 { return b.tag }

// LSN is a log sequence number.
type LSN = base.LSN
