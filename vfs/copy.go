package vfs

import (
	"context"
	"errors"
	"io"
)

// copyBuffer is how much Copy moves at a time, in bytes.
const copyBuffer = 1 << 20

// Copy writes the first size bytes of src to the beginning of dst, and syncs
// nothing. It returns how many it has written. A src that ends before that is
// io.ErrUnexpectedEOF; when ctx ends it returns its error.
func Copy(ctx context.Context, dst io.WriterAt, src io.ReaderAt, size int64) (int64, error) {
	buf := make([]byte, min(size, copyBuffer))
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return off, err
		}
		buf = buf[:min(size-off, int64(len(buf)))]
		if n, err := src.ReadAt(buf, off); n < len(buf) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return off + int64(n), err
		}
		if _, err := dst.WriteAt(buf, off); err != nil {
			return off, err
		}
	}
	return size, nil
}
