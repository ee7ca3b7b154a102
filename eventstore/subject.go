package eventstore

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/forebaydb/forebay"
)

const (
	nonceSize = 12
	keySize   = 32
	tagSize   = 16
)

// keyID names one key of a subject: who is readmitted gets another one.
type keyID [16]byte

// subjectKey is a key that payloads are sealed with.
type subjectKey struct {
	id   keyID
	aead cipher.AEAD
}

// MasterKey wraps the keys of subjects. Where it is kept, and that nothing of it is left
// when it is given up, is the caller's care.
type MasterKey struct {
	// ID is not 0, and never of another key.
	ID  uint32
	Key [32]byte
}

// keyring has the master keys; the first one wraps.
type keyring struct {
	first uint32 // 0: keys are not wrapped
	byID  map[uint32]cipher.AEAD
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(c)
}

func newKeyring(keys []MasterKey) (keyring, error) {
	r := keyring{byID: map[uint32]cipher.AEAD{}}
	for i, k := range keys {
		if k.ID == 0 || r.byID[k.ID] != nil {
			return r, fmt.Errorf("%w of master key %d: ids are not 0, and each is there once", ErrName, k.ID)
		}
		aead, err := newAEAD(k.Key[:])
		if err != nil {
			return r, err
		}
		if r.byID[k.ID] = aead; i == 0 {
			r.first = k.ID
		}
	}
	return r, nil
}

// A key record has a format (1), a state, the key's id, the master key's id (4 bytes,
// little endian; 0: none), and the key; when wrapped, a nonce before it and a tag
// behind it, with what comes before the nonce and the subject as associated data.
// A record of a forgotten subject has the first two alone.
const (
	keyFormat    = 1
	keyLive      = 1
	keyForgotten = 2
	keyHead      = 2 + 16 + 4
)

func (r keyring) wrap(random io.Reader, subject string, id keyID, key []byte) ([]byte, error) {
	b := append([]byte{keyFormat, keyLive}, id[:]...)
	b = append(b, byte(r.first), byte(r.first>>8), byte(r.first>>16), byte(r.first>>24))
	if r.first == 0 {
		return append(b, key...), nil
	}
	var nonce [nonceSize]byte
	if _, err := io.ReadFull(random, nonce[:]); err != nil {
		return nil, err
	}
	bound := append(slices.Clone(b), subject...)
	return r.byID[r.first].Seal(append(b, nonce[:]...), nonce[:], key, bound), nil
}

// unwrap returns the key of a record, or ErrForgotten.
func (r keyring) unwrap(subject string, rec []byte) (id keyID, master uint32, key []byte, err error) {
	switch {
	case len(rec) == 2 && rec[0] == keyFormat && rec[1] == keyForgotten:
		return id, 0, nil, ErrForgotten
	case len(rec) < keyHead || rec[0] != keyFormat || rec[1] != keyLive:
		return id, 0, nil, fmt.Errorf("%w: key record of a subject", ErrDamaged)
	}
	copy(id[:], rec[2:])
	m := rec[18:keyHead]
	master = uint32(m[0]) | uint32(m[1])<<8 | uint32(m[2])<<16 | uint32(m[3])<<24
	rest := rec[keyHead:]
	if master == 0 {
		if len(rest) != keySize {
			return id, 0, nil, fmt.Errorf("%w: key of a subject has %d bytes", ErrDamaged, len(rest))
		}
		return id, 0, bytes.Clone(rest), nil
	}
	aead := r.byID[master]
	if aead == nil {
		return id, master, nil, fmt.Errorf("%w: %d", ErrNoMasterKey, master)
	}
	if len(rest) != nonceSize+keySize+tagSize {
		return id, master, nil, fmt.Errorf("%w: wrapped key of a subject has %d bytes", ErrDamaged, len(rest))
	}
	bound := append(slices.Clone(rec[:keyHead]), subject...)
	if key, err = aead.Open(nil, rest[:nonceSize], rest[nonceSize:], bound); err != nil {
		return id, master, nil, fmt.Errorf("%w: wrapped key of a subject: %w", ErrDamaged, err)
	}
	return id, master, key, nil
}

