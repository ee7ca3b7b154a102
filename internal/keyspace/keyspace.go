// Package keyspace says how keyspaces lie in the one order of stored keys, and
// how the store remembers which there are.
//
// # Stored keys
//
// A stored key is the prefix of its keyspace and then the user's key. The prefix
// is the keyspace's id, in a code of which no word is the beginning of another
// and whose order is that of the ids:
//
//	id below 240     one byte, the id
//	any other        one byte, 240 + the number of bytes that follow, less one,
//	                 and then the id, big endian, in as few bytes as can be
//
// # The list
//
// Keyspace 0 is the store's own and holds the list. Its user keys are
//
//	'n' name    → the id, as a prefix code: the keyspace exists
//	'i' prefix  → the name: the id was given to it, and never goes
//	'x'         → the next id to give, as a prefix code
//
// Keyspace 1 always exists and has no name: it is the one of the store's own
// methods. A name that begins with SequencePrefix is that of a sequence, whose index is
// in the keyspace. All of it is wire format.
package keyspace

import (
	"errors"
	"fmt"
)

// Ids that are given from the start.
const (
	System  uint64 = 0
	Default uint64 = 1
	First   uint64 = 2 // the first that can be given
)

// MaxPrefix is the length of the longest prefix in bytes.
const MaxPrefix = 9

// SequencePrefix is what the names of the keyspaces of sequences begin with.
const SequencePrefix = "\x00sequence/"

// MaxName is the length of the longest name in bytes.
const MaxName = 255

const short = 240 // ids from here on have more than one byte

// ErrName says that a name is empty or too long.
var ErrName = fmt.Errorf("a keyspace's name has 1 to %d bytes", MaxName)

// ErrDamaged says that an entry of the list does not hold.
var ErrDamaged = errors.New("damaged entry in the list of keyspaces")

// AppendPrefix appends the prefix of a keyspace's stored keys.
func AppendPrefix(dst []byte, id uint64) []byte {
	if id < short {
		return append(dst, byte(id))
	}
	n := 1
	for id>>(8*n) != 0 && n < 8 {
		n++
	}
	dst = append(dst, byte(short+n-1))
	for n--; n >= 0; n-- {
		dst = append(dst, byte(id>>(8*n)))
	}
	return dst
}

// Cut splits a stored key; ok is false when it begins with no prefix.
func Cut(key []byte) (id uint64, user []byte, ok bool) {
	if len(key) == 0 {
		return 0, nil, false
	}
	if key[0] < short {
		return uint64(key[0]), key[1:], true
	}
	n := int(key[0]) - short + 1
	if n > 8 || len(key) < 1+n {
		return 0, nil, false
	}
	for _, b := range key[1 : 1+n] {
		id = id<<8 | uint64(b)
	}
	if id < short || n > 1 && id>>(8*(n-1)) == 0 {
		return 0, nil, false
	}
	return id, key[1+n:], true
}

// End returns the first stored key behind all of a keyspace's: a prefix of
// another, which no key equals.
func End(id uint64) []byte {
	if id == ^uint64(0) {
		return []byte{255}
	}
	return AppendPrefix(nil, id+1)
}

// CheckName returns ErrName for a name that a keyspace of a user cannot have. Those that
// begin with a zero byte are the store's own.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > MaxName || name[0] == 0 {
		return ErrName
	}
	return nil
}

// Stored keys of the list.

// NameKey is where the id of the keyspace with a name stands.
func NameKey(name string) []byte { return append([]byte{byte(System), 'n'}, name...) }

// Names bounds the stored keys of all names: [lo, hi).
func Names() (lo, hi []byte) { return []byte{byte(System), 'n'}, []byte{byte(System), 'n' + 1} }

// NameOf returns the name in a stored key of Names.
func NameOf(key []byte) string { return string(key[2:]) }

// IDKey is where the name of an id stands.
func IDKey(id uint64) []byte { return AppendPrefix([]byte{byte(System), 'i'}, id) }

// NextKey is where the next id to give stands.
func NextKey() []byte { return []byte{byte(System), 'x'} }

// EncodeID is an id as the list has it.
func EncodeID(id uint64) []byte { return AppendPrefix(nil, id) }

// DecodeID is the reverse of EncodeID.
func DecodeID(b []byte) (uint64, error) {
	id, rest, ok := Cut(b)
	if !ok || len(rest) != 0 || id < First {
		return 0, ErrDamaged
	}
	return id, nil
}

// Entry is what one operation on the list says, for who follows a store's
// changes.
type Entry struct {
	// Name and ID of a keyspace; of an operation on NextKey neither.
	Name string
	ID   uint64
	// Named: it is the operation on the name, with which a keyspace begins or
	// ends. Else the one that remembers the id.
	Named bool
}

// DecodeEntry reads an operation on keyspace 0; key is the user's part of its
// stored key, and value nil for a delete, for which ID may be unknown.
func DecodeEntry(key, value []byte) (e Entry, err error) {
	switch {
	case len(key) > 1 && key[0] == 'n':
		e = Entry{Name: string(key[1:]), Named: true}
		if value != nil {
			e.ID, err = DecodeID(value)
		}
		return e, err
	case len(key) > 1 && key[0] == 'i':
		e.ID, err = DecodeID(key[1:])
		e.Name = string(value)
		return e, err
	case len(key) == 1 && key[0] == 'x':
		return e, nil
	}
	return e, ErrDamaged
}
