// Package sinktest is the suite that each sink.Sink passes.
//
// A test of a sink gives Run a Harness: how to make an empty target, how to read it back,
// and what can be done to it. What a harness has no function for is not tested.
package sinktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
)

// Harness is a sink and its target, as the suite needs them.
type Harness struct {
	// New makes an empty target and a sink for it, and a function that reads the target
	// back: all rows that it holds, those of one batch in the order of the batch where the
	// target has an order (see Unordered). The test's Cleanup is to end both.
	New func(t *testing.T) (s sink.Sink, rows func(t *testing.T) []sink.Row)
	// ExactlyOnce: an ID that was written already has no effect. Without it, a row may be
	// there more than once.
	ExactlyOnce bool
	// Unordered: the target keeps no order of its rows.
	Unordered bool
	// Same says whether a row that was read back is one that was written; nil: when
	// Offset, Key and Value are the same.
	Same func(wrote, read sink.Row) bool
	// Text: keys and values are valid UTF-8 without zero bytes.
	Text bool
	// Value makes a value that the target takes of bytes that are different for each
	// row; nil: the bytes themselves.
	Value func(b []byte) []byte
	// MaxValue is the largest value, in bytes, that is written; 0: 1 MiB.
	MaxValue int
	// Bad returns a value that the target refuses for good; nil: it refuses none.
	Bad func() []byte
	// Stop makes the target of the last New unreachable, and Start makes it reachable
	// again; nil: that cannot be done.
	Stop, Start func(t *testing.T)
	// Faults have names ("connection lost before the commit", "reply lost"). Each is
	// armed for one of the next writes of the sink of the last New, which fails of it,
	// with the effect or without.
	Faults map[string]func(t *testing.T)
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	if h.MaxValue == 0 {
		h.MaxValue = 1 << 20
	}
	if h.Value == nil {
		h.Value = func(b []byte) []byte { return b }
	}
	if h.Same == nil {
		h.Same = func(wrote, read sink.Row) bool {
			return wrote.Offset == read.Offset && bytes.Equal(wrote.Key, read.Key) && bytes.Equal(wrote.Value, read.Value)
		}
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *target)
		skip bool
	}{
		{"Bytes", testBytes, false},
		{"Order", testOrder, false},
		{"NoRows", testNoRows, false},
		{"Lent", testLent, false},
		{"SameID", testSameID, false},
		{"SameIDAtOnce", testSameIDAtOnce, false},
		{"ManyBatches", testManyBatches, false},
		{"Bad", testBad, h.Bad == nil},
		{"AllBad", testAllBad, h.Bad == nil},
		{"Cancelled", testCancelled, false},
		{"CancelledMidway", testCancelledMidway, false},
		{"Stopped", testStopped, h.Stop == nil},
	} {
		if !c.skip {
			t.Run(c.name, func(t *testing.T) { c.run(t, open(t, &h)) })
		}
	}
	for name := range h.Faults {
		t.Run("Fault/"+name, func(t *testing.T) { testFault(t, open(t, &h), h.Faults[name]) })
	}
}

// target is an empty one, with what is known to be written.
type target struct {
	*Harness
	s      sink.Sink
	read   func(t *testing.T) []sink.Row
	offset uint64 // of the next row
}

func open(t *testing.T, h *Harness) *target {
	t.Helper()
	s, read := h.New(t)
	require.NotNil(t, s)
	require.NotNil(t, read)
	return &target{Harness: h, s: s, read: read}
}

// at is before all rows, and a whole number of microseconds, as databases have them.
var at = time.Date(2026, 11, 5, 17, 4, 5, 123456000, time.UTC)

// row makes the next row, with a value of its own.
func (g *target) row() sink.Row { return g.rowOf(g.Value(fmt.Appendf(nil, "value %d", g.offset))) }

func (g *target) rowOf(value []byte) sink.Row {
	r := sink.Row{
		Offset:  g.offset,
		Time:    at.Add(time.Duration(g.offset) * time.Millisecond),
		Key:     fmt.Appendf(nil, "key %d", g.offset%7),
		Value:   value,
		Headers: map[string]string{"trace": fmt.Sprint(g.offset)},
	}
	g.offset++
	return r
}

// batch makes a batch of n rows.
func (g *target) batch(id string, n int) sink.Batch {
	b := sink.Batch{ID: id}
	for range n {
		b.Rows = append(b.Rows, g.row())
	}
	return b
}

// write writes a batch, which must go.
func (g *target) write(t *testing.T, b sink.Batch) {
	t.Helper()
	require.NoError(t, g.s.Write(t.Context(), b), "batch %s", b.ID)
}

