package transfer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// CSV as in RFC 4180, byte for byte: encoding/csv drops a carriage return that
// stands before a newline, also inside quotes, and so loses bytes of a value.

var bom = []byte("\xef\xbb\xbf")

// csvReader reads records of two fields.
type csvReader struct {
	r    *bufio.Reader
	line int
	max  int // the longest field
}

func newCSVReader(r *bufio.Reader, maxField int) *csvReader {
	if head, _ := r.Peek(len(bom)); bytes.Equal(head, bom) {
		r.Discard(len(bom)) // cannot fail: these bytes were peeked at
	}
	return &csvReader{r: r, line: 1, max: maxField}
}

// next returns the next record, io.EOF after the last. Empty lines are no
// records. line is where it began.
func (c *csvReader) next() (key, value []byte, line int, err error) {
	for {
		line = c.line
		var fields [][]byte
		end := false
		for !end {
			var f []byte
			if f, end, err = c.field(len(fields) == 0); err != nil {
				return nil, nil, line, err
			}
			if f != nil {
				fields = append(fields, f)
			}
		}
		switch len(fields) {
		case 0:
			continue
		case 2:
			return fields[0], fields[1], line, nil
		}
		return nil, nil, line, fmt.Errorf("%d fields; a line has two, key and value", len(fields))
	}
}

// field reads one field and what ends it; end says that it was the record's
// last. A nil field is an empty line. io.EOF comes before a record only.
func (c *csvReader) field(first bool) (f []byte, end bool, err error) {
	f = []byte{}
	quoted, open := false, false
	for {
		b, err := c.r.ReadByte()
		switch {
		case err == io.EOF && open:
			return nil, false, errors.New("the file ends inside quotes")
		case err == io.EOF && first && !quoted && len(f) == 0:
			return nil, false, io.EOF
		case err == io.EOF:
			return f, true, nil
		case err != nil:
			return nil, false, err
		}
		if b == '\n' {
			c.line++
		}
		if open {
			if b != '"' {
				f = append(f, b)
			} else if next, _ := c.r.Peek(1); len(next) == 1 && next[0] == '"' {
				c.r.Discard(1) // cannot fail: this byte was peeked at
				f = append(f, '"')
			} else {
				open = false
			}
			if len(f) > c.max {
				return nil, false, fmt.Errorf("a field of more than %d bytes", c.max)
			}
			continue
		}
		if b == '\r' {
			if next, _ := c.r.Peek(1); len(next) == 1 && next[0] == '\n' {
				continue
			}
		}
		switch {
		case b == ',':
			return f, false, nil
		case b == '\n':
			if first && !quoted && len(f) == 0 {
				return nil, true, nil
			}
			return f, true, nil
		case quoted:
			return nil, false, errors.New(`text after closing quotes; a " inside a field is written ""`)
		case b == '"' && len(f) == 0:
			quoted, open = true, true
		case b == '"':
			return nil, false, errors.New(`a " inside a field without quotes; such a field begins with " and writes ""`)
		default:
			f = append(f, b)
		}
		if len(f) > c.max {
			return nil, false, fmt.Errorf("a field of more than %d bytes", c.max)
		}
	}
}

// appendCSV appends a record.
func appendCSV(dst, key, value []byte) []byte {
	dst = appendField(dst, key)
	dst = append(dst, ',')
	dst = appendField(dst, value)
	return append(dst, '\n')
}

func appendField(dst, f []byte) []byte {
	if !bytes.ContainsAny(f, ",\"\r\n") && !bytes.HasPrefix(f, bom) {
		return append(dst, f...)
	}
	dst = append(dst, '"')
	for _, b := range f {
		if b == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, b)
	}
	return append(dst, '"')
}
