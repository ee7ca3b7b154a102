package segment

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// smallVersions has several blocks of 256 bytes, keys with versions across
// blocks, tombstones, and values that do and that do not compress.
func smallVersions() []version {
	r := rand.New(rand.NewPCG(5, 5))
	var vs []version
	for i := range 40 {
		v := version{key: fmt.Sprintf("key%03d", i), lsn: uint64(100 + i), kind: base.KindPut, value: fmt.Sprintf("%016d", r.Uint32())}
		switch i % 8 {
		case 3:
			v.kind, v.value = base.KindDelete, ""
		case 5:
			v.value = string(make([]byte, 60))
		case 6:
			for n := range 8 {
				vs = append(vs, version{v.key, uint64(300 - n), base.KindPut, fmt.Sprint(r.Uint64())})
			}
		}
		vs = append(vs, v)
	}
	return vs
}

// readAll reads a damaged file in every way. Each answer must be right or be a
// *base.CorruptionError; whether any read was one, and what Verify says after
// them, come back.
func readAll(t *testing.T, b []byte, vs []version, dels []base.RangeDelete, what func() string) (detected bool, verify error) {
	check := func(err error) bool {
		if err == nil {
			return true
		}
		if !isDamage(err, len(b)+1) {
			t.Fatalf("%s: not a typed error of this file: %v", what(), err)
		}
		detected = true
		return false
	}
	r, err := openBytes(b, Options{Cache: NewCache(1 << 20)})
	if !check(err) {
		return true, err
	}
	if got, err := scan(r); check(err) && !slices.Equal(got, vs) {
		t.Fatalf("%s: SILENT: the scan is wrong", what())
	}
	for _, v := range vs {
		value, kind, at, found, err := r.Get([]byte(v.key), v.lsn)
		if check(err) && (!found || kind != v.kind || at != v.lsn || string(value) != v.value) {
			t.Fatalf("%s: SILENT: Get of %v is wrong", what(), v)
		}
	}
	for i := range 20 {
		_, _, _, found, err := r.Get(fmt.Appendf(nil, "key%03dx", 2*i), base.MaxLSN)
		if check(err) && found {
			t.Fatalf("%s: SILENT: Get finds a key that is not there", what())
		}
	}
	if p, err := r.Props(); check(err) && (p.Count != uint64(len(vs)) || p.RangeDeletes != uint64(len(dels)) || string(p.Lo) != string(lowest(vs, dels))) {
		t.Fatalf("%s: SILENT: the properties are wrong", what())
	}
	if got, err := r.RangeDeletes(); check(err) && !sameDels(dels, got) {
		t.Fatalf("%s: SILENT: the range deletes are wrong", what())
	}
	if lo, _, err := r.Bounds(); check(err) && string(lo) != string(lowest(vs, dels)) {
		t.Fatalf("%s: SILENT: the bounds are wrong", what())
	}
	if got, err := scanBack(r); check(err) && !slices.Equal(got, vs) {
		t.Fatalf("%s: SILENT: the scan back is wrong", what())
	}
	verify = r.Verify(context.TODO())
	if verify != nil && !isDamage(verify, len(b)+1) {
		t.Fatalf("%s: not a typed error of this file: %v", what(), verify)
	}
	return detected, verify
}