// holds looks that the target has the rows of batches, each once where that is promised,
// and no others.
func (g *target) holds(t *testing.T, batches ...sink.Batch) {
	t.Helper()
	read := g.read(t)
	want := map[uint64]sink.Row{}
	for _, b := range batches {
		for _, r := range b.Rows {
			want[r.Offset] = r
		}
	}
	seen := map[uint64]int{}
	place := map[uint64]int{}
	for i, r := range read {
		w, ok := want[r.Offset]
		require.True(t, ok, "a row of offset %d is in the target, and was not to be", r.Offset)
		require.True(t, g.Same(w, r), "row of offset %d: wrote %s, read %s", r.Offset, show(w), show(r))
		seen[r.Offset]++
		place[r.Offset] = i
	}
	for offset := range want {
		require.Positive(t, seen[offset], "the row of offset %d is not in the target", offset)
		if g.ExactlyOnce {
			require.Equal(t, 1, seen[offset], "how often the row of offset %d is in the target", offset)
		}
	}
	for _, b := range batches {
		for i := 1; i < len(b.Rows) && !g.Unordered; i++ {
			require.Less(t, place[b.Rows[i-1].Offset], place[b.Rows[i].Offset], "batch %s, rows %d and %d", b.ID, i-1, i)
		}
	}
}

func show(r sink.Row) string {
	return fmt.Sprintf("{%d %s key %.40q value %.40q (%d bytes) %v}", r.Offset, r.Time.UTC().Format(time.RFC3339Nano), r.Key, r.Value, len(r.Value), r.Headers)
}

// transient looks that an error is one after which the same batch is written again.
func transient(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	var r *sink.Rejected
	require.False(t, errors.As(err, &r), "not for good: %v", err)
}

// rejected looks that an error rejects, and names no good row.
func rejected(t *testing.T, err error, bad ...int) {
	t.Helper()
	var r *sink.Rejected
	require.ErrorAs(t, err, &r)
	require.Error(t, r.Err, "a reason")
	for _, i := range r.Rows {
		require.Contains(t, bad, i, "the rows that are said to be bad")
	}
}

func testBytes(t *testing.T, g *target) {
	all := make([]byte, 0, 256)
	for c := range 256 {
		if !g.Text || c > 0 && c < 0x80 {
			all = append(all, byte(c))
		}
	}
	big := bytes.Repeat([]byte("0123456789abcde\n"), g.MaxValue/16+1)[:g.MaxValue]
	if !g.Text { // that does not pack well
		x := uint32(1)
		for i := range big {
			x = x*1664525 + 1013904223
			big[i] = byte(x >> 24)
		}
	}
	var values [][]byte
	for _, v := range []string{"", " ", "\t\r\n", `"quoted" 'quoted' \ \\ \N \0`, "NULL", "{}", "größer ≤ 語 🌊"} {
		values = append(values, []byte(v))
	}
	values = append(values, all, bytes.Repeat(all, 9), big)
	var batches []sink.Batch
	for i, v := range values {
		// One that is alone, and one that has others beside it.
		batches = append(batches,
			sink.Batch{ID: fmt.Sprintf("alone-%d", i), Rows: []sink.Row{g.rowOf(g.Value(v))}},
			sink.Batch{ID: fmt.Sprintf("beside-%d", i), Rows: []sink.Row{g.row(), g.rowOf(g.Value(v)), g.row()}})
	}
	keys := sink.Batch{ID: "keys"}
	for i, k := range slices.Concat(values[:len(values)-1], [][]byte{nil}) {
		r := g.row()
		r.Key = k
		r.Headers = []map[string]string{nil, {}, {"": ""}, {"a": "", "b\"": "\\ \n"}}[i%4]
		keys.Rows = append(keys.Rows, r)
	}
	batches = append(batches, keys)
	for _, b := range batches {
		g.write(t, b)
	}
	g.holds(t, batches...)
}

func testOrder(t *testing.T, g *target) {
	b := g.batch("order", 1000)
	for i := range b.Rows { // neither the order of the offsets nor that of the keys
		j := (i * 7919) % len(b.Rows)
		b.Rows[i], b.Rows[j] = b.Rows[j], b.Rows[i]
	}
	g.write(t, b)
	g.holds(t, b)
}

func testNoRows(t *testing.T, g *target) {
	g.write(t, sink.Batch{ID: "none"})
	g.holds(t)
}

// testLent looks that a sink keeps nothing of what it was lent.
func testLent(t *testing.T, g *target) {
	b := g.batch("lent", 3)
	lent := sink.Batch{ID: b.ID}
	for _, r := range b.Rows {
		r.Key, r.Value = slices.Clone(r.Key), slices.Clone(r.Value)
		lent.Rows = append(lent.Rows, r)
	}
	g.write(t, lent)
	for _, r := range lent.Rows {
		clear(r.Key)
		clear(r.Value)
	}
	clear(lent.Rows)
	g.holds(t, b)
}

