package idem

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// The first bytes of keys; wire format.
const (
	entryKeys  = 'e'
	resultKeys = 't'
	markKeys   = 'm'
)

const entryVersion = 1 // wire format

// state of an entry; wire format.
type state uint8

const (
	runs state = iota + 1
	done
	failed
)

type fingerprint = [sha256.Size]byte

// entry is what is stored of a key.
type entry struct {
	state state
	stamp int64
	print fingerprint
	value []byte
	text  string
	size  int // encoded
}

const entryHead = 2 + 8 + sha256.Size

func (e *entry) encode() []byte {
	b := make([]byte, 0, entryHead+2*binary.MaxVarintLen32+len(e.value)+len(e.text))
	b = append(b, entryVersion, byte(e.state))
	b = binary.BigEndian.AppendUint64(b, uint64(e.stamp))
	b = append(b, e.print[:]...)
	b = append(binary.AppendUvarint(b, uint64(len(e.value))), e.value...)
	b = append(binary.AppendUvarint(b, uint64(len(e.text))), e.text...)
	e.size = len(b)
	return b
}

// decodeEntry copies nothing: value is of b.
func decodeEntry(key, b []byte) (*entry, error) {
	bad := func(what string) (*entry, error) {
		return nil, fmt.Errorf("%w: the entry of key %q: %s", ErrDamaged, key, what)
	}
	if len(b) < entryHead {
		return bad("too short")
	}
	if b[0] != entryVersion {
		return bad(fmt.Sprintf("version %d", b[0]))
	}
	e := &entry{state: state(b[1]), stamp: int64(binary.BigEndian.Uint64(b[2:])), size: len(b)}
	if e.state < runs || e.state > failed || e.stamp < 0 {
		return bad("a state or a stamp that cannot be")
	}
	copy(e.print[:], b[10:])
	value, rest, ok := cutBytes(b[entryHead:])
	if !ok {
		return bad("its value is cut off")
	}
	text, rest, ok := cutBytes(rest)
	if !ok || len(rest) > 0 {
		return bad("its end is not where it says")
	}
	e.value, e.text = value, string(text)
	return e, nil
}

// cutBytes takes what lies behind its length off the front.
func cutBytes(b []byte) (value, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	return b[w : w+int(n) : w+int(n)], b[w+int(n):], true
}

// index is the key under which an entry is found by time.
func (e *entry) index(key []byte) []byte {
	if e.state == runs {
		return indexKey(markKeys, e.stamp, key)
	}
	return indexKey(resultKeys, e.stamp, key)
}

// indexValue is for e, which was encoded.
func (e *entry) indexValue() []byte {
	if e.state == runs {
		return nil
	}
	return binary.AppendUvarint(nil, uint64(e.size))
}

func entryKey(key []byte) []byte { return append([]byte{entryKeys}, key...) }

func indexKey(first byte, stamp int64, key []byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{first}, uint64(stamp))
	return append(b, key...)
}

// indexed is one key of an index.
type indexed struct {
	first byte
	stamp int64
	key   []byte
	bytes int64 // of a result, with all its keys
}

// decodeIndex copies the key.
func decodeIndex(k, v []byte) (indexed, error) {
	if len(k) < 1+8+1 || int64(binary.BigEndian.Uint64(k[1:])) < 0 {
		return indexed{}, fmt.Errorf("%w: the key %q of an index", ErrDamaged, k)
	}
	x := indexed{first: k[0], stamp: int64(binary.BigEndian.Uint64(k[1:])), key: bytes.Clone(k[9:])}
	if x.first == markKeys {
		return x, nil
	}
	n, w := binary.Uvarint(v)
	if w <= 0 || w != len(v) || n > math.MaxInt32 {
		return indexed{}, fmt.Errorf("%w: the index of key %q", ErrDamaged, x.key)
	}
	x.bytes = space(x.key, int(n))
	return x, nil
}

// space is what a result takes, in bytes of keys and values.
func space(key []byte, encoded int) int64 {
	return int64(1+len(key)) + int64(encoded) + int64(1+8+len(key))
}

func (e *entry) space(key []byte) int64 { return space(key, e.size) }

func (e *entry) at() time.Time { return time.Unix(0, e.stamp) }

// result is what a finished entry gives to who asks.
func (e *entry) result() (Result, error) {
	r := Result{Value: bytes.Clone(e.value), At: e.at(), Replayed: true}
	if e.state == failed {
		return r, &FinalError{Message: e.text}
	}
	return r, nil
}
