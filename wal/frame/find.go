package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Find returns the offset of the first frame header at or behind off that
// verifies, whatever surrounds it, or -1 when there is none. It is for who
// salvages: what such a frame holds was written there, but nothing says that what
// should be before it is. buf is memory to use, or nil.
func Find(src io.ReaderAt, size int64, head *FileHeader, off int64, buf []byte) (int64, error) {
	bind := head.Bind()
	var tag [4]byte
	binary.LittleEndian.PutUint32(tag[:], bind.tag)
	if n := min(size-off, readWindow); int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	for off+FrameHeaderSize <= size {
		b := buf[:min(int64(cap(buf)), size-off)]
		if got, err := src.ReadAt(b, off); got < len(b) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return -1, fmt.Errorf("read %d bytes at offset %d: %w", len(b), off, err)
		}
		for i := 0; i+FrameHeaderSize <= len(b); i++ {
			j := bytes.Index(b[i:], tag[:])
			if j < 0 || i+j+FrameHeaderSize > len(b) {
				break
			}
			i += j
			if _, _, reason := decodeHeader(b[i:], bind, off+int64(i)); reason == "" {
				return off + int64(i), nil
			}
		}
		off += int64(len(b)) - FrameHeaderSize + 1
	}
	return -1, nil
}
