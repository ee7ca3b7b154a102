package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

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

func TestPayload(t *testing.T) {
	for b, want := range map[string]string{
		"":             `{"payload_text":""}`,
		`{"a": [1]}`:   `{"payload":{"a":[1]}}`,
		`[]`:           `{"payload":[]}`,
		`7`:            `{"payload_text":"7"}`,
		`{"a"`:         `{"payload_text":"{\"a\""}`,
		"\xff":         `{"payload_b64":"/w=="}`,
		"{\"\xff\":1}": `{"payload_b64":"eyL/IjoxfQ=="}`,
	} {
		var out bytes.Buffer
		require.NoError(t, WriteJSON(&out, NewPayload([]byte(b))))
		require.Equal(t, want+"\n", out.String())
	}
	var out bytes.Buffer
	require.NoError(t, WriteJSON(&out, NewPayload(nil)))
	require.Equal(t, "{}\n", out.String())
	require.Equal(t, "a\\n", Preview([]byte("a\n")))
	require.Equal(t, strings.Repeat("é", 59)+"x…", Preview([]byte(strings.Repeat("é", 59)+"xéé")))
	require.Equal(t, strings.Repeat(`\xa9`, 116)+"…", Preview(bytes.Repeat([]byte{0xa9}, 1000)))
}

func TestAge(t *testing.T) {
	require.Equal(t, "5.0 s", Age(5*time.Second))
	require.Equal(t, "1h0m0s", Age(time.Hour))
	require.Equal(t, "2d01h", Age(49*time.Hour))
	require.Equal(t, "1 thing", Plural(1, "thing"))
	require.Equal(t, "1,000 things", Plural(1000, "thing"))
}
