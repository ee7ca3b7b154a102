package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain lets the test be the process of a cell, too.
func TestMain(m *testing.M) {
	if os.Getenv("FOREBAY_QUEUES_CELL") == "1" {
		if err := run(context.Background(), []string{childName}, os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// each runs a test for each engine that this machine has.
func each(t *testing.T, fn func(t *testing.T, e *Engine, dir string)) {
	for _, e := range engines() {
		t.Run(e.Name, func(t *testing.T) {
			if err := e.Absent(); err != nil {
				if os.Getenv("FOREBAY_REQUIRE") == "1" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			dir, err := makeDir("")
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
			fn(t, e, dir)
		})
	}
}

// TestAllOnce puts 200 messages through each engine, alone and in a batch, while
// workers work and before they do. All come out, once.
func TestAllOnce(t *testing.T) {
	each(t, func(t *testing.T, e *Engine, dir string) {
		if e.Limit {
			t.Skip("it consumes nothing")
		}
		q, err := e.Open(t.Context(), dir, Config{Producers: 4, Workers: 4})
		require.NoError(t, err)
		const n = 200
		l := newLedger(n)
		put := func(size int) {
			msgs := make([][]byte, size)
			require.True(t, l.take(msgs))
			require.NoError(t, q.Enqueue(t.Context(), msgs))
			l.enqueued.Add(int64(size))
		}
		put(1)
		put(100)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var (
			mu   sync.Mutex
			seen int
		)
		all, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- q.Consume(ctx, 4, l.handle, func(msg []byte) {
				if _, ok := l.ack(msg); !ok {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				if seen++; seen == n {
					close(all)
				}
			})
		}()
		put(49)
		for range n - 150 {
			put(1)
		}
		select {
		case <-all:
		case err := <-ended:
			t.Fatalf("the consumer ended: %v", err)
		case <-time.After(time.Minute):
			t.Error("not all came out")
		}
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, l.check())
		require.Zero(t, l.again.Load())
		require.NoError(t, q.Close())
	})
}

// TestCells runs cells on each engine for a moment.
func TestCells(t *testing.T) {
	list, err := findCells("batch-1,full-64")
	require.NoError(t, err)
	each(t, func(t *testing.T, e *Engine, dir string) {
		for _, c := range list {
			if e.Limit && !c.limited {
				continue
			}
			sub := filepath.Join(dir, c.Name)
			require.NoError(t, os.Mkdir(sub, 0o755))
			r, err := c.run(t.Context(), e, sub, Load{Seconds: .3, Messages: 2000})
			require.NoError(t, err, c.Name)
			require.Positive(t, r.Messages, c.Name)
			if !c.Consume { // some acknowledge after a while only
				require.Positive(t, r.PerSecond, c.Name)
				require.Positive(t, r.P99, c.Name)
			}
			require.Zero(t, r.Duplicates, c.Name)
			require.False(t, r.DoneP99 > 0 && !c.Consume, c.Name)
		}
	})
}

// fake is a queue that does what a test wants.
type fake struct {
	msgs    chan []byte
	enqueue func(msg []byte) [][]byte // what goes in for a message
	ended   chan struct{}             // Consume returns an error when it is closed
}

func (q *fake) Enqueue(ctx context.Context, msgs [][]byte) error {
	for _, m := range msgs {
		for _, put := range q.enqueue(m) {
			select {
			case q.msgs <- bytes.Clone(put):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func (q *fake) Consume(ctx context.Context, _ int, handle, acked func([]byte)) error {
	for {
		select {
		case m := <-q.msgs:
			handle(m)
			acked(m)
		case <-q.ended:
			return errors.New("broken")
		case <-ctx.Done():
			return nil
		}
	}
}

func (q *fake) Close() error { return nil }

// TestWhatIsWrongIsFound: losses, foreign and changed messages and a consumer that
// ends fail a cell; duplicates are counted.
func TestWhatIsWrongIsFound(t *testing.T) {
	old := stalled
	stalled = 200 * time.Millisecond
	defer func() { stalled = old }()
	same := func(m []byte) [][]byte { return [][]byte{m} }
	n := 0
	for _, c := range []struct {
		name    string
		enqueue func([]byte) [][]byte
		broken  bool
		want    string
		again   bool
	}{
		{name: "right", enqueue: same},
		{name: "one is lost", enqueue: func(m []byte) [][]byte {
			if n++; n == 50 {
				return nil
			}
			return [][]byte{m}
		}, want: "lost"},
		{name: "all come twice", enqueue: func(m []byte) [][]byte { return [][]byte{m, m} }, again: true},
		{name: "foreign", enqueue: func(m []byte) [][]byte { return [][]byte{m, appendMessage(nil, 1<<40)} }, want: "nobody put it in"},
		{name: "cut", enqueue: func(m []byte) [][]byte { return [][]byte{m[1:]} }, want: "99 bytes"},
		{name: "no number", enqueue: func(m []byte) [][]byte { return [][]byte{bytes.Repeat([]byte("x"), messageSize)} }, want: "no number"},
		{name: "changed", enqueue: func(m []byte) [][]byte {
			m[messageSize-1] ^= 1
			return [][]byte{m}
		}, want: "changed"},
		{name: "the consumer ends", enqueue: same, broken: true, want: "broken"},
	} {
		for _, cell := range cells() {
			if cell.Batch > 1 {
				continue
			}
			t.Run(c.name+"/"+cell.Name, func(t *testing.T) {
				n = 0
				if cell.Producers > 1 && c.name == "one is lost" {
					t.Skip("it counts")
				}
				q := &fake{msgs: make(chan []byte, 3*outstanding), enqueue: c.enqueue, ended: make(chan struct{})}
				if c.broken {
					close(q.ended)
				}
				e := &Engine{Name: "fake", open: func(context.Context, string, Config) (Queue, error) { return q, nil }}
				r, err := cell.run(t.Context(), e, t.TempDir(), Load{Seconds: .1, Messages: 500})
				if c.want != "" {
					require.ErrorContains(t, err, c.want)
					return
				}
				require.NoError(t, err)
				if !c.again {
					require.Zero(t, r.Duplicates)
				} else if !cell.Consume {
					require.Positive(t, r.Duplicates)
				}
			})
		}
	}
}

// TestNoRoom: a queue that loses everything does not hold its producers for ever.
func TestNoRoom(t *testing.T) {
	old := stalled
	stalled = 200 * time.Millisecond
	defer func() { stalled = old }()
	q := &fake{enqueue: func([]byte) [][]byte { return nil }}
	e := &Engine{Name: "fake", open: func(context.Context, string, Config) (Queue, error) { return q, nil }}
	c, err := findCells("full-64")
	require.NoError(t, err)
	_, err = c[0].run(t.Context(), e, t.TempDir(), Load{Seconds: .1})
	require.ErrorIs(t, err, errLost)
}

// TestRun runs the command with processes, and reads back what it wrote.
func TestRun(t *testing.T) {
	t.Setenv("FOREBAY_QUEUES_CELL", "1") // for the processes
	dir := t.TempDir()
	results, doc := filepath.Join(dir, "results.jsonl"), filepath.Join(dir, "queues.md")
	var out, progress bytes.Buffer
	require.NoError(t, run(t.Context(), []string{
		"--engines", "goqite,write+sync", "--cells", "enqueue-1,full-1", "--seconds", "0.2", "--repetitions", "2",
		"--json", results, "--markdown", doc, "--dir", dir,
	}, nil, &out, &progress), progress.String())
	f, err := os.Open(results)
	require.NoError(t, err)
	defer f.Close()
	m, got, err := read(f)
	require.NoError(t, err)
	require.Len(t, got, 2*(2+1))
	require.Contains(t, m.Engines, "goqite")
	require.NotContains(t, m.Command, dir)
	for _, r := range got {
		require.Empty(t, r.Error)
		require.Positive(t, r.Messages)
		require.Positive(t, r.P99)
	}
	text, err := os.ReadFile(doc)
	require.NoError(t, err)
	require.Equal(t, out.String(), string(text))
	var again bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"--from", results}, nil, &again, &progress))
	require.Equal(t, out.String(), again.String())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)
}

func TestProcessFails(t *testing.T) {
	r := &runner{child: func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, os.Args[0]) }}
	t.Setenv("FOREBAY_QUEUES_CELL", "1")
	_, err := r.process(t.Context(), task{Cell: "enqueue-1", Engine: "nobody"})
	require.ErrorContains(t, err, `there is no engine "nobody"`)
	_, err = r.process(t.Context(), task{Cell: "nothing", Engine: "goqite"})
	require.ErrorContains(t, err, `there is no cell "nothing"`)
	require.Error(t, doTask(t.Context(), strings.NewReader("no json"), &bytes.Buffer{}))
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"--seconds", "0"}, {"--seconds", "NaN"}, {"--seconds", "4000"}, {"--repetitions", "0"}, {"--messages", "-1"},
		{"more"}, {"--engines", "nobody"}, {"--cells", "nothing"}, {"--from", "no such file"}, {"--what"},
	} {
		require.Error(t, run(t.Context(), args, nil, &bytes.Buffer{}, &bytes.Buffer{}), args)
	}
	var out, errOut bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"--list"}, nil, &out, &errOut))
	for _, e := range engines() {
		require.Contains(t, out.String(), e.Name)
		require.NotEmpty(t, e.Notes)
		require.NotEmpty(t, e.Enqueued)
		require.NotEmpty(t, e.Acked)
	}
	require.Error(t, run(t.Context(), []string{"--help"}, nil, &out, &errOut))
	require.Contains(t, errOut.String(), "--seconds 5 --repetitions 3")
}

