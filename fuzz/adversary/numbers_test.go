package adversary

import (
	"testing"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
)

// numbers are all numbers in an edit.
func numbers(e *manifest.Edit) (out []*uint64) {
	out = append(out, &e.ReplayStart, &e.LastSegment)
	for i := range e.Add {
		g := &e.Add[i]
		out = append(out, &g.Number, &g.Size, &g.Count, &g.Tombstones, &g.RangeDeletes, &g.MinLSN, &g.MaxLSN, &g.Hash)
	}
	if l := e.Log; l != nil {
		out = append(out, &l.Epoch, &l.Number)
		if l.Floor != nil {
			out = append(out, &l.Floor.File, &l.Floor.LSN, &l.Floor.Hash, &l.Floor.Epoch)
		}
		for i := range l.Put {
			f := &l.Put[i]
			out = append(out, &f.Number, &f.Salt, &f.Epoch, &f.First, &f.Last, &f.Hash, &f.Keep, &f.CutLSN, &f.CutHash)
		}
	}
	return out
}

// TestEveryNumberOfTheManifest puts every value that breaks things in the place of
// every number that a manifest holds.
func TestEveryNumberOfTheManifest(t *testing.T) {
	tries := 0
	for _, seed := range []int{3, 4, 5} {
		// The state in one edit: each number counts.
		st := takeApart(seeds()[seed])
		var state manifest.State
		st.edits(func(e *manifest.Edit) *manifest.Edit {
			state.Apply(e)
			return e
		})
		whole := func() *manifest.Edit {
			e := state.Snapshot()
			e.Add = append([]manifest.Segment(nil), e.Add...)
			e.Log.Put = append([]base.LogFile(nil), e.Log.Put...)
			return e
		}
		for i := range numbers(whole()) {
			for j, v := range values {
				if testing.Short() && (i+j)%23 != 0 {
					continue
				}
				e := whole()
				*numbers(e)[i] = v
				st := takeApart(seeds()[seed])
				first := true
				st.edits(func(*manifest.Edit) *manifest.Edit {
					if first {
						first = false
						return e
					}
					return &manifest.Edit{}
				})
				tries++
				if judge(t, seed, st); t.Failed() {
					t.Fatalf("seed %d, number %d of the manifest is %d", seed, i, v)
				}
			}
		}
	}
	t.Logf("%d manifests", tries)
}
