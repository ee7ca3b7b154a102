package commit

import (
	"bytes"
	"runtime"
)

// Goroutine returns a name of the calling goroutine that no other has while it
// lives: the number that its stack says it has. It walks over the whole stack,
// which takes ten microseconds and more.
func Goroutine() string {
	var buf [32]byte
	b := buf[:runtime.Stack(buf[:], false)]
	b = bytes.TrimPrefix(b, []byte("goroutine "))
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
