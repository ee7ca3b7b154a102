package base

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// LogFile is what a catalog says of one log file.
type LogFile struct {
	Number uint64
	Salt   uint64
	// Epoch of every frame in the file.
	Epoch uint64
	// Retained files lie at or below the floor: closed, never replayed, kept
	// for somebody. First, Last, Hash, Index and Keep are set for them alone.
	Retained bool
	// First and Last are the LSNs of the file's first and last record that
	// count.
	First, Last LSN
	// Hash is the closing hash of the frame that holds Last.
	Hash uint64
	// Index is the offset of the file's index frame; 0: none.
	Index int64
	// Keep is the sum of the keep-counts of its records, in bytes.
	Keep uint64
	// Archived says that the archive hook has had the file.
	Archived bool
	// Cut says that no record above CutLSN counts in this file, whatever it
	// holds; CutHash is the closing hash of the frame that holds CutLSN.
	Cut     bool
	CutLSN  LSN
	CutHash uint64
}

// LogFloor is the place in the history behind which the log is contiguous and
// replayed: behind record LSN of file File. The zero floor is the beginning.
type LogFloor struct {
	File uint64
	LSN  LSN
	// Hash is the closing hash of the frame that holds LSN.
	Hash uint64
	// Epoch of record LSN.
	Epoch uint64
}

// LogState is what a catalog knows of a log.
type LogState struct {
	// Files ascend by number.
	Files []LogFile
	Floor LogFloor
	// Epoch and Number are the highest ever listed.
	Epoch, Number uint64
	// Pins hold files: a file whose last LSN is at or above a pin stays.
	Pins map[string]LSN
}

// LogEdit changes a LogState; zero fields change nothing.
type LogEdit struct {
	// Put adds files or replaces those of the same number.
	Put    []LogFile
	Remove []uint64
	Floor  *LogFloor
	Epoch  uint64
	Number uint64
	Pin    map[string]LSN
	Unpin  []string
}

// Apply changes the state by an edit.
func (s *LogState) Apply(e *LogEdit) {
	for _, f := range e.Put {
		i, found := slices.BinarySearchFunc(s.Files, f.Number, func(a LogFile, n uint64) int { return cmp.Compare(a.Number, n) })
		if found {
			s.Files[i] = f
		} else {
			s.Files = slices.Insert(s.Files, i, f)
		}
		s.Epoch = max(s.Epoch, f.Epoch)
		s.Number = max(s.Number, f.Number)
	}
	if len(e.Remove) > 0 {
		s.Files = slices.DeleteFunc(s.Files, func(f LogFile) bool { return slices.Contains(e.Remove, f.Number) })
	}
	if e.Floor != nil {
		s.Floor = *e.Floor
	}
	s.Epoch = max(s.Epoch, e.Epoch)
	s.Number = max(s.Number, e.Number)
	if len(e.Pin) > 0 && s.Pins == nil {
		s.Pins = map[string]LSN{}
	}
	maps.Copy(s.Pins, e.Pin)
	for _, name := range e.Unpin {
		delete(s.Pins, name)
	}
}

// LogLoad collects edits into a state. It takes time and memory in proportion to
// them, whatever they say and in whatever order: who loads a file does not know
// who made it.
type LogLoad struct {
	state LogState
	files map[uint64]LogFile
}

// Apply changes what was collected by an edit.
func (l *LogLoad) Apply(e *LogEdit) {
	if l.files == nil {
		l.files = map[uint64]LogFile{}
	}
	rest := *e
	rest.Put, rest.Remove = nil, nil
	for _, f := range e.Put {
		l.files[f.Number] = f
		rest.Epoch, rest.Number = max(rest.Epoch, f.Epoch), max(rest.Number, f.Number)
	}
	for _, n := range e.Remove {
		delete(l.files, n)
	}
	l.state.Apply(&rest)
}

// State returns what the edits come to.
func (l *LogLoad) State() LogState {
	s := l.state
	for _, n := range slices.Sorted(maps.Keys(l.files)) {
		s.Files = append(s.Files, l.files[n])
	}
	return s
}

// Check says which rule the state breaks that every state keeps which a log has
// made. What verifies and breaks one was made by somebody else.
func (s *LogState) Check() error {
	switch f := &s.Floor; {
	case s.Number > MaxFileNumber || f.File > MaxFileNumber:
		return fmt.Errorf("log file number %d, and the highest may be %d", max(s.Number, f.File), uint64(MaxFileNumber))
	case s.Epoch > MaxListed || f.Epoch > MaxListed:
		return fmt.Errorf("epoch %d, and the highest may be %d", max(s.Epoch, f.Epoch), uint64(MaxListed))
	case f.LSN > MaxListed:
		return fmt.Errorf("floor at LSN %d, and the highest may be %d", f.LSN, uint64(MaxListed))
	}
	for i := range s.Files {
		switch f := &s.Files[i]; {
		case f.Number == 0:
			return errors.New("log file 0 is listed")
		case f.Retained && (f.First == 0 || f.First > f.Last || f.Last > s.Floor.LSN):
			return fmt.Errorf("log file %d is retained for LSN %d to %d, and the floor is %d", f.Number, f.First, f.Last, s.Floor.LSN)
		case f.Cut && f.CutLSN > MaxListed:
			return fmt.Errorf("log file %d is cut at LSN %d, and the highest may be %d", f.Number, f.CutLSN, uint64(MaxListed))
		}
	}
	return nil
}

