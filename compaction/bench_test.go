package compaction

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

// BenchmarkRun merges four segments of 100,000 random keys with values of 100
// bytes, half of which compress, in memory.
func BenchmarkRun(b *testing.B) {
	mem := vfs.NewMem()
	require.NoError(b, vfs.MkdirDurable(mem, "db"))
	next := uint64(0)
	files := Files{FS: mem, Dir: "db", Next: func() (uint64, error) { next++; return next, nil }}
	rng := rand.New(rand.NewPCG(1, 2))
	var segs []manifest.Segment
	readers := map[uint64]*segment.Reader{}
	value := make([]byte, 100)
	for i := range 4 {
		keys := make([]uint64, 100_000)
		for k := range keys {
			keys[k] = rng.Uint64()
		}
		slices.Sort(keys)
		out := NewOutput(files, 0)
		for _, k := range keys {
			binary.LittleEndian.PutUint64(value, k)
			for j := 8; j < 50; j++ {
				value[j] = byte(rng.Uint32())
			}
			require.NoError(b, out.Add(binary.BigEndian.AppendUint64([]byte("user key"), k), base.LSN(i+1), base.KindPut, value))
		}
		require.NoError(b, out.Cut(nil))
		s, r, err := out.Finish()
		require.NoError(b, err)
		segs, readers[s[0].Number] = append(segs, s[0]), r[0]
	}
	p, _ := PlanRange(segs, Options{Above: 10}, nil, nil, nil)
	b.SetBytes(4 * 100_000 * 116)
	for b.Loop() {
		r, err := Run(context.Background(), &Config{Files: files, Above: 10}, p, func(n uint64) *segment.Reader { return readers[n] })
		require.NoError(b, err)
		r.Abort()
	}
}
