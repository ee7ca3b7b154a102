// Package batch is the codec of one batch: the operations that one commit
// applies together, and the payload of one log record.
//
// # Format
//
// All of it is wire format. Lengths and the count are unsigned LEB128 varints
// (encoding/binary's uvarint) in their shortest form.
//
//	 0         1          2
//	+---------+----------+----------------+------+------+-- … --+------+
//	| version |  flags   | count, uvarint | op 0 | op 1 |       | op n |
//	|   = 1   |          |  1 to 4 bytes  |      |      |       |      |
//	+---------+----------+----------------+------+------+-- … --+------+
//
// The one flag there is, 1, says that there are appends.
//
//	put:
//	+------+---------------------+-----+-----------------------+-------+
//	|  1   | key length, uvarint | key | value length, uvarint | value |
//	+------+---------------------+-----+-----------------------+-------+
//
//	delete:
//	+------+---------------------+-----+
//	|  2   | key length, uvarint | key |
//	+------+---------------------+-----+
//
//	range delete, of the keys from lo to before hi:
//	+------+--------------------+----+--------------------+----+
//	|  3   | lo length, uvarint | lo | hi length, uvarint | hi |
//	+------+--------------------+----+--------------------+----+
//
//	append, of items to the sequence that key names. The length is of all behind it.
//	offset has 8 bytes, little endian: that of the first item; who orders the batch
//	puts it in. An item is its length, uvarint, and its bytes:
//	+------+---------------------+-----+-----------------+--------+--------+-- … --+
//	|  4   | key length, uvarint | key | length, uvarint | offset | item 0 |       |
//	+------+---------------------+-----+-----------------+--------+--------+-- … --+
//
// Example: put "a" = "1" and delete "bc", 12 bytes:
//
//	01 00 02   01 01 61 01 31   02 02 62 63
//
// Example: delete from "b" to before "cc", then put "c" = "", 12 bytes:
//
//	01 00 02   03 01 62 02 63 63   01 01 63 00
//
// Example: append "x" and "" to "\x02", behind five items, 18 bytes:
//
//	01 01 01   04 01 02 0b 05 00 00 00 00 00 00 00 01 78 00
//
// The last operation ends the record; bytes after it are an error. There is
// no checksum and no length of the whole: both belong to the log's frame.
//
// # Rules
//
// Inside a batch the later operation on a key wins. The encoder collapses: it
// writes each key at most once, in the order of the last writes. Decode does
// not look for a key that occurs twice, because that would need memory in
// proportion to the batch; whoever applies a decoded batch in order lets the
// later one win, and package memtable, which meets the two side by side,
// refuses the second. Check looks for it.
//
// A range delete hides what was there before the batch, and the operations of
// the batch before it. The encoder leaves those out, and joins range deletes
// that overlap or touch. What is left does not depend on order, and has one:
// the range deletes come first, ascending and apart from each other, and Decode
// refuses any other place for them. So a batch means the same to who applies
// its operations one after the other and to who gives them all one LSN, at
// which a range delete hides what is below it.
//
// What is appended has nothing to do with keys and their values. Appends come last,
// one for each sequence, ascending by key, each with an item or more: Decode refuses
// any other order.
//
// An empty value is a value; only a delete makes a key absent. An empty key
// is refused. A batch of no operations is legal to encode and to decode. The
// limits of package base hold in both directions with the same numbers, so
// that whatever was accepted can be replayed.
package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"

	"github.com/forebaydb/forebay/internal/base"
)

const (
	version   = 1 // wire format: first byte of a record
	fixedSize = 2 // wire format: version and flags

	flagAppends = 1 // wire format

	// countRoom is the longest uvarint of a count: an operation takes at
	// least 3 bytes, so that base.MaxRecordSize holds fewer than 1<<28.
	countRoom = 4
	headRoom  = fixedSize + countRoom

	// scanMax is the number of operations up to which a key is looked for
	// one by one; above it a hash table is kept.
	scanMax = 8
	// slackMin is how many bytes of overwritten operations are always
	// tolerated before the buffer is compacted.
	slackMin = 4 << 10
)

// ErrEmptyKey says that a key of no bytes was given.
var ErrEmptyKey = errors.New("batch: empty key")

// ErrKind says that Append was given a kind that no operation has.
var ErrKind = errors.New("batch: unknown kind of operation")

// LimitError says that an operation was refused because something is too
// large. The batch is as it was before the call.
type LimitError struct {
	// What is "key", "value" or "batch".
	What string
	// Size is how large it would be and Limit how large it may be, in bytes.
	Size, Limit int
}

// Error implements error.
func (e *LimitError) Error() string {
	return fmt.Sprintf("batch: %s of %d bytes is above the limit of %d", e.What, e.Size, e.Limit)
}

var seed = maphash.MakeSeed()

