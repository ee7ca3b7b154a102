package batch

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
)

// offsetSize is the length of the offset before the items.
const offsetSize = 8

// appended is what a batch appends to one sequence.
type appended struct {
	key   []byte
	items []byte // with the offset, which is still 0
}

// AppendItem appends an item to the sequence that key names, behind what the batch
// appends there already. It copies both. It returns ErrEmptyKey or a *LimitError and
// then leaves the batch as it was: the items of one sequence may have
// base.MaxValueSize bytes together, with their lengths and 8 bytes more.
func (b *Batch) AppendItem(key, item []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	i, found := slices.BinarySearchFunc(b.appends, key, func(a appended, key []byte) int { return bytes.Compare(a.key, key) })
	had := offsetSize
	if found {
		had = len(b.appends[i].items)
	}
	has := had + uvarintLen(len(item)) + len(item)
	if has > base.MaxValueSize {
		return &LimitError{"value", has, base.MaxValueSize}
	}
	more := has + uvarintLen(has) - had - uvarintLen(had)
	if !found {
		more = appendSize(len(key), has) + uvarintLen(b.Len()+1) - uvarintLen(b.Len())
	}
	if b.pending > 0 && b.Size()+more > base.MaxRecordSize {
		b.resolve()
	}
	if n := b.Size() + more; n > base.MaxRecordSize {
		return &LimitError{"batch", n, base.MaxRecordSize}
	}
	if !found {
		b.appends = slices.Insert(b.appends, i, appended{key: bytes.Clone(key), items: make([]byte, offsetSize, max(64, has))})
	}
	a := &b.appends[i]
	a.items = append(binary.AppendUvarint(a.items, uint64(len(item))), item...)
	return nil
}

// appendSize is how many bytes an append takes in a record.
func appendSize(key, items int) int {
	return 1 + uvarintLen(key) + key + uvarintLen(items) + items
}

func (b *Batch) appendsSize() (n int) {
	for i := range b.appends {
		n += appendSize(len(b.appends[i].key), len(b.appends[i].items))
	}
	return n
}

// Items walks the items of one append.
type Items struct {
	rest []byte
	cur  []byte
}

// ItemsOf returns the items of the Value of an append of a decoded batch.
func ItemsOf(value []byte) Items { return Items{rest: value[offsetSize:]} }

// FirstOffset returns the offset of the first item of the Value of an append.
func FirstOffset(value []byte) uint64 { return binary.LittleEndian.Uint64(value) }

// HasAppends says whether a record that Bytes returned appends something.
func HasAppends(rec []byte) bool { return len(rec) >= fixedSize && rec[1]&flagAppends != 0 }

// Appended returns what a record appends to the sequence that key names: the Value of the
// append, a part of the record, nil if there is none.
func Appended(rec, key []byte) (value []byte, err error) {
	r, err := Decode(rec)
	for err == nil && r.Next() {
		if r.Kind() == base.KindAppend && bytes.Equal(r.Key(), key) {
			return r.Value(), nil
		}
	}
	return nil, err
}

// AppendedBytes returns how many bytes of a record are what it appends.
func AppendedBytes(rec []byte) (n uint64) {
	r, err := Decode(rec)
	for err == nil && r.Next() {
		if r.Kind() == base.KindAppend {
			n += uint64(len(r.Value()))
		}
	}
	return n
}

// Place gives the items of a record their offsets: next returns that of the first of n
// that are appended to a sequence. The record is one that Bytes returned.
func Place(rec []byte, next func(key []byte, n int) uint64) {
	r, err := Decode(rec)
	for err == nil && r.Next() {
		if r.Kind() == base.KindAppend {
			binary.LittleEndian.PutUint64(r.Value(), next(r.Key(), CountItems(r.Value())))
		}
	}
}

// Next moves to the next item, at first to the first, and says whether there is one.
func (i *Items) Next() bool {
	if len(i.rest) == 0 {
		i.cur = nil
		return false
	}
	n, at, _ := uvarint(i.rest, 0)
	i.cur, i.rest = i.rest[at:at+n:at+n], i.rest[at+n:]
	return true
}

