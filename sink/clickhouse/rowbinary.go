package clickhouse

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/forebaydb/forebay/sink"
)

var defaultColumns = []string{"offset", "time", "key", "value", "headers"}

var defaultTypes = []string{"UInt64", "DateTime64(6, 'UTC')", "String", "String", "Map(String, String)"}

// defaultHead is what RowBinaryWithNamesAndTypes has before the rows: the number of
// columns, their names, their types. The server refuses other types than the table's,
// where plain RowBinary would read something else out of the bytes.
func defaultHead() []byte {
	head := binary.AppendUvarint(nil, uint64(len(defaultColumns)))
	for _, s := range slices.Concat(defaultColumns, defaultTypes) {
		head = AppendString(head, s)
	}
	return head
}

func defaultEncode(dst []byte, r sink.Row) ([]byte, error) {
	dst = binary.LittleEndian.AppendUint64(dst, r.Offset)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(r.Time.UnixMicro()))
	dst = AppendString(dst, r.Key)
	dst = AppendString(dst, r.Value)
	dst = binary.AppendUvarint(dst, uint64(len(r.Headers)))
	for _, k := range slices.Sorted(maps.Keys(r.Headers)) { // the same bytes each time
		dst = AppendString(dst, k)
		dst = AppendString(dst, r.Headers[k])
	}
	return dst, nil
}

// AppendString appends a String as it is in RowBinary: its length as a varint, and its
// bytes, of any kind. Numbers and times are little endian there, for which encoding/binary
// has LittleEndian.AppendUint64 and its like.
func AppendString[S []byte | string](dst []byte, s S) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}