// op is one operation in Batch.buf, a range delete too. Records are bounded by
// base.MaxRecordSize, and the buffer by about twice that, so uint32 is ample.
type op struct {
	off, end uint32 // its bytes in buf
	keyOff   uint32
	keyLen   uint32 // of lo for a range delete
	hash     uint32 // set only while the table is in use
	dead     bool   // overwritten by a later operation
	span     bool   // a range delete: it is in no table
}

// Batch builds the encoding of one batch. The zero value is an empty batch,
// ready for use; Reset makes it one again and keeps the memory. A Batch is
// used by one goroutine at a time.
type Batch struct {
	buf []byte // headRoom bytes, then operations, the overwritten ones too
	ops []op   // in the order of buf
	// table is an open-addressing hash table of positions in ops, plus one;
	// 0 is free. It is empty while ops has at most scanMax elements.
	table    []uint32
	dead     int // overwritten operations in ops
	deadSize int // and their bytes
	// spans are the range deletes at the beginning of ops: ascending, apart
	// from each other, and what they cover of the batch is gone. pending
	// counts those behind them, of which all this is still to be done.
	spans, pending int

	appends []appended // ascending by key
}

// Put sets key to value. It copies both. It returns ErrEmptyKey or a
// *LimitError and then leaves the batch as it was.
func (b *Batch) Put(key, value []byte) error {
	if len(value) > base.MaxValueSize {
		return &LimitError{"value", len(value), base.MaxValueSize}
	}
	return b.add(base.KindPut, key, value)
}

// Delete removes key. It copies key. It returns ErrEmptyKey or a *LimitError
// and then leaves the batch as it was.
func (b *Batch) Delete(key []byte) error {
	return b.add(base.KindDelete, key, nil)
}

// Append is Put, Delete, with key and value as its bounds DeleteRange, or, with the
// items of a decoded append as value, AppendItem of each, as kind says; a delete has no
// use for value. Any other kind is ErrKind.
func (b *Batch) Append(kind base.Kind, key, value []byte) error {
	switch kind {
	case base.KindPut:
		return b.Put(key, value)
	case base.KindDelete:
		return b.Delete(key)
	case base.KindRangeDelete:
		return b.DeleteRange(key, value)
	case base.KindAppend:
		for i := ItemsOf(value); i.Next(); {
			if err := b.AppendItem(key, i.Item()); err != nil {
				return err
			}
		}
		return nil
	}
	return ErrKind
}

// Len returns the number of operations, each key counted once. Between a
// DeleteRange and the next Bytes it also counts what Bytes will leave out: the
// operations that the range covers, and ranges that overlap.
func (b *Batch) Len() int { return len(b.ops) - b.dead + len(b.appends) }

// Get returns the last put or delete of a key, of a batch that has no range deletes.
// The value is the batch's own memory, valid until the next call of another method
// than Get, Len and Size.
func (b *Batch) Get(key []byte) (value []byte, kind base.Kind, ok bool) {
	i, _ := b.find(key)
	if i < 0 {
		return nil, 0, false
	}
	o := &b.ops[i]
	if kind = base.Kind(b.buf[o.off]); kind == base.KindPut {
		n, at, _ := uvarint(b.buf, int(o.keyOff+o.keyLen))
		value = b.buf[at : at+n : at+n]
	}
	return value, kind, true
}

// Ranges says whether there are range deletes.
func (b *Batch) Ranges() bool { return b.spans+b.pending > 0 }

// Size returns the length in bytes of what Bytes would return; between a
// DeleteRange and the next Bytes that is an upper bound, as with Len.
func (b *Batch) Size() int {
	return fixedSize + uvarintLen(b.Len()) + b.liveSize()
}

func (b *Batch) liveSize() int {
	return max(0, len(b.buf)-headRoom) - b.deadSize + b.appendsSize()
}

// Reset empties the batch and keeps its memory. A slice that Bytes returned
// becomes invalid.
func (b *Batch) Reset() {
	b.buf = b.buf[:min(len(b.buf), headRoom)]
	b.ops = b.ops[:0]
	b.table = b.table[:0]
	b.dead, b.deadSize = 0, 0
	b.spans, b.pending = 0, 0
	b.appends = b.appends[:0]
}

// Bytes returns the encoded batch. The slice is the batch's own memory: it is
// valid until the next call of another method than Len and Size, and must not
// be changed. Bytes sorts the range deletes if there are new ones, and then
// looks at every operation; else it does little.
func (b *Batch) Bytes() []byte {
	b.room()
	b.resolve()
	if b.dead > 0 {
		b.compact()
	}
	// The header is written up against the first operation, whatever the
	// length of the count, so that the operations never move.
	count, ops := len(b.ops)+len(b.appends), len(b.buf)
	start := headRoom - fixedSize - uvarintLen(count)
	flags := byte(0)
	if len(b.appends) > 0 {
		flags = flagAppends
	}
	h := append(b.buf[start:start], version, flags)
	binary.AppendUvarint(h, uint64(count))
	for i := range b.appends { // behind the operations, where the next one goes, too
		b.buf = appendOp(b.buf, base.KindAppend, b.appends[i].key, b.appends[i].items)
	}
	rec := b.buf[start:len(b.buf):len(b.buf)]
	b.buf = b.buf[:ops]
	return rec
}

