package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/sink"
)

// ErrDamaged: something that is stored is not what a buffer writes.
var ErrDamaged = errors.New("buffer: not what a buffer writes")

// Row is a row as it is added.
type Row struct {
	// Key: rows with the same one are written in their order; empty: in any order.
	Key, Value []byte
	// Headers go with the row, the context of a trace, say; nil: none.
	Headers map[string]string
}

// An envelope is what a message of the topic has for a payload:
//
//	version   1 byte, 1
//	flags     1 byte; bit 0: a time follows
//	time      8 bytes, little endian, nanoseconds since 1970 (UTC): when a row that was
//	          redriven was added first
//	key       uvarint length, bytes
//	headers   uvarint number; of each: uvarint length, name, uvarint length, value; in
//	          the order of the names
//	value     the rest
//
// That is a wire format.
const (
	envelopeVersion = 1
	flagTime        = 1
)

func appendEnvelope(dst []byte, r Row, added time.Time) []byte {
	flags := byte(0)
	if !added.IsZero() {
		flags = flagTime
	}
	dst = append(dst, envelopeVersion, flags)
	if flags == flagTime {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(added.UnixNano()))
	}
	dst = appendBytes(dst, r.Key)
	dst = binary.AppendUvarint(dst, uint64(len(r.Headers)))
	if len(r.Headers) > 0 {
		for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
			dst = appendBytes(dst, name)
			dst = appendBytes(dst, r.Headers[name])
		}
	}
	return append(dst, r.Value...)
}

func appendBytes[T []byte | string](dst []byte, b T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// decodeEnvelope sets key, value, headers, and the time if there is one. They share the
// bytes of b.
func decodeEnvelope(b []byte, r *sink.Row) error {
	d := decoder{b: b}
	if v := d.byte(); d.err == nil && v != envelopeVersion {
		return fmt.Errorf("%w: an envelope of version %d", ErrDamaged, v)
	}
	switch flags := d.byte(); {
	case flags == flagTime:
		r.Time = time.Unix(0, int64(d.fixed64()))
	case flags != 0 && d.err == nil:
		return fmt.Errorf("%w: an envelope with flags %d", ErrDamaged, flags)
	}
	if key := d.bytes(); len(key) > 0 {
		r.Key = key
	}
	if n := d.uvarint(); n > 0 && d.err == nil {
		if n > uint64(len(d.b)/2) { // each has two lengths
			return fmt.Errorf("%w: an envelope of %d bytes with %d headers", ErrDamaged, len(b), n)
		}
		r.Headers = make(map[string]string, min(n, 64))
		for range n {
			name, value := d.bytes(), d.bytes()
			if d.err != nil {
				break
			}
			r.Headers[string(name)] = string(value)
		}
	}
	if d.err != nil {
		return d.err
	}
	r.Value = d.b[:len(d.b):len(d.b)]
	return nil
}

// checkRow says whether a row may be added.
func checkRow(r Row) error {
	if n := r.size(); n > MaxRow {
		return &forebay.LimitError{What: "row", Size: n, Limit: MaxRow}
	}
	return nil
}

// size is how many bytes a row has, and no less than its envelope, but for some.
func (r *Row) size() int {
	n := len(r.Key) + len(r.Value)
	for name, value := range r.Headers {
		n += len(name) + len(value) + 2*binary.MaxVarintLen32
	}
	return n
}

// row is one as it is in memory to be written.
type row struct {
	sink.Row
	size int64 // in the log
	bad  bool  // it does not decode
}

// timeSize is how many bytes of a message of a topic are its time.
const timeSize = 8

// sizeOf is what an item of n bytes takes in the log, beside eight bytes of each append.
func sizeOf(n int) int64 {
	size := int64(n) + 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// decodeRow makes a row of an item of the topic, whose bytes it shares. One that does not
// decode has it for a value: it will be a dead letter.
func decodeRow(offset uint64, item []byte) row {
	r := row{Row: sink.Row{Offset: offset}, size: sizeOf(len(item))}
	if len(item) >= timeSize {
		r.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(item)))
		if decodeEnvelope(item[timeSize:], &r.Row) == nil {
			return r
		}
	}
	r.bad = true
	r.Key, r.Headers, r.Value = nil, nil, item
	return r
}

// decoder reads what was encoded, and remembers that it could not.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = fmt.Errorf("%w: it ends too early", ErrDamaged)
	}
	d.b = nil
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) fixed64() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

// end looks that nothing is left.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%w: %d bytes too many", ErrDamaged, len(d.b))
	}
	return d.err
}
