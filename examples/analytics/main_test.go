package main

import (
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/examples/internal/kill"
)

func TestMain(m *testing.M) { kill.Main(m, main) }

// TestKill: whatever crashes, each view is in the table once.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	killAndCount(t, dir, "", func() (*warehouse, error) {
		return openSQLite(t.Context(), filepath.Join(dir, "views.db"))
	})
}

func killAndCount(t *testing.T, dir, postgres string, open func() (*warehouse, error)) {
	views := 0
	out := kill.Run(t, kill.Victim{Lines: 12, Later: 100 * time.Millisecond, Args: func(life int) []string {
		views = 2000 * (life + 1)
		return []string{"-dir", dir, "-postgres", postgres, "-views", strconv.Itoa(views)}
	}})
	all := strconv.Itoa(servers * views)
	require.Contains(t, out, "in "+all+" = done "+all+" + dead 0 + purged 0 + pending 0")

	w, err := open()
	require.NoError(t, err)
	defer func() { require.NoError(t, w.close()) }()
	var rows, different, least, most, unknown int
	require.NoError(t, w.db.QueryRowContext(t.Context(), `SELECT count(*), count(DISTINCT n * 10 + server), min(n), max(n),
		count(CASE WHEN page = '/unknown' THEN 1 END) FROM views`).Scan(&rows, &different, &least, &most, &unknown))
	require.Equal(t, servers*views, rows)
	require.Equal(t, rows, different)
	require.Zero(t, least)
	require.Equal(t, views-1, most)
	require.Equal(t, servers*views/1000, unknown, "mended ones")
	// What is in the rows is what was seen.
	found, err := w.db.QueryContext(t.Context(), `SELECT server, n, page, visitor, millis FROM views`)
	require.NoError(t, err)
	defer found.Close()
	for found.Next() {
		var v view
		require.NoError(t, found.Scan(&v.Server, &v.N, &v.Page, &v.Visitor, &v.Millis))
		want := look(v.Server, v.N)
		if want.Page == "" {
			want.Page = "/unknown"
		}
		if v != want {
			t.Fatalf("%+v was %+v", v, want)
		}
	}
	require.NoError(t, found.Err())
}
