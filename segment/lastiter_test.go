package segment

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// goneFile notes what of it was let go.
type goneFile struct {
	*bytesFile
	from, to int64
	calls    int
}

func (f *goneFile) LetGo(off, n int64) {
	f.from, f.to = min(f.from, off), max(f.to, off+n)
	f.calls++
}

// TestLastIterLetsGo: what was read is let go while it is quiet, and nothing that is
// still to be read; other iterators let nothing go.
func TestLastIterLetsGo(t *testing.T) {
	var vs []version
	for i := range 3000 {
		vs = append(vs, version{key: fmt.Sprintf("%08d", i), lsn: base.LSN(i + 1), kind: base.KindPut, value: string(make([]byte, 8<<10))})
	}
	b, _ := build(t, testID, WriterOptions{Compression: NoCompression}, vs)
	require.Greater(t, len(b), 5*letGoSize)
	f := &goneFile{bytesFile: &bytesFile{b: b}}
	r, err := Open(f, "000007.seg", testID, Options{})
	require.NoError(t, err)
	quiet := true
	for _, it := range []base.Iterator{r.NewScanIter(), r.NewLastIter(nil, WriterOptions{}), r.NewLastIter(func() bool { return false }, WriterOptions{})} {
		for ok := it.First(); ok; ok = it.Next() {
		}
		require.NoError(t, it.Err())
		require.NoError(t, it.Close())
		require.Zero(t, f.calls)
	}
	it := r.NewLastIter(func() bool { return quiet }, WriterOptions{})
	n, read := 0, int64(0)
	for ok := it.First(); ok; ok = it.Next() {
		n++
		read += 8<<10 + 64
		require.LessOrEqual(t, f.to, read, "what is to be read yet stays")
		if n == len(vs)/2 {
			require.Greater(t, f.to, int64(letGoSize))
			quiet = false
			f.calls = 0
		}
	}
	require.Zero(t, f.calls)
	require.Equal(t, len(vs), n)
	require.NoError(t, it.Err())
	require.NoError(t, it.Close())
}
