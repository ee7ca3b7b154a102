package segment

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenVersions is what every golden file holds: a few fruits with a history,
// then enough rows for several blocks.
func goldenVersions() []version {
	vs := []version{
		{"apple", 12, base.KindPut, "red"},
		{"apple", 7, base.KindDelete, ""},
		{"apple", 3, base.KindPut, "green"},
		{"banana", 4, base.KindPut, ""},
		{"cherry", 1 << 40, base.KindPut, strings.Repeat("dark ", 100)},
	}
	for i := range 100 {
		vs = append(vs, version{fmt.Sprintf("row%05d", i), uint64(20 + i%7), base.KindPut, fmt.Sprintf("value of row %d", i)})
	}
	return vs
}

// goldenLone are goldenVersions with lone blocks before, between and behind them.
func goldenLone() []version {
	lone := func(key string, lsn base.LSN) version {
		return version{key, lsn, base.KindPut, strings.Repeat("larger than a block ", 80)}
	}
	vs := append([]version{lone("almond", 3), lone("anise", 9)}, goldenVersions()...)
	vs = append(vs, lone("fig", 12), lone("fig", 10), lone("quince", 1<<41), lone("zucchini", 2))
	slices.SortFunc(vs, compareVersions)
	return vs
}

// goldenDels are range deletes that overlap, nest and touch.
func goldenDels() []base.RangeDelete {
	return []base.RangeDelete{
		{Lo: nil, Hi: []byte("b"), LSN: 5},
		{Lo: []byte("apple"), Hi: []byte("cherry"), LSN: 1 << 41},
		{Lo: []byte("apple"), Hi: []byte("banana"), LSN: 6},
		{Lo: []byte("banana"), Hi: []byte("banana\x00"), LSN: 4},
		{Lo: []byte("row00050"), Hi: []byte("zebra"), LSN: 2},
	}
}

// TestGolden opens files that were written when the format was fixed. They must
// open and hold the same for ever; -update is for a new format version alone.
// That the writer still makes the same bytes is asked where no compressor's
// choices are among them.
func TestGolden(t *testing.T) {
	for _, g := range []struct {
		name string
		opts WriterOptions
		vs   []version
		dels []base.RangeDelete
	}{
		{"v1-none.seg", WriterOptions{Compression: NoCompression, BlockSize: 1024}, goldenVersions(), nil},
		{"v1-s2.seg", WriterOptions{Compression: S2, BlockSize: 1024}, goldenVersions(), nil},
		{"v1-zstd.seg", WriterOptions{Compression: Zstd, BlockSize: 1024}, goldenVersions(), nil},
		{"v1-nofilter.seg", WriterOptions{Compression: NoCompression, FilterBitsPerKey: -1}, goldenVersions(), nil},
		{"v1-rangedeletes.seg", WriterOptions{Compression: NoCompression, BlockSize: 1024}, goldenVersions(), goldenDels()},
		{"v1-rangedeletes-alone.seg", WriterOptions{Compression: NoCompression}, nil, goldenDels()},
		{"v1-lone-none.seg", WriterOptions{Compression: NoCompression, BlockSize: 1024}, goldenLone(), goldenDels()},
		{"v1-lone-s2.seg", WriterOptions{Compression: S2, BlockSize: 1024}, goldenLone(), nil},
		{"v1-lone-zstd.seg", WriterOptions{Compression: Zstd, BlockSize: 1024}, goldenLone(), nil},
	} {
		t.Run(g.name, func(t *testing.T) {
			file := filepath.Join("testdata", g.name)
			made, _ := buildDels(t, testID, g.opts, g.vs, g.dels)
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o700))
				require.NoError(t, os.WriteFile(file, made, 0o600))
			}
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			r, err := openBytes(b, Options{})
			require.NoError(t, err)
			got, err := scan(r)
			require.NoError(t, err)
			require.True(t, slices.Equal(g.vs, got))
			set, err := r.RangeDeletes()
			require.NoError(t, err)
			require.True(t, sameDels(g.dels, set))
			require.NoError(t, r.Verify(t.Context()))
			value, kind, at, found, err := r.Get([]byte("apple"), 11)
			require.NoError(t, err)
			require.Equal(t, len(g.vs) > 0, found)
			if found {
				require.Equal(t, version{"apple", 7, base.KindDelete, ""}, version{"apple", at, kind, string(value)})
			}
			require.Equal(t, strings.HasPrefix(g.name, "v1-lone"), r.foot.required&featureLone != 0)
			if g.opts.Compression == NoCompression {
				require.True(t, bytes.Equal(b, made), "the writer makes other bytes than it did")
			}
		})
	}
}
