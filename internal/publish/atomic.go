//go:build !amd64 || race

package publish

import "sync/atomic"

// On arm64 these are release stores already. The race detector has to see them.

func store64(p *atomic.Uint64, v uint64) { p.Store(v) }

func store32(p *atomic.Uint32, v uint32) { p.Store(v) }

func storeInt64(p *atomic.Int64, v int64) { p.Store(v) }
