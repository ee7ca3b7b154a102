package shell

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

var errQuote = errors.New(`a quote is not closed; a " inside of "…" is written \"`)

// words splits a line: words lie between white space; "…" is a word with the
// escapes of Go (\n, \x00), '…' one without any; # begins a comment.
func words(line string) ([]string, error) {
	var out []string
	for {
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' {
			return out, nil
		}
		word, rest, err := word(line)
		if err != nil {
			return nil, err
		}
		if rest != "" && !unicode.IsSpace(rune(rest[0])) {
			return nil, fmt.Errorf("a quoted word ends before %q; put a space behind it", rest)
		}
		out, line = append(out, word), rest
	}
}

// word takes the first word off a line that begins with one.
func word(line string) (word, rest string, err error) {
	switch line[0] {
	case '"':
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return "", "", errQuote
		}
		word, err = strconv.Unquote(quoted)
		return word, line[len(quoted):], err
	case '\'':
		end := strings.IndexByte(line[1:], '\'')
		if end < 0 {
			return "", "", errQuote
		}
		return line[1 : 1+end], line[2+end:], nil
	}
	end := strings.IndexFunc(line, unicode.IsSpace)
	if end < 0 {
		end = len(line)
	}
	return line[:end], line[end:], nil
}

// quoted writes a word so that words reads it back.
func quoted(s string) string {
	if s == "" || s[0] == '\'' || s[0] == '"' || s[0] == '#' || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}
