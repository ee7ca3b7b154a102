package postgres_test

import (
	"os"
	"testing"

	"github.com/forebaydb/forebay/sink/postgres/internal/pgtest"
)

// cluster is the server of all tests but those that stop theirs.
var cluster pgtest.Shared

// durable is the one of the benchmarks.
var durable = pgtest.Shared{Options: pgtest.Options{Fsync: true, Settings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "4GB"}}}

func TestMain(m *testing.M) {
	code := m.Run()
	cluster.Close()
	durable.Close()
	os.Exit(code)
}
