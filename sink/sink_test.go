package sink_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
)

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	rejected := fmt.Errorf("table t: %w", &sink.Rejected{Rows: []int{3, 5}, Err: cause})
	require.ErrorIs(t, rejected, cause)
	require.ErrorContains(t, rejected, "2 rows rejected, the first is row 3: cause")
	var r *sink.Rejected
	require.ErrorAs(t, rejected, &r)
	require.EqualError(t, &sink.Rejected{Err: cause}, "sink: rejected: cause")

	later := fmt.Errorf("table t: %w", &sink.Later{After: time.Second, Err: cause})
	require.ErrorIs(t, later, cause)
	require.ErrorContains(t, later, "not before 1s: cause")
	for _, c := range []struct {
		err  error
		wait time.Duration
		ok   bool
	}{
		{later, time.Second, true},
		{&sink.Later{Err: cause}, 0, true},
		{&sink.Later{After: -1, Err: cause}, 0, false},
		{rejected, 0, false},
		{nil, 0, false},
	} {
		wait, ok := sink.RetryAfter(c.err)
		require.Equal(t, c.wait, wait)
		require.Equal(t, c.ok, ok)
	}
}

func ExampleFunc() {
	s := sink.Func(func(_ context.Context, b sink.Batch) error {
		for i, row := range b.Rows {
			if len(row.Value) == 0 {
				return &sink.Rejected{Rows: []int{i}, Err: errors.New("a row without a value")}
			}
		}
		fmt.Println(b.ID, len(b.Rows))
		return nil
	})
	fmt.Println(s.Write(context.Background(), sink.Batch{ID: "a", Rows: []sink.Row{{Value: []byte("v")}}}))
	fmt.Println(s.Write(context.Background(), sink.Batch{ID: "b", Rows: []sink.Row{{}}}))
	// Output:
	// a 1
	// <nil>
	// sink: 1 rows rejected, the first is row 0: a row without a value
}