// Item returns the current item, a part of the record.
func (i *Items) Item() []byte { return i.cur }

// CountItems returns how many items there are in the Value of an append.
func CountItems(value []byte) (n int) {
	for i := ItemsOf(value); i.Next(); {
		n++
	}
	return n
}

// checkItems says what of the value of an append does not hold, and where in it.
func checkItems(value []byte) (bad int, reason string) {
	if len(value) <= offsetSize {
		return 0, "appends nothing"
	}
	for off := offsetSize; off < len(value); {
		n, at, reason := uvarint(value, off)
		switch {
		case reason != "":
			return off, "length of an item: " + reason
		case n > len(value)-at:
			return off, "item longer than what is appended"
		}
		off = at + n
	}
	return 0, ""
}

// The index of a sequence lies in a table: for each append, under the sequence's key and
// the offset of the first item, big endian, how many items there are and how many bytes
// the append has, both uvarint. The entry's LSN says in which record they are. An entry
// of items that were settled has more: the LSN of the record in which they were, uvarint,
// and then themselves, the bytes of the append.

// Entry is an entry of the index of a sequence.
type Entry struct {
	// Offset of the first of Count items. Size is the length of the append; 0: the
	// items are not there.
	Offset, Count, Size uint64
	// LSN of the record that appended them: of a settled entry it is decoded, else the
	// entry's own, which whoever reads it puts here.
	LSN base.LSN
	// Settled is the Value of the append, nil when it is in the log alone. It is a part
	// of the entry's value.
	Settled []byte
}

// End returns the offset behind the entry's items.
func (e *Entry) End() uint64 { return e.Offset + e.Count }

// IndexEntry appends to k and v the entry that a commit makes of an append.
func IndexEntry(k, v, key, value []byte) (entryKey, entryValue []byte) {
	k = IndexKey(k, key, FirstOffset(value))
	v = binary.AppendUvarint(v, uint64(CountItems(value)))
	return k, binary.AppendUvarint(v, uint64(len(value)))
}

// IndexKey appends the key of the entry of an append whose first item has that offset.
func IndexKey(dst, key []byte, offset uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, key...), offset)
}

// EntryOfNothing is the value of an entry of one item that is not there any more: what
// is left of a sequence of which all was taken out. It has no bytes.
func EntryOfNothing() []byte { return EntryOfLost(1) }

// EntryOfLost is the value of an entry of so many items that are not there any more,
// with others before and behind: it keeps their offsets from being given again.
func EntryOfLost(count uint64) []byte { return append(binary.AppendUvarint(nil, count), 0) }

// SettledEntry is the value of an entry that has the items itself, which the record with
// an LSN appended.
func SettledEntry(dst []byte, lsn base.LSN, value []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(CountItems(value)))
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(binary.AppendUvarint(dst, lsn), value...)
}

// DecodeIndexEntry reads an entry, of which own is the key behind the sequence's and lsn
// the LSN. ok: it is one that a store writes.
func DecodeIndexEntry(own, value []byte, lsn base.LSN) (e Entry, ok bool) {
	if len(own) != offsetSize {
		return e, false
	}
	e = Entry{Offset: binary.BigEndian.Uint64(own), LSN: lsn}
	var n int
	if e.Count, n = binary.Uvarint(value); n <= 0 || e.Count == 0 || e.End() < e.Offset {
		return e, false
	}
	value = value[n:]
	if e.Size, n = binary.Uvarint(value); n <= 0 {
		return e, false
	}
	if value = value[n:]; len(value) == 0 {
		return e, true
	}
	if e.LSN, n = binary.Uvarint(value); n <= 0 || e.LSN == 0 || e.LSN >= lsn {
		return e, false
	}
	e.Settled = value[n:]
	if _, reason := checkItems(e.Settled); reason != "" {
		return e, false
	}
	return e, uint64(len(e.Settled)) == e.Size && FirstOffset(e.Settled) == e.Offset && uint64(CountItems(e.Settled)) == e.Count
}
