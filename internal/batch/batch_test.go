package batch

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0 takes one from the clock")

func newRand(t *testing.T) *rand.Rand {
	s := *seedFlag
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -seed=%d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// lines decodes rec into one string an operation.
func lines(t testing.TB, rec []byte) []string {
	r, err := Decode(rec)
	require.NoError(t, err)
	out := []string{}
	for r.Next() {
		switch r.Kind() {
		case base.KindPut:
			require.NotNil(t, r.Value())
			out = append(out, fmt.Sprintf("put %q %q", r.Key(), r.Value()))
		case base.KindDelete:
			require.Nil(t, r.Value())
			out = append(out, fmt.Sprintf("delete %q", r.Key()))
		case base.KindRangeDelete:
			require.Less(t, string(r.Key()), string(r.Value()))
			out = append(out, fmt.Sprintf("range delete %q %q", r.Key(), r.Value()))
		case base.KindAppend:
			line := fmt.Sprintf("append %q", r.Key())
			for i := ItemsOf(r.Value()); i.Next(); {
				line += fmt.Sprintf(" %q", i.Item())
			}
			out = append(out, line)
		}
	}
	require.Equal(t, r.Len(), len(out))
	require.False(t, r.Next())
	return out
}

func TestCollapseKeepsOrderOfLastWrites(t *testing.T) {
	var b Batch
	require.NoError(t, b.Put([]byte("a"), []byte("1")))
	require.NoError(t, b.Put([]byte("b"), nil))
	require.NoError(t, b.Delete([]byte("c")))
	require.NoError(t, b.Put([]byte("a"), []byte("2")))
	require.NoError(t, b.Put([]byte("c"), []byte("3")))
	require.NoError(t, b.Delete([]byte("b")))
	require.Equal(t, 3, b.Len())
	require.Equal(t, b.Size(), len(b.Bytes()))
	require.Equal(t, []string{`put "a" "2"`, `put "c" "3"`, `delete "b"`}, lines(t, b.Bytes()))

	require.NoError(t, b.Put([]byte("a"), []byte("4"))) // Still usable after Bytes.
	require.Equal(t, []string{`put "c" "3"`, `delete "b"`, `put "a" "4"`}, lines(t, b.Bytes()))
	b.Reset()
	require.Equal(t, []byte{1, 0, 0}, b.Bytes())
	require.Equal(t, 3, b.Size())
}

// TestModel compares batches of every size, among them ones with many
// rewrites, with a list from which the older operation is removed.
func TestModel(t *testing.T) {
	rng := newRand(t)
	var b Batch
	for range 60 {
		b.Reset()
		var model []string
		at := map[string]int{} // key → serial of its last write
		byKey := []string{}
		keys := 1 + rng.IntN(1<<rng.IntN(10))
		for i := range rng.IntN(1 << rng.IntN(12)) {
			key := fmt.Sprintf("k%d", rng.IntN(keys))
			line := fmt.Sprintf("delete %q", key)
			if rng.IntN(3) > 0 {
				val := bytes.Repeat([]byte{'v'}, rng.IntN(40))
				require.NoError(t, b.Put([]byte(key), val))
				line = fmt.Sprintf("put %q %q", key, val)
			} else {
				require.NoError(t, b.Delete([]byte(key)))
			}
			model, byKey = append(model, line), append(byKey, key)
			at[key] = i
			if rng.IntN(100) == 0 {
				require.Len(t, b.Bytes(), b.Size())
			}
		}
		want := []string{}
		for i, line := range model {
			if at[byKey[i]] == i {
				want = append(want, line)
			}
		}
		require.Equal(t, len(want), b.Len())
		size := b.Size()
		require.Len(t, b.Bytes(), size)
		require.Equal(t, want, lines(t, b.Bytes()))
	}
}

func TestRewritesDoNotGrow(t *testing.T) {
	var b Batch
	val := make([]byte, 100)
	for i := range 100_000 {
		require.NoError(t, b.Put([]byte{byte('a' + i%20)}, val))
	}
	require.Equal(t, 20, b.Len())
	require.Less(t, cap(b.buf), 64<<10)
}

func TestLimits(t *testing.T) {
	var b Batch
	require.NoError(t, b.Put([]byte("x"), []byte("y")))
	before := bytes.Clone(b.Bytes())

	longKey := make([]byte, base.MaxKeySize+1)
	longValue := make([]byte, base.MaxValueSize+1)
	for _, c := range []struct {
		err  error
		want error
	}{
		{b.Put(nil, nil), ErrEmptyKey},
		{b.Delete([]byte{}), ErrEmptyKey},
		{b.DeleteRange(nil, []byte("a")), ErrEmptyKey},
		{b.DeleteRange(longKey, []byte("a")), &LimitError{"key", base.MaxKeySize + 1, base.MaxKeySize}},
		{b.DeleteRange([]byte("a"), longKey), &LimitError{"key", base.MaxKeySize + 1, base.MaxKeySize}},
		{b.Append(0, []byte("a"), nil), ErrKind},
		{b.Append(5, []byte("a"), nil), ErrKind},
		{b.Put(longKey, nil), &LimitError{"key", base.MaxKeySize + 1, base.MaxKeySize}},
		{b.Delete(longKey), &LimitError{"key", base.MaxKeySize + 1, base.MaxKeySize}},
		{b.Put([]byte("k"), longValue), &LimitError{"value", base.MaxValueSize + 1, base.MaxValueSize}},
	} {
		require.Equal(t, c.want, c.err)
	}
	for _, f := range []func() ([]byte, error){
		func() ([]byte, error) { return AppendPut([]byte("dst"), nil, nil, nil) },
		func() ([]byte, error) { return AppendPut([]byte("dst"), nil, longKey, nil) },
		func() ([]byte, error) { return AppendPut([]byte("dst"), nil, []byte("k"), longValue) },
		func() ([]byte, error) { return AppendDelete([]byte("dst"), nil) },
		func() ([]byte, error) { return AppendDelete([]byte("dst"), longKey) },
		func() ([]byte, error) { return AppendDeleteRange([]byte("dst"), nil, []byte("a")) },
		func() ([]byte, error) { return AppendDeleteRange([]byte("dst"), longKey, []byte("a")) },
		func() ([]byte, error) { return AppendDeleteRange([]byte("dst"), []byte("a"), longKey) },
	} {
		dst, err := f()
		require.Error(t, err)
		require.Equal(t, []byte("dst"), dst)
	}
	require.Equal(t, before, b.Bytes())

	// Exactly at the limits of key and value.
	require.NoError(t, b.Put(longKey[1:], longValue[1:]))
	limit, err := Decode(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, 2, limit.Len())

	// Exactly at the limit of the batch, and replayed.
	room := base.MaxRecordSize - b.Size() - len("\x01\x01k") - 4
	require.NoError(t, b.Put([]byte("k"), make([]byte, room)))
	require.Equal(t, base.MaxRecordSize, b.Size())
	full, err := Decode(b.Bytes())
	require.NoError(t, err)
	require.Equal(t, 3, full.Len())
	err = b.Delete([]byte("z"))
	require.Equal(t, &LimitError{"batch", base.MaxRecordSize + 3, base.MaxRecordSize}, err)
	require.Equal(t, base.MaxRecordSize, b.Size())
	// An overwrite counts what it frees.
	require.NoError(t, b.Put([]byte("k"), make([]byte, room)))
	require.Equal(t, &LimitError{"batch", base.MaxRecordSize + 1, base.MaxRecordSize},
		b.Put([]byte("k"), make([]byte, room+1)))
	require.NoError(t, b.Delete([]byte("k")))

	_, err = Decode(make([]byte, base.MaxRecordSize+1))
	require.ErrorIs(t, err, ErrCorrupt)
}

func TestSingle(t *testing.T) {
	for _, value := range [][]byte{nil, []byte("v"), make([]byte, 70_000)} {
		var b Batch
		require.NoError(t, b.Put([]byte("key"), value))
		rec, err := AppendPut(nil, nil, []byte("key"), value)
		require.NoError(t, err)
		require.Equal(t, b.Bytes(), rec)
	}
	var b Batch
	require.NoError(t, b.Delete([]byte("key")))
	rec, err := AppendDelete(nil, []byte("key"))
	require.NoError(t, err)
	require.Equal(t, b.Bytes(), rec)
}

func TestAllocations(t *testing.T) {
	key, value := []byte("0123456789abcdef"), make([]byte, 100)
	dst := make([]byte, 0, 256)
	var b Batch
	fill := func() {
		b.Reset()
		for i := range 100 {
			key[0] = byte(i)
			if b.Put(key, value) != nil {
				panic("put")
			}
		}
		b.Bytes()
	}
	fill()
	rec := bytes.Clone(b.Bytes())
	for name, f := range map[string]func(){
		"AppendPut":         func() { dst, _ = AppendPut(dst[:0], nil, key, value) },
		"AppendDelete":      func() { dst, _ = AppendDelete(dst[:0], key) },
		"AppendDeleteRange": func() { dst, _ = AppendDeleteRange(dst[:0], key, value) },
		"reused":            fill,
		"Decode": func() {
			r, err := Decode(rec)
			if err != nil {
				panic(err)
			}
			for r.Next() {
			}
		},
	} {
		require.Zero(t, testing.AllocsPerRun(100, f), name)
	}
}

func TestPool(t *testing.T) {
	b := Acquire()
	require.NoError(t, b.Put([]byte("k"), []byte("v")))
	Release(b)
	require.Zero(t, Acquire().Len())
}

func TestDecodeRefuses(t *testing.T) {
	good, err := AppendPut(nil, nil, []byte("key"), []byte("value"))
	require.NoError(t, err)
	for n := range good {
		_, err := Decode(good[:n])
		require.ErrorIs(t, err, ErrCorrupt, "cut to %d bytes", n)
	}
	big := []byte{1, 0, 1, 1, 1, 'k', 0xff, 0xff, 0xff, 0x7f}
	for _, c := range []struct {
		name string
		rec  []byte
		off  int
		err  error
	}{
		{"version 0", []byte{0, 0, 0}, 0, ErrVersion},
		{"version 2", []byte{2, 0, 0}, 0, ErrVersion},
		{"reserved byte", []byte{1, 1, 0}, 1, ErrCorrupt},
		{"trailing byte", append(bytes.Clone(good), 0), len(good), ErrCorrupt},
		{"count too high", []byte{1, 0, 2, 2, 1, 'k'}, 6, ErrCorrupt},
		{"count too low", []byte{1, 0, 0, 2, 1, 'k'}, 3, ErrCorrupt},
		{"count not shortest", []byte{1, 0, 0x81, 0, 2, 1, 'k'}, 2, ErrCorrupt},
		{"count too large", []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 1}, 2, ErrCorrupt},
		{"kind 0", []byte{1, 0, 1, 0, 1, 'k'}, 3, ErrCorrupt},
		{"kind 5", []byte{1, 0, 1, 5, 1, 'k'}, 3, ErrCorrupt},
		{"range without an end", []byte{1, 0, 1, 3, 1, 'k'}, 6, ErrCorrupt},
		{"end of a range beyond", []byte{1, 0, 1, 3, 1, 'k', 2, 'l'}, 6, ErrCorrupt},
		{"end of a range above the limit", []byte{1, 0, 1, 3, 1, 'k', 0x91, 0x80, 4, 'l'}, 6, ErrCorrupt},
		{"range from nothing", []byte{1, 0, 1, 3, 0, 1, 'l'}, 4, ErrCorrupt},
		{"range to nothing", []byte{1, 0, 1, 3, 1, 'k', 0}, 6, ErrCorrupt},
		{"empty range", []byte{1, 0, 1, 3, 1, 'k', 1, 'k'}, 6, ErrCorrupt},
		{"ranges that touch", []byte{1, 0, 2, 3, 1, 'k', 1, 'l', 3, 1, 'l', 1, 'm'}, 8, ErrCorrupt},
		{"ranges that fall", []byte{1, 0, 2, 3, 1, 'k', 1, 'l', 3, 1, 'a', 1, 'b'}, 8, ErrCorrupt},
		{"range behind a put", []byte{1, 0, 2, 1, 1, 'k', 0, 3, 1, 'a', 1, 'b'}, 7, ErrCorrupt},
		{"empty key", []byte{1, 0, 1, 2, 0}, 4, ErrCorrupt},
		{"key beyond", []byte{1, 0, 1, 2, 2, 'k'}, 4, ErrCorrupt},
		{"key above the limit", []byte{1, 0, 1, 2, 0x81, 0x80, 4, 'k'}, 4, ErrCorrupt},
		{"value beyond", []byte{1, 0, 1, 1, 1, 'k', 1}, 6, ErrCorrupt},
		{"value above the limit", big, 6, ErrCorrupt},
	} {
		r, err := Decode(c.rec)
		require.ErrorIs(t, err, c.err, c.name)
		var de *DecodeError
		require.True(t, errors.As(err, &de), c.name)
		require.Equal(t, c.off, de.Offset, c.name)
		require.False(t, r.Next(), c.name)
	}
}

