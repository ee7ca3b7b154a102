package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// bytesFile is a file that is a slice, so that a test can change any byte of it
// at no cost, and whose calls can be made to fail.
type bytesFile struct {
	b       []byte
	readErr func(off int64) error
	callErr error // of writes and syncs
	writes  []int // their lengths
	synced  int   // length at the last Sync
	closed  bool
}

var _ vfs.File = (*bytesFile)(nil)

func (f *bytesFile) ReadAt(p []byte, off int64) (int, error) {
	if f.readErr != nil {
		if err := f.readErr(off); err != nil {
			return 0, err
		}
	}
	if off >= int64(len(f.b)) {
		return 0, io.EOF
	}
	n := copy(p, f.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *bytesFile) WriteAt(p []byte, off int64) (int, error) {
	if f.callErr != nil {
		return 0, f.callErr
	}
	if end := off + int64(len(p)); end > int64(len(f.b)) {
		f.b = append(f.b, make([]byte, end-int64(len(f.b)))...)
	}
	f.writes = append(f.writes, len(p))
	return copy(f.b[off:], p), nil
}

func (f *bytesFile) Close() error            { f.closed = true; return nil }
func (f *bytesFile) Size() (int64, error)    { return int64(len(f.b)), nil }
func (f *bytesFile) Sync() error             { f.synced = len(f.b); return f.callErr }
func (f *bytesFile) SyncData() error         { return f.Sync() }
func (f *bytesFile) Zero(off, n int64) error { return errors.New("not for segments") }

// version is one row of a model.
type version struct {
	key   string
	lsn   base.LSN
	kind  base.Kind
	value string
}

func (v version) String() string {
	return fmt.Sprintf("%q@%d %v %d bytes", v.key, v.lsn, v.kind, len(v.value))
}

func compareVersions(a, b version) int {
	return base.Compare([]byte(a.key), a.lsn, []byte(b.key), b.lsn)
}

var testID = ID{Store: [16]byte{'a', ' ', 's', 't', 'o', 'r', 'e'}, Number: 7}

// build writes a segment of the versions.
func build(t testing.TB, id ID, opts WriterOptions, vs []version) ([]byte, Meta) {
	t.Helper()
	return buildDels(t, id, opts, vs, nil)
}

// buildDels writes a segment of the versions and the range deletes.
func buildDels(t testing.TB, id ID, opts WriterOptions, vs []version, dels []base.RangeDelete) ([]byte, Meta) {
	t.Helper()
	f := &bytesFile{}
	w, err := NewWriter(f, id, opts)
	require.NoError(t, err)
	for _, v := range vs {
		require.NoError(t, w.Add([]byte(v.key), v.lsn, v.kind, []byte(v.value)))
	}
	for _, d := range dels {
		require.NoError(t, w.AddRangeDelete(d.Lo, d.Hi, d.LSN))
	}
	meta, err := w.Finish()
	require.NoError(t, err)
	require.Zero(t, f.synced, "that is for the caller")
	return f.b, meta
}

func openBytes(b []byte, opts Options) (*Reader, error) {
	return Open(&bytesFile{b: b}, "000007.seg", testID, opts)
}

// read takes what an iterator stands on.
func read(it base.Iterator) version {
	return version{string(it.Key()), it.LSN(), it.Kind(), string(it.Value())}
}

// scan reads all versions forward.
func scan(r *Reader) ([]version, error) {
	it := r.NewIter()
	defer it.Close()
	var vs []version
	for ok := it.First(); ok; ok = it.Next() {
		vs = append(vs, read(it))
	}
	return vs, it.Err()
}

// isDamage reports whether err is a corruption of the test's file, with a place
// inside the file or -1.
func isDamage(err error, size int) bool {
	var c *base.CorruptionError
	return errors.As(err, &c) && c.File == "000007.seg" && c.Offset >= -1 && c.Offset <= int64(size)
}

// randomVersions makes about n sorted versions: keys that share prefixes, hold
// zero bytes and repeat, values of all sizes, tombstones, LSNs near and far.
func randomVersions(r *rand.Rand, n int) []version {
	var vs []version
	prefixes := []string{"", "user/", "user/00000000", "\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff"}
	value := make([]byte, 1<<16)
	for i := range value {
		value[i] = "abcdefgh"[r.IntN(8)]
	}
	for len(vs) < n {
		key := prefixes[r.IntN(len(prefixes))]
		switch r.IntN(4) {
		case 0:
			key += fmt.Sprintf("%06d", r.IntN(n))
		case 1:
			key += string(bytes.Repeat([]byte{byte(r.IntN(3))}, 1+r.IntN(12)))
		case 2:
			key += fmt.Sprintf("%d", r.IntN(9))
		case 3:
			b := make([]byte, 1+r.IntN(40))
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			key += string(b)
		}
		versions := 1
		if r.IntN(5) == 0 {
			versions = 1 + r.IntN(60)
		}
		for range versions {
			v := version{key: key, lsn: 1 + r.Uint64N(1000), kind: base.KindPut}
			switch r.IntN(12) {
			case 0:
				v.kind = base.KindDelete
			case 1:
				v.value = string(value[:r.IntN(1<<uint(r.IntN(17)))])
			case 2: // empty
			default:
				at := r.IntN(1000)
				v.value = string(value[at : at+r.IntN(100)])
			}
			if r.IntN(50) == 0 {
				v.lsn = r.Uint64() >> uint(r.IntN(64)) &^ 1
			}
			vs = append(vs, v)
		}
	}
	slices.SortFunc(vs, compareVersions)
	return slices.CompactFunc(vs, func(a, b version) bool { return compareVersions(a, b) == 0 })
}
