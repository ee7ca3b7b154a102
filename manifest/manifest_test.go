package manifest

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

var update = flag.Bool("update", false, "write the golden file anew")

// counting is a source of salts that is the same each time.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = c.n
	}
	return len(p), nil
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// wide is a number of any length in bits.
func wide(r *rand.Rand) uint64 { return r.Uint64() >> r.UintN(64) }

func randomEdit(r *rand.Rand, s *State) *Edit {
	e := &Edit{}
	if r.IntN(2) == 0 {
		l := &base.LogEdit{Epoch: wide(r), Number: wide(r)}
		for range r.IntN(3) {
			l.Put = append(l.Put, base.LogFile{Number: wide(r)%20 + 1, Salt: wide(r), Epoch: wide(r), Retained: r.IntN(2) == 0, First: wide(r), Last: wide(r),
				Hash: wide(r), Index: int64(wide(r) >> 2), Keep: wide(r), Archived: r.IntN(2) == 0, Cut: r.IntN(2) == 0, CutLSN: wide(r), CutHash: wide(r)})
		}
		if r.IntN(2) == 0 {
			l.Remove = append(l.Remove, wide(r)%20)
			l.Floor = &base.LogFloor{File: wide(r), LSN: wide(r), Hash: wide(r), Epoch: wide(r)}
			l.Pin = map[string]base.LSN{string(randomBytes(r, r.IntN(3))): wide(r)}
			l.Unpin = append(l.Unpin, string(randomBytes(r, r.IntN(2))))
		}
		e.Log = l
	}
	for range r.IntN(3) {
		e.Add = append(e.Add, Segment{Number: s.LastSegment + 1 + uint64(len(e.Add)), Level: r.IntN(8), Size: wide(r), Count: wide(r), Tombstones: wide(r),
			MinLSN: wide(r), MaxLSN: wide(r), Hash: wide(r), Lo: randomBytes(r, r.IntN(40)), Hi: randomBytes(r, r.IntN(40))})
	}
	for _, g := range s.Segments {
		if r.IntN(4) == 0 {
			e.Remove = append(e.Remove, g.Number)
		}
	}
	if r.IntN(2) == 0 {
		e.ReplayStart = s.ReplayStart + r.Uint64N(1000)
	}
	return e
}

// same compares states; none and empty are one.
func same(t *testing.T, want, got State) {
	t.Helper()
	require.True(t, bytes.Equal(want.Snapshot().Append(nil), got.Snapshot().Append(nil)), "want %+v\n got %+v", want, got)
}

// TestRandomStates edits manifests at random and loads them back: after each
// edit, after a close, and after a rotation.
func TestRandomStates(t *testing.T) {
	for seed := uint64(0); seed < 30; seed++ {
		r := rand.New(rand.NewPCG(seed, 1))
		mem := vfs.NewMem()
		require.NoError(t, mem.MkdirAll("db"))
		var want State
		var store [16]byte
		for round := 0; round < 4; round++ {
			m, err := Load(mem, "db")
			if round == 0 {
				require.ErrorIs(t, err, ErrNone)
			} else {
				require.NoError(t, err)
				require.False(t, m.Dirty())
				require.Equal(t, store, m.StoreID())
				same(t, want, m.State())
				require.ErrorIs(t, m.Apply(&Edit{}), ErrReadOnly)
				require.ErrorIs(t, m.Err(), ErrReadOnly)
			}
			require.NoError(t, m.Writable(mem, "db", &counting{byte(round)}))
			store = m.StoreID()
			if round == 0 {
				want.ReplayStart = 1
			}
			for range 10 {
				e := randomEdit(r, &want)
				if seed%3 == 0 && r.IntN(4) == 0 && e.Log != nil {
					require.NoError(t, m.EditLog(e.Log))
					e = &Edit{Log: e.Log}
				} else {
					require.NoError(t, m.Apply(e))
				}
				want.Apply(e)
				same(t, want, m.State())
				other, err := Load(mem.Snapshot(), "db")
				require.NoError(t, err)
				same(t, want, other.State())
			}
			require.NoError(t, m.Close())
			require.Error(t, m.Apply(&Edit{}))
		}
	}
}

