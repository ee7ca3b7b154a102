package workload

import (
	"encoding/json"
	"io"
	"os"
)

// Sink takes results as they come, and shows them: as JSON lines at once, as a
// table or for benchstat at the end. It is for one goroutine.
type Sink struct {
	machine           Machine
	results           []Result
	file              *os.File
	out               io.Writer
	asJSON, benchstat bool
}

// NewSink returns a sink that writes to out, and adds JSON lines to file if that
// is not "".
func NewSink(out io.Writer, file string, m Machine, asJSON, benchstat bool) (*Sink, error) {
	s := &Sink{machine: m, out: out, asJSON: asJSON, benchstat: benchstat}
	first := struct {
		Machine Machine `json:"machine"`
	}{m}
	if file != "" {
		var err error
		if s.file, err = os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666); err != nil {
			return nil, err
		}
		if err := json.NewEncoder(s.file).Encode(first); err != nil {
			return nil, err
		}
	}
	if asJSON {
		return s, json.NewEncoder(out).Encode(first)
	}
	return s, nil
}

// Add takes one result.
func (s *Sink) Add(r Result) error {
	s.results = append(s.results, r)
	if s.file != nil {
		if err := json.NewEncoder(s.file).Encode(&r); err != nil {
			return err
		}
	}
	if s.asJSON {
		return json.NewEncoder(s.out).Encode(&r)
	}
	return nil
}

// Close closes the file and shows what is shown at the end.
func (s *Sink) Close() error {
	if s.file != nil {
		if err := s.file.Close(); err != nil {
			return err
		}
	}
	switch {
	case s.asJSON:
		return nil
	case s.benchstat:
		return WriteBenchstat(s.out, s.machine, s.results)
	}
	return WriteTable(s.out, s.machine, s.results)
}
