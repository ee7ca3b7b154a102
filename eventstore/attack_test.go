package eventstore_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
)

// A rebuild that somebody gave up returned as if it had been done; one that somebody
// else finished is done.
func TestRebuildThatIsGivenUp(t *testing.T) {
	for _, finish := range []bool{false, true} {
		_, s := newStore(t, nil)
		add(t, s, "a", "1", "2")
		var p *eventstore.Projection
		building := false
		o := byStream("p", 1)
		apply := o.Apply
		o.Apply = func(rows forebay.Space, ev eventstore.Event) error {
			if building {
				building = false
				if finish {
					require.NoError(t, p.Rebuild(ctx))
				} else {
					require.NoError(t, p.AbandonRebuild(ctx))
				}
			}
			return apply(rows, ev)
		}
		p = projection(t, s, o)
		catchUp(t, p)
		building = true
		err := p.Rebuild(ctx)
		st, serr := p.Status()
		require.NoError(t, serr)
		require.Zero(t, st.Building)
		if finish {
			require.NoError(t, err)
			require.Equal(t, uint64(2), st.Generation)
		} else {
			require.ErrorIs(t, err, eventstore.ErrNoRebuild)
			require.Equal(t, uint64(1), st.Generation)
		}
		got, _ := rows(t, p)
		require.Equal(t, map[string]string{"a": "12"}, got)
	}
}
