package real

import (
	"encoding/binary"
	"io"
	"sync"

	"github.com/forebaydb/forebay"
)

// reportKind is what a report tells.
type reportKind uint8

const (
	sayOpening  reportKind = iota // the open begins
	sayOpened                     // it ended, at lsn
	sayBegin                      // commit number of writer is about to be made
	sayAck                        // it was acknowledged at level, as lsn; 0: not known
	sayFailed                     // it was refused, or failed: it may be there or not
	sayDurable                    // all through lsn is durable
	sayPhase                      // phase begins
	sayPhaseEnd                   // phase ends
)

// report is what a load says of itself. It is sixteen bytes long on the pipe:
//
//	0     1       2      3      4       8
//	kind  writer  level  phase  number  lsn      little endian
type report struct {
	kind   reportKind
	writer uint8
	level  forebay.Level
	phase  phase
	number uint32
	lsn    uint64
}

const reportSize = 16

func (r report) append(b []byte) []byte {
	b = append(b, byte(r.kind), r.writer, byte(r.level), byte(r.phase))
	b = binary.LittleEndian.AppendUint32(b, r.number)
	return binary.LittleEndian.AppendUint64(b, r.lsn)
}

// readReport reads one report; io.EOF is the end of the child.
func readReport(r io.Reader) (report, error) {
	var b [reportSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return report{}, err
	}
	return report{
		kind: reportKind(b[0]), writer: b[1], level: forebay.Level(b[2]), phase: phase(b[3]),
		number: binary.LittleEndian.Uint32(b[4:]), lsn: binary.LittleEndian.Uint64(b[8:]),
	}, nil
}

// teller takes reports from many goroutines.
type teller func(report)

// tellPipe writes each report at once, in one write, so that none is ever half
// there. The load ends when the parent does: its first report then fails.
func tellPipe(w io.Writer) teller {
	var mu sync.Mutex // reports are not to be mixed where a pipe may take a part
	var buf []byte
	return func(r report) {
		mu.Lock()
		defer mu.Unlock()
		buf = r.append(buf[:0])
		_, _ = w.Write(buf) // without a parent SIGPIPE, or an end of the process that nobody sees
	}
}

// life is what is known of one life of a store: all that a load said.
type life struct {
	number int
	opened bool
	// shown is the LSN at which the load found the store.
	shown   uint64
	begun   map[int]uint32 // the last number, by writer
	failed  map[place]bool
	acks    []ack
	durable uint64
	phases  [numPhases]int // how often each was begun and not ended
	last    phase          // in which the crash fell
}

type ack struct {
	place
	level forebay.Level
	lsn   uint64
}

func newLife(number int) *life {
	return &life{number: number, begun: map[int]uint32{}, failed: map[place]bool{}}
}

// note takes one report in.
func (l *life) note(r report) {
	switch r.kind {
	case sayOpening:
		l.phases[phaseOpen]++
	case sayOpened:
		l.opened, l.shown = true, r.lsn
		l.phases[phaseOpen]--
	case sayBegin:
		l.begun[int(r.writer)] = r.number
	case sayAck:
		l.acks = append(l.acks, ack{place{l.number, int(r.writer), r.number}, r.level, r.lsn})
	case sayFailed:
		l.failed[place{l.number, int(r.writer), r.number}] = true
	case sayDurable:
		l.durable = max(l.durable, r.lsn)
	case sayPhase:
		l.phases[r.phase]++
	case sayPhaseEnd:
		l.phases[r.phase]--
	}
}

// fell says in which phase the life ended.
func (l *life) fell() phase {
	for p := phase(0); p < phaseWrite; p++ {
		if l.phases[p] > 0 {
			return p
		}
	}
	if len(l.begun) == 0 {
		return phaseStart
	}
	return phaseWrite
}
