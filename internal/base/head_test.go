package base_test

import (
	"bytes"
	"cmp"
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
