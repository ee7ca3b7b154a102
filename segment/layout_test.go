package segment

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// payloadOf builds a data block, on its own.
func payloadOf(n int, at func(i int) (key string, lsn base.LSN, value string)) []byte {
	var d dataBuilder
	d.reset()
	for i := range n {
		k, lsn, v := at(i)
		d.add([]byte(k), lsn, base.KindPut, []byte(v))
	}
	return append([]byte(nil), d.finish()...)
}

// TestNoDirectory: what cannot be laid out, or would take far too much memory, has no
// directory at all, and is read as it is, from a cache with room and without.
func TestNoDirectory(t *testing.T) {
	same := strings.Repeat("s", 200)
	for name, at := range map[string]func(i int) (string, base.LSN, string){
		// Of all keys nothing is shared, of neighbours nearly all.
		"much larger": func(i int) (string, base.LSN, string) {
			return fmt.Sprintf("%c%s%05d", 'a'+i/200, same, i), base.LSN(i), ""
		},
		"LSNs far apart": func(i int) (string, base.LSN, string) {
			return fmt.Sprintf("%05d", i), base.LSN(i%2) << 62, strings.Repeat("v", i%2*200)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, ok := layOut(payloadOf(300, at), func(n int) []byte { return make([]byte, n) })
			require.False(t, ok)
			require.Zero(t, d)
			var vs []version
			for i := range 300 {
				k, lsn, v := at(i)
				vs = append(vs, version{k, lsn, base.KindPut, v})
			}
			b, _ := build(t, testID, WriterOptions{BlockSize: 64 << 10}, vs)
			for _, budget := range []int64{1 << 20, 16 << 20} {
				r, err := openBytes(b, Options{Cache: NewCache(budget)})
				require.NoError(t, err)
				for range 3 {
					got, err := scan(r)
					require.NoError(t, err)
					require.Equal(t, vs, got)
				}
				require.NotNil(t, r.index.Load().peek(0))
				require.Zero(t, r.index.Load().peek(0).Side)
				(&directed{t, r, vs, rand.New(rand.NewPCG(1, 1))}).gets()
			}
		})
	}
}

// TestLaidOutLater: a block that comes while the cache is full has no directory until
// it is asked for again, and then counts with what it takes.
func TestLaidOutLater(t *testing.T) {
	vs := shapes()["numbers"]
	b, _ := build(t, testID, WriterOptions{BlockSize: 1024}, vs)
	cache := NewCache(512 << 10) // no room for the largest block there may be, at once
	r, err := openBytes(b, Options{Cache: cache})
	require.NoError(t, err)
	cache.Resize(directoryMax)
	get := func() {
		_, _, _, found, err := r.Get([]byte(vs[0].key), base.MaxLSN)
		require.NoError(t, err)
		require.True(t, found)
	}
	get()
	c := r.index.Load().cached(0)
	require.Zero(t, c.Side.n)
	before := cache.Bytes()
	get()
	again := r.index.Load().peek(0)
	require.NotSame(t, c, again)
	require.NotZero(t, again.Side.n)
	whole := func(b []byte) int64 { // what it takes: units, from two on
		if len(b) < 1024 {
			return int64(len(b))
		}
		return int64(len(b)+511) &^ 511
	}
	require.Equal(t, before+whole(again.Data)-whole(c.Data), cache.Bytes())
	require.Same(t, c, r.laidOut(c), "who holds the old block goes on to use it as it is")
	c.Release()
	get()
	require.Same(t, again, r.index.Load().peek(0))
}