// TestCheck: a key twice is no damage to who applies in order, and is to who looks for
// damage, also where an append's entry in an index is one of the two.
func TestCheck(t *testing.T) {
	var b Batch
	require.NoError(t, b.Append(base.KindDelete, []byte("k"), nil))
	require.NoError(t, b.Append(base.KindPut, []byte("l"), nil))
	_, err := Check(b.Bytes())
	require.NoError(t, err)

	twice := []byte{1, 0, 2, 2, 1, 'k', 2, 1, 'k'}
	_, err = Decode(twice)
	require.NoError(t, err)
	_, err = Check(twice)
	require.ErrorIs(t, err, ErrCorrupt)

	value := []byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 'x', 0}
	require.NoError(t, b.Append(base.KindAppend, []byte{2}, value))
	_, err = Check(b.Bytes())
	require.NoError(t, err)
	require.NoError(t, b.Append(base.KindPut, IndexKey(nil, []byte{2}, 0), nil)) // a batch has no offset before it has its place
	_, err = Check(b.Bytes())
	require.ErrorIs(t, err, ErrCorrupt)
}

func FuzzDecode(f *testing.F) {
	for _, s := range stories() {
		f.Add(s.build(f).Bytes())
	}
	f.Add([]byte{1, 0, 2, 2, 1, 'k', 2, 1, 'k'})
	f.Fuzz(func(t *testing.T, rec []byte) {
		var r Reader
		var err error
		allocates(t, len(rec), func() {
			if r, err = Decode(rec); err == nil {
				for all := r; all.Next(); {
				}
			}
		})
		if kind, key, value, ok := One(rec); ok {
			require.NoError(t, err)
			all := r
			require.Equal(t, 1, all.Len())
			require.True(t, all.Next())
			require.Equal(t, all.Kind(), kind)
			require.Equal(t, all.Key(), key)
			require.True(t, bytes.Equal(all.Value(), value))
		}
		if err != nil {
			var de *DecodeError
			require.True(t, errors.As(err, &de))
			require.LessOrEqual(t, de.Offset, len(rec))
			return
		}
		var b Batch
		n := 0
		for ; r.Next(); n++ {
			require.NoError(t, b.Append(r.Kind(), r.Key(), r.Value()))
		}
		require.Equal(t, r.Len(), n)
		enc := b.Bytes()
		if b.Len() == n { // No key twice: the encoding is canonical.
			rec = bytes.Clone(rec)
			Place(rec, func([]byte, int) uint64 { return 0 })
			require.True(t, bytes.Equal(rec, enc))
		}
		lines(t, enc)
	})
}

