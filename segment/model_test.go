package segment

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

var modelSeed = flag.Uint64("segment.seed", 0, "seed of the model test; 0 takes a new one")

// TestModel compares a segment with the sorted list that it was made of.
// Replay a failure with -segment.seed.
func TestModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-segment.seed=%d", seed)
	round := 0
	for _, comp := range []Compression{NoCompression, S2, Zstd} {
		for _, n := range []int{1, 2, 17, 300, 1500} {
			for _, blockSize := range []int{256, 0} {
				for _, cached := range []bool{false, true} {
					round++
					r := rand.New(rand.NewPCG(seed, uint64(round)))
					name := fmt.Sprintf("%v/%d/%d/%v", comp, n, blockSize, cached)
					t.Run(name, func(t *testing.T) {
						m := newModel(t, r, n, WriterOptions{Compression: comp, BlockSize: blockSize}, cached)
						m.forwardAndBack()
						m.seeks()
						m.gets()
						m.walk()
						require.NoError(t, m.r.Verify(t.Context()))
						require.NoError(t, m.r.Verify(context.TODO()))
					})
				}
			}
		}
	}
}

type model struct {
	t    *testing.T
	rand *rand.Rand
	vs   []version
	r    *Reader
}

func newModel(t *testing.T, r *rand.Rand, n int, opts WriterOptions, cached bool) *model {
	m := &model{t: t, rand: r, vs: randomVersions(r, n)}
	if r.IntN(4) == 0 {
		opts.FilterBitsPerKey = -1
	}
	b, meta := build(t, testID, opts, m.vs)
	var ropts Options
	if cached {
		ropts.Cache = NewCache(256 << 10) // small, so that it evicts
	}
	var err error
	m.r, err = openBytes(b, ropts)
	require.NoError(t, err)
	first, last := m.vs[0], m.vs[len(m.vs)-1]
	require.Equal(t, uint64(len(m.vs)), meta.Count)
	require.Equal(t, uint64(len(b)), meta.Size)
	require.Equal(t, first.key, string(meta.Lo))
	require.Equal(t, last.key+"\x00", string(meta.Hi))
	require.Equal(t, meta.Hash, m.r.Hash())
	p, err := m.r.Props()
	require.NoError(t, err)
	require.Equal(t, meta.Count, p.Count)
	require.Equal(t, meta.Tombstones, p.Tombstones)
	require.Equal(t, meta.MinLSN, p.MinLSN)
	require.Equal(t, meta.MaxLSN, p.MaxLSN)
	require.Equal(t, opts.Compression, p.Compression)
	return m
}

func (m *model) forwardAndBack() {
	got, err := scan(m.r)
	require.NoError(m.t, err)
	require.True(m.t, slices.Equal(m.vs, got), "scan differs")
	it := m.r.NewScanIter()
	i := len(m.vs)
	for ok := it.Last(); ok; ok = it.Prev() {
		i--
		require.Equal(m.t, m.vs[i], read(it))
	}
	require.NoError(m.t, it.Err())
	require.Zero(m.t, i)
	require.False(m.t, it.Valid())
	require.NoError(m.t, it.Close())
}

// probe makes a place to seek: a version's own, near one, or anywhere.
func (m *model) probe() (string, base.LSN) {
	v := m.vs[m.rand.IntN(len(m.vs))]
	lsn := []base.LSN{v.lsn, v.lsn + 1, v.lsn - 1, 0, base.MaxLSN, m.rand.Uint64N(1000)}[m.rand.IntN(6)]
	switch m.rand.IntN(5) {
	case 0:
		return v.key + "\x00", lsn
	case 1:
		return v.key[:m.rand.IntN(len(v.key)+1)], lsn
	case 2:
		b := []byte(v.key)
		b[m.rand.IntN(len(b))]++
		return string(b), lsn
	}
	return v.key, lsn
}

func (m *model) seeks() {
	it := m.r.NewIter()
	defer it.Close()
	for range 1000 {
		key, lsn := m.probe()
		i, _ := slices.BinarySearchFunc(m.vs, version{key: key, lsn: lsn}, compareVersions)
		ok := it.SeekGE([]byte(key), lsn)
		require.Equal(m.t, i < len(m.vs), ok, "SeekGE %q %d", key, lsn)
		if ok {
			require.Equal(m.t, m.vs[i], read(it))
		}
		ok = it.SeekLT([]byte(key), lsn)
		require.Equal(m.t, i > 0, ok, "SeekLT %q %d", key, lsn)
		if ok {
			require.Equal(m.t, m.vs[i-1], read(it))
		}
		require.NoError(m.t, it.Err())
	}
}

