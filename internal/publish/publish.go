// Package publish stores what one goroutine alone writes and others read.
//
// sync/atomic's Store is sequentially consistent: on amd64 it is an exchange, which
// waits until all stores before it have reached the cache, and with them for the lines
// of memory that they miss. For a value that says "what I wrote before is whole" it is
// enough that the stores are seen in their order, as they always are there: a release
// store. It does not order what follows: who stores here and then loads what others
// store, to learn whether they have seen it, needs sync/atomic.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, 9.2.2,
// "writes are not reordered with other writes"; AMD64 Architecture Programmer's Manual,
// volume 2, 7.2.
package publish

import "sync/atomic"

// Uint64 stores v, behind all that the calling goroutine has stored before.
func Uint64(p *atomic.Uint64, v uint64) { store64(p, v) }

// Uint32 stores v, behind all that the calling goroutine has stored before.
func Uint32(p *atomic.Uint32, v uint32) { store32(p, v) }

// Int64 stores v, behind all that the calling goroutine has stored before.
func Int64(p *atomic.Int64, v int64) { storeInt64(p, v) }

// Count adds n to what nobody else changes.
func Count(p *atomic.Int64, n int64) { storeInt64(p, p.Load()+n) }
