package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzRecord: what is written as JSON is read back, byte for byte.
func FuzzRecord(f *testing.F) {
	f.Add([]byte("key"), []byte("value"), false)
	f.Add([]byte("\xff\ufffd"), []byte("\u2028\x00<\ufffd"), false)
	f.Add([]byte(`\ud800`), []byte(""), true)
	f.Fuzz(func(t *testing.T, key, value []byte, hexed bool) {
		var line bytes.Buffer
		format := Format{JSON: true, Hex: hexed}
		require.NoError(t, format.WriteEntry(&line, key, append([]byte{}, value...)))
		require.Equal(t, 1, bytes.Count(line.Bytes(), []byte("\n")))
		k, v, err := ParseRecord(line.Bytes())
		require.NoError(t, err)
		require.Equal(t, string(key), string(k))
		require.Equal(t, string(value), string(v))
	})
}

// FuzzParseRecord: no line makes it panic, and what it accepts is text or bytes
// that can be written again.
func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"key":"\ud800","value":"\uFFFD"}`))
	f.Add([]byte(`{"key_b64":"/w==","value_hex":"00"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		key, value, err := ParseRecord(line)
		if err != nil {
			return
		}
		var again bytes.Buffer
		require.NoError(t, (&Format{JSON: true}).WriteEntry(&again, key, append([]byte{}, value...)))
		k, v, err := ParseRecord(again.Bytes())
		require.NoError(t, err)
		require.Equal(t, string(key), string(k))
		require.Equal(t, string(value), string(v))
	})
}

func TestNumbers(t *testing.T) {
	require.Equal(t, "1,234,567", Count(1234567))
	require.Equal(t, "-1,000", Count(-1000))
	require.Equal(t, "999", Count(999))
	require.Equal(t, "0", Count(0))
	require.Equal(t, "65.5 kB", Bytes(65536))
	require.Equal(t, "1.50 GB", Bytes(1500000000))
	require.Equal(t, "250 µs", Duration(250_000))
	require.Equal(t, "2.5 ms", Duration(2_500_000))
	require.Equal(t, "1.5 s", Duration(1_500_000_000))
}

func TestEscape(t *testing.T) {
	require.Equal(t, `say "hi"\t\\ \xff é`, Escape([]byte("say \"hi\"\t\\ \xff é")))
}
