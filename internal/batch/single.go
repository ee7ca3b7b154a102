package batch

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
)

// AppendPut appends to dst the encoding of a batch that only sets a key, which is
// prefix and key together, to value, and returns the longer slice. It allocates only if
// dst lacks the room. On ErrEmptyKey or a *LimitError it returns dst as it was.
func AppendPut(dst, prefix, key, value []byte) ([]byte, error) {
	n := len(prefix) + len(key)
	switch {
	case len(value) > base.MaxValueSize:
		return dst, &LimitError{"value", len(value), base.MaxValueSize}
	case n == 0:
		return dst, ErrEmptyKey
	case n > base.MaxKeySize:
		return dst, &LimitError{"key", n, base.MaxKeySize}
	}
	dst = append(dst, version, 0, 1, byte(base.KindPut))
	dst = append(append(binary.AppendUvarint(dst, uint64(n)), prefix...), key...)
	return append(binary.AppendUvarint(dst, uint64(len(value))), value...), nil
}

// AppendDelete appends to dst the encoding of a batch that only deletes key,
// and returns the longer slice; see AppendPut.
func AppendDelete(dst, key []byte) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return dst, err
	}
	return appendOp(append(dst, version, 0, 1), base.KindDelete, key, nil), nil
}

// AppendDeleteRange appends to dst the encoding of a batch that only deletes
// the keys from lo to before hi, and returns the longer slice; see AppendPut.
// If lo is not below hi it is a batch of no operations.
func AppendDeleteRange(dst, lo, hi []byte) ([]byte, error) {
	if err := checkRange(lo, hi); err != nil {
		return dst, err
	}
	if bytes.Compare(lo, hi) >= 0 {
		return append(dst, version, 0, 0), nil
	}
	return appendOp(append(dst, version, 0, 1), base.KindRangeDelete, lo, hi), nil
}

// keepMax is the largest buffer that goes back to the pool, in bytes: one
// huge batch must not stay in memory for the life of the process.
const keepMax = 1 << 20

var pool = sync.Pool{New: func() any { return new(Batch) }}

// Acquire returns an empty Batch, one that Release gave back if there is one.
// Any goroutine may call it.
func Acquire() *Batch { return pool.Get().(*Batch) }

// Release gives b back. The caller must not use b, nor what its Bytes
// returned, afterwards. Any goroutine may call it.
func Release(b *Batch) {
	if cap(b.buf) > keepMax || cap(b.ops) > keepMax/32 {
		return
	}
	b.Reset()
	pool.Put(b)
}

func checkKey(key []byte) error {
	if len(key) == 0 {
		return ErrEmptyKey
	}
	if len(key) > base.MaxKeySize {
		return &LimitError{"key", len(key), base.MaxKeySize}
	}
	return nil
}

// checkRange looks at the bounds one by one. Only the upper one may be empty:
// then the range is.
func checkRange(lo, hi []byte) error {
	if err := checkKey(lo); err != nil {
		return err
	}
	if len(hi) > base.MaxKeySize {
		return &LimitError{"key", len(hi), base.MaxKeySize}
	}
	return nil
}

// appendOp appends the encoding of one operation that was checked; a range
// delete has its upper bound as value.
func appendOp(dst []byte, kind base.Kind, key, value []byte) []byte {
	dst = append(dst, byte(kind))
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	if kind != base.KindDelete {
		dst = binary.AppendUvarint(dst, uint64(len(value)))
		dst = append(dst, value...)
	}
	return dst
}

func opSize(kind base.Kind, key, value []byte) int {
	n := 1 + uvarintLen(len(key)) + len(key)
	if kind != base.KindDelete {
		n += uvarintLen(len(value)) + len(value)
	}
	return n
}

func uvarintLen(n int) int { return (bits.Len(uint(n)|1) + 6) / 7 }
