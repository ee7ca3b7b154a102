package adversary

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// list returns the manifest, or catalog, of a directory.
func (st *store) list() *framed {
	for _, name := range slices.Sorted(maps.Keys(st.framed)) {
		if _, ok := wal.ParseFileName(name); !ok {
			return st.framed[name]
		}
	}
	return nil
}

// add puts another edit behind the last one, with a mark that proves it.
func (f *framed) add(edit []byte) {
	last := f.frames[len(f.frames)-1]
	next := last.first + uint64(last.count)
	fr := &sealed{kind: byte(frame.KindData), first: next, durable: next - 1}
	fr.setRecord(edit)
	f.frames = append(f.frames, fr, &sealed{kind: byte(frame.KindMark), flags: byte(frame.FlagGroupEnd), first: next + 1, durable: next})
}

// refused opens a directory for reading and for writing and wants a
// *CorruptionError that names the file.
func refused(t *testing.T, st *store, file, reason string) {
	t.Helper()
	mem := disk(st.put())
	for _, readOnly := range []bool{true, false} {
		_, err := forebay.Open("db", options(mem, readOnly))
		var c *forebay.CorruptionError
		require.ErrorAs(t, err, &c)
		require.Equal(t, "db/"+file, c.File, "%v", err)
		require.ErrorContains(t, err, reason)
	}
}

