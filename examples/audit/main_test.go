package main

import (
	"io"
	"log"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/examples/internal/kill"
)

func TestMain(m *testing.M) { kill.Main(m, main) }

// TestKill: whatever crashes, the log, folded, is the state, and has each change once.
func TestKill(t *testing.T) {
	dir, changes := t.TempDir(), 0
	out := kill.Run(t, kill.Victim{Lines: 30, Args: func(life int) []string {
		changes = 12 * (life + 1)
		return []string{"-dir", dir, "-changes", strconv.Itoa(changes)}
	}})
	require.Contains(t, out, "are the price list")

	l, err := open(dir, log.New(io.Discard, "", 0))
	require.NoError(t, err)
	defer func() { require.NoError(t, l.close()) }()
	state, err := l.state()
	require.NoError(t, err)
	folded, n, err := l.fold(t.Context())
	require.NoError(t, err)
	require.Equal(t, state, folded)
	require.Equal(t, 3*changes, n)
	by := map[string]int{}
	for r, err := range l.records(t.Context()) {
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), r.at, time.Hour)
		by[r.Who]++
	}
	require.Equal(t, map[string]int{"ann": changes, "ben": changes, "cleo": changes}, by)
}