// allocates runs fn and fails when it allocates more than 16 bytes for each of n
// and a megabyte, which the fuzzing engine may need beside it.
func allocates(t *testing.T, n int, fn func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > uint64(16*n+1<<20) {
		t.Fatalf("%d bytes allocated for %d", got, n)
	}
}

func BenchmarkAppendPut(b *testing.B) {
	key, value := []byte("0123456789abcdef"), make([]byte, 100)
	dst := make([]byte, 0, 256)
	for b.Loop() {
		dst, _ = AppendPut(dst[:0], nil, key, value)
	}
}

func BenchmarkBuild100(b *testing.B) {
	key, value := []byte("0123456789abcdef"), make([]byte, 100)
	var bt Batch
	for b.Loop() {
		bt.Reset()
		for i := range 100 {
			key[0] = byte(i)
			_ = bt.Put(key, value)
		}
		bt.Bytes()
	}
}

func BenchmarkDecode100(b *testing.B) {
	var bt Batch
	for i := range 100 {
		_ = bt.Put([]byte{byte(i)}, make([]byte, 100))
	}
	for b.Loop() {
		r, _ := Decode(bt.Bytes())
		for r.Next() {
		}
	}
}

// TestGet compares Get with a map.
func TestGet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		b := new(Batch)
		want := map[string]string{} // "-": deleted
		for range rng.IntN(100) {
			key, value := fmt.Append(nil, "k", rng.IntN(40)), make([]byte, rng.IntN(300))
			if rng.IntN(3) == 0 {
				require.NoError(t, b.Delete(key))
				want[string(key)] = "-"
			} else {
				require.NoError(t, b.Put(key, value))
				want[string(key)] = string(value)
			}
			key = fmt.Append(nil, "k", rng.IntN(40))
			got, kind, ok := b.Get(key)
			w, there := want[string(key)]
			require.Equal(t, there, ok)
			if there && w == "-" {
				require.Equal(t, base.KindDelete, kind)
			} else if there {
				require.Equal(t, base.KindPut, kind)
				require.Equal(t, w, string(got))
			}
		}
		require.False(t, b.Ranges())
		require.NoError(t, b.DeleteRange([]byte("a"), []byte("b")))
		require.True(t, b.Ranges())
		b.Bytes()
		require.True(t, b.Ranges())
		b.Reset()
		require.False(t, b.Ranges())
	}
}

