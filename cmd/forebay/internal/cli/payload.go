package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// Payload is what somebody else's bytes are in JSON: one field is set. JSON objects and
// arrays are put in as they are, other text as a string, and what is no text in base 64.
type Payload struct {
	JSON json.RawMessage `json:"payload,omitempty"`
	Text *string         `json:"payload_text,omitempty"`
	B64  *string         `json:"payload_b64,omitempty"`
}

// NewPayload returns the JSON form of b, which it keeps; nil has none.
func NewPayload(b []byte) Payload {
	switch {
	case b == nil:
		return Payload{}
	case !utf8.Valid(b):
		s := base64.StdEncoding.EncodeToString(b)
		return Payload{B64: &s}
	case len(b) > 0 && (b[0] == '{' || b[0] == '[') && json.Valid(b):
		return Payload{JSON: b}
	}
	s := string(b)
	return Payload{Text: &s}
}

// previewSize is how many bytes of a payload a line of a table shows.
const previewSize = 120

// Preview is the beginning of a payload as printable text.
func Preview(b []byte) string {
	if len(b) <= previewSize {
		return Escape(b)
	}
	n := previewSize
	for n > previewSize-utf8.UTFMax && !utf8.RuneStart(b[n]) { // not in the middle of a character
		n--
	}
	return Escape(b[:n]) + "…"
}

// Time writes a time of a table, in UTC.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// Age writes how long something lasts, from microseconds to days.
func Age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return Duration(d)
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
