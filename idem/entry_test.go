package idem

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFormat: what is stored, byte by byte; see doc.go.
func TestFormat(t *testing.T) {
	e := &entry{state: failed, stamp: 0x0102030405060708, value: []byte("402"), text: "no"}
	for i := range e.print {
		e.print[i] = 0xAA
	}
	b := e.encode()
	require.Equal(t, "0103"+"0102030405060708"+
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"+
		"03"+hex.EncodeToString([]byte("402"))+"02"+hex.EncodeToString([]byte("no")), hex.EncodeToString(b))
	require.Equal(t, "t\x01\x02\x03\x04\x05\x06\x07\x08key", string(e.index([]byte("key"))))
	require.Equal(t, []byte{49}, e.indexValue())
	e.state = runs
	require.Equal(t, "m\x01\x02\x03\x04\x05\x06\x07\x08key", string(e.index([]byte("key"))))
	require.Empty(t, e.indexValue())
	require.Equal(t, "ekey", string(entryKey([]byte("key"))))
}

// FuzzEntry: what decodes encodes to the same, unless a length was written in a longer way.
func FuzzEntry(f *testing.F) {
	f.Add((&entry{state: done, stamp: 1, value: []byte("value"), text: "text"}).encode(), []byte{7})
	f.Add((&entry{state: runs, text: "owner"}).encode(), []byte{})
	f.Fuzz(func(t *testing.T, b, v []byte) {
		if e, err := decodeEntry([]byte("k"), b); err == nil {
			again, err := decodeEntry([]byte("k"), e.encode())
			require.NoError(t, err)
			require.Equal(t, e.print, again.print)
			require.True(t, bytes.Equal(e.value, again.value) && e.text == again.text && e.stamp == again.stamp && e.state == again.state)
			require.LessOrEqual(t, again.size, len(b))
		} else {
			require.ErrorIs(t, err, ErrDamaged)
		}
		for _, first := range []byte{resultKeys, markKeys} {
			if x, err := decodeIndex(append([]byte{first}, b...), v); err == nil {
				require.Equal(t, append([]byte{first}, b...), indexKey(first, x.stamp, x.key))
				require.GreaterOrEqual(t, x.bytes, int64(0))
			} else {
				require.ErrorIs(t, err, ErrDamaged)
			}
		}
	})
}
