package demo

import (
	"encoding/binary"
	"io"

	"github.com/forebaydb/forebay"
)

// What parent and writer say to each other. The parent sends one order, in gob,
// on the writer's standard input; the writer answers on its standard output with
// reports of a fixed size, each in one write, so that none is ever half there.

// order is what a writer is to do.
type order struct {
	Store   string
	From    string
	Level   forebay.Level
	Workers int
	Jobs    []job
}

// job is one put: the content of a file under a key.
type job struct {
	Number uint32
	Key    string
	Path   string
}

// report is written after a put was acknowledged, and, with number ready, when
// the store is open and the writing begins.
//
//	0       4           8         16      24
//	number  latency µs  records   syncs        little endian
type report struct {
	number  uint32
	latency uint32
	records int64 // of the log since the writer's open
	syncs   int64
}

const (
	reportSize = 24
	ready      = ^uint32(0)
)

func (r *report) encode() []byte {
	b := make([]byte, 0, reportSize)
	b = binary.LittleEndian.AppendUint32(b, r.number)
	b = binary.LittleEndian.AppendUint32(b, r.latency)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.records))
	return binary.LittleEndian.AppendUint64(b, uint64(r.syncs))
}

// readReport reads one report; io.EOF is the end of the writer.
func readReport(r io.Reader) (report, error) {
	var b [reportSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return report{}, err
	}
	return report{
		number:  binary.LittleEndian.Uint32(b[0:]),
		latency: binary.LittleEndian.Uint32(b[4:]),
		records: int64(binary.LittleEndian.Uint64(b[8:])),
		syncs:   int64(binary.LittleEndian.Uint64(b[16:])),
	}, nil
}
