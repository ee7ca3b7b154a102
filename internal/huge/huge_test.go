package huge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/huge"
)

func TestMakeIsZeroAndWhole(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 2 << 20, 4<<20 - 1, 4 << 20, 9<<20 + 5} {
		b := huge.Make[byte](n)
		require.Len(t, b, n)
		for i := 0; i < n; i += 511 {
			require.Zero(t, b[i])
			b[i] = byte(i)
		}
		for i := 0; i < n; i += 511 {
			require.Equal(t, byte(i), b[i])
		}
	}
	type node struct{ a, b, c uint64 }
	s := huge.Make[node](1 << 18)
	require.Len(t, s, 1<<18)
	s[1<<18-1] = node{1, 2, 3}
	require.Equal(t, node{}, s[0])
}

func TestMapIsZeroAndWhole(t *testing.T) {
	for _, n := range []int{1, 4096, 5000, 1 << 20, 2 << 20, 4<<20 - 1, 9<<20 + 5} {
		m := huge.Map(n)
		b := m.Bytes()
		require.Len(t, b, n)
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("%d: byte %d is %d", n, i, b[i])
			}
			b[i] = byte(i)
		}
		m.Discard(0, n)
		m.Discard(n/2, n/2)
		b[n-1] = 1
		m.Free()
		require.Empty(t, m.Bytes())
		m.Free()
	}
}
