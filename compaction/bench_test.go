package compaction

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
)

// BenchmarkRun merges segments of 400,000 random keys in all, with values of 100 bytes,
// half of which compress, in memory.
func BenchmarkRun(b *testing.B) {
	for _, inputs := range []int{4, 24} {
		b.Run(fmt.Sprintf("%d", inputs), func(b *testing.B) { benchRun(b, inputs) })
	}
}

func benchRun(b *testing.B, inputs int) {
	mem := vfs.NewMem()
	require.NoError(b, vfs.MkdirDurable(mem, "db"))
	next := uint64(0)
	files := Files{FS: mem, Dir: "db", Next: func() (uint64, error) { next++; return next, nil }}
	rng := rand.New(rand.NewPCG(1, 2))
	var segs []manifest.Segment
	readers := map[uint64]*segment.Reader{}
	value := make([]byte, 100)
	for i := range inputs {
		keys := make([]uint64, 400_000/inputs)
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
	b.SetBytes(400_000 * 116)
	for b.Loop() {
		r, err := Run(context.Background(), &Config{Files: files, Above: 10}, p, func(n uint64) *segment.Reader { return readers[n] })
		require.NoError(b, err)
		r.Abort()
	}
}