func TestStateIsACopy(t *testing.T) {
	mem := vfs.NewMem()
	m, err := Load(mem, "/")
	require.ErrorIs(t, err, ErrNone)
	require.NoError(t, m.Writable(mem, "/", &counting{}))
	require.NoError(t, m.Apply(&Edit{Add: []Segment{{Number: 1}}, Log: &base.LogEdit{Pin: map[string]base.LSN{"a": 1}}}))
	s := m.State()
	s.Segments[0].Level = 9
	s.Log.Pins["b"] = 2
	require.Equal(t, 0, m.State().Segments[0].Level)
	require.NotContains(t, m.LogState().Pins, "b")
	require.NoError(t, m.Close())
}

func next(t *testing.T, m *Manifest) uint64 {
	t.Helper()
	n, err := m.NextSegment()
	require.NoError(t, err)
	return n
}

func TestSegmentNumbersAreNeverUsedTwice(t *testing.T) {
	mem := vfs.NewMem()
	m, err := Load(mem, "/")
	require.ErrorIs(t, err, ErrNone)
	require.NoError(t, m.Writable(mem, "/", &counting{}))
	require.Equal(t, uint64(1), next(t, m))
	require.Equal(t, uint64(2), next(t, m))
	m.SkipSegments(1)
	require.Equal(t, uint64(3), next(t, m))
	m.SkipSegments(10)
	require.Equal(t, uint64(11), next(t, m))
	require.NoError(t, m.Apply(&Edit{Add: []Segment{{Number: 11}}}))
	require.NoError(t, m.Apply(&Edit{Remove: []uint64{11}}))
	require.NoError(t, m.Close())
	m, err = Load(mem, "/")
	require.NoError(t, err)
	require.Equal(t, uint64(12), next(t, m))
}

func TestDecodeEditRefuses(t *testing.T) {
	ok := (&Edit{Add: []Segment{{Number: 3, Lo: []byte("a"), Hi: []byte("b")}}}).Append(nil)
	for name, b := range map[string][]byte{
		"an unknown tag":        {9, 0},
		"tag zero":              {0, 0},
		"no length":             {2},
		"a length too long":     {2, 9, 1},
		"a number without end":  {3, 1, 0x80},
		"something behind":      {3, 2, 1, 1},
		"a level of 65":         (&Edit{Add: []Segment{{Level: 65}}}).Append(nil),
		"a damaged log edit":    {1, 2, 9, 0},
		"half a segment":        ok[:len(ok)-1],
		"keys longer than that": append(append([]byte{}, ok[:len(ok)-2]...), 0x7f, 'b'),
		"a huge length":         {2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	} {
		_, err := DecodeEdit(b)
		require.Error(t, err, name)
	}
	_, err := DecodeEdit(ok)
	require.NoError(t, err)
}

func FuzzEdit(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	var s State
	f.Add([]byte(nil))
	for range 10 {
		e := randomEdit(r, &s)
		s.Apply(e)
		f.Add(e.Append(nil))
	}
	f.Add(s.Snapshot().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e *Edit
		var err error
		allocates(t, len(b), func() {
			var all load
			if e, err = DecodeEdit(b); err == nil {
				all.apply(e)
				s := all.state()
				_ = s.Check()
			}
		})
		if err != nil {
			return
		}
		if n := len(e.Add) + len(e.Remove); n > len(b)/2 {
			t.Fatalf("%d fields of %d bytes", n, len(b))
		}
		enc := e.Append(nil)
		again, err := DecodeEdit(enc)
		require.NoError(t, err)
		require.Equal(t, enc, again.Append(nil))
		var s State
		s.Apply(e)
		var c State
		c.Apply(s.Snapshot())
		same(t, s, c)
	})
}

const golden = "testdata/MANIFEST-000001"

