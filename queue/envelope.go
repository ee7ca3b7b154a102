package queue

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Limits of the parts of a message, in bytes.
const (
	MaxKey      = 1024
	MaxDedupeID = 255
	MaxHeaders  = 16 << 10 // of all names and values together
	MaxReason   = 1024     // what is longer is cut
	MaxMessage  = 16 << 20 // of payload, key, headers and all
	// MaxPriorities is how many priorities a queue may have.
	MaxPriorities = 10
)

// maxDelay keeps times within what nanoseconds can say.
const maxDelay = 100 * 365 * 24 * time.Hour

// laneLater is the lane of what is delayed; the lanes below are priorities.
const laneLater = MaxPriorities

// ID names a message of a queue.
type ID struct {
	// Lane is the priority of the message, or MaxPriorities for one that was delayed.
	Lane   uint8
	Offset uint64
}

// String returns lane and offset: "0-17".
func (id ID) String() string {
	return strconv.Itoa(int(id.Lane)) + "-" + strconv.FormatUint(id.Offset, 10)
}

// Meta is what goes with a message beside its value. The zero Meta is a plain message.
type Meta struct {
	// Key: messages with one key, not empty, of one priority and without a delay are
	// handled one after the other, in the order of their commits, in each group. One
	// that is tried again holds up those behind it, until it is done or dead.
	Key string
	// Delay is for how long it is not delivered. By the clock on the wall: it goes on
	// while the process does not run.
	Delay time.Duration
	// DedupeID: a second message with the same id, not empty, is refused with a
	// *DuplicateError for as long as Options say.
	DedupeID string
	// Priority from 0 to Options.Priorities-1: what is higher is delivered first.
	Priority int
	// Headers go with the message to whom it is delivered.
	Headers map[string]string
}

// Flags of an envelope: wire format.
const (
	envelopeVersion = 1

	hasPriority  = 1 << 0
	hasNotBefore = 1 << 1
	hasKey       = 1 << 2
	hasDedupe    = 1 << 3
	hasHeaders   = 1 << 4
	knownFlags   = hasPriority | hasNotBefore | hasKey | hasDedupe | hasHeaders
)

// envelope is a stored message, decoded.
type envelope struct {
	priority  uint8
	notBefore int64 // nanoseconds since 1970; 0: at once
	key       string
	dedupe    string
	headers   map[string]string
	payload   []byte // part of what was decoded
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendEnvelope appends all but the payload.
func appendEnvelope(b []byte, m *Meta, notBefore int64) []byte {
	at := len(b) + 1
	b = append(b, envelopeVersion, 0)
	var set byte
	if m.Priority > 0 {
		set |= hasPriority
		b = append(b, byte(m.Priority))
	}
	if notBefore != 0 {
		set |= hasNotBefore
		b = binary.BigEndian.AppendUint64(b, uint64(notBefore))
	}
	if m.Key != "" {
		set |= hasKey
		b = appendString(b, m.Key)
	}
	if m.DedupeID != "" {
		set |= hasDedupe
		b = appendString(b, m.DedupeID)
	}
	if len(m.Headers) > 0 {
		set |= hasHeaders
		b = binary.AppendUvarint(b, uint64(len(m.Headers)))
		for _, k := range slices.Sorted(maps.Keys(m.Headers)) { // the same bytes each time
			b = appendString(appendString(b, k), m.Headers[k])
		}
	}
	b[at] = set
	return b
}

// cutter takes stored bytes apart. Behind the first thing that is not there all is zero.
type cutter struct {
	b   []byte
	bad bool
}

func (c *cutter) byte() byte {
	b := c.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (c *cutter) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cutter) uint64() uint64 {
	if b := c.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (c *cutter) uvarint() uint64 {
	if c.bad {
		return 0
	}
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cutter) string() string { return string(c.take(c.uvarint())) }

// decodeEnvelope decodes what it shares memory with.
func decodeEnvelope(b []byte) (envelope, error) {
	c := cutter{b: b}
	version, flags := c.byte(), c.byte()
	switch {
	case c.bad:
		return envelope{}, fmt.Errorf("%w: an envelope of %d bytes", ErrDamaged, len(b))
	case version != envelopeVersion || flags&^knownFlags != 0:
		return envelope{}, fmt.Errorf("%w: an envelope of version %d with flags %#x", ErrDamaged, version, flags)
	}
	var e envelope
	if flags&hasPriority != 0 {
		e.priority = c.byte()
	}
	if flags&hasNotBefore != 0 {
		e.notBefore = int64(c.uint64())
	}
	if flags&hasKey != 0 {
		e.key = c.string()
	}
	if flags&hasDedupe != 0 {
		e.dedupe = c.string()
	}
	if flags&hasHeaders != 0 {
		n := c.uvarint()
		if n > uint64(len(c.b)) { // each has two bytes and more
			c.bad = true
		} else {
			e.headers = make(map[string]string, min(n, 64))
		}
		for ; n > 0 && !c.bad; n-- {
			k := c.string()
			e.headers[k] = c.string()
		}
	}
	if c.bad || e.priority >= MaxPriorities || e.notBefore < 0 {
		return envelope{}, fmt.Errorf("%w: an envelope of %d bytes that does not decode", ErrDamaged, len(b))
	}
	e.payload = c.b
	return e, nil
}
