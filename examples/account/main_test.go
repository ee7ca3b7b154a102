package main

import (
	"io"
	"log"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/examples/internal/kill"
)

func TestMain(m *testing.M) { kill.Main(m, main) }

// TestKill: whatever crashes, balances are the fold of the events, each command has had its
// effect once, and no money has come or gone.
func TestKill(t *testing.T) {
	dir, transfers := t.TempDir(), 0
	out := kill.Run(t, kill.Victim{Lines: 33, Args: func(life int) []string {
		transfers = 20 * (life + 1)
		return []string{"-dir", dir, "-transfers", strconv.Itoa(transfers)}
	}})
	require.Contains(t, out, "no chain of hashes is broken")
	require.Contains(t, out, "Alicia has 500")

	b, err := open(dir, log.New(io.Discard, "", 0))
	require.NoError(t, err)
	defer func() { require.NoError(t, b.close()) }()
	ctx := t.Context()
	folded, sides := map[string]account{}, map[string]map[string]eventstore.Event{} // by command and account
	for ev, err := range b.events.All(ctx, 0) {
		require.NoError(t, err)
		a, err := folded[ev.Stream].apply(ev)
		require.NoError(t, err)
		require.GreaterOrEqual(t, a.Balance, int64(0))
		folded[ev.Stream] = a
		if ev.Causation[0] == 't' {
			require.NotContains(t, sides[ev.Causation], ev.Stream, "%s had its effect twice", ev.Causation)
			if sides[ev.Causation] == nil {
				sides[ev.Causation] = map[string]eventstore.Event{}
			}
			ev.Payload = append([]byte(nil), ev.Payload...)
			sides[ev.Causation][ev.Stream] = ev
		}
	}
	require.LessOrEqual(t, len(sides), transfers)
	require.Greater(t, len(sides), transfers/2)
	for command, two := range sides {
		require.Len(t, two, 2, command)
		amounts, kinds := map[string]bool{}, map[string]bool{}
		for _, ev := range two {
			amounts[string(ev.Payload)], kinds[ev.Type] = true, true
		}
		require.Len(t, amounts, 1, command)
		require.Len(t, kinds, 2, command)
	}
	sum := int64(0)
	for _, name := range others {
		sum += folded[name].Balance
	}
	require.EqualValues(t, first*len(others), sum)
	require.Equal(t, account{"Alicia", 500}, folded["alice"])

	_, err = b.customers.CatchUp(ctx)
	require.NoError(t, err)
	table, err := b.table()
	require.NoError(t, err)
	require.Equal(t, folded, table)
	for version, want := range []account{{}, {"Alice", 0}, {"Alice", 1000}, {"Alice", 700}, {"Alice", 800}, {"Alice", 500}, {"Alicia", 500}} {
		at, err := b.accounts.AtVersion(ctx, b.events, "alice", uint64(version))
		require.NoError(t, err)
		require.Equal(t, want, at.State, version)
	}
	for _, name := range append([]string{"alice"}, others...) {
		with, err := b.accounts.Load(ctx, b.events, name)
		require.NoError(t, err)
		require.Equal(t, folded[name], with.State)
		require.NotZero(t, with.Snapshot)
	}
	require.NoError(t, b.accounts.DropSnapshots(ctx, b.events))
	for _, name := range others {
		without, err := b.accounts.AtVersion(ctx, b.events, name, 1<<40)
		require.NoError(t, err)
		require.Equal(t, folded[name], without.State)
	}
	_, err = b.events.Verify(ctx)
	require.NoError(t, err)
}
