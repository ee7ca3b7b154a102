package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"

	"github.com/forebaydb/forebay/eventstore"
)

// rules say how events come to a state. See the help of events state.
type rules struct {
	sums     map[string]string // a field of payloads → the field of the state that it adds to
	subtract map[string]bool   // types whose sums are subtracted
}

// parseRules reads --sum and --subtract.
func parseRules(sums, subtract []string) (rules, error) {
	r := rules{map[string]string{}, map[string]bool{}}
	for _, s := range sums {
		name, field, ok := strings.Cut(s, "=")
		if !ok {
			field = name
		}
		if name == "" || field == "" {
			return r, fmt.Errorf("--sum %q: it is FIELD, or NAME=FIELD to give the sum another name", s)
		}
		if _, had := r.sums[field]; had {
			return r, fmt.Errorf("--sum says twice what field %q adds to", field)
		}
		r.sums[field] = name
	}
	for _, typ := range subtract {
		r.subtract[typ] = true
	}
	if len(subtract) > 0 && len(sums) == 0 {
		return r, errors.New("--subtract is of no use without --sum")
	}
	return r, nil
}

// folded is a state: its fields, and what of it are sums.
type folded struct {
	fields map[string]json.RawMessage
	sums   map[string]*big.Rat
	// ignored is how many events had no JSON object for a payload.
	ignored int
}

func newFolded() *folded {
	return &folded{fields: map[string]json.RawMessage{}, sums: map[string]*big.Rat{}}
}

// apply is eventstore.Aggregate.Apply.
func (r rules) apply(f *folded, ev eventstore.Event) (*folded, error) {
	fields, err := object(ev.Payload)
	if err != nil {
		return f, err
	}
	if fields == nil {
		f.ignored++
		return f, nil
	}
	for field, value := range fields {
		name, sum := r.sums[field]
		if !sum {
			f.fields[field] = bytes.Clone(value)
			continue
		}
		n, err := number(value)
		if err != nil {
			return f, fmt.Errorf("field %q is to be added up (--sum): %w", field, err)
		}
		if r.subtract[ev.Type] {
			n.Neg(n)
		}
		if had := f.sums[name]; had != nil {
			n.Add(n, had)
		}
		f.sums[name] = n
	}
	for name := range f.sums {
		delete(f.fields, name) // a sum is what is shown under its name
	}
	return f, nil
}

// object returns the fields of a JSON object, nil where b is none.
func object(b []byte) (map[string]json.RawMessage, error) {
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) == 0 || b[0] != '{' || !json.Valid(b) {
		return nil, nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	fields := map[string]json.RawMessage{}
	if err := dec.Decode(&fields); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON object")
	}
	return fields, nil
}

// maxDigits bounds what is computed with: exact sums of numbers far apart are long.
const maxDigits = 400

// number reads a JSON number, exactly.
func number(value json.RawMessage) (*big.Rat, error) {
	s := string(value)
	if s == "" || s[0] != '-' && (s[0] < '0' || s[0] > '9') {
		return nil, fmt.Errorf("it is %.40s, and no number", s)
	}
	mantissa, exponent, _ := strings.Cut(strings.ToLower(s), "e")
	e := 0
	if exponent != "" {
		var err error
		if e, err = strconv.Atoi(exponent); err != nil {
			return nil, fmt.Errorf("%.40s has too many digits", s)
		}
	}
	if len(mantissa) > maxDigits || e > maxDigits || e < -maxDigits {
		return nil, fmt.Errorf("%.40s has too many digits", s)
	}
	n, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil, fmt.Errorf("%.40s is no number", s)
	}
	return n, nil
}

// state returns all fields, those of sums as exact decimals.
func (f *folded) state() map[string]json.RawMessage {
	out := make(map[string]json.RawMessage, len(f.fields)+len(f.sums))
	for name, v := range f.fields {
		out[name] = v
	}
	for name, n := range f.sums {
		digits, _ := n.FloatPrec() // sums of decimals are decimals
		out[name] = json.RawMessage(n.FloatString(digits))
	}
	return out
}
