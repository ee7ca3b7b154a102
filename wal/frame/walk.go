package frame

import "fmt"

// Walk calls fn for each frame in b, which begins with one at file offset off of
// a file with that header, and ends with one. payload is as it is stored, a part
// of b. It verifies the headers and no payload: it is for who looks on while a log
// writes, and sees bytes that were just built. An error is fn's, or says that b is
// no row of whole frames.
func Walk(b []byte, off int64, head *FileHeader, fn func(h *Header, payload []byte) error) error {
	bind := head.Bind()
	for pos := int64(0); pos < int64(len(b)); {
		if int64(len(b))-pos < FrameOverhead {
			return fmt.Errorf("frame: %d bytes at offset %d are no frame", int64(len(b))-pos, off+pos)
		}
		h, _, reason := decodeHeader(b[pos:pos+FrameHeaderSize], bind, off+pos)
		if reason != "" {
			return fmt.Errorf("frame: no frame at offset %d: %s", off+pos, reason)
		}
		align := int64(FrameAlign)
		if h.Flags&FlagGroupEnd != 0 {
			align = head.Align
		}
		from := pos + FrameHeaderSize
		tail := from + int64(h.Stored)
		next := alignUp(off+tail+8, align) - off
		if next > int64(len(b)) {
			return fmt.Errorf("frame: the frame at offset %d is longer than what was written", off+pos)
		}
		if err := fn(&h, b[from:tail]); err != nil {
			return err
		}
		pos = next
	}
	return nil
}
