package eventstore

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	envelopeFormat = 1
	flagSealed     = 1
	// topicTime is what a topic puts before a message: its time.
	topicTime = 8
	// fixedSize is the length of what comes before the version.
	fixedSize = 2 + 16 + 8 + 32
)

func hashOf(envelope []byte) Hash { return sha256.Sum256(envelope) }

func (n *New) check() error {
	if err := checkKey("type", n.Type); err != nil {
		return err
	}
	if n.Subject != "" {
		if err := checkKey("subject", n.Subject); err != nil {
			return err
		}
	}
	if len(n.Correlation) > maxString || len(n.Causation) > maxString {
		return fmt.Errorf("%w: correlation and causation have at most %d bytes", ErrName, maxString)
	}
	if len(n.Headers) > maxHeaders {
		return fmt.Errorf("%w: %d headers, at most %d", ErrName, len(n.Headers), maxHeaders)
	}
	for name, value := range n.Headers {
		if err := checkKey("header", name); err != nil {
			return err
		}
		if len(value) > maxText {
			return fmt.Errorf("%w: header %q has %d bytes, at most %d", ErrName, name, len(value), maxText)
		}
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendEnvelope appends an event up to its payload. key is nil when it is not sealed.
func appendEnvelope(b []byte, stream string, version uint64, at time.Time, prev Hash, n *New, key *subjectKey) []byte {
	flags := byte(0)
	if key != nil {
		flags = flagSealed
	}
	b = append(b, envelopeFormat, flags)
	b = append(b, n.ID[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(at.UnixNano()))
	b = append(b, prev[:]...)
	b = binary.AppendUvarint(b, version)
	b = appendString(b, stream)
	b = appendString(b, n.Type)
	b = binary.AppendUvarint(b, uint64(max(n.Schema, 1)))
	b = appendString(b, n.Correlation)
	b = appendString(b, n.Causation)
	b = appendString(b, n.Subject)
	if key != nil {
		b = append(b, key.id[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(n.Headers)))
	for _, name := range slices.Sorted(maps.Keys(n.Headers)) {
		b = appendString(appendString(b, name), n.Headers[name])
	}
	return b
}

// decoder takes an envelope apart. After the first error all that it returns is zero.
type decoder struct {
	b     []byte
	bad   bool
	names *names
}

func (d *decoder) bytes(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	// Only the shortest form is one: else two envelopes would be one event.
	if d.bad || n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) slice(limit uint64) []byte {
	n := d.uvarint()
	if n > limit {
		d.bad = true
		return nil
	}
	return d.bytes(n)
}

func (d *decoder) string() string { return d.names.get(d.slice(maxString)) }

// names keeps the strings that come again and again, so that each event need not make
// its own. It belongs to one iteration.
type names struct{ known map[string]string }

func (n *names) get(b []byte) string {
	if n == nil || len(b) == 0 {
		return string(b)
	}
	if s, ok := n.known[string(b)]; ok {
		return s
	}
	if n.known == nil || len(n.known) >= 4096 {
		n.known = map[string]string{}
	}
	s := string(b)
	n.known[s] = s
	return s
}

// isOf says whether an envelope is of a stream, and of which version.
func isOf(raw []byte, stream string) (version uint64, ok bool) {
	if len(raw) < fixedSize || raw[0] != envelopeFormat {
		return 0, false
	}
	d := decoder{b: raw[fixedSize:]}
	version = d.uvarint()
	got := d.slice(maxString)
	return version, !d.bad && string(got) == stream
}

// decode takes apart the envelope of an item, which it keeps. The payload is as it is
// stored.
func decode(raw []byte, offset, lsn uint64, n *names) (ev Event, sealed bool, err error) {
	damaged := func(why string) (Event, bool, error) {
		return Event{}, false, fmt.Errorf("%w: event at offset %d: %s", ErrDamaged, offset, why)
	}
	switch {
	case len(raw) < fixedSize:
		return damaged("too short")
	case raw[0] != envelopeFormat:
		return damaged(fmt.Sprintf("format %d", raw[0]))
	case raw[1]&^flagSealed != 0:
		return damaged(fmt.Sprintf("flags %x", raw[1]))
	}
	sealed = raw[1]&flagSealed != 0
	ev = Event{Offset: offset, LSN: lsn, raw: raw}
	copy(ev.ID[:], raw[2:])
	ev.Time = time.Unix(0, int64(binary.LittleEndian.Uint64(raw[18:])))
	copy(ev.Prev[:], raw[26:])
	d := decoder{b: raw[fixedSize:], names: n}
	ev.Version = d.uvarint()
	ev.Stream, ev.Type = d.string(), d.string()
	schema := d.uvarint()
	ev.Schema = uint32(schema)
	ev.Correlation, ev.Causation, ev.Subject = string(d.slice(maxString)), string(d.slice(maxString)), d.string()
	if sealed {
		copy(ev.key[:], d.bytes(uint64(len(ev.key))))
	}
	headers := d.uvarint()
	if d.bad || headers > maxHeaders || schema == 0 || schema != uint64(ev.Schema) || ev.Version == 0 || ev.Stream == "" || ev.Type == "" || sealed && ev.Subject == "" {
		return damaged("its head")
	}
	if headers > 0 {
		ev.Headers = make(map[string]string, headers)
		for range headers {
			name := d.string()
			ev.Headers[name] = string(d.slice(maxText))
		}
	}
	if d.bad || uint64(len(ev.Headers)) != headers {
		return damaged("its headers")
	}
	ev.Payload = d.b
	return ev, sealed, nil
}
