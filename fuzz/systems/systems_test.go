package systems

import (
	"context"
	"flag"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/fuzz"
	"github.com/forebaydb/forebay/queue"
	"github.com/forebaydb/forebay/vfs"
)

var (
	states = flag.Int64("systems.states", 0, "crash states for each system; 0: a short run")
	seed   = flag.Uint64("systems.seed", 0, "seed of the workloads; 0: the first")
)

// TestExplore drives queue, buffer and event store into crashes.
func TestExplore(t *testing.T) {
	// What the process has once of zstd must not be made in a bubble.
	for range 2 {
		mem := vfs.NewMem()
		for range 2 {
			db, err := forebay.Open("warm", &forebay.Options{FS: mem, Compression: forebay.Zstd})
			require.NoError(t, err)
			require.NoError(t, db.Put([]byte("key"), make([]byte, 10<<10)))
			require.NoError(t, db.Close())
		}
	}
	for name, e := range map[string]Engine{"queue": Queued(), "buffer": Buffered(), "eventstore": Evented()} {
		t.Run(name, func(t *testing.T) {
			cfg := fuzz.Config{
				Engine: e, States: *states, Seed: *seed,
				Bubble: func(f func()) { synctest.Test(t, func(*testing.T) { f() }) },
				Settle: synctest.Wait,
			}
			if cfg.States == 0 {
				cfg.States, cfg.PerWorkload = 1500, 250
				if testing.Short() {
					cfg.States = 400
				}
			}
			rep, err := fuzz.Run(context.Background(), cfg)
			require.NoError(t, err)
			for _, v := range rep.Violations {
				t.Errorf("%+v", v)
			}
			t.Logf("%d states of %d workloads, %d cuts", rep.States, rep.Workloads, rep.Cuts)
			require.Positive(t, rep.States)
		})
	}
}

// TestTeeth: a receiver that acknowledges in a commit of its own is found out.
func TestTeeth(t *testing.T) {
	apart := Engine{begin: func(ctx context.Context, db *forebay.DB) (system, error) {
		s := &queued{db: db}
		s.handle = func(ctx context.Context, m *queue.Message[[]byte]) error {
			if err := db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error { return effect(tx, m.Value) }); err != nil {
				return err
			}
			return m.Ack(ctx)
		}
		return s.begin(ctx)
	}}
	rep, err := fuzz.Run(context.Background(), fuzz.Config{
		Engine: apart, States: 5000, PerWorkload: 500, MaxViolations: 1, ShrinkFor: time.Millisecond,
		Bubble: func(f func()) { synctest.Test(t, func(*testing.T) { f() }) },
		Settle: synctest.Wait,
	})
	require.NoError(t, err)
	require.NotEmpty(t, rep.Violations)
	t.Logf("%d violations in %d states", len(rep.Violations), rep.States)
}

// TestEncode: operations come back as they were, nil bounds too.
func TestEncode(t *testing.T) {
	db, err := forebay.Open("db", &forebay.Options{FS: vfs.NewMem()})
	require.NoError(t, err)
	defer db.Close()
	do := func(ops ...fuzz.Op) {
		require.NoError(t, db.Update(func(tx *forebay.Tx) error { return effect(tx, encode(ops)) }))
	}
	has := func(want ...string) {
		t.Helper()
		got := []string{}
		require.NoError(t, both(db, func(rows forebay.Reader, n uint64) error {
			for e, err := range rows.Range(nil, nil) {
				require.NoError(t, err)
				got = append(got, string(e.Key)+"="+string(e.Value))
			}
			return nil
		}))
		require.Equal(t, append([]string{}, want...), got)
	}
	do(fuzz.Op{Key: []byte("a"), Value: []byte("1")}, fuzz.Op{Key: []byte("b")}, fuzz.Op{Key: []byte("c"), Value: []byte{}})
	has("a=1", "b=", "c=")
	do(fuzz.Op{Kind: fuzz.Delete, Key: []byte("a")})
	has("b=", "c=")
	do(fuzz.Op{Kind: fuzz.DeleteRange, Key: nil, Value: []byte("c")})
	has("c=")
	do(fuzz.Op{Kind: fuzz.DeleteRange})
	has()
	require.Error(t, db.Update(func(tx *forebay.Tx) error { return effect(tx, []byte{0, 9, 1}) }))
}
