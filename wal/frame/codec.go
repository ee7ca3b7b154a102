package frame

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Codec says how a payload is compressed. The numbers are wire format.
type Codec uint8

const (
	// CodecNone stores bytes as they are.
	CodecNone Codec = 0
	// CodecS2 is S2, a faster Snappy (github.com/klauspost/compress/s2).
	CodecS2 Codec = 1
	// CodecZstd is Zstandard (RFC 8878) at its fastest level.
	CodecZstd Codec = 2
)

// String returns the codec's name.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecS2:
		return "s2"
	case CodecZstd:
		return "zstd"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	return e
})

var zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(MaxBigPayload), zstd.WithDecodeAllCapLimit(true))
	return d
})

// compress compresses src, which is no longer than a payload may be, into dst's
// memory, or returns nil when that saves less than an eighth. c is not CodecNone.
func (c Codec) compress(dst, src []byte) []byte {
	var out []byte
	if c == CodecS2 {
		if n := s2.MaxEncodedLen(len(src)); cap(dst) < n {
			dst = make([]byte, n)
		}
		out = s2.Encode(dst[:cap(dst)], src)
	} else {
		out = zstdEncoder().EncodeAll(src, dst[:0])
	}
	if len(out) > len(src)-len(src)/8 {
		return nil
	}
	return out
}

var errDecompress = errors.New("payload does not decompress")

// decompress decompresses src, which must give exactly raw bytes, into dst's
// memory. Nothing larger than raw is allocated. c is one that a header may name, and
// not CodecNone.
func (c Codec) decompress(dst, src []byte, raw int) ([]byte, error) {
	if cap(dst) < raw {
		dst = make([]byte, raw)
	}
	dst = dst[:0]
	var out []byte
	var err error
	if c == CodecS2 {
		n, lerr := s2.DecodedLen(src)
		if lerr != nil || n != raw {
			return nil, errDecompress
		}
		out, err = s2.Decode(dst[:raw], src)
	} else {
		out, err = zstdDecoder().DecodeAll(src, dst[:0:raw]) // limited to raw bytes
	}
	if err != nil || len(out) != raw {
		return nil, errDecompress
	}
	return out, nil
}
