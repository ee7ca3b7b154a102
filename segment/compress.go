package segment

import (
	"errors"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// The zstd coders are made once, when a segment first needs them: each takes
// about a millisecond and some memory.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(2),
			zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20),
			zstd.WithSingleSegment(true)) // so that each frame says its length
		if err != nil {
			panic("segment: zstd options: " + err.Error())
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxPayload), zstd.WithDecoderMaxWindow(64<<20), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic("segment: zstd options: " + err.Error())
		}
		return d
	})
)

// compress packs raw into dst's memory. ok is false when it is not worth it:
// what saves less than an eighth costs more to unpack than to read.
func compress(comp Compression, dst, raw []byte) (packed []byte, ok bool) {
	switch comp {
	case S2:
		if n := s2.MaxEncodedLen(len(raw)); cap(dst) < n {
			dst = make([]byte, n)
		}
		packed = s2.Encode(dst[:cap(dst)], raw)
	case Zstd:
		packed = zstdEncoder().EncodeAll(raw, dst[:0])
	default:
		return dst, false
	}
	return packed, len(packed) < len(raw)-len(raw)/8
}

var errRawLen = errors.New("decompressed length does not match the trailer")

// decompress unpacks a verified payload to exactly rawLen bytes, in dst's
// memory where it suffices. The lengths inside are compared before anything is
// allocated; the caller has bounded rawLen.
func decompress(comp Compression, dst, packed []byte, rawLen int) ([]byte, error) {
	switch comp {
	case S2:
		n, err := s2.DecodedLen(packed)
		if err != nil {
			return nil, err
		}
		if n != rawLen {
			return nil, errRawLen
		}
		if cap(dst) < rawLen {
			dst = make([]byte, rawLen)
		}
		return s2.Decode(dst[:rawLen], packed)
	case Zstd:
		var h zstd.Header
		if err := h.Decode(packed); err != nil {
			return nil, err
		}
		if !h.HasFCS || h.FrameContentSize != uint64(rawLen) {
			return nil, errRawLen
		}
		if cap(dst) < rawLen {
			dst = make([]byte, rawLen)
		}
		// The capacity is the limit of what is decoded.
		raw, err := zstdDecoder().DecodeAll(packed, dst[:0:rawLen])
		if err == nil && len(raw) != rawLen {
			err = errRawLen
		}
		return raw, err
	}
	return nil, errors.New("unknown compression " + comp.String())
}
