package transfer

import (
	"bufio"
	"bytes"
	stdcsv "encoding/csv"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzCSV: what is written is read back, byte for byte, whatever it is.
func FuzzCSV(f *testing.F) {
	f.Add([]byte("key"), []byte("value"))
	f.Add([]byte("\xef\xbb\xbfk\r\n"), []byte("\"\r\n,\r"))
	f.Add([]byte("\r"), []byte(""))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		text := appendCSV(appendCSV(nil, key, value), value, key)
		c := newCSVReader(bufio.NewReader(bytes.NewReader(text)), 1<<20)
		for range 2 {
			k, v, _, err := c.next()
			require.NoError(t, err)
			require.Equal(t, string(key), string(k))
			require.Equal(t, string(value), string(v))
			key, value = value, key
		}
		_, _, _, err := c.next()
		require.Equal(t, io.EOF, err)
	})
}

// FuzzCSVReader: what the reader accepts, the standard library reads the same
// way, where no carriage return is in play.
func FuzzCSVReader(f *testing.F) {
	f.Add([]byte("a,b\n\n\"c\"\"\",\"d\n\"\n"))
	f.Add([]byte("a,b\r\na,b,c\n\"a\"b\n\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		ours := newCSVReader(bufio.NewReader(bytes.NewReader(text)), 1<<20)
		std := stdcsv.NewReader(bytes.NewReader(bytes.TrimPrefix(text, bom)))
		std.FieldsPerRecord = -1
		compare := !bytes.ContainsRune(text, '\r')
		for {
			key, value, _, err := ours.next()
			if err != nil && err != io.EOF {
				return
			}
			if compare {
				want, stdErr := std.Read()
				require.Equal(t, err, stdErr)
				if err == nil {
					require.Equal(t, want, []string{string(key), string(value)})
				}
			}
			if err == io.EOF {
				return
			}
		}
	})
}