func goldenEdits() []*Edit {
	return []*Edit{
		{Log: &base.LogEdit{Put: []base.LogFile{{Number: 1, Salt: 0xabcdef, Epoch: 1}}}},
		{Add: []Segment{{Number: 1, Size: 4096, Count: 10, Tombstones: 2, MinLSN: 1, MaxLSN: 10, Hash: math.MaxUint64, Lo: []byte("apple"), Hi: []byte("quince")}},
			ReplayStart: 11, LastSegment: 2},
		{Log: &base.LogEdit{Put: []base.LogFile{
			{Number: 1, Salt: 0xabcdef, Epoch: 1, Retained: true, First: 1, Last: 10, Hash: 7, Index: 61440, Keep: 100, Archived: true},
			{Number: 2, Salt: 0xfedcba, Epoch: 2, Cut: true, CutLSN: 15, CutHash: 8}},
			Floor: &base.LogFloor{File: 1, LSN: 10, Hash: 7, Epoch: 1}, Epoch: 3, Number: 4, Pin: map[string]base.LSN{"backup": 5, "copy": 6}}},
		{Log: &base.LogEdit{Remove: []uint64{9}, Unpin: []string{"copy"}}, Add: []Segment{{Number: 3, Level: 1, Lo: []byte{}, Hi: []byte{0xff}}}, Remove: []uint64{1}},
	}
}

// TestGolden reads a manifest that was written when the format was fixed.
func TestGolden(t *testing.T) {
	mem := vfs.NewMem()
	m, err := Load(mem, "/")
	require.ErrorIs(t, err, ErrNone)
	require.NoError(t, m.Writable(mem, "/", &counting{}))
	for _, e := range goldenEdits() {
		require.NoError(t, m.Apply(e))
	}
	require.NoError(t, m.Close())
	made := mem.Bytes("MANIFEST-000001")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o700))
		require.NoError(t, os.WriteFile(golden, made, 0o600))
		require.NoError(t, os.WriteFile(golden+".txt", []byte(tell(t, made)), 0o600))
	}
	b, err := os.ReadFile(golden)
	require.NoError(t, err)
	want, err := os.ReadFile(golden + ".txt")
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), tell(t, b))
	require.True(t, bytes.Equal(b, made), "other bytes are written than were")
}

// tell is what a manifest says, a line a thing.
func tell(t *testing.T, file []byte) string {
	mem := vfs.NewMem()
	require.NoError(t, mem.SetBytes("MANIFEST-000001", file))
	m, err := Load(mem, "/")
	require.NoError(t, err)
	require.False(t, m.Dirty())
	s := m.State()
	var b strings.Builder
	fmt.Fprintf(&b, "store %x\nreplay start %d, last segment %d\n", m.StoreID(), s.ReplayStart, s.LastSegment)
	for _, g := range s.Segments {
		fmt.Fprintf(&b, "segment %+v\n", g)
	}
	for _, f := range s.Log.Files {
		fmt.Fprintf(&b, "log file %+v\n", f)
	}
	fmt.Fprintf(&b, "floor %+v\nlog epoch %d, number %d\npins %v\n", s.Log.Floor, s.Log.Epoch, s.Log.Number, s.Log.Pins)
	return b.String()
}

// TestFlippedBits flips bits all over the golden manifest: the same state, or
// an error, and never another state. (internal/editlog does so with every bit.)
func TestFlippedBits(t *testing.T) {
	b, err := os.ReadFile(golden)
	require.NoError(t, err)
	mem := vfs.NewMem()
	require.NoError(t, mem.SetBytes("MANIFEST-000001", b))
	good, err := Load(mem, "/")
	require.NoError(t, err)
	s := good.State()
	want := s.Snapshot().Append(nil)
	silent := 0
	for i := range b {
		bits := []int{i % 8}
		switch at := i % 4096; {
		case at < 64: // headers
			bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
		case at > 250 && i%37 != 0: // long padding
			continue
		}
		for _, bit := range bits {
			require.NoError(t, mem.Corrupt("MANIFEST-000001", int64(i), 1, func(b []byte) { b[0] ^= 1 << bit }))
			m, err := Load(mem, "/")
			if err == nil {
				s := m.State()
				if !slices.Equal(want, s.Snapshot().Append(nil)) {
					t.Fatalf("bit %d of byte %d: another state", bit, i)
				}
				silent++
			}
			require.NoError(t, mem.Corrupt("MANIFEST-000001", int64(i), 1, func(b []byte) { b[0] ^= 1 << bit }))
		}
	}
	t.Logf("%d flips were harmless", silent)
}