// TestTable: medians, ratios, what failed and what was left out.
func TestTable(t *testing.T) {
	list := []*Engine{{Name: Home}, {Name: "a"}, {Name: "b"}, {Name: "disk", Limit: true}}
	c := cells()[4]
	results := []Result{
		{Cell: c.Name, Engine: Home, PerSecond: 500}, {Cell: c.Name, Engine: Home, PerSecond: 700}, {Cell: c.Name, Engine: Home, PerSecond: 600},
		{Cell: c.Name, Engine: "a", PerSecond: 100}, {Cell: c.Name, Engine: "a", Error: "broken\nmore"},
		{Cell: c.Name, Engine: "b", PerSecond: 300, Duplicates: 7},
		{Cell: cells()[0].Name, Engine: "disk", PerSecond: 10_000},
	}
	var out bytes.Buffer
	summary(&out, list, results)
	require.Contains(t, out.String(), "| 600 | b 300 | 2.00× | **no** | 10.0K |")
	out.Reset()
	cellTable(&out, c, list, results)
	require.Contains(t, out.String(), "| forebay | 600 | ±17 % |")
	require.Contains(t, out.String(), "| 7 | 2.00× |")
	require.Contains(t, out.String(), "- FAILED: a: broken\n")
	out.Reset()
	who(&out, Machine{Engines: map[string]string{"a": "v1"}, Absent: map[string]string{"b": "no server"}}, list)
	require.Contains(t, out.String(), "| a | v1 |")
	require.Contains(t, out.String(), "| b | not run: no server |")
	require.NotContains(t, out.String(), "disk")
	require.Error(t, failures(results))
	require.NoError(t, failures(results[:3]))

	_, _, err := read(strings.NewReader("no json\n"))
	require.Error(t, err)
	text, err := json.Marshal(line{Result: &results[0]})
	require.NoError(t, err)
	_, got, err := read(strings.NewReader("\n" + string(text) + "\n"))
	require.NoError(t, err)
	require.Equal(t, results[:1], got)
}
