package vfs

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCopy(t *testing.T) {
	mem := NewMem()
	want := bytes.Repeat([]byte("0123456789"), 300_000) // three pieces
	dst, err := mem.Create("copy", ReadWrite)
	require.NoError(t, err)
	n, err := Copy(context.Background(), dst, bytes.NewReader(want), int64(len(want)))
	require.NoError(t, err)
	require.Equal(t, int64(len(want)), n)
	require.True(t, bytes.Equal(want, mem.Bytes("copy")))
	n, err = Copy(context.Background(), dst, bytes.NewReader(want), int64(len(want))+1)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, int64(len(want)), n)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = Copy(ctx, dst, bytes.NewReader(want), 1)
	require.ErrorIs(t, err, context.Canceled)
}