// TestCheckRefusesWhatCannotBe: what no store has made is named, though it
// verifies.
func TestCheckRefusesWhatCannotBe(t *testing.T) {
	good := func() *State {
		return &State{ReplayStart: 11, LastSegment: 3,
			Log:      base.LogState{Epoch: 3, Number: 2, Floor: base.LogFloor{File: 1, LSN: 9, Epoch: 2}, Files: []base.LogFile{{Number: 1, Epoch: 2, Retained: true, First: 4, Last: 9}, {Number: 2, Epoch: 3, Cut: true, CutLSN: 12}}},
			Segments: []Segment{{Number: 1, Level: 2, MaxLSN: 10, Lo: []byte("a"), Hi: []byte("c")}, {Number: 2, Level: 2, MaxLSN: 10, Lo: []byte("c"), Hi: []byte("d")}, {Number: 3, MaxLSN: 10, Lo: []byte("a"), Hi: []byte("z")}}}
	}
	require.NoError(t, good().Check())
	require.NoError(t, (&State{ReplayStart: 1}).Check())
	for want, change := range map[string]func(s *State){
		"segment 0 of level 0":              func(s *State) { s.Segments[2].Number = 0 },
		"segment 3 of level 16":             func(s *State) { s.Segments[2].Level = MaxLevels },
		"segment 3 has LSN 11":              func(s *State) { s.Segments[2].MaxLSN = 11 },
		`segment 3 has keys from "z" to "z`: func(s *State) { s.Segments[2].Lo = []byte("z") },
		"segments 1 and 2 of level 2":       func(s *State) { s.Segments[0].Hi = []byte("c\x00") },
		"begins with 10":                    func(s *State) { s.ReplayStart, s.Segments = 9, nil },
		"from LSN 4611686018427387905":      func(s *State) { s.ReplayStart = base.MaxListed + 1 },
		"segment number 9007199254740993":   func(s *State) { s.LastSegment = base.MaxFileNumber + 1 },
		"log file number 9007199254740993":  func(s *State) { s.Log.Number = base.MaxFileNumber + 1 },
		"log file number 9007199254740994":  func(s *State) { s.Log.Floor.File = base.MaxFileNumber + 2 },
		"epoch 4611686018427387905":         func(s *State) { s.Log.Epoch = base.MaxListed + 1 },
		"epoch 4611686018427387906":         func(s *State) { s.Log.Floor.Epoch = base.MaxListed + 2 },
		"floor at LSN 4611686018427387905":  func(s *State) { s.Log.Floor.LSN = base.MaxListed + 1 },
		"log file 0":                        func(s *State) { s.Log.Files[0].Number = 0 },
		"retained for LSN 0 to 9":           func(s *State) { s.Log.Files[0].First = 0 },
		"retained for LSN 10 to 9":          func(s *State) { s.Log.Files[0].First = 10 },
		"retained for LSN 4 to 10":          func(s *State) { s.Log.Files[0].Last = 10 },
		"cut at LSN 4611686018427387905":    func(s *State) { s.Log.Files[1].CutLSN = base.MaxListed + 1 },
	} {
		s := good()
		change(s)
		require.ErrorContains(t, s.Check(), want)
	}
}

// TestNumbersThatAreUsedUp: behind the last segment number there is none.
func TestNumbersThatAreUsedUp(t *testing.T) {
	m, err := Load(vfs.NewMem(), "/")
	require.ErrorIs(t, err, ErrNone)
	m.SkipSegments(base.MaxFileNumber - 1)
	require.Equal(t, uint64(base.MaxFileNumber), next(t, m))
	_, err = m.NextSegment()
	require.ErrorContains(t, err, "used up")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, fs.ErrInvalid }

// TestNoStoreID: without random bytes no manifest is made.
func TestNoStoreID(t *testing.T) {
	mem := vfs.NewMem()
	m, err := Load(mem, "/")
	require.ErrorIs(t, err, ErrNone)
	require.ErrorIs(t, m.Writable(mem, "/", failing{}), fs.ErrInvalid)
	names, err := mem.List("/")
	require.NoError(t, err)
	require.Empty(t, names)
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
