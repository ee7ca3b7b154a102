package wal_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// counting is a source of store ids and salts that is the same each time.
type counting struct{ n uint64 }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = byte(c.n)
	}
	return len(p), nil
}

// goldenLog lives three lives in mem: it fills a file, is cut back, crashes so
// that the last open copies records forward, and closes.
func goldenLog(t *testing.T, align int64, codec wal.Codec) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	rand := &counting{}
	options := func() *wal.Options {
		o := testOptions(mem)
		o.Rand, o.Align, o.Compression, o.Hold = rand, align, codec, -1
		o.FileSize = o.FirstFileSize
		return o
	}
	record := func(n int) string { return fmt.Sprintf("record %d, %s", n, strings.Repeat("in words, ", n%9*40)) }
	l, _ := openAll(t, options())
	for i := 1; len(l.Files()) < 3; i++ {
		r := &wal.Request{Records: []wal.Record{{Data: []byte(record(i)), Keep: uint64(i)}}, Level: wal.Level(i % 2)}
		require.NoError(t, l.Commit(r))
	}
	require.NoError(t, l.Pin("somebody", 1))
	require.NoError(t, l.TruncateFront(l.Files()[0].Last))
	require.NoError(t, l.TruncateBack(l.LastLSN()-1))
	put(t, l, wal.Durable, "behind the cut")
	put(t, l, wal.Durable, "the last durable one")
	put(t, l, wal.Written, "the last written one")
	mem = mem.Snapshot()
	l, _ = openAll(t, options())
	put(t, l, wal.Durable, "behind the copies")
	require.NoError(t, l.Close())
	return mem
}

// tell is what an open finds in a directory.
func tell(t *testing.T, mem *vfs.Mem) string {
	t.Helper()
	var s strings.Builder
	o := testOptions(mem)
	o.OnRecord = func(lsn wal.LSN, keep uint64, rec []byte) error {
		fmt.Fprintf(&s, "record %d keep %d: %.40q (%d bytes)\n", lsn, keep, rec, len(rec))
		return nil
	}
	rep, err := wal.Inspect("db", o)
	require.NoError(t, err)
	fmt.Fprintf(&s, "%+v\n", rep)
	l, err := wal.Open("db", testOptions(mem.Snapshot()))
	require.NoError(t, err)
	for _, f := range l.Files() {
		fmt.Fprintf(&s, "%+v\n", f)
	}
	fmt.Fprintf(&s, "pins %v\n", l.Pins())
	for lsn := l.Floor(); lsn <= l.LastLSN(); lsn++ {
		fmt.Fprintf(&s, "%d:%d ", lsn, l.EpochAt(lsn))
	}
	require.NoError(t, l.Close())
	return filepath.ToSlash(s.String()) + "\n"
}

// TestGolden opens logs, catalogs among them, that were written when the format
// was fixed. The files are stored without the zeros at their end; -update is
// for a new format version alone.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name  string
		align int64
		codec wal.Codec
	}{{"v1", 0, wal.NoCompression}, {"v1-blocks-zstd", 4096, wal.Zstd}} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join("testdata", c.name)
			made := goldenLog(t, c.align, c.codec)
			if *update {
				require.NoError(t, os.RemoveAll(dir))
				require.NoError(t, os.MkdirAll(dir, 0o700))
				for name, b := range snapshotFiles(t, made) {
					stored := binary.LittleEndian.AppendUint64(nil, uint64(len(b)))
					stored = append(stored, strings.TrimRight(b, "\x00")...)
					require.NoError(t, os.WriteFile(filepath.Join(dir, name+".golden"), stored, 0o600))
				}
				require.NoError(t, os.WriteFile(filepath.Join(dir, "story.txt"), []byte(tell(t, made)), 0o600))
			}
			mem := vfs.NewMem()
			require.NoError(t, mem.MkdirAll("db"))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			var stored []string
			for _, e := range entries {
				name, ok := strings.CutSuffix(e.Name(), ".golden")
				if !ok {
					continue
				}
				b, err := os.ReadFile(filepath.Join(dir, e.Name()))
				require.NoError(t, err)
				full := make([]byte, binary.LittleEndian.Uint64(b))
				copy(full, b[8:])
				require.NoError(t, mem.SetBytes(filepath.Join("db", name), full))
				stored = append(stored, name)
			}
			want, err := os.ReadFile(filepath.Join(dir, "story.txt"))
			require.NoError(t, err)
			require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), tell(t, mem))
			if c.codec == wal.NoCompression {
				now := snapshotFiles(t, made)
				for _, name := range stored {
					require.True(t, now[name] == string(mem.Bytes(filepath.Join("db", name))), "other bytes are written to %s than were", name)
				}
				require.Equal(t, len(now), len(stored))
			}
			// It is a log to go on with.
			l, _ := openAll(t, testOptions(mem))
			n := l.LastLSN()
			require.Equal(t, n+1, put(t, l, wal.Durable, "now"))
			require.NoError(t, l.Close())
			l, got := openAll(t, testOptions(mem))
			require.Equal(t, "now", got[len(got)-1])
			require.True(t, slices.Contains(got, "the last written one"))
			require.NoError(t, l.Close())
		})
	}
}
