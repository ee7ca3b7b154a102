package buffer

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Records of the keyspace; all numbers are uvarints. That is a wire format.
const recordVersion = 1

var (
	ownerKey = []byte("owner")
	stateKey = []byte("state")
)

const (
	cutPrefix  = 'c'
	lanePrefix = 'l'
	deadPrefix = 'd'
)

func numberKey(prefix byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, n)
}

func laneKey(cut uint64, lane int) []byte {
	return binary.BigEndian.AppendUint16(numberKey(lanePrefix, cut), uint16(lane))
}

// numberOf reads the number of a key of one prefix; rest is what comes behind it.
func numberOf(key []byte) (n uint64, rest []byte, err error) {
	if len(key) < 9 {
		return 0, nil, fmt.Errorf("%w: a key of %d bytes", ErrDamaged, len(key))
	}
	return binary.BigEndian.Uint64(key[1:]), key[9:], nil
}

// token is of one Open.
type token [16]byte

// counters are what the store remembers of a buffer as a whole:
//
//	version, next, cuts, deaths, done, dead, purged, redriven, lost, again
type counters struct {
	next     uint64 // the offset at which the next cut begins
	cuts     uint64 // the number of the next cut
	deaths   uint64 // the number of the next dead letter
	done     uint64 // rows that are in the sink
	dead     uint64 // dead letters that are there
	purged   uint64 // dead letters that were thrown away
	redriven uint64 // dead letters that were appended again, under new offsets
	lost     uint64 // rows that a salvage of the store could not read
	again    uint64 // offsets below next that came twice, behind a salvage
}

func (c *counters) fields() []*uint64 {
	return []*uint64{&c.next, &c.cuts, &c.deaths, &c.done, &c.dead, &c.purged, &c.redriven, &c.lost, &c.again}
}

// settled is how many offsets have come to something.
func (c *counters) settled() uint64 { return c.done + c.dead + c.purged + c.redriven + c.lost }

// pending is how many of the offsets before next have not.
func (c *counters) pending(next uint64) uint64 {
	given := next + c.again
	return given - min(given, c.settled())
}

func (c counters) encode() []byte {
	b := []byte{recordVersion}
	for _, f := range c.fields() {
		b = binary.AppendUvarint(b, *f)
	}
	return b
}

func decodeCounters(b []byte) (c counters, err error) {
	d := decoder{b: b}
	d.version("state")
	for _, f := range c.fields() {
		*f = d.uvarint()
	}
	return c, d.end()
}

func (d *decoder) version(what string) {
	if v := d.byte(); d.err == nil && v != recordVersion {
		d.fail()
		d.err = fmt.Errorf("%w: %s of version %d", ErrDamaged, what, v)
	}
}

// cut is a range of offsets, [first, end), that is written in lanes:
//
//	version, token (16 bytes), first, end - first, lanes
type cut struct {
	number     uint64
	token      token
	first, end uint64
	lanes      int

	left   int       // lanes that are not finished; known when it is loaded
	stored []int     // lanes that have a plan in the store
	oldest time.Time // of its rows
}

func (c *cut) encode() []byte {
	b := append([]byte{recordVersion}, c.token[:]...)
	b = binary.AppendUvarint(b, c.first)
	b = binary.AppendUvarint(b, c.end-c.first)
	return binary.AppendUvarint(b, uint64(c.lanes))
}

func decodeCut(number uint64, b []byte) (*cut, error) {
	c := &cut{number: number}
	d := decoder{b: b}
	d.version("cut")
	copy(c.token[:], d.take(uint64(len(c.token))))
	c.first = d.uvarint()
	c.end = c.first + d.uvarint()
	lanes := d.uvarint()
	if err := d.end(); err != nil {
		return nil, err
	}
	if c.end <= c.first || lanes == 0 || lanes > MaxLanes {
		return nil, fmt.Errorf("%w: a cut of offsets %d to %d in %d lanes", ErrDamaged, c.first, c.end, lanes)
	}
	c.lanes = int(lanes)
	return c, nil
}

// span is a range of offsets, [lo, hi).
type span struct{ lo, hi uint64 }

// piece is what one batch has of a cut: those rows of a lane that are in its spans,
// which are ascending.
type piece struct {
	gen    uint64
	writes uint64 // that rows of it were in
	spans  []span
}

// plan is what a lane has left of a cut, in the order in which it is written:
//
//	version, next generation, number of pieces; of each: generation, writes, number of
//	spans; of each: lo - end of the one before, hi - lo
//
// where the first span of a piece begins at the cut's first offset, so to say. A lane
// without a plan in the store has one piece, of generation 0, of all the cut.
type plan struct {
	next   uint64
	pieces []piece
}

func wholePlan(c *cut) plan {
	return plan{next: 1, pieces: []piece{{spans: []span{{c.first, c.end}}}}}
}

