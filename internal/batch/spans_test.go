package batch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// spanModel is a batch as it is said to work: a list of lines in the order of
// the last writes, and a mark at each key that a range delete covers.
type spanModel struct {
	lines   []string
	keys    []string
	covered [spanKeys + 1]bool
}

const spanKeys = 200

func spanKey(i int) string { return fmt.Sprintf("k%03d", i) }

func (m *spanModel) remove(gone func(key string) bool) {
	n := 0
	for i, k := range m.keys {
		if !gone(k) {
			m.keys[n], m.lines[n] = k, m.lines[i]
			n++
		}
	}
	m.keys, m.lines = m.keys[:n], m.lines[:n]
}

func (m *spanModel) step(t testing.TB, rng *rand.Rand, b *Batch, i, keys int) {
	n := rng.IntN(keys)
	key := spanKey(n)
	if rng.IntN(5) == 0 {
		to := rng.IntN(keys + 1)
		hi := spanKey(to)
		require.NoError(t, b.Append(base.KindRangeDelete, []byte(key), []byte(hi)))
		m.remove(func(k string) bool { return k >= key && k < hi })
		for at := n; at < to; at++ {
			m.covered[at] = true
		}
		return
	}
	m.remove(func(k string) bool { return k == key })
	m.keys = append(m.keys, key)
	if rng.IntN(3) > 0 {
		value := fmt.Sprint("v", i)
		require.NoError(t, b.Append(base.KindPut, []byte(key), []byte(value)))
		m.lines = append(m.lines, fmt.Sprintf("put %q %q", key, value))
		return
	}
	require.NoError(t, b.Append(base.KindDelete, []byte(key), nil))
	m.lines = append(m.lines, fmt.Sprintf("delete %q", key))
}

func (m *spanModel) want() []string {
	want := []string{}
	for from := 0; from < spanKeys; from++ {
		to := from
		for m.covered[to] {
			to++
		}
		if to > from {
			want = append(want, fmt.Sprintf("range delete %q %q", spanKey(from), spanKey(to)))
			from = to
		}
	}
	return append(want, m.lines...)
}

// TestDeleteRangeModel compares batches with range deletes, that are encoded
// now and then while they grow, with a model that takes each at once.
func TestDeleteRangeModel(t *testing.T) {
	rng := newRand(t)
	var b Batch
	for range 300 {
		b.Reset()
		var m spanModel
		keys := 1 + rng.IntN(spanKeys)
		often := 1 + rng.IntN(100)
		for i := range rng.IntN(1 << rng.IntN(11)) {
			m.step(t, rng, &b, i, keys)
			require.GreaterOrEqual(t, b.Len(), len(m.want()))
			if rng.IntN(often) == 0 {
				upper := b.Size()
				require.GreaterOrEqual(t, upper, len(b.Bytes()))
				require.Len(t, b.Bytes(), b.Size())
				require.Equal(t, m.want(), lines(t, b.Bytes()))
			}
		}
		require.Equal(t, m.want(), lines(t, b.Bytes()))
		require.Equal(t, len(m.want()), b.Len())
		require.Len(t, b.Bytes(), b.Size())
	}
}

func TestDeleteRangeSingle(t *testing.T) {
	var b Batch
	require.NoError(t, b.DeleteRange([]byte("a"), []byte("b")))
	rec, err := AppendDeleteRange(nil, []byte("a"), []byte("b"))
	require.NoError(t, err)
	require.Equal(t, b.Bytes(), rec)

	for _, hi := range []string{"", "a", "Z"} { // Empty ranges.
		b.Reset()
		require.NoError(t, b.DeleteRange([]byte("a"), []byte(hi)))
		require.Zero(t, b.Len())
		rec, err := AppendDeleteRange(nil, []byte("a"), []byte(hi))
		require.NoError(t, err)
		require.Equal(t, b.Bytes(), rec)
		require.Empty(t, lines(t, rec))
	}
}

