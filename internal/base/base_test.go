package base

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCompare(t *testing.T) {
	type version struct {
		key string
		lsn LSN
	}
	ordered := []version{{"", 9}, {"", 0}, {"a", MaxLSN}, {"a", 2}, {"a", 1}, {"a\x00", 5}, {"aa", 7}, {"b", 1}, {"\xff", 3}}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			require.Equal(t, want, Compare([]byte(a.key), a.lsn, []byte(b.key), b.lsn), "%v %v", a, b)
		}
	}
}

func TestCorruptionError(t *testing.T) {
	err := fmt.Errorf("open: %w", &CorruptionError{File: "db/000001.log", Offset: 512, Reason: "bad", Err: fs.ErrInvalid})
	require.EqualError(t, err, "open: corruption: db/000001.log at offset 512: bad: invalid argument")
	require.ErrorIs(t, err, fs.ErrInvalid)
	var c *CorruptionError
	require.True(t, errors.As(err, &c))
	require.EqualError(t, &CorruptionError{File: "x", Offset: -1, Reason: "missing"}, "corruption: x: missing")
}

func TestKindString(t *testing.T) {
	require.Equal(t, "put delete kind(7)", fmt.Sprint(KindPut, " ", KindDelete, " ", Kind(7)))
}

// someEdits are edits with every field, and one with none.
func someEdits() []*LogEdit {
	return []*LogEdit{
		{},
		{Put: []LogFile{{Number: 1, Salt: 2, Epoch: 3}}},
		{Put: []LogFile{
			{Number: math.MaxUint64, Salt: math.MaxUint64, Epoch: math.MaxUint64, Retained: true, First: 1, Last: math.MaxUint64, Hash: 5, Index: 1 << 62, Keep: math.MaxUint64},
			{Number: 4, Archived: true, Cut: true, CutLSN: 77, CutHash: 78},
		}, Remove: []uint64{0, 9, 9}, Floor: &LogFloor{1, 2, 3, 4}, Epoch: 6, Number: 7,
			Pin: map[string]LSN{"": 0, "backup": 9, "é\x00": math.MaxUint64}, Unpin: []string{"", "old", "old"}},
		{Floor: &LogFloor{}},
	}
}

func TestLogEditRoundTrip(t *testing.T) {
	for _, e := range someEdits() {
		got, err := DecodeLogEdit(e.Append(nil))
		require.NoError(t, err)
		require.Equal(t, e, got)
		for i := range e.Append(nil) {
			_, err := DecodeLogEdit(e.Append(nil)[:i])
			if err == nil { // cut between two fields
				continue
			}
			require.ErrorIs(t, err, errEdit)
		}
	}
}

// TestSnapshotIsTheState: the snapshot of a state makes it from nothing, after
// any edits, and a clone shares nothing.
func TestSnapshotIsTheState(t *testing.T) {
	var s LogState
	for _, e := range append(someEdits(),
		&LogEdit{Remove: []uint64{4}},
		&LogEdit{Put: []LogFile{{Number: 1, Salt: 99, Epoch: 1}}},
		&LogEdit{Unpin: []string{"backup", "never there"}},
		&LogEdit{Remove: []uint64{1, math.MaxUint64}}) {
		s.Apply(e)
		clone := s.Clone()
		decoded, err := DecodeLogEdit(s.Snapshot().Append(nil))
		require.NoError(t, err)
		var again LogState
		again.Apply(decoded)
		if len(s.Pins) == 0 {
			s.Pins = nil
		}
		if len(s.Files) == 0 {
			s.Files = nil
		}
		require.Equal(t, s, again)
		require.True(t, slices.IsSortedFunc(s.Files, func(a, b LogFile) int {
			if a.Number < b.Number {
				return -1
			}
			return 1
		}))
		if len(clone.Files) > 0 {
			clone.Files[0].Salt++
			require.NotEqual(t, s.Files[0], clone.Files[0])
		}
		if clone.Pins != nil {
			clone.Pins["only in the clone"] = 1
			require.NotContains(t, s.Pins, "only in the clone")
		}
	}
	require.Equal(t, uint64(math.MaxUint64), s.Number, "the highest number ever listed stays")
	require.Empty(t, s.Files)
}

func FuzzLogEdit(f *testing.F) {
	for _, e := range someEdits() {
		f.Add(e.Append(nil))
	}
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{6, 1, 0, 6, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e *LogEdit
		var err error
		allocates(t, len(b), func() {
			var load LogLoad
			if e, err = DecodeLogEdit(b); err == nil {
				load.Apply(e)
				s := load.State()
				_ = s.Check()
			}
		})
		if err != nil {
			return
		}
		if n := len(e.Put) + len(e.Remove) + len(e.Pin) + len(e.Unpin); n > len(b)/2 {
			t.Fatalf("%d fields of %d bytes", n, len(b))
		}
		enc := e.Append(nil)
		again, err := DecodeLogEdit(enc)
		require.NoError(t, err)
		require.Equal(t, e, again)
		require.Equal(t, enc, again.Append(nil))
		var s LogState
		s.Apply(e)
		s.Apply(s.Snapshot())
	})
}

// TestDamagedLogEdits: every way in which an edit can be none.
func TestDamagedLogEdits(t *testing.T) {
	endless := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	file := func(change func(v []uint64)) []byte {
		v := []uint64{1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11}
		change(v)
		return appendField(nil, logTagFile, uvarints(v...))
	}
	for name, b := range map[string][]byte{
		"a tag without end":         endless,
		"a length without end":      append([]byte{logTagEpoch}, endless...),
		"a length that is too long": {logTagEpoch, 2, 1},
		"a number without end":      appendField(nil, logTagEpoch, endless),
		"no number":                 appendField(nil, logTagEpoch, nil),
		"something behind":          appendField(nil, logTagEpoch, []byte{1, 1}),
		"tag 0":                     appendField(nil, 0, []byte{1}),
		"tag 8":                     appendField(nil, 8, []byte{1}),
		"half a floor":              appendField(nil, logTagFloor, uvarints(1, 2, 3)),
		"an offset that is none":    file(func(v []uint64) { v[7] = 1<<62 + 1 }),
		"an unknown flag":           file(func(v []uint64) { v[3] = 8 }),
	} {
		_, err := DecodeLogEdit(b)
		require.ErrorIs(t, err, errEdit, name)
	}
	_, err := DecodeLogEdit(file(func([]uint64) {}))
	require.NoError(t, err)
}

// allocates runs fn and fails when it allocates more than 128 bytes for each of n
// and a megabyte, which the fuzzing engine may need beside it.
func allocates(t *testing.T, n int, fn func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > uint64(128*n+1<<20) {
		t.Fatalf("%d bytes allocated for %d", got, n)
	}
}