func testSameID(t *testing.T, g *target) {
	a, b := g.batch("a", 5), g.batch("b", 3)
	long := g.batch("long-"+string(bytes.Repeat([]byte("x/"), sink.MaxID))[:sink.MaxID-5], 2)
	for range 3 {
		g.write(t, a)
		g.write(t, b)
		g.write(t, long)
	}
	g.holds(t, a, b, long)
}

func testSameIDAtOnce(t *testing.T, g *target) {
	var batches []sink.Batch
	for round := range 5 {
		b := g.batch(fmt.Sprintf("at-once-%d", round), 50)
		errs := make([]error, 8)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = g.s.Write(t.Context(), b) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil { // it was in another's way
				transient(t, err)
			}
		}
		g.write(t, b)
		batches = append(batches, b)
	}
	g.holds(t, batches...)
}

func testManyBatches(t *testing.T, g *target) {
	var batches []sink.Batch
	for i := range 64 {
		batches = append(batches, g.batch(fmt.Sprintf("many-%d", i), 1+i%5))
	}
	errs := make([]error, len(batches))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < len(batches); i += 8 {
				errs[i] = g.s.Write(t.Context(), batches[i])
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil { // it was in another's way
			transient(t, err)
			g.write(t, batches[i])
		}
	}
	g.holds(t, batches...)
}

func testBad(t *testing.T, g *target) {
	before := g.batch("before", 3)
	g.write(t, before)
	held := []sink.Batch{before}
	for _, bad := range [][]int{{0}, {4}, {9}, {0, 9}, {3, 4, 5}} {
		b := g.batch(fmt.Sprintf("bad-%d", len(held)), 10)
		for _, i := range bad {
			b.Rows[i].Value = g.Bad()
		}
		for range 2 { // and it stays bad
			rejected(t, g.s.Write(t.Context(), b), bad...)
			g.holds(t, held...)
		}
		rest := sink.Batch{ID: b.ID + "-rest"}
		for i, r := range b.Rows {
			if !slices.Contains(bad, i) {
				rest.Rows = append(rest.Rows, r)
			}
		}
		g.write(t, rest)
		held = append(held, rest)
		g.holds(t, held...)
	}
}

func testAllBad(t *testing.T, g *target) {
	b := g.batch("all-bad", 3)
	for i := range b.Rows {
		b.Rows[i].Value = g.Bad()
	}
	rejected(t, g.s.Write(t.Context(), b), 0, 1, 2)
	one := sink.Batch{ID: "one-bad", Rows: b.Rows[:1]}
	rejected(t, g.s.Write(t.Context(), one), 0)
	g.holds(t)
}

func testCancelled(t *testing.T, g *target) {
	b := g.batch("cancelled", 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	transient(t, g.s.Write(ctx, b))
	g.write(t, b)
	g.holds(t, b)
}

// testCancelledMidway ends writes at moments of all kinds: whether they had their effect
// or not, they have it once when they are made again.
func testCancelledMidway(t *testing.T, g *target) {
	var batches []sink.Batch
	for i := range 20 {
		b := g.batch(fmt.Sprintf("midway-%d", i), 200)
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(time.Duration(1<<i)*time.Microsecond, cancel)
		if err := g.s.Write(ctx, b); err != nil {
			transient(t, err)
		}
		stop.Stop()
		cancel()
		g.write(t, b)
		batches = append(batches, b)
	}
	g.holds(t, batches...)
}

func testStopped(t *testing.T, g *target) {
	before, during := g.batch("before", 3), g.batch("during", 3)
	g.write(t, before)
	g.Stop(t)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		transient(t, g.s.Write(ctx, during))
		cancel()
	}
	g.Start(t)
	// A connection of before may have to be found broken first.
	require.Eventually(t, func() bool {
		err := g.s.Write(t.Context(), during)
		if err != nil {
			transient(t, err)
		}
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	g.write(t, before)
	g.holds(t, before, during)
}

func testFault(t *testing.T, g *target, arm func(*testing.T)) {
	before := g.batch("before", 3)
	g.write(t, before)
	held := []sink.Batch{before}
	for i := range 3 {
		b := g.batch(fmt.Sprintf("fault-%d", i), 100)
		arm(t)
		failed := false
		for n := 0; ; n++ {
			require.Less(t, n, 10, "the write fails again and again")
			err := g.s.Write(t.Context(), b)
			if err == nil {
				break
			}
			transient(t, err)
			failed = true
		}
		require.True(t, failed, "the fault was armed, and no write failed")
		held = append(held, b)
		g.holds(t, held...)
	}
}