func (m *model) gets() {
	want := func(key string, lsn base.LSN) (version, bool) {
		i, _ := slices.BinarySearchFunc(m.vs, version{key: key, lsn: lsn}, compareVersions)
		if i < len(m.vs) && m.vs[i].key == key {
			return m.vs[i], true
		}
		return version{}, false
	}
	check := func(key string, lsn base.LSN) {
		v, ok := want(key, lsn)
		value, kind, at, found, err := m.r.Get([]byte(key), lsn)
		require.NoError(m.t, err)
		require.Equal(m.t, ok, found, "Get %q %d", key, lsn)
		require.Equal(m.t, v, version{key[:len(v.key)], at, kind, string(value)})
	}
	for _, v := range m.vs {
		for _, lsn := range []base.LSN{v.lsn - 1, v.lsn, v.lsn + 1, base.MaxLSN} {
			check(v.key, lsn)
		}
	}
	for range 1000 {
		check(m.probe())
	}
}

// walk mixes all moves of an iterator.
func (m *model) walk() {
	it := m.r.NewIter()
	defer it.Close()
	i := -1 // where the model stands, -1 nowhere
	for range 3000 {
		var ok bool
		switch m.rand.IntN(12) {
		case 0:
			ok, i = it.First(), 0
		case 1:
			ok, i = it.Last(), len(m.vs)-1
		case 2:
			key, lsn := m.probe()
			ok = it.SeekGE([]byte(key), lsn)
			i, _ = slices.BinarySearchFunc(m.vs, version{key: key, lsn: lsn}, compareVersions)
		case 3:
			key, lsn := m.probe()
			ok = it.SeekLT([]byte(key), lsn)
			i, _ = slices.BinarySearchFunc(m.vs, version{key: key, lsn: lsn}, compareVersions)
			i--
		case 4, 5, 6, 7:
			ok = it.Next()
			if i >= 0 {
				i++
			}
		default:
			ok = it.Prev()
			i--
		}
		if i < 0 || i >= len(m.vs) {
			i = -1
		}
		require.Equal(m.t, i >= 0, ok)
		require.Equal(m.t, ok, it.Valid())
		if ok {
			require.Equal(m.t, m.vs[i], read(it))
		}
		require.NoError(m.t, it.Err())
	}
}

func TestManyReadersAtOnce(t *testing.T) {
	vs := randomVersions(rand.New(rand.NewPCG(1, 1)), 2000)
	b, _ := build(t, testID, WriterOptions{BlockSize: 1024}, vs)
	r, err := openBytes(b, Options{Cache: NewCache(64 << 10)})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			if g == 0 {
				if got, err := scan(r); err != nil || !slices.Equal(vs, got) {
					t.Errorf("scan: %v", err)
				}
				return
			}
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 2000 {
				v := vs[rnd.IntN(len(vs))]
				value, kind, at, found, err := r.Get([]byte(v.key), v.lsn)
				if err != nil || !found || kind != v.kind || at != v.lsn || string(value) != v.value {
					t.Errorf("Get of %v: %v %v %v %v", v, kind, at, found, err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, r.Close())
	require.Zero(t, r.cache.Bytes())
}

// TestRuns: a run shows what as many moves would, and Advance leads there.
func TestRuns(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		vs := randomVersions(rng, 1+rng.IntN(400))
		b, _ := build(t, testID, WriterOptions{BlockSize: 256 << rng.IntN(5)}, vs)
		r, err := openBytes(b, Options{})
		require.NoError(t, err)
		it := r.NewIter().(*iter)
		at := rng.IntN(len(vs))
		require.True(t, it.SeekGE([]byte(vs[at].key), vs[at].lsn))
		var run []base.Version
		for range 200 {
			back := rng.IntN(2) == 0
			run = it.Run(run, 1+rng.IntN(80), back)
			require.NotEmpty(t, run)
			step := 1
			if back {
				step = -1
			}
			for i, e := range run {
				require.Equal(t, vs[at+i*step], version{string(e.Key), e.LSN, e.Kind, string(e.Value)})
			}
			n := rng.IntN(len(run))
			it.Advance(n)
			at += n * step
			require.Equal(t, vs[at], read(it))
			// The moves go on from there, to the next block as well.
			if next := at + 1; next < len(vs) && rng.IntN(2) == 0 {
				at = next
				require.True(t, it.Next())
			} else if at > 0 {
				at--
				require.True(t, it.Prev())
			}
			require.Equal(t, vs[at], read(it))
		}
		require.NoError(t, it.Close())
		require.NoError(t, r.Close())
	}
}
