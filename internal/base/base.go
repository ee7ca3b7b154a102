// Package base holds the few words that every room of Forebay shares: the log
// sequence number, the kinds of a version, the order of keys, the iterator
// over versions, and the error that says where stored bytes are damaged.
package base

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// LSN is a log sequence number. The first commit of a store has LSN 1; within
// one epoch LSNs have no gaps. 0 means "before the first commit".
type LSN = uint64

// MaxLSN is above every LSN that is ever assigned.
const MaxLSN LSN = 1<<64 - 1

// Limits of what a store accepts. They are checked when the call is made and
// again, with the same numbers, when a log is replayed.
const (
	// MaxUserKey is the longest key that a caller may give, in bytes. A key has
	// at least one byte.
	MaxUserKey = 64 << 10
	// MaxKeySize is the longest key that is stored: a user's key, in front of it
	// the prefix of its keyspace, and behind it a byte where a key stands as the
	// end of a range.
	MaxKeySize = MaxUserKey + 16
	// MaxValueSize is the longest value in bytes.
	MaxValueSize = 32 << 20
	// MaxRecordSize is the longest log record, and so the largest encoded
	// batch, in bytes.
	MaxRecordSize = 64 << 20
)

// MaxFileNumber is the highest number that a file may have in its name: numbers
// only ever grow, and a stray file must not bring them to their end.
const MaxFileNumber = 1 << 53

// MaxListed is the highest LSN and the highest epoch that a catalog or a manifest
// may name. Both only ever grow, and what one begins with must leave room.
const MaxListed = 1 << 62

// Kind says what a version of a key is. The numbers are wire format.
type Kind uint8

const (
	// KindPut is a key with a value.
	KindPut Kind = 1
	// KindDelete is a tombstone: it hides all lower versions of its key.
	KindDelete Kind = 2
	// KindRangeDelete hides all lower versions of the keys in a range. It is no
	// version of a key: batches, memtables and segments keep range deletes
	// apart, as RangeDelete values, and no Iterator shows this kind.
	KindRangeDelete Kind = 3
	// KindAppend appends items to a sequence. It is of batches alone: a table has of
	// it the entry of the sequence's index that its commit makes.
	KindAppend Kind = 4
	// KindPacked is a put whose value is still packed as it is in its segment. It is in no
	// file: what merges segments passes it on from their iterators to their writers.
	KindPacked Kind = 255
)

// OwnLSN is where the LSNs begin that a transaction gives to its own writes
// before they are committed. No commit ever has such an LSN.
const OwnLSN LSN = 1 << 63

// RangeDelete hides, of each key in [Lo, Hi), all versions with an LSN below
// its own. Versions with the same LSN are of the same batch, and stay.
type RangeDelete struct {
	Lo, Hi []byte
	LSN    LSN
}

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindPut:
		return "put"
	case KindDelete:
		return "delete"
	case KindRangeDelete:
		return "range delete"
	case KindAppend:
		return "append"
	case KindPacked:
		return "packed put"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Compare orders versions: by key bytes ascending, then by LSN descending, so
// that the newest version of a key comes first.
func Compare(aKey []byte, aLSN LSN, bKey []byte, bLSN LSN) int {
	if c := bytes.Compare(aKey, bKey); c != 0 {
		return c
	}
	switch {
	case aLSN > bLSN:
		return -1
	case aLSN < bLSN:
		return 1
	}
	return 0
}

// Head returns the first eight bytes of b as a number that orders as they do, as far
// as it reaches. Fewer are filled up with zeros.
func Head(b []byte) uint64 {
	// Not by way of eight bytes of the stack: a load of what was stored in pieces waits
	// until all of them are out.
	n := len(b)
	switch {
	case n >= 8:
		return binary.BigEndian.Uint64(b)
	case n >= 4:
		rest := uint64(binary.BigEndian.Uint32(b[n-4:])) << (64 - 8*n)
		return uint64(binary.BigEndian.Uint32(b))<<32 | rest&(1<<32-1)
	case n == 0:
		return 0
	}
	head := uint64(b[0]) << 56
	if n > 1 {
		head |= uint64(b[1])<<48 | uint64(b[n-1])<<(64-8*n)
	}
	return head
}

// HeadBehind is Head(key[skip:]). skip is at most the key's length.
func HeadBehind(key []byte, skip int) uint64 {
	n := len(key)
	if n < 8 || n-skip >= 8 {
		return Head(key[skip:])
	}
	return binary.BigEndian.Uint64(key[n-8:]) << (8 * (8 - n + skip))
}

// CommonPrefix returns how many bytes a and b have in common from the front.
func CommonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// Iterator walks versions in the order of Compare. A new iterator stands
// nowhere; a positioning call (First, Last, SeekGE, SeekLT) places it and says
// whether it stands on a version. Key and Value stay valid until the next
// positioning or moving call, and no longer than Close. After a false result
// Err says whether the iterator ended or failed. An Iterator is used by one
// goroutine at a time.
type Iterator interface {
	// First moves to the first version.
	First() bool
	// Last moves to the last version.
	Last() bool
	// SeekGE moves to the first version at or after (key, lsn) in the order
	// of Compare. SeekGE(key, MaxLSN) finds the newest version of key.
	SeekGE(key []byte, lsn LSN) bool
	// SeekLT moves to the last version before (key, lsn).
	SeekLT(key []byte, lsn LSN) bool
	Next() bool
	Prev() bool
	Valid() bool
	Key() []byte
	LSN() LSN
	Kind() Kind
	Value() []byte
	Err() error
	Close() error
}

// Version is one version of a key.
type Version struct {
	Key, Value []byte
	LSN        LSN
	Kind       Kind
	// Same is true of a version in a run whose key is that of the one before it.
	Same bool
}

// Runner is what an Iterator may be that shows many versions at once: to ask for
// each costs more than to decode it.
type Runner interface {
	// Run returns versions from that on which the iterator stands, first it
	// itself, in the direction of Next, or of Prev with back; at most most, and
	// as few as it likes. It does not move. dst is memory that may be used; the
	// bytes are valid as long as Key and Value.
	Run(dst []Version, most int, back bool) []Version
	// Advance moves to version n of the last Run, as so many Nexts or Prevs
	// would. Between them the iterator was not moved.
	Advance(n int)
}

// CorruptionError says that stored bytes which must be intact are not, and
// where. Nothing is served from the damaged place and no file was changed.
type CorruptionError struct {
	// File is the path of the damaged file.
	File string
	// Offset is the byte offset in File at which the damage was noticed, or
	// -1 when it concerns the whole file (missing, too short).
	Offset int64
	// Reason says in words what does not hold.
	Reason string
	// Err is the cause, where there is one; it may be nil.
	Err error
}

// Error implements error.
func (e *CorruptionError) Error() string {
	s := fmt.Sprintf("corruption: %s", e.File)
	if e.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", e.Offset)
	}
	s += ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Err }
