package segment

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// surveyed reads what a survey leaves of b.
func surveyed(t *testing.T, b []byte) (*Remains, []version) {
	t.Helper()
	f := &bytesFile{b: b}
	m, err := Survey(context.Background(), f, "000007.seg", testID)
	require.NoError(t, err)
	it := m.NewIter(f)
	var vs []version
	for ok := it.First(); ok; ok = it.Next() {
		vs = append(vs, read(it))
	}
	require.NoError(t, it.Err())
	require.Len(t, vs, int(m.Count))
	var back []version
	for ok := it.Last(); ok; ok = it.Prev() {
		back = append(back, read(it))
	}
	require.NoError(t, it.Err())
	slices.Reverse(back)
	require.Equal(t, vs, back)
	return m, vs
}

// blockVersions returns where each data block lies and its versions.
func blockVersions(t *testing.T, b []byte) (places []found, versions [][]version) {
	t.Helper()
	r, err := openBytes(b, Options{})
	require.NoError(t, err)
	x, err := r.loadIndex()
	require.NoError(t, err)
	it := r.NewIter().(*iter)
	versions = make([][]version, len(x.blocks))
	for i := range x.blocks {
		off, n := x.block(i)
		places = append(places, found{off, n, kindData})
	}
	for ok := it.First(); ok; ok = it.Next() {
		versions[it.block] = append(versions[it.block], read(it))
	}
	require.NoError(t, it.Err())
	return places, versions
}

func TestSurveyOfWhatIsWhole(t *testing.T) {
	r := surveyRand(t)
	vs := surveyVersions(r, 300)
	dels := []base.RangeDelete{{Lo: []byte("a"), Hi: []byte("c"), LSN: 9}}
	b, _ := buildDels(t, testID, WriterOptions{BlockSize: 512}, vs, dels)
	m, got := surveyed(t, b)
	require.Empty(t, m.Lost)
	require.True(t, m.Finished)
	require.Equal(t, vs, got)
	require.Equal(t, dels, m.Dels.Ranges())
	id, err := ReadID(&bytesFile{b: b}, "x")
	require.NoError(t, err)
	require.Equal(t, testID, id)
	b[len(b)-20] ^= 1
	_, err = ReadID(&bytesFile{b: b}, "x")
	require.True(t, errors.As(err, new(*base.CorruptionError)))
}

// TestSurveyFindsEveryBlockThatIsWhole: whatever is damaged, each data block that
// is not touched is found, and each version that is not is in a part that is told.
func TestSurveyFindsEveryBlockThatIsWhole(t *testing.T) {
	r := surveyRand(t)
	for range 150 {
		opts := WriterOptions{BlockSize: 256 << r.IntN(3), Compression: Compression(1 + r.IntN(3))}
		b, _ := build(t, testID, opts, surveyVersions(r, 1+r.IntN(400)))
		places, versions := blockVersions(t, b)
		touched := make([]bool, len(b))
		for range 1 + r.IntN(3) {
			switch at := r.IntN(len(b)); r.IntN(6) {
			case 0:
				at = len(b) - 1 - r.IntN(min(len(b), 300))
				b[at] ^= 1 << r.IntN(8)
				touched[at] = true
			case 1:
				if r.IntN(3) == 0 {
					b = b[:at]
				}
			case 2, 3:
				n := min(r.IntN(2000), len(b)-at)
				clear(b[at : at+n])
				for i := at; i < at+n; i++ {
					touched[i] = true
				}
			default:
				b[at] ^= 1 << r.IntN(8)
				touched[at] = true
			}
			if len(b) == 0 {
				break
			}
		}
		m, got := surveyed(t, b)
		have := map[string]bool{}
		for _, v := range got {
			have[v.String()+v.value] = true
		}
		for i, p := range places {
			whole := p.end() <= uint64(len(b)) && !slices.Contains(touched[p.off:p.end()], true)
			for _, v := range versions[i] {
				if whole {
					require.True(t, have[v.String()+v.value], "block %d of %d is whole, but %v is not there", i, len(places), v)
				}
				if !have[v.String()+v.value] {
					require.True(t, slices.ContainsFunc(m.Lost, func(l Part) bool {
						return (l.What == "data" || l.What == "unknown") && (l.Lo == nil || string(l.Lo) <= v.key) && (l.Hi == nil || v.key <= string(l.Hi))
					}), "%v is gone and not told: %+v", v, m.Lost)
				}
			}
		}
	}
}

// surveyRand returns a source of chance and tells its seed.
func surveyRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// surveyVersions is randomVersions with LSNs that commits have.
func surveyVersions(r *rand.Rand, n int) []version {
	vs := randomVersions(r, n)
	return slices.DeleteFunc(vs, func(v version) bool { return v.lsn >= base.OwnLSN })
}

// TestSurveyOfAFileThatIsCut: at each length, what is gone is told.
func TestSurveyOfAFileThatIsCut(t *testing.T) {
	r := surveyRand(t)
	vs := slices.DeleteFunc(surveyVersions(r, 40), func(v version) bool { return len(v.value) > 200 })
	dels := []base.RangeDelete{{Lo: []byte("a"), Hi: []byte("c"), LSN: 9}}
	b, _ := buildDels(t, testID, WriterOptions{BlockSize: 256}, vs, dels)
	places, _ := blockVersions(t, b)
	for n := range len(b) {
		m, got := surveyed(t, b[:n])
		require.NotEmpty(t, m.Lost)
		require.False(t, m.Finished)
		require.True(t, slices.Equal(vs[:len(got)], got))
		told := func(what ...string) bool {
			return slices.ContainsFunc(m.Lost, func(l Part) bool { return slices.Contains(what, l.What) })
		}
		whole := uint64(n) >= places[len(places)-1].end()
		require.Equal(t, whole, len(got) == len(vs))
		require.True(t, whole || told("data", "unknown"), "at %d of %d: %+v", n, len(b), m.Lost)
		require.True(t, m.Dels.Len() > 0 || told("range deletes", "unknown"), "at %d of %d: %+v", n, len(b), m.Lost)
	}
}

func TestSurveySeeks(t *testing.T) {
	r := surveyRand(t)
	b, _ := build(t, testID, WriterOptions{BlockSize: 256}, surveyVersions(r, 300))
	b[len(b)/3] ^= 1
	f := &bytesFile{b: b}
	m, vs := surveyed(t, b)
	it := m.NewIter(f)
	for range 500 {
		v := vs[r.IntN(len(vs))]
		if r.IntN(2) == 0 {
			v.lsn += r.Uint64N(3)
		}
		at, _ := slices.BinarySearchFunc(vs, v, compareVersions)
		require.Equal(t, at < len(vs), it.SeekGE([]byte(v.key), v.lsn))
		if at < len(vs) {
			require.Equal(t, vs[at], read(it))
		}
		require.Equal(t, at > 0, it.SeekLT([]byte(v.key), v.lsn))
		if at > 0 {
			require.Equal(t, vs[at-1], read(it))
		}
	}
	require.NoError(t, it.Err())
}

// TestSurveyOfAnything: no bytes whatever make a survey fail.
func TestSurveyOfAnything(t *testing.T) {
	r := surveyRand(t)
	for n := range 200 {
		b := make([]byte, n*7)
		for i := range b {
			b[i] = byte(r.IntN(4))
		}
		m, _ := surveyed(t, b)
		require.NotEmpty(t, m.Lost)
		require.Zero(t, m.Count)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Survey(ctx, &bytesFile{b: make([]byte, 1000)}, "x", testID)
	require.ErrorIs(t, err, context.Canceled)
}
