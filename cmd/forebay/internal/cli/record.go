package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

// Format is how keys and values are written and read.
type Format struct {
	// JSON writes JSON lines; Hex means hexadecimal keys and values.
	JSON, Hex bool
}

// Flags adds --json and --hex.
func (f *Format) Flags(flags *pflag.FlagSet) {
	flags.BoolVar(&f.JSON, "json", false, "print JSON lines: key and value, or key_b64 and value_b64 where bytes are no UTF-8")
	flags.BoolVar(&f.Hex, "hex", false, "keys and values are hexadecimal, in arguments and in output")
}

// Arg returns the bytes that an argument stands for.
func (f *Format) Arg(what, s string) ([]byte, error) {
	if !f.Hex {
		return []byte(s), nil
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, Usagef("%s %q is not hexadecimal (--hex)", what, s)
	}
	return b, nil
}

// Record is a key and a value as a JSON line. Of each, one field is set.
type Record struct {
	Key      *string `json:"key,omitempty"`
	KeyB64   *string `json:"key_b64,omitempty"`
	KeyHex   *string `json:"key_hex,omitempty"`
	Value    *string `json:"value,omitempty"`
	ValueB64 *string `json:"value_b64,omitempty"`
	ValueHex *string `json:"value_hex,omitempty"`
}

// NewRecord returns the JSON form; a nil value leaves it out.
func NewRecord(key, value []byte, hexed bool) *Record {
	r := &Record{}
	r.Key, r.KeyB64, r.KeyHex = encode(key, hexed)
	if value != nil {
		r.Value, r.ValueB64, r.ValueHex = encode(value, hexed)
	}
	return r
}

func encode(b []byte, hexed bool) (text, b64, hexs *string) {
	var s string
	switch {
	case hexed:
		s = hex.EncodeToString(b)
		return nil, nil, &s
	case utf8.Valid(b):
		s = string(b)
		return &s, nil, nil
	}
	s = base64.StdEncoding.EncodeToString(b)
	return nil, &s, nil
}

// ParseRecord reads a JSON line of exactly one key and one value.
func ParseRecord(line []byte) (key, value []byte, err error) {
	// The decoder would put U+FFFD in place of what is no text, silently.
	if !utf8.Valid(line) {
		return nil, nil, errors.New("not UTF-8; bytes go into key_b64 and value_b64")
	}
	var r Record
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, nil, errors.New("more than one object on the line")
	}
	if key, err = decode("key", line, r.Key, r.KeyB64, r.KeyHex); err != nil {
		return nil, nil, err
	}
	value, err = decode("value", line, r.Value, r.ValueB64, r.ValueHex)
	return key, value, err
}

func decode(what string, line []byte, text, b64, hexs *string) (b []byte, err error) {
	n := 0
	if text != nil {
		n++
		b = []byte(*text)
		if strings.ContainsRune(*text, utf8.RuneError) && !writesRuneError(line) {
			return nil, fmt.Errorf("%s has half a surrogate pair; bytes go into %s_b64", what, what)
		}
	}
	if b64 != nil {
		n++
		b, err = base64.StdEncoding.DecodeString(*b64)
	}
	if hexs != nil {
		n++
		b, err = hex.DecodeString(*hexs)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if n != 1 {
		return nil, fmt.Errorf("it needs one of %s, %s_b64 and %s_hex, and has %d of them", what, what, what, n)
	}
	return b, nil
}

// writesRuneError says whether U+FFFD stands in the line itself.
func writesRuneError(line []byte) bool {
	return bytes.ContainsRune(line, utf8.RuneError) || bytes.Contains(bytes.ToLower(line), []byte(`\ufffd`))
}

// WriteJSON writes v as one line.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// WriteEntry writes one entry as a line; a nil value leaves it out. In plain
// text what is not printable is escaped as in a Go string.
func (f *Format) WriteEntry(w io.Writer, key, value []byte) error {
	if f.JSON {
		return WriteJSON(w, NewRecord(key, value, f.Hex))
	}
	show := Escape
	if f.Hex {
		show = hex.EncodeToString
	}
	line := show(key)
	if value != nil {
		line += "\t" + show(value)
	}
	_, err := io.WriteString(w, line+"\n")
	return err
}

// Escape returns bytes as one line of printable text.
func Escape(b []byte) string {
	parts := strings.Split(string(b), `"`)
	for i, p := range parts {
		q := strconv.Quote(p)
		parts[i] = q[1 : len(q)-1]
	}
	return strings.Join(parts, `"`)
}
