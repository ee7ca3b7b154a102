package frame

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFindGivesEveryHeaderInTurn(t *testing.T) {
	variants(t, func(t *testing.T, align int64, codec Codec) {
		m := smallImage(align, codec)
		frames, _ := read(t, m.head, m.bytes)
		src, size := bytes.NewReader(m.bytes), int64(len(m.bytes))
		for _, buf := range [][]byte{nil, make([]byte, 0, FrameHeaderSize), make([]byte, 0, 100)} {
			off := int64(0)
			for _, fr := range frames {
				at, err := Find(src, size, &m.head, off, buf)
				require.NoError(t, err)
				require.Equal(t, fr.offset, at)
				off = at + 1
			}
			at, err := Find(src, size, &m.head, off, buf)
			require.NoError(t, err)
			require.Equal(t, int64(-1), at)
		}
		at, err := Find(src, size, &m.head, size+9, nil)
		require.NoError(t, err)
		require.Equal(t, int64(-1), at)
	})
}

func TestFindPassesOnWhatAReadSays(t *testing.T) {
	m := smallImage(FrameAlign, CodecNone)
	broken := errors.New("broken")
	_, err := Find(readerFunc(func([]byte, int64) (int, error) { return 0, broken }), int64(len(m.bytes)), &m.head, 0, nil)
	require.ErrorIs(t, err, broken)
	_, err = Find(readerFunc(func([]byte, int64) (int, error) { return 0, io.EOF }), int64(len(m.bytes)), &m.head, 0, nil)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

type readerFunc func(p []byte, off int64) (int, error)

func (f readerFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }
