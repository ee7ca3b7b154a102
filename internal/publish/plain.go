//go:build amd64 && !race

package publish

import (
	"sync/atomic"
	"unsafe"
)

// A call that is not inlined is what keeps the compiler from moving stores over these;
// the processor does not. The types of sync/atomic have nothing beside their value.

//go:noinline
func store64(p *atomic.Uint64, v uint64) { *(*uint64)(unsafe.Pointer(p)) = v }

//go:noinline
func store32(p *atomic.Uint32, v uint32) { *(*uint32)(unsafe.Pointer(p)) = v }

//go:noinline
func storeInt64(p *atomic.Int64, v int64) { *(*int64)(unsafe.Pointer(p)) = v }

// They would not compile if they had.
var (
	_ [8]byte = [unsafe.Sizeof(atomic.Uint64{})]byte{}
	_ [4]byte = [unsafe.Sizeof(atomic.Uint32{})]byte{}
	_ [8]byte = [unsafe.Sizeof(atomic.Int64{})]byte{}
)
