package vfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// scribble does n random calls on m, of few files.
func scribble(t *testing.T, m *Mem, r *rand.Rand, n int) {
	name := func() string { return [...]string{"a", "b", "d/c", "d/e"}[r.IntN(4)] }
	for range n {
		f, err := m.Open(name(), [...]Mode{ReadWrite, ReadWrite, ReadWrite | DSync}[r.IntN(3)])
		if err != nil {
			if r.IntN(3) == 0 {
				require.NoError(t, m.MkdirAll("d"))
			}
			if f, err = m.Create(name(), ReadWrite); err != nil {
				continue
			}
		}
		switch r.IntN(9) {
		case 0:
			require.NoError(t, f.Sync())
		case 1:
			require.NoError(t, f.Zero(int64(r.IntN(9000)), int64(r.IntN(9000))))
		case 2:
			_ = m.Remove(name())
		case 3:
			_ = m.Rename(name(), name())
		case 4:
			_ = m.SyncDir([...]string{"", "d"}[r.IntN(2)])
		default:
			p := make([]byte, 1+r.IntN(6000))
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			_, err := f.WriteAt(p, int64(r.IntN(9000)))
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
	}
}

// TestContains: what a cut leaves is a state of the model, and a state that
// differs in what is durable is none.
func TestContains(t *testing.T) {
	refused := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 0))
		m := NewMem()
		scribble(t, m, r, 5+r.IntN(40))
		for range 4 {
			cut := m.PowerCut(func(_ int, u Unit) Fate {
				legal := slices.DeleteFunc(slices.Clone(LegalFates(u, SectorAtomic)), func(f Fate) bool { return f == Stale })
				return legal[r.IntN(len(legal))]
			})
			tree, err := ReadTree(cut, "", 1<<20)
			require.NoError(t, err)
			require.NoError(t, m.Contains(tree, nil), "seed %d", seed)

			more := maps.Clone(tree)
			more["nobody"] = []byte{}
			require.Error(t, m.Contains(more, nil), "seed %d", seed)
			for name, b := range tree {
				if len(b) == 0 {
					continue
				}
				other := maps.Clone(tree)
				other[name] = slices.Clone(b)
				other[name][r.IntN(len(b))] ^= 1
				require.Error(t, m.Contains(other, nil), "seed %d: %s", seed, name)
				other[name] = append(slices.Clone(b), 1)
				require.Error(t, m.Contains(other, nil), "seed %d: %s is longer", seed, name)
				refused++
			}
		}
	}
	require.Greater(t, refused, 1000)
}

// TestContainsStory: what may be there after each call.
func TestContainsStory(t *testing.T) {
	m := NewMem()
	may := func(tree Tree) { t.Helper(); require.NoError(t, m.Contains(tree, nil)) }
	not := func(tree Tree) { t.Helper(); require.Error(t, m.Contains(tree, nil)) }
	f, err := m.Create("log", ReadWrite)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("one"), 0)
	require.NoError(t, err)
	may(Tree{})
	may(Tree{"log": []byte{}})
	may(Tree{"log": []byte{0, 0, 0}})
	may(Tree{"log": []byte("one")})
	not(Tree{"log": []byte("on")})
	not(Tree{"log": []byte("two")})
	stale := []byte("two")
	require.NoError(t, m.Contains(Tree{"log": stale}, func(b []byte) bool { return string(b) == "two" }), "a fresh sector may be stale")
	require.NoError(t, f.Sync())
	may(Tree{})
	not(Tree{"log": []byte{}})
	require.NoError(t, m.SyncDir(""))
	not(Tree{})
	may(Tree{"log": []byte("one")})
	require.Error(t, m.Contains(Tree{"log": stale}, func([]byte) bool { return true }), "a durable one may not")
	require.NoError(t, m.Rename("log", "old"))
	may(Tree{"log": []byte("one")})
	may(Tree{"old": []byte("one")})
	not(Tree{"old": []byte("one"), "log": []byte("one")})
	not(Tree{})
	require.NoError(t, f.Close())
}

func ExampleMem_Contains() {
	m := NewMem()
	f, _ := m.Create("a", ReadWrite)
	_, _ = f.WriteAt([]byte("x"), 0)
	_ = f.Sync()
	fmt.Println(m.Contains(Tree{}, nil))        // no SyncDir yet
	fmt.Println(m.Contains(Tree{"a": {}}, nil)) // but the file is synced
	fmt.Println(m.Contains(Tree{"a": []byte("x")}, nil))
	// Output:
	// <nil>
	// a: it has 0 bytes; durable are 1, and the sizes since are []
	// <nil>
}
