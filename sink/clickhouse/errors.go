package clickhouse

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/forebaydb/forebay/sink"
)

// Error is an exception of ClickHouse, or an answer that is none of ClickHouse's.
type Error struct {
	Status  int    // of HTTP
	Code    int    // of the exception; 0: there was none
	Message string // at most some KiB of it
}

func (e *Error) Error() string {
	if e.Code == 0 {
		return fmt.Sprintf("clickhouse: HTTP status %d: %s", e.Status, e.Message)
	}
	return fmt.Sprintf("clickhouse: exception %d (HTTP status %d): %s", e.Code, e.Status, e.Message)
}

const violatedConstraint = 469

// permanent are exceptions of reading and checking rows.
var permanent = map[int]string{
	6:                  "CANNOT_PARSE_TEXT",
	26:                 "CANNOT_PARSE_QUOTED_STRING",
	27:                 "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
	33:                 "CANNOT_READ_ALL_DATA",
	38:                 "CANNOT_PARSE_DATE",
	41:                 "CANNOT_PARSE_DATETIME",
	53:                 "TYPE_MISMATCH",
	69:                 "ARGUMENT_OUT_OF_BOUND",
	70:                 "CANNOT_CONVERT_TYPE",
	72:                 "CANNOT_PARSE_NUMBER",
	117:                "INCORRECT_DATA",
	128:                "TOO_LARGE_ARRAY_SIZE",
	130:                "CANNOT_READ_ARRAY_FROM_TEXT",
	131:                "TOO_LARGE_STRING_SIZE",
	190:                "SIZES_OF_ARRAYS_DONT_MATCH",
	321:                "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE",
	349:                "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN",
	376:                "CANNOT_PARSE_UUID",
	407:                "DECIMAL_OVERFLOW",
	441:                "CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING",
	467:                "CANNOT_PARSE_BOOL",
	violatedConstraint: "VIOLATED_CONSTRAINT",
	675:                "CANNOT_PARSE_IPV4",
	676:                "CANNOT_PARSE_IPV6",
	691:                "UNKNOWN_ELEMENT_OF_ENUM",
}

// Permanent says of the code of an exception that it is of a row and comes again however
// often the row is written: values that cannot be parsed or converted, or that a
// constraint of the table refuses.
func Permanent(code int) bool { return permanent[code] != "" }

var exceptionRE = regexp.MustCompile(`Code: (\d+)\. DB::`)

// judge says what an answer means. body is its beginning, and whole says that it is all.
func (s *Sink) judge(res *http.Response, body []byte, whole error) error {
	e := &Error{Status: res.StatusCode, Message: strings.TrimSpace(string(body))}
	if code, err := strconv.Atoi(res.Header.Get("X-ClickHouse-Exception-Code")); err == nil && code > 0 {
		e.Code = code
	} else if m := exceptionRE.FindSubmatch(body); m != nil {
		e.Code, _ = strconv.Atoi(string(m[1]))
	}
	if e.Code == 0 && res.StatusCode == http.StatusOK {
		switch {
		case whole != nil:
			e.Message = "the answer has no proper end"
			return fmt.Errorf("%w: %w", e, whole)
		case len(body) > 0:
			e.Message = "an INSERT answers nothing, and this is: " + e.Message
			return e
		case !speaks(res.Header):
			e.Message = "no ClickHouse answered: a header X-ClickHouse-… is missing"
			return e
		}
		return nil
	}
	if e.Code != 0 && s.o.Permanent(e.Code) || e.Code == 0 && res.StatusCode == http.StatusRequestEntityTooLarge {
		return &sink.Rejected{Err: e}
	}
	if after, ok := retryAfter(res.Header); ok {
		return &sink.Later{After: after, Err: e}
	}
	return e
}

// speaks says whether ClickHouse has made the header: an empty 200 may also be that of
// something before it.
func speaks(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "X-Clickhouse-") {
			return true
		}
	}
	return false
}

// maxLater is the longest wait that is believed.
const maxLater = time.Hour

// retryAfter reads a number of seconds. (A date is of a clock that is not ours.)
func retryAfter(h http.Header) (time.Duration, bool) {
	n, err := strconv.ParseUint(h.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0, false
	}
	return min(time.Duration(n)*time.Second, maxLater), true
}
