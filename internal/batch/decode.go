package batch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
)

var (
	// ErrCorrupt says that a record is not an encoded batch. It is wrapped
	// in a *DecodeError, which says where.
	ErrCorrupt = errors.New("corrupt batch")
	// ErrVersion says that a record has a format version that this code does
	// not know. It is wrapped in a *DecodeError.
	ErrVersion = errors.New("unknown batch version")
)

// DecodeError says what is wrong with a record and where.
type DecodeError struct {
	// Offset is the position in the record, in bytes, of the field that does
	// not hold.
	Offset int
	// Reason says in words what does not hold.
	Reason string
	// Err is ErrCorrupt or ErrVersion.
	Err error
}

// Error implements error.
func (e *DecodeError) Error() string {
	return fmt.Sprintf("batch: %v: byte %d: %s", e.Err, e.Offset, e.Reason)
}

// Unwrap returns ErrCorrupt or ErrVersion.
func (e *DecodeError) Unwrap() error { return e.Err }

func corrupt(off int, reason string) error {
	return &DecodeError{Offset: off, Reason: reason, Err: ErrCorrupt}
}

// Reader walks the operations of a decoded batch in their order. It is a
// small value that may be copied: each copy walks for itself. A Reader is
// used by one goroutine at a time.
type Reader struct {
	rec   []byte
	off   int // of the next operation
	count int
	cur   operation
	// met: cur is the next operation, the only one, which Decode has met already.
	met bool
}

type operation struct {
	kind       base.Kind
	key, value []byte
}

// Decode checks the whole of rec and returns a Reader of its operations that
// can no longer fail: of a record that is damaged in its last byte nothing is
// ever seen. It allocates nothing unless it fails; the error is then a
// *DecodeError. The Reader and what it returns alias rec, which must not
// change meanwhile.
func Decode(rec []byte) (Reader, error) {
	if len(rec) > base.MaxRecordSize {
		return Reader{}, corrupt(0, "longer than a record may be")
	}
	if len(rec) < fixedSize {
		return Reader{}, corrupt(len(rec), "ends in the header")
	}
	if rec[0] != version {
		return Reader{}, &DecodeError{Offset: 0, Reason: fmt.Sprintf("version %d", rec[0]), Err: ErrVersion}
	}
	if rec[1]&^flagAppends != 0 {
		return Reader{}, corrupt(1, "unknown flags")
	}
	count, first, reason := uvarint(rec, fixedSize)
	if reason != "" {
		return Reader{}, corrupt(fixedSize, "count: "+reason)
	}
	if count == 1 { // the most frequent batch is not parsed twice
		o, end, bad, reason := parseOp(rec, first)
		switch {
		case reason != "":
			return Reader{}, corrupt(bad, reason)
		case end != len(rec):
			return Reader{}, corrupt(end, trailing)
		case HasAppends(rec) != (o.kind == base.KindAppend):
			return Reader{}, corrupt(1, wrongFlag)
		}
		return Reader{rec: rec, off: end, count: 1, cur: o, met: true}, nil
	}
	off := first
	spans, end := true, []byte(nil) // end of the last range delete
	var last []byte                 // key of the last append
	for range count {
		at := off
		var o operation
		var bad int
		if o, off, bad, reason = parseOp(rec, off); reason != "" {
			return Reader{}, corrupt(bad, reason)
		}
		switch {
		case o.kind == base.KindAppend && bytes.Compare(last, o.key) >= 0:
			return Reader{}, corrupt(at, "append not above the one before")
		case o.kind == base.KindAppend:
			spans, last = false, o.key
		case last != nil:
			return Reader{}, corrupt(at, "operation behind an append")
		case o.kind != base.KindRangeDelete:
			spans = false
		case !spans:
			return Reader{}, corrupt(at, "range delete behind another operation")
		case bytes.Compare(end, o.key) >= 0:
			return Reader{}, corrupt(at, "range delete not above the one before")
		default:
			end = o.value
		}
	}
	if off != len(rec) {
		return Reader{}, corrupt(off, trailing)
	}
	if HasAppends(rec) != (last != nil) {
		return Reader{}, corrupt(1, wrongFlag)
	}
	return Reader{rec: rec, off: first, count: count}, nil
}

