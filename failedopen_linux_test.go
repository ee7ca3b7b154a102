package forebay_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
)

// anonymous returns how much memory of the process is resident and of no file.
func anonymous(t *testing.T) (bytes int64) {
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			_, err := fmt.Sscan(rest, &bytes)
			require.NoError(t, err)
		}
	}
	return bytes << 10
}

// TestRegressMemoryOfFailedOpens: what an open that fails has replayed lies outside of
// the heap, so that it takes long until the collector would find it.
func TestRegressMemoryOfFailedOpens(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector memory is of the heap")
	}
	dir := t.TempDir()
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	value := bytes.Repeat([]byte("0123456789abcdef"), 64)
	for i := range 26000 {
		b := db.NewBatch()
		require.NoError(t, b.Put(fmt.Appendf(nil, "%08d", i), value))
		require.NoError(t, db.Apply(b, forebay.Buffered))
	}
	require.NoError(t, db.Close())
	var last string
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	require.NoError(t, err)
	for _, f := range files {
		if st, err := os.Stat(f); err == nil && st.Size() > 1<<20 {
			last = f
		}
	}
	b, err := os.ReadFile(last)
	require.NoError(t, err)
	b[bytes.LastIndex(b, value[:16])-2000] ^= 1
	require.NoError(t, os.WriteFile(last, b, 0o600))
	debug.FreeOSMemory()
	before := anonymous(t)
	for range 12 { // 28 MiB each
		_, err := forebay.Open(dir, nil)
		var damage *forebay.CorruptionError
		require.ErrorAs(t, err, &damage)
	}
	require.Less(t, anonymous(t)-before, int64(128<<20))
}
