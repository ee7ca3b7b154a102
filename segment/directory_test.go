package segment

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
)

// shapes are keys by which a directory may be misled: those that are a part of others,
// that differ only behind what it has of them, or in zeros at their ends, and many
// versions of one.
func shapes() map[string][]version {
	long := strings.Repeat("a prefix that is longer than what a directory has of it; ", 3)
	out := map[string][]version{}
	add := func(name string, keys ...string) {
		var vs []version
		r := rand.New(rand.NewPCG(uint64(len(name)), 5))
		for i, k := range keys {
			for n := 1 + r.IntN(1+i%3*4); n > 0; n-- {
				kind, value := base.KindPut, fmt.Sprintf("%d of %d", n, i)
				if r.IntN(5) == 0 {
					kind, value = base.KindDelete, ""
				}
				vs = append(vs, version{k, base.LSN(100*i + 3*n), kind, value})
			}
		}
		slices.SortFunc(vs, compareVersions)
		out[name] = vs
	}
	each := func(n int, f func(i int) string) (keys []string) {
		for i := range n {
			keys = append(keys, f(i))
		}
		return keys
	}
	add("one", "k")
	add("numbers", each(300, func(i int) string { return fmt.Sprintf("%016d", 7*i) })...)
	add("nested", each(90, func(i int) string { return strings.Repeat("x", i+1) })...)
	add("zeros", each(60, func(i int) string { return "k" + strings.Repeat("\x00", i) })...)
	add("long", each(200, func(i int) string { return fmt.Sprintf("%s%05d%s", long, i/3, strings.Repeat("z", i%3)) })...)
	add("far", each(100, func(i int) string { return fmt.Sprintf("%s%05d", long[:40], i) })...)
	add("short", each(200, func(i int) string { return string([]byte{byte(i)}) })...)
	var same []version
	for i := range 200 {
		same = append(same, version{"same", base.LSN(1000 - i), base.KindPut, fmt.Sprint(i)})
	}
	out["versions"] = append(append([]version{{"sam", 7, base.KindPut, ""}}, same...), version{"samf", 3, base.KindPut, ""})
	return out
}

// TestDirectory: with directories, which blocks get when they are asked for again, a
// segment shows what its versions say, to gets, seeks, steps and runs.
func TestDirectory(t *testing.T) {
	for name, vs := range shapes() {
		for _, blockSize := range []int{256, 1024, 0} {
			t.Run(fmt.Sprintf("%s/%d", name, blockSize), func(t *testing.T) {
				b, _ := build(t, testID, WriterOptions{BlockSize: blockSize}, vs)
				r, err := openBytes(b, Options{Cache: NewCache(16 << 20)})
				require.NoError(t, err)
				for range 3 {
					got, err := scan(r)
					require.NoError(t, err)
					require.Equal(t, vs, got)
				}
				x := r.index.Load()
				for i := range x.blocks {
					require.NotZero(t, x.peek(i).Side.n, "block %d has no directory, and this test is of nothing", i)
				}
				d := &directed{t, r, vs, rand.New(rand.NewPCG(1, uint64(blockSize)))}
				d.gets()
				d.seeks()
				d.runs()
			})
		}
	}
}

type directed struct {
	t   *testing.T
	r   *Reader
	vs  []version
	rng *rand.Rand
}

// near returns keys at and around those that are there.
func (d *directed) near() []string {
	keys := []string{"\x00", "\xff\xff"}
	for _, v := range d.vs {
		k := v.key
		keys = append(keys, k, k+"\x00", k[:len(k)-1]+string([]byte{k[len(k)-1] + 1}))
		if len(k) > 1 {
			keys = append(keys, k[:len(k)-1], k[:len(k)/2], k[:1]+"\x01"+k[1:])
		}
	}
	slices.Sort(keys)
	return slices.DeleteFunc(slices.Compact(keys), func(k string) bool { return k == "" })
}

func (d *directed) at(key string, lsn base.LSN) int {
	i, _ := slices.BinarySearchFunc(d.vs, version{key: key, lsn: lsn}, compareVersions)
	return i
}

func (d *directed) lsns() []base.LSN {
	return []base.LSN{0, 1, d.vs[d.rng.IntN(len(d.vs))].lsn, d.vs[0].lsn + 1, base.MaxLSN}
}

func (d *directed) gets() {
	for _, key := range d.near() {
		for _, lsn := range d.lsns() {
			value, kind, at, found, err := d.r.Get([]byte(key), lsn)
			require.NoError(d.t, err)
			i := d.at(key, lsn)
			if want := i < len(d.vs) && d.vs[i].key == key; want != found {
				d.t.Fatalf("%q at %d: found is %v", key, lsn, found)
			}
			if found {
				require.Equal(d.t, d.vs[i], version{key, at, kind, string(value)})
			}
		}
	}
}

func (d *directed) stands(it base.Iterator, ok bool, i int) {
	if there := i >= 0 && i < len(d.vs); ok != there || it.Valid() != there {
		d.t.Fatalf("stands on nothing, or on something: %v, and not at %d of %d", ok, i, len(d.vs))
	}
	require.NoError(d.t, it.Err())
	if ok {
		require.Equal(d.t, d.vs[i], read(it))
	}
}

func (d *directed) seeks() {
	it := d.r.NewIter()
	defer it.Close()
	for _, key := range d.near() {
		for _, lsn := range d.lsns() {
			i := d.at(key, lsn)
			d.stands(it, it.SeekGE([]byte(key), lsn), i)
			d.stands(it, it.SeekLT([]byte(key), lsn), i-1)
			for i--; i > 0 && d.rng.IntN(4) > 0; i-- {
				d.stands(it, it.Prev(), i-1)
			}
			for ; i >= 0 && i+1 < len(d.vs) && d.rng.IntN(4) > 0; i++ {
				d.stands(it, it.Next(), i+1)
			}
		}
	}
}

// runs walks by runs of any length, and leaves them anywhere.
func (d *directed) runs() {
	it := d.r.NewIter().(*iter)
	defer it.Close()
	var run []base.Version
	for range 400 {
		i := d.rng.IntN(len(d.vs))
		d.stands(it, it.SeekGE([]byte(d.vs[i].key), d.vs[i].lsn), i)
		for range 4 {
			back, step := d.rng.IntN(2) == 0, 1
			if back {
				step = -1
			}
			run = it.Run(run, 1+d.rng.IntN(150), back)
			require.NotEmpty(d.t, run)
			for j, v := range run {
				want := d.vs[i+step*j]
				require.Equal(d.t, want, version{string(v.Key), v.LSN, v.Kind, string(v.Value)})
				if j > 0 {
					require.Equal(d.t, bytes.Equal(v.Key, run[j-1].Key), v.Same)
				}
			}
			j := d.rng.IntN(len(run))
			it.Advance(j)
			i += step * j
			d.stands(it, it.Valid(), i)
		}
	}
}
