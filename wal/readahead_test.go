package wal

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// failing is a file that cannot be read from an offset on.
type failing struct {
	io.ReaderAt
	from int64
}

var errFailing = errors.New("it cannot be read")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.from || off+int64(len(p)) > f.from {
		n, _ := f.ReaderAt.ReadAt(p[:max(0, min(int64(len(p)), f.from-off))], off)
		return n, errFailing
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestReadAhead: what is read is what the file has, in whatever steps, forward and back,
// and what cannot be read is told where it is asked for.
func TestReadAhead(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, aheadFrom+5*aheadPiece+1234)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for round := range 30 {
		size, from := int64(len(data)), int64(len(data))
		if round%2 == 1 {
			from = rng.Int64N(size)
		}
		a := newReadAhead(&failing{bytes.NewReader(data), from}, size)
		buf := make([]byte, 700<<10)
		for off := int64(0); off < size; {
			p := buf[:min(1+rng.Int64N(int64(len(buf))), size-off)]
			n, err := a.ReadAt(p, off)
			require.Equal(t, data[off:off+int64(n)], p[:n])
			if off+int64(len(p)) > from {
				require.ErrorIs(t, err, errFailing)
				require.LessOrEqual(t, off+int64(n), from)
				break
			}
			require.NoError(t, err)
			require.Len(t, p, n)
			if off += int64(n); rng.IntN(3) == 0 { // a frame that began before
				off -= rng.Int64N(min(off, 400<<10))
			}
		}
		a.stop()
	}
}
