package eventstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay"
)

// Appended says where events are.
type Appended struct {
	// First and Last are their versions in the stream.
	First, Last uint64
	// Offset of the first one, and LSN of their commit. AppendTx does not know them.
	Offset, LSN uint64
}

// head is what is kept of a stream's end.
type head struct {
	version uint64 // of the last event, 0: there is none
	at      int64  // its time
	hash    Hash
}

func headKey(stream string) []byte { return append([]byte{'h'}, stream...) }

func (h head) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, h.version)
	b = binary.BigEndian.AppendUint64(b, uint64(h.at))
	return append(b, h.hash[:]...)
}

func decodeHead(b []byte) (h head, err error) {
	if len(b) != 8+8+len(h.hash) {
		return h, fmt.Errorf("%w: head of a stream has %d bytes", ErrDamaged, len(b))
	}
	h.version, h.at = binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))
	copy(h.hash[:], b[16:])
	return h, nil
}

// headOf reads a stream's head; the zero head is that of a stream without events.
func headOf(r forebay.Reader, stream string) (h head, err error) {
	err = r.GetFunc(headKey(stream), func(b []byte) (err error) {
		h, err = decodeHead(b)
		return err
	})
	if errors.Is(err, forebay.ErrNotFound) {
		return head{}, nil
	}
	return h, err
}

// indexPrefix is what the index entries of a stream begin with.
func indexPrefix(stream string) []byte { return append(append([]byte{'i'}, stream...), 0) }

func indexKey(stream string, version uint64) []byte {
	return binary.BigEndian.AppendUint64(indexPrefix(stream), version)
}

// Append appends events to a stream, all of them or none, if it is at the expected
// version, and returns when they have reached Options.Level. Errors: ErrConflict,
// ErrName, ErrForgotten, *forebay.LimitError, and those of forebay.DB.Apply; ctx's, and
// then they may have been appended all the same. To append nothing checks the version.
func (s *Store) Append(ctx context.Context, stream string, expected Expected, events ...New) (Appended, error) {
	var out Appended
	var fate atomic.Pointer[forebay.Outcome]
	err := s.db.UpdateLevel(ctx, s.level, func(tx *forebay.Tx) (err error) {
		tx.OnDone(func(o forebay.Outcome) { fate.Store(&o) })
		out, err = s.AppendTx(tx, stream, expected, events...)
		return err
	})
	if err != nil {
		return Appended{}, err
	}
	if o := fate.Load(); o != nil && len(events) > 0 {
		out.LSN = o.LSN
		out.Offset, _ = o.Appended(s.seq)
	}
	return out, nil
}

// AppendTx appends events when the transaction is committed, together with all else that
// it does. Several appends to one stream in one transaction see each other. It is all or
// nothing: with ErrConflict, ErrName or ErrForgotten the transaction is as it was, and
// can go on; any other error ends this attempt of it, whatever its function returns. The
// level is the transaction's: All, Follow and projections see the events once they are
// durable.
func (s *Store) AppendTx(tx *forebay.Tx, stream string, expected Expected, events ...New) (Appended, error) {
	if err := checkStream(stream); err != nil {
		return Appended{}, err
	}
	for i := range events {
		if strings.HasPrefix(events[i].Type, "$") {
			return Appended{}, fmt.Errorf("%w of a type: %q: those that begin with '$' are the store's own", ErrName, events[i].Type)
		}
		if err := events[i].check(); err != nil {
			return Appended{}, err
		}
	}
	return s.append(tx, stream, expected, events)
}

// append is AppendTx for events that are checked.
func (s *Store) append(tx *forebay.Tx, stream string, expected Expected, events []New) (Appended, error) {
	ks, err := tx.Keyspace(s.main.Name())
	if err != nil {
		return Appended{}, tx.Fail(err)
	}
	h, err := headOf(ks.Reader, stream)
	if err != nil {
		return Appended{}, tx.Fail(err)
	}
	if err := expected.check(stream, h.version); err != nil {
		return Appended{}, err
	}
	if len(events) == 0 {
		return Appended{First: h.version + 1, Last: h.version}, nil
	}
	out := Appended{First: h.version + 1, Last: h.version + uint64(len(events))}
	if now := s.now().UnixNano(); h.version == 0 || now > h.at {
		h.at = now
	}
	// Everything that may be refused is made before anything is written.
	items := make([][]byte, len(events))
	var sealer sealer
	for i := range events {
		n := &events[i]
		var key *subjectKey
		if n.Subject != "" && !strings.HasPrefix(stream, "$") {
			if key, err = s.keyFor(tx, &sealer, n.Subject); err != nil {
				return Appended{}, err
			}
		}
		if items[i], err = s.seal(stream, &h, n, key); err != nil {
			return Appended{}, tx.Fail(err)
		}
	}
	if err := errors.Join(sealer.save(), ks.Put(headKey(stream), h.encode()),
		ks.Put(indexKey(stream, out.First), binary.AppendUvarint(nil, uint64(len(events))))); err != nil {
		return Appended{}, tx.Fail(err)
	}
	for _, item := range items {
		if err := s.topic.AppendTo(tx, item); err != nil {
			return Appended{}, tx.Fail(err)
		}
	}
	return out, nil
}

// seal makes the envelope of a stream's next event, and moves its head.
func (s *Store) seal(stream string, h *head, n *New, key *subjectKey) ([]byte, error) {
	ev := *n
	if ev.ID == (ID{}) {
		if _, err := io.ReadFull(s.rand, ev.ID[:]); err != nil {
			return nil, fmt.Errorf("eventstore: id of an event: %w", err)
		}
	}
	room := fixedSize + 128 + len(stream) + len(n.Type) + len(n.Payload)
	b := appendEnvelope(make([]byte, 0, room), stream, h.version+1, time.Unix(0, h.at), h.hash, &ev, key)
	if key == nil {
		b = append(b, n.Payload...)
	} else {
		var nonce [nonceSize]byte
		if _, err := io.ReadFull(s.rand, nonce[:]); err != nil {
			return nil, fmt.Errorf("eventstore: nonce: %w", err)
		}
		head := b
		b = append(b, nonce[:]...)
		b = key.aead.Seal(b, nonce[:], n.Payload, head)
	}
	h.version++
	h.hash = hashOf(b)
	return b, nil
}