// TestOne: puts and deletes of short keys are known at once, and nothing else is.
func TestOne(t *testing.T) {
	for _, keySize := range []int{1, 16, 127, 128} {
		for _, valueSize := range []int{-1, 0, 1, 127, 128, 300, 16383, 16384} {
			key, value := bytes.Repeat([]byte{'k'}, keySize), bytes.Repeat([]byte{'v'}, max(valueSize, 0))
			rec, err := AppendPut(nil, nil, key, value)
			if valueSize < 0 {
				rec, err = AppendDelete(nil, key)
			}
			require.NoError(t, err)
			kind, k, v, ok := One(rec)
			require.Equal(t, keySize < 128 && valueSize < 16384, ok, "%d %d", keySize, valueSize)
			if ok {
				require.Equal(t, valueSize < 0, kind == base.KindDelete)
				require.Equal(t, key, k)
				require.True(t, bytes.Equal(value, v))
			}
			for n := range min(len(rec), 200) {
				_, _, _, ok := One(rec[:n])
				require.False(t, ok, "cut to %d bytes", n)
			}
			_, _, _, ok = One(append(rec, 0))
			require.False(t, ok, "a byte behind it")
		}
	}
	for _, s := range stories() {
		rec := s.build(t).Bytes()
		r, err := Decode(rec)
		require.NoError(t, err)
		if _, _, _, ok := One(rec); ok {
			require.Equal(t, 1, r.Len())
		}
	}
}
