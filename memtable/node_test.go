package memtable

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNodesHoldNoPointers keeps the garbage collector out of the index.
func TestNodesHoldNoPointers(t *testing.T) {
	var look func(reflect.Type)
	look = func(typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Struct:
			for i := range typ.NumField() {
				look(typ.Field(i).Type)
			}
		case reflect.Array:
			look(typ.Elem())
		case reflect.Uint64, reflect.Uint32:
		default:
			t.Errorf("a node holds a %s", typ)
		}
	}
	look(reflect.TypeFor[leaf]())
	look(reflect.TypeFor[inner]())
	require.Equal(t, 192, leafSize, "three cache lines")
	require.LessOrEqual(t, innerSize, 256, "four cache lines")
}

func TestInsertPlace(t *testing.T) {
	rng := newRand(t)
	for range 200 {
		var order uint64
		var want []int
		for at := range fan {
			pos := rng.IntN(at + 1)
			order = insertPlace(order, pos, at)
			want = slices.Insert(want, pos, at)
			require.Equal(t, len(want), count(order))
			for i := range want {
				require.Equal(t, want[i], place(order, i))
			}
		}
	}
}

// TestFill shows how full the leaves get: runs of rising and of falling keys,
// also several at once, leave full leaves behind.
func TestFill(t *testing.T) {
	for name, least := range map[string]float64{
		"random": 9, "ascending": 13, "descending": 13, "interleaved": 12, "few": 11, "one": 12,
	} {
		rng := rand.New(rand.NewPCG(1, 1))
		tab := New(0)
		fill(t, rng, tab, 20_000, patterns[name])
		leaves := 0
		for l := tab.index.edge(false); l != nil; leaves++ {
			next := l.next.Load()
			if next == 0 {
				break
			}
			l = tab.index.leaves.at(next)
		}
		mean := float64(tab.Len()) / float64(leaves)
		t.Logf("%s: %.1f entries a leaf, %d bytes an entry", name, mean, tab.Bytes()/int64(tab.Len()))
		if mean < least {
			t.Errorf("%s: %.1f entries a leaf, want %.0f", name, mean, least)
		}
	}
}