func TestEveryBitFlipIsDetected(t *testing.T) {
	all, dels := smallVersions(), smallDels()
	for _, c := range []struct {
		name string
		opts WriterOptions
		vs   []version
		dels []base.RangeDelete
	}{
		{"none", WriterOptions{Compression: NoCompression, BlockSize: 256}, all, nil},
		{"s2", WriterOptions{Compression: S2, BlockSize: 512}, all, nil},
		{"zstd", WriterOptions{Compression: Zstd, BlockSize: 512, FilterBitsPerKey: -1}, all, nil},
		{"range deletes", WriterOptions{Compression: NoCompression, BlockSize: 256}, all, dels},
		{"range deletes, s2", WriterOptions{BlockSize: 512, FilterBitsPerKey: -1}, all, dels},
		{"range deletes alone", WriterOptions{}, nil, dels},
		{"one range delete", WriterOptions{}, nil, dels[:1]},
	} {
		t.Run(c.name, func(t *testing.T) {
			vs, dels := c.vs, c.dels
			b, _ := buildDels(t, testID, c.opts, vs, dels)
			byReads, bits, step := 0, 0, 1
			if testing.Short() || raceDetector {
				step = 13
			}
			for bit := 0; bit < 8*len(b); bit += step {
				bits++
				b[bit/8] ^= 1 << (bit % 8)
				detected, err := readAll(t, b, vs, dels, func() string { return fmt.Sprintf("bit %d of byte %d", bit%8, bit/8) })
				if err == nil {
					t.Fatalf("bit %d of byte %d: Verify passed", bit%8, bit/8)
				}
				if detected {
					byReads++
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
			t.Logf("%d bytes, %d bits flipped: Verify detected all, reads %d; answers that were wrong: 0", len(b), bits, byReads)
			_, err := readAll(t, b, vs, dels, func() string { return "the whole file" })
			require.NoError(t, err)
		})
	}
}

func TestEveryLengthButItsOwnIsDetected(t *testing.T) {
	b, _ := buildDels(t, testID, WriterOptions{BlockSize: 256}, smallVersions(), smallDels())
	for n := range len(b) {
		_, err := openBytes(b[:n:n], Options{})
		require.True(t, isDamage(err, len(b)), "cut to %d: %v", n, err)
	}
	for _, tail := range [][]byte{{0}, make([]byte, 4096), b[len(b)-footerSize:], b} {
		_, err := openBytes(slices.Concat(b, tail), Options{})
		require.True(t, isDamage(err, len(b)+len(tail)), "%v", err)
		_, err = openBytes(slices.Concat(tail, b), Options{})
		require.True(t, isDamage(err, len(b)+len(tail)), "%v", err)
	}
	_, err := openBytes(make([]byte, len(b)), Options{})
	require.True(t, isDamage(err, len(b)), "all zero: %v", err)
}

// A file that becomes shorter while it is open is damage too, never an end.
func TestTruncatedWhileOpen(t *testing.T) {
	b, _ := build(t, testID, WriterOptions{BlockSize: 256}, smallVersions())
	f := &bytesFile{b: b}
	r, err := Open(f, "000007.seg", testID, Options{})
	require.NoError(t, err)
	f.b = b[:100]
	_, err = scan(r)
	require.True(t, isDamage(err, len(b)), "%v", err)
	_, _, _, _, err = r.Get([]byte("key001"), base.MaxLSN)
	require.True(t, isDamage(err, len(b)), "%v", err)
	require.False(t, errors.Is(err, io.EOF))
	require.True(t, isDamage(r.Verify(t.Context()), len(b)))
}

// blockAt is where a block lies in a file.
type blockAt struct {
	off, n uint64
	kind   blockKind
}

// blocksOf lists the blocks of an intact file.
func blocksOf(t testing.TB, b []byte) []blockAt {
	r, err := openBytes(b, Options{})
	require.NoError(t, err)
	x, _, err := r.readIndex()
	require.NoError(t, err)
	var all []blockAt
	for i := range x.blocks {
		off, n := x.block(i)
		all = append(all, blockAt{off, n, kindData})
	}
	f := &r.foot
	if n := uint64(f.pageLen) + trailerSize; f.filterLen > 0 {
		for off := f.filterOff(); off < f.indexOff(); off += n {
			all = append(all, blockAt{off, n, kindFilter})
		}
	}
	if f.indexLen > 0 {
		all = append(all, blockAt{f.indexOff(), f.indexLen, kindIndex})
	}
	if f.delsLen > 0 {
		all = append(all, blockAt{f.delsOff(), f.delsLen, kindDels})
	}
	return append(all, blockAt{f.propsOff(), f.propsLen, kindProps},
		blockAt{f.fileLen - footerSize, footerSize, kindFooter})
}

// Blocks that are intact and stand in the wrong place must not verify: copied
// from another place, from another segment at the same place, from another store.
func TestMisdirectedBlocks(t *testing.T) {
	// Incompressible values of one length, and keys that share nothing, make blocks
	// of one length.
	vs := make([]version, 64)
	for i := range vs {
		vs[i] = version{string(rune(' '+i)) + "the key"[:5], 5, base.KindPut, fmt.Sprintf("%016x", rand.Uint64())}
	}
	opts := WriterOptions{Compression: NoCompression, BlockSize: 256}
	// So do range deletes: one of them has the length of a data block.
	dels := []base.RangeDelete{{Lo: []byte("key000"), Hi: []byte("key001"), LSN: 9}}
	b, _ := build(t, testID, opts, vs)
	dels[0].Hi = append(dels[0].Hi, make([]byte, blocksOf(t, b)[1].n-minDels-12)...)
	b, _ = buildDels(t, testID, opts, vs, dels)
	blocks := blocksOf(t, b)
	at := slices.IndexFunc(blocks, func(at blockAt) bool { return at.kind == kindDels })
	require.Equal(t, blocks[1].n, blocks[at].n)
	must := func(c []byte, from, to blockAt) {
		_, err := readAll(t, c, vs, dels, func() string { return fmt.Sprintf("%v over %v", from, to) })
		require.Error(t, err, "%v over %v", from, to)
	}
	same := 0
	for i, from := range blocks {
		for j, to := range blocks {
			if i != j && from.n == to.n {
				same++
				c := slices.Clone(b)
				copy(c[to.off:], b[from.off:from.off+from.n])
				must(c, from, to) // misdirected
				copy(c[from.off:], b[to.off:to.off+to.n])
				must(c, from, to) // swapped
			}
		}
	}
	require.Greater(t, same, 10)

	// The same versions with other values: same lengths, another segment, an
	// older file of the same number, or another store.
	older := slices.Clone(vs)
	for i := range older {
		older[i].value = fmt.Sprintf("%016x", rand.Uint64())
	}
	otherStore := testID
	otherStore.Store[3]++
	for _, id := range []ID{{testID.Store, 8}, otherStore} {
		c, _ := buildDels(t, id, opts, older, dels)
		require.Len(t, c, len(b))
		for _, at := range blocksOf(t, b) {
			d := slices.Clone(b)
			copy(d[at.off:], c[at.off:at.off+at.n])
			must(d, at, at)
		}
		_, err := openBytes(c, Options{})
		require.True(t, isDamage(err, len(c)), "a whole file of %v: %v", id, err)
		require.ErrorContains(t, err, id.String())
	}
}

// The same identity and other content is what a restored old file looks like:
// each block verifies, and the hash tells; a mixture of the two does not verify.
func TestAnOlderFileOfTheSameNumber(t *testing.T) {
	vs := smallVersions()
	opts := WriterOptions{Compression: NoCompression, BlockSize: 256}
	b, meta := build(t, testID, opts, vs)
	older := slices.Clone(vs)
	older[0].value = "X" + older[0].value[1:]
	c, olderMeta := build(t, testID, opts, older)
	require.NotEqual(t, meta.Hash, olderMeta.Hash)
	r, err := openBytes(c, Options{})
	require.NoError(t, err)
	require.Equal(t, olderMeta.Hash, r.Hash())

	d := slices.Clone(b)
	first := blocksOf(t, b)[0]
	copy(d, c[:first.n])
	r, err = openBytes(d, Options{})
	require.NoError(t, err)
	require.Equal(t, meta.Hash, r.Hash())
	require.True(t, isDamage(r.Verify(t.Context()), len(d)))
}

func TestANewerFormatIsNotDamage(t *testing.T) {
	b, _ := build(t, testID, WriterOptions{}, smallVersions())
	for _, change := range []struct{ at, value uint32 }{{8, formatVersion + 1}, {12, 1 << 3}} {
		c := slices.Clone(b)
		binary.LittleEndian.PutUint32(c[len(c)-footerSize+int(change.at):], change.value)
		_, err := openBytes(c, Options{})
		require.True(t, isDamage(err, len(c)), "without the checksum it is damage: %v", err)
		resealFooter(c)
		_, err = Open(&bytesFile{b: c}, "000007.seg", ID{}, Options{})
		var u *UnsupportedError
		require.ErrorAs(t, err, &u, "and this is said before all else")
		require.Equal(t, "000007.seg", u.File)
	}
	c := slices.Clone(b)
	binary.LittleEndian.PutUint32(c[len(c)-footerSize+16:], 1<<5) // compatible
	resealFooter(c)
	_, err := openBytes(c, Options{})
	require.NoError(t, err)
}

// An I/O error comes back as itself, with the file and the offset; the next try
// reads again.
func TestReadErrors(t *testing.T) {
	vs, dels := smallVersions(), smallDels()
	b, _ := buildDels(t, testID, WriterOptions{BlockSize: 256}, vs, dels)
	eio := errors.New("input/output error")
	for _, at := range blocksOf(t, b) {
		f := &bytesFile{b: b, readErr: func(off int64) error {
			if uint64(off) == at.off {
				return eio
			}
			return nil
		}}
		is := func(err error) {
			require.ErrorIs(t, err, eio, "%v", at)
			require.ErrorContains(t, err, fmt.Sprintf("000007.seg at offset %d", at.off))
		}
		r, err := Open(f, "000007.seg", testID, Options{Cache: NewCache(1 << 20)})
		if at.kind == kindFooter {
			is(err)
			continue
		}
		require.NoError(t, err)
		is(r.Verify(t.Context()))
		var fails error
		switch at.kind {
		case kindData, kindIndex:
			_, fails = scan(r)
		case kindFilter:
			_, _, _, _, fails = r.Get([]byte(vs[0].key), base.MaxLSN)
		case kindProps:
			_, fails = r.Props()
			_, _, err := r.Bounds()
			is(err)
		case kindDels:
			_, fails = r.RangeDeletes()
		}
		is(fails)
		f.readErr = nil
		got, err := scan(r)
		require.NoError(t, err)
		require.True(t, slices.Equal(vs, got))
		set, err := r.RangeDeletes()
		require.NoError(t, err)
		require.True(t, sameDels(dels, set))
		require.NoError(t, r.Verify(t.Context()))
	}
}