func (b *Batch) room() {
	if len(b.buf) == 0 {
		b.buf = append(b.buf, make([]byte, headRoom)...)
	}
}

func (b *Batch) add(kind base.Kind, key, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	b.room()
	old, hash := b.find(key)
	size, count := opSize(kind, key, value), b.Len()+1
	live := b.liveSize() + size
	if old >= 0 {
		count--
		live -= int(b.ops[old].end - b.ops[old].off)
	}
	if total := fixedSize + uvarintLen(count) + live; total > base.MaxRecordSize {
		if b.pending > 0 { // It may be less than it seems.
			b.resolve()
			return b.add(kind, key, value)
		}
		return &LimitError{"batch", total, base.MaxRecordSize}
	}
	if old >= 0 {
		b.kill(old)
		if b.deadSize > slackMin && b.deadSize > b.liveSize() {
			b.compact()
			old = -1 // The table was rebuilt without it.
		}
	}
	off := len(b.buf)
	b.buf = appendOp(b.buf, kind, key, value)
	keyOff := off + 1 + uvarintLen(len(key))
	b.ops = append(b.ops, op{
		off: uint32(off), end: uint32(len(b.buf)),
		keyOff: uint32(keyOff), keyLen: uint32(len(key)), hash: hash,
	})
	b.index(old)
	return nil
}

// kill marks an operation as overwritten.
func (b *Batch) kill(i int) {
	b.ops[i].dead = true
	b.dead++
	b.deadSize += int(b.ops[i].end - b.ops[i].off)
}

// find returns the live operation on key, or -1, and the key's hash if there
// is a table.
func (b *Batch) find(key []byte) (int, uint32) {
	if len(b.table) == 0 {
		for i := range b.ops {
			if o := &b.ops[i]; !o.dead && !o.span && bytes.Equal(b.key(o), key) {
				return i, 0
			}
		}
		return -1, 0
	}
	hash := hashOf(key)
	mask := uint32(len(b.table) - 1)
	for at := hash & mask; b.table[at] != 0; at = (at + 1) & mask {
		i := int(b.table[at] - 1)
		if o := &b.ops[i]; o.hash == hash && !o.dead && bytes.Equal(b.key(o), key) {
			return i, hash
		}
	}
	return -1, hash
}

// index enters the operation that was just appended into the table, in place
// of old if that is not -1.
func (b *Batch) index(old int) {
	switch {
	case len(b.table) == 0 && len(b.ops) <= scanMax:
		return
	case len(b.table) < 2*len(b.ops):
		b.rebuild()
		return
	}
	last := len(b.ops) - 1
	hash := b.ops[last].hash
	mask := uint32(len(b.table) - 1)
	at := hash & mask
	for b.table[at] != 0 && int(b.table[at]-1) != old {
		at = (at + 1) & mask
	}
	b.table[at] = uint32(last + 1)
}

// rebuild makes a table of all live operations, with room to double.
func (b *Batch) rebuild() {
	size := 4 * scanMax
	for size < 4*len(b.ops) {
		size *= 2
	}
	if cap(b.table) >= size {
		b.table = b.table[:size]
		clear(b.table)
	} else {
		b.table = make([]uint32, size)
	}
	mask := uint32(size - 1)
	for i := range b.ops {
		o := &b.ops[i]
		if o.dead || o.span {
			continue
		}
		o.hash = hashOf(b.key(o))
		at := o.hash & mask
		for b.table[at] != 0 {
			at = (at + 1) & mask
		}
		b.table[at] = uint32(i + 1)
	}
}

// compact drops the overwritten operations from buf and ops.
func (b *Batch) compact() {
	to, n := headRoom, 0
	for _, o := range b.ops {
		if o.dead {
			continue
		}
		shift := o.off - uint32(to)
		to += copy(b.buf[to:], b.buf[o.off:o.end])
		o.off, o.end, o.keyOff = o.off-shift, o.end-shift, o.keyOff-shift
		b.ops[n] = o
		n++
	}
	b.buf, b.ops = b.buf[:to], b.ops[:n]
	b.dead, b.deadSize = 0, 0
	if len(b.table) > 0 {
		b.rebuild()
	}
}

func (b *Batch) key(o *op) []byte {
	return b.buf[o.keyOff : o.keyOff+o.keyLen]
}

func hashOf(key []byte) uint32 { return uint32(maphash.Bytes(seed, key)) }
