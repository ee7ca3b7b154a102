package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

func TestGoldenChanges(t *testing.T) {
	golden(t, "changes", layered(t), "changes db", "changes db --from 1:5 --json", "changes db --from end", "changes db --from 1:9", "changes db --from 2:5", "changes db --from x")
}

// output collects what a follower prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) lines() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.SplitAfter(o.b.String(), "\n")
}

// follow runs changes --follow in the background; wait returns its error once it
// ends by itself, stop ends it.
func follow(fsys vfs.FS, args ...string) (out *output, wait, stop func() error) {
	out = &output{}
	root := &cobra.Command{Use: "forebay", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(commands(fsys)...)
	root.SetOut(out)
	root.SetErr(out)
	root.SetArgs(append([]string{"changes", "db", "--follow"}, args...))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- root.ExecuteContext(ctx) }()
	wait = func() error {
		defer cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return nil
		}
	}
	return out, wait, func() error { cancel(); return wait() }
}

// TestFollowAWriter follows a store that another writes to, over many log files,
// checkpoints, a crash and an open: every commit comes once, in order.
func TestFollowAWriter(t *testing.T) {
	mem := vfs.NewMem()
	o := options(mem)
	o.MarkDelay = 10 * time.Millisecond
	db, err := forebay.Open("db", o)
	require.NoError(t, err)
	require.NoError(t, db.Pin("reader", 0)) // else files go faster than they are read
	out, _, stop := follow(mem, "--json")
	n := 0
	write := func(count int) {
		t.Helper()
		for range count {
			b := db.NewBatch()
			n++
			require.NoError(t, b.Put(fmt.Appendf(nil, "key %d", n), make([]byte, 500)))
			require.NoError(t, db.Apply(b, forebay.Level(n%3)))
			if n%100 == 0 {
				require.NoError(t, db.Checkpoint(context.Background()))
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
	seen := func() (got []string) {
		for _, line := range out.lines() {
			var c struct {
				LSN uint64
				Ops []struct{ Op, Key string }
			}
			if json.Unmarshal([]byte(line), &c) == nil {
				require.Len(t, c.Ops, 1)
				require.EqualValues(t, len(got)+1, c.LSN)
				require.Equal(t, "put", c.Ops[0].Op)
				got = append(got, c.Ops[0].Key)
			}
		}
		return got
	}
	write(500)
	require.NoError(t, db.Close())
	db, err = forebay.Open("db", o)
	require.NoError(t, err)
	write(300)
	require.Eventually(t, func() bool { return len(seen()) == n }, 10*time.Second, 10*time.Millisecond, "the mark of an idle log proves the rest")
	write(200)
	require.NoError(t, db.Close())
	require.Eventually(t, func() bool { return len(seen()) == n }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, stop())
	for i, key := range seen() {
		require.Equal(t, fmt.Sprintf("key %d", i+1), key)
	}
}

// TestChangesShowsOnlyWhatIsProven: what a power cut may take back is not shown,
// and said to be there.
func TestChangesShowsOnlyWhatIsProven(t *testing.T) {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", options(mem))
	require.NoError(t, err)
	put := func(key string, level forebay.Level) {
		b := db.NewBatch()
		require.NoError(t, b.Put([]byte(key), nil))
		require.NoError(t, db.Apply(b, level))
	}
	put("a", forebay.Durable)
	put("b", forebay.Written) // its frame proves a
	put("c", forebay.Written)
	out, err := invoke(mem, "changes", "db")
	require.NoError(t, err)
	require.Contains(t, out, `put "a"`)
	require.NotContains(t, out, `put "b"`)
	require.Contains(t, out, "2 more commits behind LSN 1")
	mem = mem.Snapshot()
	require.NoError(t, db.Close())
	db, err = forebay.Open("db", options(mem))
	require.NoError(t, err)
	out, err = invoke(mem, "changes", "db")
	require.NoError(t, err)
	require.Contains(t, out, "1:2  put \"b\" \"\"\n1:3  put \"c\" \"\"\n", "the open made them durable, in their epoch")
	require.NotContains(t, out, "more")
	require.NoError(t, db.Close())
}

// TestChangesOfTheEngine: the same as DB.Changes shows.
func TestChangesOfTheEngine(t *testing.T) {
	mem := layered(t)
	db, err := forebay.Open("db", options(mem.Snapshot()))
	require.NoError(t, err)
	defer db.Close()
	out, err := invoke(mem, "changes", "db", "--json")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	i := 0
	for c, err := range db.Changes(context.Background(), forebay.Position{}) {
		require.NoError(t, err)
		var got struct {
			Epoch, LSN uint64
			Ops        []map[string]string
		}
		require.NoError(t, json.Unmarshal([]byte(lines[i]), &got))
		i++
		require.Equal(t, c.Position, forebay.Position{Epoch: got.Epoch, LSN: got.LSN})
		require.Len(t, got.Ops, len(c.Ops))
		for j, op := range c.Ops {
			require.Equal(t, op.Kind.String(), got.Ops[j]["op"])
			require.Equal(t, op.Keyspace, got.Ops[j]["keyspace"])
			if op.Kind == forebay.OpDeleteRange {
				require.Equal(t, []string{string(op.Key), string(op.Value)}, []string{got.Ops[j]["lo"], got.Ops[j]["hi"]})
				continue
			}
			require.Equal(t, []string{string(op.Key), string(op.Value)}, []string{got.Ops[j]["key"], got.Ops[j]["value"]})
		}
	}
	require.Len(t, lines, i)
}

// TestChangesMissed: what the log let go of is told, not passed over.
func TestChangesMissed(t *testing.T) {
	mem := vfs.NewMem()
	db, err := forebay.Open("db", options(mem))
	require.NoError(t, err)
	for range 100 {
		require.NoError(t, db.Put([]byte("k"), make([]byte, 1000)))
	}
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, db.Close())
	_, err = invoke(mem, "changes", "db", "--from", "1:1")
	require.Equal(t, 1, code(t, err))
	require.ErrorContains(t, err, "--from start")
	out, err := invoke(mem, "changes", "db")
	require.NoError(t, err)
	require.Contains(t, out, "1:100  put")

	// Damage is told: at once, and by one that follows.
	s, err := (&tool{mem}).load("db", "")
	require.NoError(t, err)
	c := &chain{t: &tool{mem}, live: map[uint64]*liveFile{}}
	defer c.close()
	require.NoError(t, c.look(s))
	flip(t, mem, c.spans[len(c.spans)-1].file.path, 900, 1)
	_, err = invoke(mem, "changes", "db")
	require.Equal(t, 1, code(t, err))
	_, wait, _ := follow(mem)
	require.ErrorContains(t, wait(), "record 99 was durable and ")
}
