package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// MaxFrame is the longest frame, in bytes.
const MaxFrame = 16 << 20

const frameHead = 8

var errFrame = errors.New("pipeline: not a frame")

// beginFrame begins a frame in the memory of b; endFrame finishes it.
func beginFrame(b []byte) []byte { return append(b[:0], make([]byte, frameHead)...) }

func endFrame(b []byte, events int) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	binary.LittleEndian.PutUint32(b[4:], uint32(events))
	return b
}

// readFrame reads a frame into the memory of buf, and returns its events and their number.
// io.EOF: there is no other.
func readFrame(r io.Reader, buf []byte) (events []byte, n int, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, 0, err
	}
	size, count := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
	if size < 4 || size > MaxFrame || count > size/2 {
		return buf, 0, fmt.Errorf("%w: %d bytes, %d events", errFrame, size, count)
	}
	buf = slices.Grow(buf[:0], int(size-4))[:size-4]
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, 0, fmt.Errorf("%w: cut off: %w", errFrame, err)
	}
	return buf, int(count), nil
}

// cutEvent takes the first event off a frame's.
func cutEvent(b []byte) (event, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, fmt.Errorf("%w: an event is cut off", errFrame)
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n > len(b)-2 {
		return nil, nil, fmt.Errorf("%w: an event is cut off", errFrame)
	}
	return b[2 : 2+n], b[2+n:], nil
}

func writeAck(w io.Writer, events int) error {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], uint32(events))
	_, err := w.Write(b[:])
	return err
}

func readAck(r io.Reader) (int, error) {
	var b [4]byte
	_, err := io.ReadFull(r, b[:])
	return int(binary.LittleEndian.Uint32(b[:])), err
}
