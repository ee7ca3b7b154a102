package base_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

func TestHeadOrdersAsTheBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	draw := func() []byte {
		b := make([]byte, rng.IntN(11))
		for i := range b {
			b[i] = byte(rng.IntN(3)) * 127
		}
		return b
	}
	for range 10_000 {
		a, b := draw(), draw()
		if x, y := base.Head(a), base.Head(b); x != y {
			require.Equal(t, bytes.Compare(a, b), cmp.Compare(x, y), "%x, %x", a, b)
		}
	}
}

// TestHeadOfEachLength: shorter keys are filled up with zeros, from wherever they begin.
func TestHeadOfEachLength(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for n := range 20 {
		for range 100 {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			for skip := range n + 1 {
				var want [8]byte
				copy(want[:], b[skip:])
				require.Equal(t, binary.BigEndian.Uint64(want[:]), base.Head(b[skip:]), "%x", b[skip:])
				require.Equal(t, binary.BigEndian.Uint64(want[:]), base.HeadBehind(b, skip), "%x from %d", b, skip)
			}
		}
	}
}