func (s *Store) keyOf(r forebay.Reader, subject string) (*subjectKey, error) {
	var k *subjectKey
	err := r.GetFunc([]byte(subject), func(rec []byte) error {
		id, _, key, err := s.ring.unwrap(subject, rec)
		if err != nil {
			return err
		}
		aead, err := newAEAD(key)
		k = &subjectKey{id, aead}
		return err
	})
	return k, err
}

// sealer has the keys of one append, and writes new ones when all of it is made.
type sealer struct {
	space forebay.Space
	ready bool
	keys  map[string]*subjectKey
	puts  [][2][]byte
}

// keyFor returns the key of a subject for an append, and makes one if there is none.
// ErrForgotten leaves the transaction as it was.
func (s *Store) keyFor(tx *forebay.Tx, in *sealer, subject string) (_ *subjectKey, err error) {
	if k := in.keys[subject]; k != nil {
		return k, nil
	}
	if !in.ready {
		if in.space, err = tx.Keyspace(s.keys.Name()); err != nil {
			return nil, tx.Fail(err)
		}
		in.ready, in.keys = true, map[string]*subjectKey{}
	}
	k, err := s.keyOf(in.space.Reader, subject)
	switch {
	case errors.Is(err, forebay.ErrNotFound):
		k = new(subjectKey)
		var fresh [len(k.id) + keySize]byte
		if _, err := io.ReadFull(s.rand, fresh[:]); err != nil {
			return nil, tx.Fail(fmt.Errorf("eventstore: key of a subject: %w", err))
		}
		copy(k.id[:], fresh[:])
		key := fresh[len(k.id):]
		if k.aead, err = newAEAD(key); err != nil {
			return nil, tx.Fail(err)
		}
		rec, err := s.ring.wrap(s.rand, subject, k.id, key)
		if err != nil {
			return nil, tx.Fail(err)
		}
		in.puts = append(in.puts, [2][]byte{[]byte(subject), rec})
	case errors.Is(err, ErrForgotten):
		return nil, fmt.Errorf("%w: %q", ErrForgotten, subject)
	case err != nil:
		return nil, tx.Fail(err)
	}
	in.keys[subject] = k
	return k, nil
}

func (in *sealer) save() error {
	for _, kv := range in.puts {
		if err := in.space.Put(kv[0], kv[1]); err != nil {
			return err
		}
	}
	return nil
}

// open opens the payload of a sealed event, or marks it as erased.
func (s *Store) open(ev *Event) error {
	stored := ev.Payload
	ev.Payload = nil
	k, err := s.keyOf(s.keys.Reader, ev.Subject)
	switch {
	case errors.Is(err, ErrForgotten), errors.Is(err, forebay.ErrNotFound), err == nil && k.id != ev.key:
		ev.Erased = true
		return nil
	case s.sealed && errors.Is(err, ErrNoMasterKey):
		ev.Sealed = true
		return nil
	case err != nil:
		return failedAt(*ev, err)
	}
	if len(stored) < nonceSize+tagSize {
		return failedAt(*ev, fmt.Errorf("%w: sealed payload has %d bytes", ErrDamaged, len(stored)))
	}
	bound := ev.raw[:len(ev.raw)-len(stored)]
	if ev.Payload, err = k.aead.Open([]byte{}, stored[:nonceSize], stored[nonceSize:], bound); err != nil {
		return failedAt(*ev, fmt.Errorf("%w: sealed payload: %w", ErrDamaged, err))
	}
	return nil
}

// opened are the keys that payloads were opened with; the zero keyID, which no subject
// has, where they were several: the first of them was removed meanwhile.
type opened map[string]keyID

// add notes an event whose payload was read.
func (o *opened) add(ev Event) {
	if ev.key != (keyID{}) && !ev.Erased {
		o.put(ev.Subject, ev.key)
	}
}

func (o *opened) put(subject string, id keyID) {
	if *o == nil {
		*o = opened{}
	}
	if had, ok := (*o)[subject]; ok && had != id {
		id = keyID{}
	}
	(*o)[subject] = id
}

// still says whether all of them are still there. In a transaction that stays so until
// its commit.
func (s *Store) still(tx *forebay.Tx, o opened) (bool, error) {
	if len(o) == 0 {
		return true, nil
	}
	ks, err := tx.Keyspace(s.keys.Name())
	if err != nil {
		return false, err
	}
	for subject, id := range o {
		same := false
		err := ks.GetFunc([]byte(subject), func(rec []byte) error {
			same = len(rec) >= keyHead && rec[1] == keyLive && keyID(rec[2:18]) == id && id != keyID{}
			return nil
		})
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return false, err
		}
		if !same {
			return false, nil
		}
	}
	return true, nil
}