func (p *plan) encode(c *cut) []byte {
	b := binary.AppendUvarint([]byte{recordVersion}, p.next)
	b = binary.AppendUvarint(b, uint64(len(p.pieces)))
	for _, q := range p.pieces {
		b = binary.AppendUvarint(b, q.gen)
		b = binary.AppendUvarint(b, q.writes)
		b = binary.AppendUvarint(b, uint64(len(q.spans)))
		at := c.first
		for _, s := range q.spans {
			b = binary.AppendUvarint(b, s.lo-at)
			b = binary.AppendUvarint(b, s.hi-s.lo)
			at = s.hi
		}
	}
	return b
}

func decodePlan(c *cut, b []byte) (p plan, err error) {
	d := decoder{b: b}
	d.version("plan")
	p.next = d.uvarint()
	for n := d.uvarint(); n > 0 && d.err == nil; n-- {
		q := piece{gen: d.uvarint(), writes: d.uvarint()}
		at := c.first
		for m := d.uvarint(); m > 0 && d.err == nil; m-- {
			lo, size := d.uvarint(), d.uvarint()
			if left := c.end - at; d.err == nil && (lo > left || size == 0 || size > left-lo) {
				d.fail()
				d.err = fmt.Errorf("%w: a piece goes beyond its cut", ErrDamaged)
			}
			q.spans = append(q.spans, span{at + lo, at + lo + size})
			at += lo + size
		}
		if d.err == nil && q.gen >= p.next {
			d.fail()
			d.err = fmt.Errorf("%w: a piece of generation %d where the next is %d", ErrDamaged, q.gen, p.next)
		}
		p.pieces = append(p.pieces, q)
	}
	return p, d.end()
}

// DeadLetter is a row that the sink refused for good.
type DeadLetter struct {
	// Number of the letter: letters are numbered in the order in which they died.
	Number uint64
	// Offset the row had, and when it was added.
	Offset uint64
	Added  time.Time
	Row
	// Reason is what the sink said, at most MaxReason bytes of it, and Batch the id of
	// the batch that it said it of.
	Reason, Batch string
	// Attempts is in how many writes the row was, as far as they are known: those of an
	// attempt that ended in a crash are not.
	Attempts uint64
	// Died is when it became a dead letter.
	Died time.Time
	// Damaged: the row did not decode. Value is all that there was of it.
	Damaged bool
}

// MaxReason is the longest DeadLetter.Reason, in bytes.
const MaxReason = 1 << 10

// A dead letter is stored as
//
//	version, flags (bit 0: damaged), offset, attempts, died, added (nanoseconds since
//	1970, 8 bytes each), reason, batch (each with its length), envelope; or, of a row
//	that is damaged, what there was of it
func (l *DeadLetter) encode() []byte {
	flags := uint64(0)
	if l.Damaged {
		flags = 1
	}
	b := binary.AppendUvarint([]byte{recordVersion}, flags)
	b = binary.AppendUvarint(b, l.Offset)
	b = binary.AppendUvarint(b, l.Attempts)
	b = binary.LittleEndian.AppendUint64(b, uint64(nanos(l.Died)))
	b = binary.LittleEndian.AppendUint64(b, uint64(nanos(l.Added)))
	b = appendBytes(b, l.Reason)
	b = appendBytes(b, l.Batch)
	if l.Damaged {
		return append(b, l.Value...)
	}
	return appendEnvelope(b, l.Row, time.Time{})
}

func decodeDead(number uint64, b []byte) (*DeadLetter, error) {
	l := &DeadLetter{Number: number}
	d := decoder{b: b}
	d.version("dead letter")
	flags := d.uvarint()
	l.Offset, l.Attempts = d.uvarint(), d.uvarint()
	l.Died, l.Added = time.Unix(0, int64(d.fixed64())), time.Unix(0, int64(d.fixed64()))
	l.Reason, l.Batch = string(d.bytes()), string(d.bytes())
	if d.err != nil {
		return nil, d.err
	}
	if flags > 1 {
		return nil, fmt.Errorf("%w: dead letter %d has flags %d", ErrDamaged, number, flags)
	}
	if l.Damaged = flags == 1; l.Damaged {
		l.Value = d.b
		return l, nil
	}
	r := row{}
	if err := decodeEnvelope(d.b, &r.Row); err != nil {
		return nil, err
	}
	l.Row = Row{r.Key, r.Value, r.Headers}
	return l, nil
}

// reason makes a text of an error that may be stored.
func reason(err error) string {
	s := "no reason"
	if err != nil {
		s = err.Error()
	}
	return strings.ToValidUTF8(s[:min(len(s), MaxReason)], "")
}

// nanos is 0 of the zero time: of a row whose time does not decode.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
