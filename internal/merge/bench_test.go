package merge

import (
	"encoding/binary"
	"fmt"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// benchTable is a table of keys that are numbers, from, from+step, …, each with
// one version, made up on the way: nothing is measured but the merge.
type benchTable struct {
	n, from, step int
	lsn           base.LSN
	pos           int
	key           [8]byte
	moves         int
}

func benchKey(i int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func (b *benchTable) stand(pos int) bool {
	b.moves++
	if b.pos = pos; !b.Valid() {
		return false
	}
	binary.BigEndian.PutUint64(b.key[:], uint64(b.from+pos*b.step))
	return true
}

func (b *benchTable) search(key []byte, lsn base.LSN) int {
	var k [8]byte
	return sort.Search(b.n, func(i int) bool {
		binary.BigEndian.PutUint64(k[:], uint64(b.from+i*b.step))
		return base.Compare(k[:], b.lsn, key, lsn) >= 0
	})
}

func (b *benchTable) First() bool                      { return b.stand(0) }
func (b *benchTable) Last() bool                       { return b.stand(b.n - 1) }
func (b *benchTable) SeekGE(k []byte, l base.LSN) bool { return b.stand(b.search(k, l)) }
func (b *benchTable) SeekLT(k []byte, l base.LSN) bool { return b.stand(b.search(k, l) - 1) }
func (b *benchTable) Next() bool                       { return b.stand(b.pos + 1) }
func (b *benchTable) Prev() bool                       { return b.stand(b.pos - 1) }
func (b *benchTable) Valid() bool                      { return b.pos >= 0 && b.pos < b.n }
func (b *benchTable) Key() []byte                      { return b.key[:] }
func (b *benchTable) LSN() base.LSN                    { return b.lsn }
func (b *benchTable) Kind() base.Kind                  { return base.KindPut }
func (b *benchTable) Value() []byte                    { return b.key[:] }
func (b *benchTable) Err() error                       { return nil }
func (b *benchTable) Close() error                     { return nil }

const benchKeys = 1 << 20

// benchTables are k tables that have the keys in turn, newest first.
func benchTables(k int) []base.Iterator {
	var out []base.Iterator
	for i := range k {
		out = append(out, &benchTable{n: benchKeys / k, from: i, step: k, lsn: base.LSN(10 * (k - i))})
	}
	return out
}

func benchWalk(b *testing.B, it *Visible) {
	b.Run("next", func(b *testing.B) {
		for b.Loop() {
			if !it.Next() {
				it.First()
			}
		}
	})
	b.Run("prev", func(b *testing.B) {
		for b.Loop() {
			if !it.Prev() {
				it.Last()
			}
		}
	})
	b.Run("seek", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = (i + 7919*31) % benchKeys
			it.SeekGE(benchKey(i))
		}
	})
}

func BenchmarkVisible(b *testing.B) {
	for _, k := range []int{1, 4} {
		b.Run(fmt.Sprintf("tables=%d", k), func(b *testing.B) {
			benchWalk(b, NewVisible(New(benchTables(k)...), base.OwnLSN-1, nil, nil))
		})
	}
}

func benchSources(k int) []Source {
	var out []Source
	for _, it := range benchTables(k) {
		out = append(out, Source{Iter: it, MaxLSN: it.(*benchTable).lsn})
	}
	return out
}

// BenchmarkReader walks tables without range deletes, with one far away, and
// with many that hide nothing.
func BenchmarkReader(b *testing.B) {
	for _, dels := range []string{"none", "one", "many"} {
		for _, k := range []int{1, 4} {
			s := benchSources(k)
			switch dels {
			case "one":
				s[0].Dels = []*rangedel.Set{rangedel.New([]base.RangeDelete{{Lo: benchKey(benchKeys), Hi: benchKey(benchKeys + 1), LSN: 1000}})}
			case "many":
				var ds []base.RangeDelete
				for i := range 1000 {
					ds = append(ds, base.RangeDelete{Lo: benchKey(i * 1000), Hi: benchKey(i*1000 + 10), LSN: 1})
				}
				s[k-1].Dels = []*rangedel.Set{rangedel.New(ds)}
			}
			b.Run(fmt.Sprintf("dels=%s/tables=%d", dels, k), func(b *testing.B) {
				benchWalk(b, NewReader(s, base.OwnLSN-1, nil, nil))
			})
		}
	}
}

// coveredReader has 1M keys in three tables below one whose range deletes hide
// all but the first and the last key: as one, or one a key.
func coveredReader(each bool) (*Visible, *int) {
	var ds []base.RangeDelete
	if each {
		for i := 1; i < benchKeys-1; i++ {
			ds = append(ds, base.RangeDelete{Lo: benchKey(i), Hi: benchKey(i + 1), LSN: base.LSN(100 + i)})
		}
	} else {
		ds = append(ds, base.RangeDelete{Lo: benchKey(1), Hi: benchKey(benchKeys - 1), LSN: 100})
	}
	s := append([]Source{{Iter: New(), MaxLSN: base.MaxLSN, Dels: []*rangedel.Set{rangedel.New(ds)}}}, benchSources(4)...)
	return NewReader(s, base.OwnLSN-1, nil, nil), &s[1].Iter.(*benchTable).moves
}

// BenchmarkCovered passes a million hidden keys.
func BenchmarkCovered(b *testing.B) {
	for _, each := range []bool{false, true} {
		it, _ := coveredReader(each)
		b.Run(fmt.Sprintf("each=%t/forward", each), func(b *testing.B) {
			for b.Loop() {
				it.First()
				it.Next()
			}
		})
		b.Run(fmt.Sprintf("each=%t/backward", each), func(b *testing.B) {
			for b.Loop() {
				it.Last()
				it.Prev()
			}
		})
		b.Run(fmt.Sprintf("each=%t/seek", each), func(b *testing.B) {
			key := benchKey(benchKeys / 2)
			for b.Loop() {
				it.SeekGE(key)
			}
		})
	}
}

// TestCoveredIsPassed: a stretch that is hidden whole costs each table below a
// few moves, however long it is and however many range deletes it is made of.
func TestCoveredIsPassed(t *testing.T) {
	for _, each := range []bool{false, true} {
		it, moves := coveredReader(each)
		*moves = 0
		require.True(t, it.First() && it.Next())
		require.Equal(t, benchKey(benchKeys-1), it.Key())
		require.True(t, it.Prev())
		require.Equal(t, benchKey(0), it.Key())
		require.True(t, it.Last() && it.Prev())
		require.Equal(t, benchKey(0), it.Key())
		require.True(t, it.SeekGE(benchKey(5)))
		require.Equal(t, benchKey(benchKeys-1), it.Key())
		require.True(t, it.SeekLT(benchKey(5)))
		require.Equal(t, benchKey(0), it.Key())
		require.Less(t, *moves, 60)
	}
}

// TestHiddenBehindBound: hidden versions behind the bound of a walk are not
// passed one by one to find one that shows.
func TestHiddenBehindBound(t *testing.T) {
	table := &benchTable{n: benchKeys, step: 1, lsn: 5}
	dels := rangedel.New([]base.RangeDelete{{Lo: benchKey(0), Hi: benchKey(benchKeys), LSN: 9}})
	it := NewReader([]Source{{Iter: table, Dels: []*rangedel.Set{dels}, MaxLSN: base.MaxLSN}}, 50, benchKey(1000), benchKey(1010))
	require.False(t, it.First())
	require.False(t, it.Last())
	require.NoError(t, it.Err())
	require.Less(t, table.moves, 40)
}
