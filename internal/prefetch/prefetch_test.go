package prefetch_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/prefetch"
)

// TestChangesNothing: whatever is asked for, also at the end of memory, stays as it is.
func TestChangesNothing(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 1 << 20} {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i)
		}
		prefetch.Bytes(b)
		prefetch.Bytes(b[n:])
		for i := range b {
			require.Equal(t, byte(i), b[i])
		}
	}
	prefetch.Bytes(nil)
	prefetch.Value[int](nil)
	v := [300]byte{7}
	prefetch.Value(&v)
	require.Equal(t, byte(7), v[0])
}
