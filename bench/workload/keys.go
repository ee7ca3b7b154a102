package workload

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
)

// KeySize is the size in bytes of a key: 16 decimal digits, as in db_bench.
const KeySize = 16

// dataset says what records look like. Record i has one key; its value has a
// version, so that it can be told, whatever was read, whether it is right.
type dataset struct {
	keySize, valueSize int
}

// key writes the key of record i into dst, whose length is keySize: digits, and
// in long keys a common beginning, as paths and URLs have it.
func (d dataset) key(dst []byte, i uint64) []byte {
	dst = dst[:d.keySize]
	digits := dst[d.keySize-KeySize:]
	for p := range d.keySize - KeySize {
		dst[p] = 'a' + byte(p%26)
	}
	for p := KeySize - 1; p >= 0; p-- {
		digits[p] = '0' + byte(i%10)
		i /= 10
	}
	return dst
}

// value writes the value of record i at a version into dst: 8 bytes that say
// which record it is, 4 of version, and noise made of both, in two equal halves,
// so that it compresses to a half.
func (d dataset) value(dst []byte, i uint64, version uint32) []byte {
	dst = dst[:d.valueSize]
	half := dst
	if d.valueSize >= 2*minValue {
		half = dst[:(d.valueSize+1)/2]
	}
	binary.BigEndian.PutUint64(half, mix(i))
	binary.BigEndian.PutUint32(half[8:], version)
	noise := rng(i ^ uint64(version)<<32)
	p := 12
	for ; p+8 <= len(half); p += 8 {
		binary.LittleEndian.PutUint64(half[p:], noise.next())
	}
	if p < len(half) {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], noise.next())
		copy(half[p:], last[:])
	}
	copy(dst[len(half):], half)
	return dst
}

// minValue is the shortest value that says which record it is.
const minValue = 12

// check says whether value is one of record i, at any version, byte for byte.
func (d dataset) check(i uint64, value, scratch []byte) error {
	if len(value) != d.valueSize {
		return fmt.Errorf("record %d: the value has %d bytes, not %d", i, len(value), d.valueSize)
	}
	want := d.value(scratch, i, binary.BigEndian.Uint32(value[8:]))
	if string(want) != string(value) {
		return fmt.Errorf("record %d: the value is not the one that was written", i)
	}
	return nil
}

// looksRight is the part of check that costs nothing.
func (d dataset) looksRight(i uint64, value []byte) bool {
	return len(value) == d.valueSize && binary.BigEndian.Uint64(value) == mix(i)
}

// recordBytes is the length in bytes of a key and its value.
func (d dataset) recordBytes() int64 { return int64(d.keySize + d.valueSize) }

// rng is splitmix64.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	return mix(uint64(*r))
}

// below returns a number in [0, n).
func (r *rng) below(n uint64) uint64 {
	hi, _ := bits.Mul64(r.next(), n)
	return hi
}

// float returns a number in (0, 1].
func (r *rng) float() float64 { return float64(r.next()>>11+1) / (1 << 53) }

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// permutation gives the numbers below n in a random order: the i-th of them.
type permutation struct {
	n, mask uint64
	shift   uint
}

func newPermutation(n uint64) permutation {
	b := max(bits.Len64(n-1), 2)
	return permutation{n: n, mask: 1<<b - 1, shift: uint(b+1) / 2}
}

func (p permutation) at(i uint64) uint64 {
	// Each step is a bijection of b bits; what falls outside of n goes again.
	for {
		for range 2 {
			i = (i*0x9e3779b97f4a7c15 + 0x632be59bd9b4e019) & p.mask
			i ^= i >> p.shift
		}
		i = (i * 0xbf58476d1ce4e5b9) & p.mask
		i ^= i >> p.shift
		if i < p.n {
			return i
		}
	}
}

// zipf draws numbers below n, small ones more often, as YCSB does (theta 0.99).
type zipf struct {
	n                 uint64
	alpha, zetan, eta float64
	half              float64
}

const theta = 0.99

func newZipf(n uint64) *zipf {
	z := &zipf{n: n, alpha: 1 / (1 - theta)}
	for i := uint64(1); i <= n; i++ {
		z.zetan += 1 / math.Pow(float64(i), theta)
	}
	zeta2 := 1 + 1/math.Pow(2, theta)
	z.eta = (1 - math.Pow(2/float64(n), 1-theta)) / (1 - zeta2/z.zetan)
	z.half = 1 + math.Pow(0.5, theta)
	return z
}

func (z *zipf) draw(r *rng) uint64 {
	u := r.float()
	uz := u * z.zetan
	switch {
	case uz < 1:
		return 0
	case uz < z.half:
		return 1
	}
	return min(uint64(float64(z.n)*math.Pow(z.eta*u-z.eta+1, z.alpha)), z.n-1)
}