// Forget removes the key of a subject, by a durable commit: the payloads of its events,
// here and in archives, are Erased from then on, everything else of them stays, and the
// chain of hashes with it. The same commit deletes the snapshots of aggregates that have
// seen one of these payloads, and appends an event of type Forgotten, with the Subject:
// projections see it in its place and delete the rows that they hold about it; what
// their Apply does not delete stays until a rebuild. Appends for the subject fail with
// ErrForgotten. It is no error if the subject is unknown or forgotten already.
//
// What that is worth against who has the disk: the bytes of the key stay in files of the
// log, which are kept while they have events in them, in segments until they are merged,
// in backups. With Options.MasterKeys they are wrapped: open the store with a new master
// key before the old one, and none with the old one first, call Rewrap, and destroy the old one wherever it is. From then
// on nobody can read what was forgotten before, in whatever copy. Without master keys
// only Retain of the events of that time, Checkpoint and Compact remove the last copy on
// this disk, and none in backups.
//
// Payloads that left the store are beyond it: states in memory, rows, what handlers put
// into messages of errors (which dead letters keep), read models elsewhere.
func (s *Store) Forget(ctx context.Context, subject string) error {
	if err := checkKey("subject", subject); err != nil {
		return err
	}
	return s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(s.keys.Name())
		if err != nil {
			return err
		}
		// That it is there is looked at, and not what it is: damage must not keep it.
		rec, err := ks.Get([]byte(subject))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		if tomb := []byte{keyFormat, keyForgotten}; bytes.Equal(rec, tomb) {
			return nil
		} else if err := ks.Put([]byte(subject), tomb); err != nil {
			return err
		}
		if err := s.dropSnapshotsOf(tx, subject); err != nil {
			return err
		}
		_, err = s.append(tx, forgottenStream, Any, []New{{Type: Forgotten, Subject: subject}})
		return err
	})
}

// Readmit lets events of a subject be appended again that was forgotten, under a new
// key. What was forgotten stays so.
func (s *Store) Readmit(ctx context.Context, subject string) error {
	if err := checkKey("subject", subject); err != nil {
		return err
	}
	return s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(s.keys.Name())
		if err != nil {
			return err
		}
		rec, err := ks.Get([]byte(subject))
		if errors.Is(err, forebay.ErrNotFound) || err == nil && !bytes.Equal(rec, []byte{keyFormat, keyForgotten}) {
			return nil
		}
		if err != nil {
			return err
		}
		return ks.Delete([]byte(subject))
	})
}

// Rewrap wraps the keys of all subjects with the first of Options.MasterKeys, a few in
// each of its durable commits, and returns how many it wrapped anew. With it comes what
// Forget says of old master keys. ErrNoMasterKey: there are none, or one is missing.
func (s *Store) Rewrap(ctx context.Context) (n int, err error) {
	if s.ring.first == 0 {
		return 0, ErrNoMasterKey
	}
	const each = 256
	from := []byte{}
	for from != nil {
		done := 0
		next := from
		err := s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
			done = 0
			ks, err := tx.Keyspace(s.keys.Name())
			if err != nil {
				return err
			}
			var puts [][2][]byte
			seen := 0
			next = nil
			for e, err := range ks.Range(from, nil) {
				if err != nil {
					return err
				}
				if seen++; seen > each {
					next = bytes.Clone(e.Key)
					break
				}
				id, master, key, err := s.ring.unwrap(string(e.Key), e.Value)
				if errors.Is(err, ErrForgotten) || err == nil && master == s.ring.first {
					continue
				}
				if err != nil {
					return fmt.Errorf("subject %q: %w", e.Key, err)
				}
				rec, err := s.ring.wrap(s.rand, string(e.Key), id, key)
				if err != nil {
					return err
				}
				puts = append(puts, [2][]byte{bytes.Clone(e.Key), rec})
			}
			for _, kv := range puts {
				if err := ks.Put(kv[0], kv[1]); err != nil {
					return err
				}
			}
			done = len(puts)
			return nil
		})
		if err != nil {
			return n, err
		}
		n += done
		from = next
	}
	return n, nil
}
