package forebay_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestBitFlipsEverywhere flips the bits of every file of a store of about 64 KiB,
// segments of two levels, range deletes, filters, manifest and log, of a sample,
// or with -everybit all of them. Each store is then opened and read in every way.
// What comes must be a *CorruptionError, or all that was there.
// Every sixteenth is opened for writing, too.
func TestBitFlipsEverywhere(t *testing.T) {
	image, keys := manySidedStore(t)
	want, err := readEverything(image, keys, true)
	require.NoError(t, err)
	list, err := image.List("db")
	require.NoError(t, err)
	step := 199
	if *everyBit {
		step = 1
	}
	total := 0
	var mu sync.Mutex
	score := map[string]map[string]int{}
	work := make(chan [2]int)
	files := []string{}
	for _, name := range list {
		if name != "LOCK" {
			files = append(files, filepath.Join("db", name))
			total += len(image.Bytes(filepath.Join("db", name)))
		}
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for w := range work {
				name, bit := files[w[0]], w[1]
				verdict := judgeFlip(image, keys, name, bit, want, bit%16 == 0)
				mu.Lock()
				kind := filepath.Ext(name)
				if kind == "" {
					kind = "manifest"
				}
				if score[kind] == nil {
					score[kind] = map[string]int{}
				}
				score[kind][verdict]++
				mu.Unlock()
				if !strings.HasPrefix(verdict, "detected") && verdict != "harmless" {
					t.Errorf("%s: bit %d of byte %d: %s", name, bit%8, bit/8, verdict)
				}
			}
		})
	}
	bits := 0
	for i, name := range files {
		for bit := i; bit < 8*len(image.Bytes(name)); bit += step {
			work <- [2]int{i, bit}
			bits++
		}
	}
	close(work)
	wg.Wait()
	t.Logf("%d files, %d bytes, %d bits flipped: %v; silent 0", len(files), total, bits, score)
}

// manySidedStore makes a store that has a bit of everything, and lists its keys
// and some that are not there, each with its keyspace.
func manySidedStore(t *testing.T) (image *vfs.Mem, keys [][2]string) {
	mem := vfs.NewMem()
	opts := &forebay.Options{FS: mem, MemtableSize: 64 << 10, MemoryLimit: 1 << 20, LogFileSize: 16 << 10, Compression: forebay.NoCompression}
	db, err := forebay.Open("db", opts)
	require.NoError(t, err)
	other, err := db.Keyspace("other")
	require.NoError(t, err)
	put := func(round, n int) {
		b := db.NewBatch()
		for i := range n {
			require.NoError(t, b.Put(fmt.Appendf(nil, "key %03d", i*7%200), fmt.Appendf(nil, "%d %s", round, strings.Repeat("v", 40))))
			require.NoError(t, b.In(other).Put(fmt.Appendf(nil, "%03d", i), fmt.Appendf(nil, "round %d", round)))
		}
		require.NoError(t, db.Apply(b, forebay.Durable))
	}
	put(1, 150)
	require.NoError(t, db.Compact(background))
	put(2, 60)
	require.NoError(t, db.DeleteRange([]byte("key 050"), []byte("key 080")))
	require.NoError(t, other.Delete([]byte("003")))
	require.NoError(t, db.Checkpoint(background))
	put(3, 20)
	require.NoError(t, db.Delete([]byte("key 000")))
	for i := range 205 {
		keys = append(keys, [2]string{"", fmt.Sprintf("key %03d", i)})
		if i < 155 {
			keys = append(keys, [2]string{"other", fmt.Sprintf("%03d", i)})
		}
	}
	require.NoError(t, db.Close())
	return mem.Snapshot(), keys
}

// readEverything opens a store and reads it, forward, backward and key by key.
func readEverything(fsys vfs.FS, keys [][2]string, readOnly bool) (got string, err error) {
	db, err := forebay.Open("db", &forebay.Options{FS: fsys, MemtableSize: 64 << 10, MemoryLimit: 1 << 20, LogFileSize: 16 << 10, ReadOnly: readOnly, MarkDelay: -1})
	if err != nil {
		return "", err
	}
	defer db.Close()
	var out strings.Builder
	names, err := db.Keyspaces()
	if err != nil {
		return "", err
	}
	fmt.Fprintln(&out, names, db.LastLSN())
	s, err := db.Snapshot()
	if err != nil {
		return "", err
	}
	defer s.Close()
	other, err := s.Keyspace("other")
	if err != nil {
		return "", err
	}
	for _, r := range []forebay.Reader{s.Reader, other} {
		for e, err := range r.Range(nil, nil) {
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&out, "%s=%s@%d\n", e.Key, e.Value, e.LSN)
		}
		for e, err := range r.RangeReverse(nil, nil) {
			if err != nil {
				return "", err
			}
			fmt.Fprintf(&out, "%s=%s@%d\n", e.Key, e.Value, e.LSN)
		}
	}
	for _, k := range keys {
		r := s.Reader
		if k[0] != "" {
			r = other
		}
		v, err := r.Get([]byte(k[1]))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return "", err
		}
		fmt.Fprintf(&out, "%s:%s\n", k[1], v)
	}
	return out.String(), nil
}

func judgeFlip(image *vfs.Mem, keys [][2]string, name string, bit int, want string, write bool) string {
	judge := func(readOnly bool) string {
		damaged := image.Snapshot()
		if err := damaged.Corrupt(name, int64(bit/8), 1, func(b []byte) { b[0] ^= 1 << (bit % 8) }); err != nil {
			return err.Error()
		}
		got, err := readEverything(damaged, keys, readOnly)
		var c *forebay.CorruptionError
		switch {
		case errors.As(err, &c) && c.File == name:
			return "detected"
		case errors.As(err, &c) && strings.HasPrefix(c.File, "db/"):
			return "detected by another file" // which contradicts what is left of this one
		case err != nil:
			return "error that names no file: " + err.Error()
		case got == want:
			return "harmless"
		}
		return "silent"
	}
	verdict := judge(true)
	if !write {
		return verdict
	}
	if v := judge(false); v != verdict {
		return "read only " + verdict + ", else " + v
	}
	return verdict
}