// Snapshot returns the edit that makes the state from nothing.
func (s *LogState) Snapshot() *LogEdit {
	floor := s.Floor
	return &LogEdit{Put: s.Files, Floor: &floor, Epoch: s.Epoch, Number: s.Number, Pin: s.Pins}
}

// Clone returns a copy that shares nothing.
func (s *LogState) Clone() LogState {
	c := *s
	c.Files = slices.Clone(s.Files)
	c.Pins = maps.Clone(s.Pins)
	return c
}

// The encoding of an edit is a list of fields: uvarint tag, uvarint length,
// that many bytes. The tags are wire format; an unknown one is refused.
const (
	logTagFile   = 1
	logTagRemove = 2
	logTagFloor  = 3
	logTagEpoch  = 4
	logTagNumber = 5
	logTagPin    = 6
	logTagUnpin  = 7

	logFileRetained = 1
	logFileArchived = 2
	logFileCut      = 4
)

var errEdit = errors.New("log edit is damaged")

func appendField(b []byte, tag uint64, payload []byte) []byte {
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(payload)))
	return append(b, payload...)
}

func uvarints(vs ...uint64) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// Append encodes the edit onto b.
func (e *LogEdit) Append(b []byte) []byte {
	for _, f := range e.Put {
		flags := uint64(0)
		for _, x := range []struct {
			on  bool
			bit uint64
		}{{f.Retained, logFileRetained}, {f.Archived, logFileArchived}, {f.Cut, logFileCut}} {
			if x.on {
				flags |= x.bit
			}
		}
		b = appendField(b, logTagFile, uvarints(f.Number, f.Salt, f.Epoch, flags, f.First, f.Last, f.Hash, uint64(f.Index), f.Keep, f.CutLSN, f.CutHash))
	}
	for _, n := range e.Remove {
		b = appendField(b, logTagRemove, uvarints(n))
	}
	if f := e.Floor; f != nil {
		b = appendField(b, logTagFloor, uvarints(f.File, f.LSN, f.Hash, f.Epoch))
	}
	if e.Epoch != 0 {
		b = appendField(b, logTagEpoch, uvarints(e.Epoch))
	}
	if e.Number != 0 {
		b = appendField(b, logTagNumber, uvarints(e.Number))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Pin)) {
		b = appendField(b, logTagPin, append(uvarints(e.Pin[name]), name...))
	}
	for _, name := range e.Unpin {
		b = appendField(b, logTagUnpin, []byte(name))
	}
	return b
}

// DecodeLogEdit decodes what Append made. It allocates no more than a small
// multiple of len(b).
func DecodeLogEdit(b []byte) (*LogEdit, error) {
	e := &LogEdit{}
	for len(b) > 0 {
		tag, w := binary.Uvarint(b)
		if w <= 0 {
			return nil, errEdit
		}
		n, v := binary.Uvarint(b[w:])
		if v <= 0 || n > uint64(len(b)-w-v) {
			return nil, errEdit
		}
		p := b[w+v:][:n]
		b = b[w+v+int(n):]
		if err := e.field(tag, p); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *LogEdit) field(tag uint64, p []byte) error {
	want := 1
	switch tag {
	case logTagFile:
		want = 11
	case logTagFloor:
		want = 4
	case logTagUnpin:
		want = 0
	}
	var v [11]uint64
	for i := 0; i < want; i++ {
		x, w := binary.Uvarint(p)
		if w <= 0 {
			return errEdit
		}
		v[i] = x
		p = p[w:]
	}
	if len(p) != 0 && tag != logTagPin && tag != logTagUnpin {
		return errEdit
	}
	switch tag {
	case logTagFile:
		if v[7] > 1<<62 || v[3] > 7 {
			return errEdit
		}
		e.Put = append(e.Put, LogFile{Number: v[0], Salt: v[1], Epoch: v[2],
			Retained: v[3]&logFileRetained != 0, Archived: v[3]&logFileArchived != 0, Cut: v[3]&logFileCut != 0,
			First: v[4], Last: v[5], Hash: v[6], Index: int64(v[7]), Keep: v[8], CutLSN: v[9], CutHash: v[10]})
	case logTagRemove:
		e.Remove = append(e.Remove, v[0])
	case logTagFloor:
		e.Floor = &LogFloor{File: v[0], LSN: v[1], Hash: v[2], Epoch: v[3]}
	case logTagEpoch:
		e.Epoch = v[0]
	case logTagNumber:
		e.Number = v[0]
	case logTagPin:
		if e.Pin == nil {
			e.Pin = map[string]LSN{}
		}
		e.Pin[string(p)] = v[0]
	case logTagUnpin:
		e.Unpin = append(e.Unpin, string(p))
	default:
		return errEdit
	}
	return nil
}
