package queue

import (
	"encoding/binary"
	"fmt"
)

// Kinds of keys: wire format; see doc.go.
const (
	kindHandle  = 'i'
	kindGroup   = 'g'
	kindState   = 's'
	kindParked  = 'p'
	kindBody    = 'b'
	kindWaiting = 'w'
	kindDead    = 'x'
	kindDedupe  = 'D'
	kindExpiry  = 'E'
)

const stateVersion = 1

// state is what is stored of a message in a group.
type state struct {
	settled  bool // done, dead or parked; of the rest it has size then
	size     int64
	delivery uint64 // the number of the last delivery, which fences leases
	attempts uint64 // deliveries since it was enqueued or redriven
	due      int64  // not before; nanoseconds since 1970
	index    int64  // parked: its time in the index of what waits
	time     int64  // at which it was enqueued
	reason   string // why the last attempt failed
}

func (s *state) encode() []byte {
	b := make([]byte, 0, 32+len(s.reason))
	b = append(b, stateVersion)
	if s.settled {
		return binary.AppendUvarint(append(b, 1), uint64(s.size))
	}
	b = binary.AppendUvarint(append(b, 0), uint64(s.size))
	b = binary.AppendUvarint(binary.AppendUvarint(b, s.delivery), s.attempts)
	for _, t := range []int64{s.due, s.index, s.time} {
		b = binary.AppendUvarint(b, uint64(t))
	}
	return appendString(b, s.reason)
}

func decodeState(b []byte) (s state, err error) {
	c := cutter{b: b}
	version, kind := c.byte(), c.byte()
	s.settled = kind == 1
	s.size = int64(c.uvarint())
	if !s.settled {
		s.delivery, s.attempts = c.uvarint(), c.uvarint()
		s.due, s.index, s.time = int64(c.uvarint()), int64(c.uvarint()), int64(c.uvarint())
		s.reason = c.string()
	}
	if c.bad || version != stateVersion || kind > 1 || len(c.b) > 0 || s.size < 0 || s.due < 0 || s.index < 0 {
		return state{}, fmt.Errorf("%w: a message's state: %x", ErrDamaged, b[:min(len(b), 64)])
	}
	return s, nil
}

// deadRecord is a stored dead letter.
type deadRecord struct {
	delivery, attempts uint64
	time, died         int64
	reason             string
	body               []byte
}

func (d *deadRecord) encode() []byte {
	b := append(make([]byte, 0, 48+len(d.reason)+len(d.body)), stateVersion)
	b = binary.AppendUvarint(binary.AppendUvarint(b, d.delivery), d.attempts)
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(d.time)), uint64(d.died))
	return append(appendString(b, d.reason), d.body...)
}

func decodeDead(b []byte) (d deadRecord, err error) {
	c := cutter{b: b}
	version := c.byte()
	d.delivery, d.attempts = c.uvarint(), c.uvarint()
	d.time, d.died = int64(c.uvarint()), int64(c.uvarint())
	d.reason = c.string()
	if c.bad || version != stateVersion {
		return deadRecord{}, fmt.Errorf("%w: a dead letter: %x", ErrDamaged, b[:min(len(b), 64)])
	}
	d.body = c.b
	return d, nil
}

// prefix is what the group's keys of a kind begin with.
func (g *group) prefix(kind byte) []byte {
	return append([]byte{kind, byte(len(g.name))}, g.name...)
}

func appendID(b []byte, id ID) []byte {
	return binary.BigEndian.AppendUint64(append(b, id.Lane), id.Offset)
}

func (g *group) key(kind byte, id ID) []byte { return appendID(g.prefix(kind), id) }

func (g *group) waitingKey(at int64, id ID) []byte {
	return appendID(binary.BigEndian.AppendUint64(g.prefix(kindWaiting), uint64(at)), id)
}

// idOf returns the id at the end of a key.
func idOf(key []byte) (ID, error) {
	if len(key) < 9 {
		return ID{}, fmt.Errorf("%w: key %x", ErrDamaged, key)
	}
	tail := key[len(key)-9:]
	return ID{Lane: tail[0], Offset: binary.BigEndian.Uint64(tail[1:])}, nil
}

// behind returns the first key behind all that begin with a prefix of this package,
// which is not of 0xff alone.
func behind(prefix []byte) []byte {
	out := append([]byte(nil), prefix...)
	for i := len(out) - 1; ; i-- {
		if out[i]++; out[i] != 0 {
			return out[:i+1]
		}
	}
}

// encodeStarts is what is stored of a group: the offset at which it began in each lane.
func encodeStarts(starts [laneLater + 1]uint64) []byte {
	b := []byte{stateVersion, laneLater + 1}
	for _, s := range starts {
		b = binary.AppendUvarint(b, s)
	}
	return b
}

func decodeStarts(b []byte) (starts [laneLater + 1]uint64, err error) {
	c := cutter{b: b}
	if version, n := c.byte(), c.byte(); version != stateVersion || n != laneLater+1 {
		return starts, fmt.Errorf("%w: a group: %x", ErrDamaged, b[:min(len(b), 64)])
	}
	for i := range starts {
		starts[i] = c.uvarint()
	}
	if c.bad || len(c.b) > 0 {
		return starts, fmt.Errorf("%w: a group: %x", ErrDamaged, b[:min(len(b), 64)])
	}
	return starts, nil
}

// cut shortens a reason to what is stored of it.
func cut(reason string) string { return reason[:min(len(reason), MaxReason)] }
