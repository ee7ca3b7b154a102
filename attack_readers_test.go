package forebay

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// What is assigned behind the LSN from which on puts are watched must be watched.
func TestAttackGapWatchesBeforeItAsks(t *testing.T) {
	var g gap
	g.note([]byte("a"), []byte("m"), 5, func() base.LSN {
		require.True(t, g.on.Load(), "a commit that is assigned now is not watched")
		return 5
	})
}

func TestAttackFloorsOfAnEndlessTransaction(t *testing.T) {
	var r readers
	mark := base.LSN(0)
	last := func() base.LSN { mark++; return mark }
	first := r.floor(last)
	for range 10000 {
		r.lift(r.floor(last))
	}
	require.LessOrEqual(t, cap(r.floors), 64)
	_, above := r.keep(last)
	require.Equal(t, base.LSN(1), above)
	a, b := r.floor(func() base.LSN { return mark }), r.floor(func() base.LSN { return mark })
	r.lift(first)
	r.lift(b)
	_, above = r.keep(last)
	require.Equal(t, mark-1, above)
	r.lift(a)
	_, above = r.keep(last)
	require.Equal(t, mark, above)
}
