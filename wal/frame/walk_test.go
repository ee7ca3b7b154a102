package frame

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWalk(t *testing.T) {
	for _, align := range []int64{FrameAlign, BlockAlign} {
		head := &FileHeader{Kind: FileLog, Align: align, Number: 1, Epoch: 1, Salt: 5}
		var b Builder
		off := head.Start()
		b.Reset(head, CodecNone, off, 0)
		b.Link(Link{}, 0)
		for lsn := LSN(1); lsn <= 500; lsn++ {
			b.Record(lsn, 0, make([]byte, 2000), 0, 0)
		}
		b.CloseFrame(true)
		buf := b.Bytes()
		next := LSN(1)
		frames := 0
		see := func(h *Header, payload []byte) error {
			frames++
			if h.Kind != KindData {
				return nil
			}
			require.Equal(t, next, h.First)
			next = h.Next()
			return EachRecord(h, payload, nil)
		}
		require.NoError(t, Walk(buf, off, head, see))
		require.Equal(t, LSN(501), next)
		require.Equal(t, 1+4, frames)
		require.NoError(t, Walk(nil, off, head, see))
		require.ErrorContains(t, Walk(buf, off+8, head, see), "no frame at offset")
		require.ErrorContains(t, Walk(buf[:60], off, head, see), "are no frame")
		require.ErrorContains(t, Walk(buf[:len(buf)-4096], off, head, func(*Header, []byte) error { return nil }), "longer than what was written")
		stop := errors.New("stop")
		require.Equal(t, stop, Walk(buf, off, head, func(*Header, []byte) error { return stop }))
	}
}
