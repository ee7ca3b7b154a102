package batch

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

func TestAppends(t *testing.T) {
	var b Batch
	require.NoError(t, b.AppendItem([]byte{2}, []byte("x")))
	require.NoError(t, b.AppendItem([]byte{2}, nil))
	rec := bytes.Clone(b.Bytes())
	Place(rec, func(key []byte, n int) uint64 {
		require.Equal(t, []byte{2}, key)
		require.Equal(t, 2, n)
		return 5
	})
	require.Equal(t, []byte{1, 1, 1, 4, 1, 2, 11, 5, 0, 0, 0, 0, 0, 0, 0, 1, 'x', 0}, rec) // the worked example
	require.NoError(t, b.AppendItem([]byte{1}, []byte("y")))
	require.NoError(t, b.Put([]byte("k"), []byte("v")))
	require.NoError(t, b.DeleteRange([]byte("a"), []byte("z")))
	b.Bytes() // the range delete is resolved
	require.Equal(t, b.Size(), len(b.Bytes()))
	require.Equal(t, []string{`range delete "a" "z"`, `append "\x01" "y"`, `append "\x02" "x" ""`}, lines(t, b.Bytes()))
	require.NoError(t, b.Put([]byte("k"), []byte("w"))) // still usable
	require.Equal(t, []string{`range delete "a" "z"`, `put "k" "w"`, `append "\x01" "y"`, `append "\x02" "x" ""`}, lines(t, b.Bytes()))
	value, err := Appended(b.Bytes(), []byte{2})
	require.NoError(t, err)
	require.Equal(t, 2, CountItems(value))
	value, err = Appended(b.Bytes(), []byte{3})
	require.NoError(t, err)
	require.Nil(t, value)
	b.Reset()
	require.Equal(t, []byte{1, 0, 0}, b.Bytes())
}

func TestAppendsModel(t *testing.T) {
	rng := newRand(t)
	for range 100 {
		var b Batch
		model := map[byte][]string{}
		for range rng.IntN(300) {
			key := byte('0' + rng.IntN(10))
			item := bytes.Repeat([]byte{key}, rng.IntN(1<<rng.IntN(12)))
			require.NoError(t, b.AppendItem([]byte{key}, item))
			model[key] = append(model[key], fmt.Sprintf(" %q", item))
			if rng.IntN(5) == 0 {
				require.NoError(t, b.Put([]byte{key}, item))
			}
			require.Equal(t, b.Size(), len(b.Bytes()))
		}
		n := 0
		for _, line := range lines(t, b.Bytes()) {
			if strings.HasPrefix(line, "append") {
				key := line[len(`append "`)]
				require.Equal(t, fmt.Sprintf("append %q", []byte{key})+strings.Join(model[key], ""), line)
				n++
			}
		}
		require.Len(t, model, n)
	}
}

func TestAppendLimits(t *testing.T) {
	var b Batch
	require.ErrorIs(t, b.AppendItem(nil, []byte("x")), ErrEmptyKey)
	var limit *LimitError
	require.ErrorAs(t, b.AppendItem([]byte{1}, make([]byte, base.MaxValueSize)), &limit)
	most := make([]byte, base.MaxValueSize-12)
	require.NoError(t, b.AppendItem([]byte{1}, most))
	require.ErrorAs(t, b.AppendItem([]byte{1}, []byte("x")), &limit)
	for err := error(nil); err == nil; err = b.AppendItem([]byte{2}, make([]byte, 1<<20)) {
	}
	require.LessOrEqual(t, b.Size(), base.MaxRecordSize)
	require.Equal(t, b.Size(), len(b.Bytes()))
	lines(t, b.Bytes())
}

func TestDecodeRefusesAppends(t *testing.T) {
	for name, rec := range map[string][]byte{
		"nothing":             {1, 1, 1, 4, 1, 2, 8, 0, 0, 0, 0, 0, 0, 0, 0},
		"a long item":         {1, 1, 1, 4, 1, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 'x'},
		"a cut length":        {1, 1, 1, 4, 1, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0x80},
		"not ascending":       {1, 1, 2, 4, 1, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"an operation behind": {1, 1, 2, 4, 1, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 'k'},
		"no offset":           {1, 1, 1, 4, 1, 2, 3, 1, 'x', 0},
		"no flag":             {1, 0, 1, 4, 1, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a flag too many":     {1, 1, 1, 2, 1, 'k'},
		"no key":              {1, 1, 1, 4, 0, 1, 0},
	} {
		_, err := Decode(rec)
		require.ErrorIs(t, err, ErrCorrupt, name)
	}
}

func TestSettledEntry(t *testing.T) {
	var b Batch
	key := []byte{7}
	require.NoError(t, b.AppendItem(key, []byte("x")))
	require.NoError(t, b.AppendItem(key, nil))
	rec := bytes.Clone(b.Bytes())
	Place(rec, func([]byte, int) uint64 { return 5 })
	value, err := Appended(rec, key)
	require.NoError(t, err)
	own := IndexKey(nil, nil, 5)

	_, plain := IndexEntry(nil, nil, key, value)
	e, ok := DecodeIndexEntry(own, plain, 9)
	require.True(t, ok)
	require.Equal(t, Entry{Offset: 5, Count: 2, Size: uint64(len(value)), LSN: 9}, e)

	settled := SettledEntry(nil, 9, value)
	e, ok = DecodeIndexEntry(own, settled, 10)
	require.True(t, ok)
	require.Equal(t, Entry{Offset: 5, Count: 2, Size: uint64(len(value)), LSN: 9, Settled: value}, e)

	_, ok = DecodeIndexEntry(own, settled, 9)
	require.False(t, ok, "settled before it was there")
	_, ok = DecodeIndexEntry(IndexKey(nil, nil, 6), settled, 10)
	require.False(t, ok, "of another offset")
	for i := len(plain) + 1; i < len(settled); i++ {
		_, ok = DecodeIndexEntry(own, settled[:i], 10)
		require.False(t, ok, "cut at %d", i)
	}
	for i := range settled { // never a panic, nor another length
		for bit := range 8 {
			bad := bytes.Clone(settled)
			bad[i] ^= 1 << bit
			if e, ok := DecodeIndexEntry(own, bad, 1<<40); ok && e.Settled != nil {
				require.Equal(t, int(e.Size), len(e.Settled))
			}
		}
	}
}
