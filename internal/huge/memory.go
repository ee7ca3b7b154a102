package huge

// Memory is zero bytes outside of the garbage collector's heap, which do not count
// when it decides how far the heap may grow, and which it neither moves nor frees:
// who has it calls Free, once, when nobody looks at it any more. Where that is not to
// be had (another operating system, no address space), and under the race detector,
// which does not look outside of the heap, it is of the heap. The zero value has no
// bytes.
//
// One goroutine at a time calls its methods.
type Memory struct {
	b       []byte
	outside bool
}

// Map returns n zero bytes. Where they are a megabyte or more they begin where a huge
// page does, and are in such pages if the operating system has room and will.
func Map(n int) Memory {
	if !Checked {
		if b := mapOutside(n); b != nil {
			return Memory{b, true}
		}
	}
	return Memory{b: Make[byte](n)}
}

// Bytes returns the bytes, which are good until Free.
func (m *Memory) Bytes() []byte { return m.b }

// Discard lets the operating system have the pages that lie wholly in [from, to)
// bytes, and returns how many bytes these have: what was there is lost, and zeros or
// old bytes are there in its place.
func (m *Memory) Discard(from, to int) int {
	if m.outside {
		return discard(m.b[from:to])
	}
	return to - from // the heap's, for tests
}

// Free gives the memory back. Nobody may look at it any more.
func (m *Memory) Free() {
	if m.outside {
		unmap(m.b)
	}
	*m = Memory{}
}

// Spoil overwrites bytes that nobody may look at any more, before their memory is given
// back or used again, under the race detector alone: who still looks at them has a
// race, and reads what nobody wrote.
func Spoil(b []byte) {
	if Checked && len(b) > 0 {
		b[0] = 0xdb
		for n := 1; n < len(b); n *= 2 {
			copy(b[n:], b[:n])
		}
	}
}