// TestDeleteRangeLimits fills a batch to its limit.
func TestDeleteRangeLimits(t *testing.T) {
	long := bytes.Repeat([]byte{'x'}, base.MaxKeySize)
	var b Batch
	require.NoError(t, b.DeleteRange([]byte("a"), long))
	rec := b.Bytes()
	require.Equal(t, []string{fmt.Sprintf("range delete %q %q", "a", long)}, lines(t, rec))

	// What a range covers makes room when room is needed, not before.
	b.Reset()
	big := make([]byte, base.MaxValueSize-16)
	require.NoError(t, b.Put([]byte("a"), big))
	require.NoError(t, b.Put([]byte("b"), big))
	require.NoError(t, b.DeleteRange([]byte("b"), []byte("c")))
	require.NoError(t, b.Put([]byte("c"), big))
	require.Equal(t, 3, b.Len())
	err := b.Put([]byte("d"), big)
	var limit *LimitError
	require.ErrorAs(t, err, &limit)
	require.Equal(t, "batch", limit.What)
	require.NoError(t, b.Put([]byte("c"), big))
	// A range delete must fit in before it takes anything away.
	room := base.MaxRecordSize - b.Size()
	require.NoError(t, b.Put([]byte("e"), make([]byte, room-10)))
	require.ErrorAs(t, b.DeleteRange([]byte("a"), []byte("xxxxxxxxxx")), &limit)
	require.Equal(t, base.MaxRecordSize, limit.Limit)
	require.LessOrEqual(t, len(b.Bytes()), base.MaxRecordSize)
	require.Equal(t, 4, b.Len())
	r, err := Decode(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, 4, r.Len())
}

// TestDeleteRangeIsNotQuadratic encodes as many ranges as puts; were each put
// compared with each range, it would take minutes.
func TestDeleteRangeIsNotQuadratic(t *testing.T) {
	const n = 100_000
	for name, width := range map[string]int{"apart": 3, "nested": n, "same": 0} {
		var b Batch
		start := time.Now()
		for i := range n {
			require.NoError(t, b.Put(fmt.Appendf(nil, "k%08d", i*7%n*10), nil))
			lo, hi := i*10+1, i*10+1+width
			switch {
			case width == 0:
				lo, hi = 5, 5*n
			case width == n:
				lo, hi = i, 20*n-i
			}
			require.NoError(t, b.DeleteRange(fmt.Appendf(nil, "k%08d", lo), fmt.Appendf(nil, "k%08d", hi)))
		}
		noted := time.Since(start)
		b.Bytes()
		t.Logf("%s: noted in %v, encoded in %v, %d operations", name, noted, time.Since(start)-noted, b.Len())
		require.Less(t, time.Since(start), 20*time.Second)
	}
}

// FuzzBuild builds a batch of what the fuzzer says, and decodes it.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{0, 10, 0, 2, 5, 20, 1, 7, 0, 2, 1, 6, 0, 5, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		var b Batch
		state := map[byte]string{}
		for script = script[:min(len(script), 300)]; len(script) >= 3; script = script[3:] {
			k, v := script[1], script[2]
			switch script[0] % 4 {
			case 0:
				require.NoError(t, b.Put([]byte{k}, []byte{v}))
				state[k] = string([]byte{v})
			case 1:
				require.NoError(t, b.Delete([]byte{k}))
				state[k] = "deleted"
			case 2:
				require.NoError(t, b.DeleteRange([]byte{k}, []byte{v}))
				for c := k; c < v; c++ {
					state[c] = "deleted"
				}
			default:
				b.Bytes()
			}
		}
		got := map[byte]string{}
		r, err := Decode(b.Bytes())
		require.NoError(t, err)
		for r.Next() {
			switch r.Kind() {
			case base.KindRangeDelete:
				for c := r.Key()[0]; c < r.Value()[0]; c++ {
					got[c] = "deleted"
				}
			case base.KindPut:
				got[r.Key()[0]] = string(r.Value())
			default:
				got[r.Key()[0]] = "deleted"
			}
		}
		require.Equal(t, state, got)
	})
}

// BenchmarkDeleteRangeBatch is a batch of one range delete and three puts, as
// one that replaces what is under a prefix.
func BenchmarkDeleteRangeBatch(b *testing.B) {
	var bt Batch
	b.ReportAllocs()
	for b.Loop() {
		bt.Reset()
		_ = bt.DeleteRange([]byte("user/1/"), []byte("user/10"))
		for i := range 3 {
			_ = bt.Put([]byte{'u', byte(i)}, []byte("value"))
		}
		bt.Bytes()
	}
}