// Check is Decode, and refuses a key that occurs twice, also one of an entry that an
// append makes in its sequence's index: whoever replays the record would. It needs
// memory for each operation, and is for those who look for damage.
func Check(rec []byte) (Reader, error) {
	r, err := Decode(rec)
	if err != nil || r.count < 2 {
		return r, err
	}
	keys := make([][]byte, 0, min(r.count, len(rec)/3))
	for all := r; all.Next(); {
		switch key := all.Key(); all.Kind() {
		case base.KindRangeDelete:
		case base.KindAppend:
			keys = append(keys, IndexKey(nil, key, FirstOffset(all.Value())))
		default:
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	for i := 1; i < len(keys); i++ {
		if bytes.Equal(keys[i-1], keys[i]) {
			return Reader{}, corrupt(fixedSize, fmt.Sprintf("key %.40q twice", keys[i]))
		}
	}
	return r, nil
}

// First returns the kind and the key of the first operation of rec, without a look at
// the rest of it; a nil key where there is none, or rec does not hold so far.
func First(rec []byte) (kind base.Kind, key []byte) {
	if kind, key, _, ok := One(rec); ok {
		return kind, key
	}
	if len(rec) < fixedSize {
		return 0, nil
	}
	_, off, reason := uvarint(rec, fixedSize)
	if reason != "" {
		return 0, nil
	}
	o, _, _, reason := parseOp(rec, off)
	if reason != "" {
		return 0, nil
	}
	return o.kind, o.key
}

// One returns the operation of a record that is one put or delete of a short key, as most
// are; ok says whether it is. Of others it knows nothing: they are for Decode.
func One(rec []byte) (kind base.Kind, key, value []byte, ok bool) {
	const at = fixedSize + 3 // of the key: behind a count, a kind, and a length of one byte
	if len(rec) < at || rec[0] != version || rec[1] != 0 || rec[fixedSize] != 1 {
		return 0, nil, nil, false
	}
	kind, n := base.Kind(rec[at-2]), int(rec[at-1])
	if n == 0 || n >= 1<<7 || n > len(rec)-at {
		return 0, nil, nil, false
	}
	key, rest := rec[at:at+n:at+n], rec[at+n:]
	switch {
	case kind == base.KindDelete:
		return kind, key, nil, len(rest) == 0
	case kind != base.KindPut || len(rest) == 0:
		return 0, nil, nil, false
	}
	n, rest = int(rest[0]), rest[1:]
	if n >= 1<<7 { // two bytes: the shortest form is the only one
		if len(rest) == 0 || rest[0] == 0 || rest[0] >= 1<<7 {
			return 0, nil, nil, false
		}
		n, rest = n&(1<<7-1)|int(rest[0])<<7, rest[1:]
	}
	return kind, key, rest[:len(rest):len(rest)], n == len(rest)
}

const (
	trailing  = "bytes after the last operation"
	wrongFlag = "the flags say otherwise of appends"
)

// Len returns the number of operations in the batch, wherever the Reader
// stands.
func (r *Reader) Len() int { return r.count }

// Next moves to the next operation, at first to the first, and says whether
// there is one.
func (r *Reader) Next() bool {
	if r.met {
		r.met = false
		return true
	}
	if r.off >= len(r.rec) {
		r.cur = operation{}
		return false
	}
	r.cur, r.off, _, _ = parseOp(r.rec, r.off)
	return true
}

// Kind returns the kind of the current operation.
func (r *Reader) Kind() base.Kind { return r.cur.kind }

// Key returns the key of the current operation, a part of the record: of a
// range delete the lower bound, which it covers.
func (r *Reader) Key() []byte { return r.cur.key }

// Value returns the value of the current operation, a part of the record: not
// nil for a put, though it may be empty, and nil for a delete. Of a range
// delete it is the upper bound, which is above Key and not covered; of an append the
// items (see ItemsOf).
func (r *Reader) Value() []byte { return r.cur.value }

// parseOp reads the operation at off and returns it with the offset of the
// next. If it does not hold, reason is not empty and bad is where.
func parseOp(rec []byte, off int) (o operation, next, bad int, reason string) {
	if off >= len(rec) {
		return o, 0, off, "fewer operations than counted"
	}
	o.kind = base.Kind(rec[off])
	if o.kind < base.KindPut || o.kind > base.KindAppend {
		return o, 0, off, "unknown kind of operation"
	}
	off++
	n, at, reason := uvarint(rec, off)
	switch {
	case reason != "":
		return o, 0, off, reason
	case n == 0:
		return o, 0, off, "empty key"
	case n > base.MaxKeySize:
		return o, 0, off, "key above the limit"
	case n > len(rec)-at:
		return o, 0, off, "key longer than the record"
	}
	o.key = rec[at : at+n : at+n]
	off = at + n
	if o.kind == base.KindDelete {
		return o, off, 0, ""
	}
	n, at, reason = uvarint(rec, off)
	switch {
	case reason != "":
		return o, 0, off, reason
	case n > base.MaxValueSize:
		return o, 0, off, "value above the limit"
	case o.kind == base.KindRangeDelete && n > base.MaxKeySize:
		return o, 0, off, "key above the limit"
	case n > len(rec)-at:
		return o, 0, off, "value longer than the record"
	}
	o.value = rec[at : at+n : at+n]
	if o.kind == base.KindRangeDelete && bytes.Compare(o.key, o.value) >= 0 {
		return o, 0, off, "empty range"
	}
	if o.kind == base.KindAppend {
		if bad, reason := checkItems(o.value); reason != "" {
			return o, 0, at + bad, reason
		}
	}
	return o, at + n, 0, ""
}

// uvarint reads a number below 1<<28 at off, and returns it and the offset
// behind it.
func uvarint(rec []byte, off int) (n, next int, reason string) {
	if off < len(rec) && rec[off] < 0x80 {
		return int(rec[off]), off + 1, ""
	}
	return uvarintLong(rec, off)
}

func uvarintLong(rec []byte, off int) (n, next int, reason string) {
	for shift := 0; shift < 7*countRoom; shift += 7 {
		if off >= len(rec) {
			return 0, 0, "ends in a number"
		}
		c := rec[off]
		off++
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			if c == 0 && shift > 0 {
				return 0, 0, "number not in its shortest form"
			}
			return n, off, ""
		}
	}
	return 0, 0, "number too large"
}
