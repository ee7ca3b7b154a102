package sink

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Encoder makes bytes of a batch, for targets that take bytes. It appends to dst, must not
// keep anything of the batch, and always makes the same of one batch. An error of it is
// *Rejected: of the row that it names, where it is a *RowError.
type Encoder func(dst []byte, b Batch) ([]byte, error)

// RowError is an error of an Encoder about one row.
type RowError struct {
	Row int // index into the batch
	Err error
}

func (e *RowError) Error() string { return fmt.Sprintf("row %d: %v", e.Row, e.Err) }

// Unwrap returns the cause.
func (e *RowError) Unwrap() error { return e.Err }

// Encode calls an Encoder, nil: NDJSON, and makes *Rejected of its errors.
func (e Encoder) Encode(dst []byte, b Batch) ([]byte, error) {
	if e == nil {
		e = NDJSON
	}
	out, err := e(dst, b)
	if err == nil {
		return out, nil
	}
	rejected := &Rejected{Err: err}
	if of := (*RowError)(nil); errors.As(err, &of) {
		rejected.Rows = []int{of.Row}
	}
	return nil, rejected
}

// NDJSON is an Encoder: a line of JSON for each row, with
//
//	"offset"   a number
//	"time"     RFC 3339, UTC
//	"key"      a string; if that is no UTF-8, "key_base64" instead; neither where there
//	           is no key
//	"value"    a string, or "value_base64"
//	"headers"  an object of strings; not there where there are none
//
// It is the same for the same batch, byte for byte. Headers that are no UTF-8 have
// U+FFFD where they are not.
func NDJSON(dst []byte, b Batch) ([]byte, error) {
	for _, r := range b.Rows {
		dst = strconv.AppendUint(append(dst, `{"offset":`...), r.Offset, 10)
		dst = r.Time.UTC().AppendFormat(append(dst, `,"time":"`...), time.RFC3339Nano)
		dst = append(dst, '"')
		if len(r.Key) > 0 {
			dst = appendField(dst, "key", r.Key)
		}
		dst = appendField(dst, "value", r.Value)
		if len(r.Headers) > 0 {
			dst = append(dst, `,"headers":{`...)
			for i, name := range slices.Sorted(maps.Keys(r.Headers)) {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = appendString(dst, name)
				dst = append(dst, ':')
				dst = appendString(dst, r.Headers[name])
			}
			dst = append(dst, '}')
		}
		dst = append(dst, '}', '\n')
	}
	return dst, nil
}

func appendField(dst []byte, name string, b []byte) []byte {
	dst = append(append(dst, `,"`...), name...)
	if !utf8.Valid(b) {
		dst = append(dst, `_base64":"`...)
		return append(base64.StdEncoding.AppendEncode(dst, b), '"')
	}
	dst = append(dst, `":`...)
	return appendString(dst, string(b))
}

func appendString(dst []byte, s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // a string has none
		return append(dst, `""`...)
	}
	return append(dst, b...)
}
