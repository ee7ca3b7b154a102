package eventstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/forebaydb/forebay"
)

// snapshot is the state of an aggregate behind a version of its stream. It is stored as
// a format (1), schema, version (uvarint), time (8 bytes), the hash of the version's
// event, the number of subjects (uvarint), each with its name and the id of the key that
// its payloads were read with, and the state.
type snapshot struct {
	schema   uint32
	version  uint64
	at       int64
	hash     Hash
	subjects opened
	state    []byte
}

const (
	snapshotFormat = 1
	// maxSubjects is how many subjects a snapshot may know of: who has more has none.
	maxSubjects = 4096
)

// ErrSubjects: a state has been made from payloads of more than 4,096 subjects, and so
// it has no snapshots.
var ErrSubjects = errors.New("eventstore: too many subjects in a snapshot")

func snapshotPrefix(aggregate, stream string) []byte {
	b := append([]byte{'s'}, aggregate...)
	return append(append(append(b, 0), stream...), 0)
}

func snapshotKey(aggregate, stream string, version uint64) []byte {
	return binary.BigEndian.AppendUint64(snapshotPrefix(aggregate, stream), version)
}

// subjectPrefix is what the keys begin with that say which snapshots have seen payloads
// of a subject; behind it comes the snapshot's key.
func subjectPrefix(subject string) []byte { return append(append([]byte{'b'}, subject...), 0) }

func (p *snapshot) encode() []byte {
	b := binary.AppendUvarint([]byte{snapshotFormat}, uint64(p.schema))
	b = binary.AppendUvarint(b, p.version)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.at))
	b = append(b, p.hash[:]...)
	b = binary.AppendUvarint(b, uint64(len(p.subjects)))
	for _, subject := range slices.Sorted(maps.Keys(p.subjects)) {
		id := p.subjects[subject]
		b = append(appendString(b, subject), id[:]...)
	}
	return append(b, p.state...)
}

func decodeSnapshot(b []byte) (*snapshot, error) {
	if len(b) == 0 || b[0] != snapshotFormat {
		return nil, fmt.Errorf("%w: snapshot", ErrDamaged)
	}
	d := decoder{b: b[1:]}
	p := snapshot{schema: uint32(d.uvarint()), version: d.uvarint()}
	if at := d.bytes(8); !d.bad {
		p.at = int64(binary.LittleEndian.Uint64(at))
	}
	copy(p.hash[:], d.bytes(uint64(len(p.hash))))
	n := d.uvarint()
	if d.bad || n > maxSubjects {
		return nil, fmt.Errorf("%w: snapshot", ErrDamaged)
	}
	for range n {
		subject := d.string()
		id := d.bytes(uint64(len(keyID{})))
		if d.bad {
			return nil, fmt.Errorf("%w: snapshot", ErrDamaged)
		}
		p.subjects.put(subject, keyID(id))
	}
	p.state = bytes.Clone(d.b)
	return &p, nil
}

// newestSnapshot returns the newest snapshot that may serve, or nil. One that does not
// decode, or is of another schema, is none.
func (s *Store) newestSnapshot(aggregate, stream string, schema uint32, to until) (*snapshot, error) {
	lo, hi := snapshotPrefix(aggregate, stream), snapshotKey(aggregate, stream, to.version)
	for e, err := range s.snaps.RangeReverse(lo, append(hi, 0)) {
		if err != nil {
			return nil, err
		}
		p, err := decodeSnapshot(e.Value)
		if err != nil || p.schema != schema || p.version > to.version || !bytes.Equal(e.Key, snapshotKey(aggregate, stream, p.version)) {
			continue
		}
		if !to.timed || !time.Unix(0, p.at).After(to.at) {
			return p, nil
		}
	}
	return nil, nil
}

// saveSnapshot saves a snapshot, and deletes what are too many. A subject that it has
// seen a payload of, and that was forgotten since, leaves it unsaved: ErrForgotten.
func (s *Store) saveSnapshot(ctx context.Context, aggregate, stream string, p *snapshot, keep int) error {
	if len(p.subjects) > maxSubjects {
		return fmt.Errorf("%w: %d", ErrSubjects, len(p.subjects))
	}
	// It need not outlive a crash: Forget is durable behind it, never before it.
	return s.db.UpdateLevel(ctx, forebay.Buffered, func(tx *forebay.Tx) error {
		if ok, err := s.still(tx, p.subjects); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("%w: snapshot of stream %q", ErrForgotten, stream)
		}
		ks, err := tx.Keyspace(s.snaps.Name())
		if err != nil {
			return err
		}
		key := snapshotKey(aggregate, stream, p.version)
		var older [][2][]byte // of the same schema
		newer := 0
		var gone [][2][]byte
		for e, err := range ks.Prefix(snapshotPrefix(aggregate, stream)) {
			if err != nil {
				return err
			}
			had := [2][]byte{bytes.Clone(e.Key), bytes.Clone(e.Value)}
			switch other, err := decodeSnapshot(e.Value); {
			case err != nil || other.schema != p.schema:
				gone = append(gone, had)
			case other.version < p.version:
				older = append(older, had)
			case other.version > p.version:
				newer++
			}
		}
		if newer >= keep {
			return nil
		}
		gone = append(gone, older[:max(0, len(older)-(keep-1-newer))]...)
		for _, kv := range gone {
			if err := deleteSnapshot(ks, kv[0], kv[1]); err != nil {
				return err
			}
		}
		for subject := range p.subjects {
			if err := ks.Put(append(subjectPrefix(subject), key...), nil); err != nil {
				return err
			}
		}
		return ks.Put(key, p.encode())
	})
}

// deleteSnapshot deletes a snapshot and what says who is in it.
func deleteSnapshot(ks forebay.Space, key, value []byte) error {
	if p, err := decodeSnapshot(value); err == nil {
		for subject := range p.subjects {
			if err := ks.Delete(append(subjectPrefix(subject), key...)); err != nil {
				return err
			}
		}
	}
	return ks.Delete(key)
}

// dropSnapshotsOf deletes, in a transaction, the snapshots that have seen payloads of a
// subject.
func (s *Store) dropSnapshotsOf(tx *forebay.Tx, subject string) error {
	ks, err := tx.Keyspace(s.snaps.Name())
	if err != nil {
		return err
	}
	prefix := subjectPrefix(subject)
	var keys [][]byte
	for e, err := range ks.Prefix(prefix) {
		if err != nil {
			return err
		}
		keys = append(keys, bytes.Clone(e.Key))
	}
	for _, key := range keys {
		value, err := ks.Get(key[len(prefix):])
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		if err := errors.Join(deleteSnapshot(ks, key[len(prefix):], value), ks.Delete(key)); err != nil {
			return err
		}
	}
	return nil
}

// dropSnapshots deletes the snapshots of one kind of aggregate.
func (s *Store) dropSnapshots(ctx context.Context, aggregate string) error {
	prefix := append(append([]byte{'s'}, aggregate...), 0)
	return s.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(s.snaps.Name())
		if err != nil {
			return err
		}
		var all []forebay.Entry
		for e, err := range ks.Prefix(prefix) {
			if err != nil {
				return err
			}
			all = append(all, forebay.Entry{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value)})
		}
		for _, e := range all {
			if err := deleteSnapshot(ks, e.Key, e.Value); err != nil {
				return err
			}
		}
		return nil
	})
}