// TestHugeLists: manifests that list very much, in the order in which it is
// dearest to keep sorted. All of it is read in bounded time and memory.
func TestHugeLists(t *testing.T) {
	many := 30_000
	if testing.Short() {
		many = 4000
	}
	add := func(n int) manifest.Segment {
		return manifest.Segment{Number: uint64(n), Lo: []byte{1}, Hi: []byte{2}}
	}
	for name, fill := range map[string]func(f *framed){
		"segments, an edit each": func(f *framed) {
			for n := many; n > 0; n-- {
				f.add((&manifest.Edit{Add: []manifest.Segment{add(n + 100)}}).Append(nil))
			}
		},
		"segments in one edit, added and removed": func(f *framed) {
			e := &manifest.Edit{}
			for n := 4 * many; n > 0; n-- {
				e.Add = append(e.Add, add(n+100))
				e.Remove = append(e.Remove, uint64(n+100))
			}
			e.Remove = e.Remove[:len(e.Remove)-1]
			f.add(e.Append(nil))
		},
		"log files, an edit each": func(f *framed) {
			for n := many; n > 0; n-- {
				f.add((&manifest.Edit{Log: &base.LogEdit{Put: []base.LogFile{{Number: uint64(n + 100)}}}}).Append(nil))
			}
		},
		"log files in one edit, added and removed": func(f *framed) {
			e := &base.LogEdit{}
			for n := 4 * many; n > 0; n-- {
				e.Put = append(e.Put, base.LogFile{Number: uint64(n + 100)})
				e.Remove = append(e.Remove, uint64(n+100))
			}
			e.Remove = e.Remove[:len(e.Remove)-1]
			f.add((&manifest.Edit{Log: e}).Append(nil))
		},
		"pins": func(f *framed) {
			e := &base.LogEdit{Pin: map[string]base.LSN{}}
			for n := range many {
				e.Pin[fmt.Sprint("../", n)] = 1
			}
			f.add((&manifest.Edit{Log: e}).Append(nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := takeApart(seeds()[0])
			f := st.list()
			f.head[11] = 3 // edits without padding between them
			fill(f)
			judge(t, 0, st)
		})
	}
}

// TestBombs: frames and blocks that unpack to far more than they are, as much as
// the format allows and more.
func TestBombs(t *testing.T) {
	bomb := func(n int) []byte { return s2.Encode(nil, make([]byte, n)) }
	for _, raw := range []uint32{0, 1, 64 << 20, frame.MaxBigPayload, frame.MaxBigPayload + 1, 1<<32 - 1} {
		for _, size := range []int{1 << 20, 64 << 20} {
			if testing.Short() && size > 1<<20 {
				continue
			}
			st := takeApart(seeds()[1])
			last := st.framed["000001.log"].frames
			fr := last[len(last)-1]
			fr.payload, fr.raw, fr.flags = bomb(size), raw, fr.flags&^3|1
			judge(t, 1, st)
		}
	}
	// One that is a batch, and what Open shows.
	value := bytes.Repeat([]byte{'v'}, base.MaxValueSize)
	rec := append([]byte{1, 0, 1, 1, 2, 1, 'k'}, binary.AppendUvarint(nil, uint64(len(value)))...)
	rec = append(rec, value...)
	plain := append(binary.AppendUvarint(nil, uint64(len(rec))), 0)
	plain = append(plain, rec...)
	st := takeApart(seeds()[1])
	frames := st.framed["000001.log"].frames
	fr := frames[len(frames)-1]
	fr.payload, fr.raw, fr.count, fr.flags = s2.Encode(nil, plain), uint32(len(plain)), 1, fr.flags&^3|1
	require.Less(t, len(fr.payload), 4<<10)
	judge(t, 1, st)
	db, err := forebay.Open("db", options(disk(st.put()), true))
	require.NoError(t, err)
	got, err := db.Get([]byte("k"))
	require.NoError(t, err)
	require.Equal(t, value, got)
	require.NoError(t, db.Close())
}

// TestTagsEverywhere: where frames end proofs are searched at every byte; here a
// frame may begin at every fourth, or its header verifies again and again.
func TestTagsEverywhere(t *testing.T) {
	for seed, file := range map[int]string{1: "000001.log", 5: "000002.log"} {
		st := takeApart(seeds()[seed])
		f := st.framed[file]
		_, tag := bind(f.head[:])
		f.behind = bytes.Repeat(le.AppendUint32(nil, tag), 1<<18)
		judge(t, seed, st)
		f.behind = nil
		for range 10_000 { // marks without end
			last := f.frames[len(f.frames)-1]
			f.frames = append(f.frames, &sealed{kind: byte(frame.KindMark), first: last.first + uint64(last.count), durable: 1})
		}
		judge(t, seed, st)
		f.frames[5].chain++ // and from there on none of them counts, and each is found
		judge(t, seed, st)
	}
}

// TestCyclicLinks: log files that name each other, and themselves, as the one
// before.
func TestCyclicLinks(t *testing.T) {
	link := func(st *store, n uint64) []byte { return st.framed[wal.FileName(n)].frames[0].payload }
	seed := 3
	names := slices.Collect(func(yield func(uint64) bool) {
		for n := uint64(1); n < 6; n++ {
			if st := takeApart(seeds()[seed]); st.framed[wal.FileName(n)] != nil && !yield(n) {
				return
			}
		}
	})
	require.Greater(t, len(names), 2)
	tries := 0
	for _, file := range names {
		for _, pred := range append(names, 0, 99, 1<<63) {
			for i, kept := range []uint64{0, 1, 5, 1 << 62, 1<<64 - 1} {
				if testing.Short() && (int(file+pred)+i)%4 != 0 {
					continue
				}
				for _, mend := range []bool{false, true} {
					st := takeApart(seeds()[seed])
					b := link(st, file)
					le.PutUint64(b, pred)
					le.PutUint64(b[8:], kept)
					le.PutUint64(b[24:], kept)
					next := kept + 1
					for _, fr := range st.framed[wal.FileName(file)].frames {
						fr.first = next
						next += uint64(fr.count)
					}
					if mend {
						st.mend()
					}
					judge(t, seed, st)
					tries++
				}
			}
		}
	}
	t.Logf("%d chains", tries)
	// One whose own LSN does not follow what it keeps.
	one := takeApart(seeds()[1])
	one.framed[wal.FileName(1)].frames[0].first++
	refused(t, one, wal.FileName(1), "impossible numbers")
	judge(t, 1, one)
	// Two that only name each other are no part of the history, and prove that it
	// is not whole.
	st := takeApart(seeds()[5])
	le.PutUint64(link(st, 1), 2)
	le.PutUint64(link(st, 2), 1)
	st.mend()
	refused(t, st, wal.FileName(2), "link does not count")
	judge(t, 5, st)
}

// TestIndexesThatLie: the index frame of a log file names offsets that do not
// ascend, lie in the middle of frames, behind the end, or on itself. It may cost
// time, and never gives another record.
func TestIndexesThatLie(t *testing.T) {
	var file string
	st := takeApart(seeds()[3])
	for _, name := range slices.Sorted(maps.Keys(st.framed)) {
		for _, fr := range st.framed[name].frames {
			if fr.kind == byte(frame.KindIndex) {
				file = name
			}
		}
	}
	require.NotEmpty(t, file, "no file with an index")
	whole := func(st *store) string {
		db, err := forebay.Open("db", options(disk(st.put()), false))
		require.NoError(t, err)
		defer db.Close()
		var out strings.Builder
		at := forebay.Position{}
		for range 2 {
			for ch, err := range db.Changes(ctx, at) {
				if gone, ok := asCompacted(err); ok {
					at = forebay.Position{LSN: gone.Oldest - 1}
					break
				}
				require.NoError(t, err)
				fmt.Fprintf(&out, "%d:%d ", ch.LSN, len(ch.Ops))
				at = ch.Position
			}
		}
		return out.String()
	}
	want := whole(st)
	require.NotEmpty(t, want)
	index := func(vs ...uint64) (b []byte) {
		for _, v := range vs {
			b = binary.AppendUvarint(b, v)
		}
		return b
	}
	payloads := [][]byte{
		nil, index(0, 0), index(1, 1), index(0, 513, 0, 1, 0, 1), index(1, 1<<62), index(1<<63, 5), index(1<<64-1, 512, 2, 512),
		index(1, 512, 0, 1<<62, 0, 1<<62), bytes.Repeat([]byte{0}, 100_000), {0x80}, bytes.Repeat([]byte{0xff}, 30), index(1, 12_000),
	}
	for _, fr := range st.framed[file].frames { // one that is there, with another record
		payloads = append(payloads, index(0, fr.offset))
	}
	for _, payload := range payloads {
		st := takeApart(seeds()[3])
		for _, fr := range st.framed[file].frames {
			if fr.kind == byte(frame.KindIndex) {
				fr.payload, fr.raw = payload, uint32(len(payload))
			}
		}
		st.mend()
		require.Equal(t, want, whole(st), "%x", payload[:min(len(payload), 40)])
		judge(t, 3, st)
	}
}

func asCompacted(err error) (*forebay.CompactedError, bool) {
	c, ok := err.(*forebay.CompactedError)
	return c, ok
}

// TestSegmentsThatOverlap: segments of one level that share keys hide them from
// each other, so that the manifest cannot be.
func TestSegmentsThatOverlap(t *testing.T) {
	st := takeApart(seeds()[4])
	st.edits(func(e *manifest.Edit) *manifest.Edit {
		for i := range e.Add {
			e.Add[i].Level = 3
		}
		return e
	})
	refused(t, st, "MANIFEST-000001", "overlap")
	judge(t, 4, st)
}

// TestIndexOfASegmentThatLies: every uvarint of a segment's index, and the number
// of blocks in front of it, replaced by values that break things.
func TestIndexOfASegmentThatLies(t *testing.T) {
	st := takeApart(seeds()[0])
	name := segment.FileName(1)
	var at, n int
	eachBlock(st.segs[name], func(off uint64, kind byte, k []byte) {
		if kind == 3 {
			at, n = int(off), len(k)-trailer
		}
	})
	require.Positive(t, n)
	for i := 0; i < n; i++ {
		for j, v := range []uint64{0, 1, 127, 1<<32 - 1, 1<<64 - 1} {
			if testing.Short() && (i+j)%5 != 0 {
				continue
			}
			st := takeApart(seeds()[0])
			b := st.segs[name]
			copy(b[at+i:at+n], binary.AppendUvarint(nil, v))
			st.mend()
			judge(t, 0, st)
		}
	}
}
