// Package httpsink writes batches to a service over HTTP.
//
// A batch is one request, a POST unless told otherwise, with a body that an encoder makes
// (NDJSON unless told otherwise), and the header
//
//	Idempotency-Key: id of the batch
//
// A service that remembers the keys, in the transaction of what it does, has each batch
// exactly once; with others rows come at least once. The answers are:
//
//   - 2xx: the rows are durable;
//   - 408, 425, 429, 5xx, no answer at all: the same request is made again, by whoever
//     calls Write (not before Retry-After, of at most an hour, which comes as
//     *sink.Later). 409, which says that a request with the key is still at work, too;
//   - 401, 402, 403, 404, 405, 407, 421, 426, 511: the same. They tell of the address,
//     the method, the credentials or the account, not of rows, and somebody can mend
//     them: rows are not to become dead letters because a token has expired;
//   - every other 4xx: *sink.Rejected. A service that knows which rows are bad says so in
//     the header Rejected-Rows: indexes, counted from 0, with commas between them. It has
//     to have written nothing then;
//   - 3xx: an error. Redirects are never followed: most clients make a GET of a POST that
//     is redirected, the service answers 200 to that, and the rows are lost. Change the
//     address.
//
// Go's net/http repeats a request that has this header by itself, once more, when a
// connection that it used again turns out to be broken.
//
// Options.Permanent decides otherwise about statuses.
package httpsink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/forebaydb/forebay/sink"
)

// ErrRedirect: the service has answered with a redirect, which is not followed.
var ErrRedirect = errors.New("httpsink: redirects are not followed")

// StatusError is an answer that is not 2xx.
type StatusError struct {
	Status int
	// Body is the beginning of what came with it, at most 1 KiB.
	Body string
}

func (e *StatusError) Error() string {
	if e.Body == "" {
		return fmt.Sprintf("httpsink: status %d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("httpsink: status %d %s: %q", e.Status, http.StatusText(e.Status), e.Body)
}

// Options of a sink. A nil pointer is valid, zero fields mean the defaults.
type Options struct {
	// Client makes the requests; nil: one of its own, with Go's defaults. Its
	// CheckRedirect is not used.
	Client *http.Client
	// Method of requests; default POST.
	Method string
	// Header goes with each request. Content-Type is that of NDJSON unless it is there.
	Header http.Header
	// Encode makes bodies; nil: sink.NDJSON.
	Encode sink.Encoder
	// Permanent says whether a status that is not 2xx rejects the rows for good; nil: as
	// the package says. 3xx is not asked.
	Permanent func(status int) bool
	// MaxBody is how many bytes of an answer are read, so that its connection can be used
	// again; default 64 KiB. Behind that the connection is closed.
	MaxBody int64
}

// Sink is a service. Any number of goroutines may write to it.
type Sink struct {
	url    string
	client http.Client
	o      Options
}

// New returns a sink that writes to an address (http or https). o may be nil; what it
// refers to must not be changed afterwards.
func New(address string, o *Options) (*Sink, error) {
	u, err := url.Parse(address)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) { // without the address, which may have a password
			err = of.Err
		}
		return nil, fmt.Errorf("httpsink: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("httpsink: %q is no address of HTTP", u.Redacted())
	}
	s := &Sink{url: address}
	if o != nil {
		s.o = *o
	}
	if s.o.Client != nil {
		s.client = *s.o.Client
	}
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if s.o.Method == "" {
		s.o.Method = http.MethodPost
	}
	if s.o.Method == http.MethodGet || s.o.Method == http.MethodHead {
		return nil, fmt.Errorf("httpsink: a %s has no body", s.o.Method)
	}
	if s.o.Permanent == nil {
		s.o.Permanent = permanent
	}
	if s.o.MaxBody <= 0 {
		s.o.MaxBody = 64 << 10
	}
	if _, err := http.NewRequest(s.o.Method, address, nil); err != nil {
		return nil, fmt.Errorf("httpsink: %w", err)
	}
	return s, nil
}

// permanent says of which statuses other than 2xx and 3xx the cause is in the rows.
func permanent(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusConflict,
		http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusUpgradeRequired, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500
}

// Write is sink.Sink.Write.
func (s *Sink) Write(ctx context.Context, b sink.Batch) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(b.Rows) == 0 {
		return nil
	}
	body, err := s.o.Encode.Encode(nil, b)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, s.o.Method, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("httpsink: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	for name, values := range s.o.Header {
		if http.CanonicalHeaderKey(name) == "Host" { // which net/http takes from elsewhere
			req.Host = strings.Join(values, "")
			continue
		}
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Idempotency-Key", b.ID)
	resp, err := s.client.Do(req)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) { // without the address, in which there may be a secret
			err = of.Err
		}
		return fmt.Errorf("httpsink: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 {
		return fmt.Errorf("httpsink: %w", &StatusError{Status: resp.StatusCode})
	}
	begin, err := readBody(resp.Body, s.o.MaxBody)
	if resp.StatusCode < 300 {
		// The headers say that it is done, unless the connection broke before all of the
		// answer was there: whoever sends headers early can only say so by that.
		if err != nil {
			return fmt.Errorf("httpsink: an answer of status %d that ends too early: %w", resp.StatusCode, err)
		}
		return nil
	}
	return s.refused(resp, &StatusError{Status: resp.StatusCode, Body: begin}, len(b.Rows))
}

// readBody reads an answer up to a bound, and returns its beginning.
func readBody(r io.Reader, most int64) (begin string, err error) {
	var head bytes.Buffer
	if _, err = io.CopyN(&head, r, min(1<<10, most)); err == nil {
		_, err = io.CopyN(io.Discard, r, most-int64(head.Len()))
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.ToValidUTF8(head.String(), "\uFFFD"), err
}

// refused makes an error of an answer that is not 2xx.
func (s *Sink) refused(resp *http.Response, status *StatusError, rows int) error {
	switch {
	case resp.StatusCode < 400:
		return fmt.Errorf("%w (to %.200q): %w", ErrRedirect, resp.Header.Get("Location"), status)
	case s.o.Permanent(resp.StatusCode):
		return &sink.Rejected{Rows: namedRows(resp.Header.Values("Rejected-Rows"), rows), Err: status}
	}
	if after, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
		return &sink.Later{After: after, Err: status}
	}
	return status
}

// namedRows reads a Rejected-Rows header; one that is no list of rows names none.
func namedRows(lines []string, rows int) (named []int) {
	for _, field := range strings.Split(strings.Join(lines, ","), ",") {
		if field = strings.TrimSpace(field); field == "" {
			continue
		}
		i, err := strconv.Atoi(field)
		if err != nil || i < 0 || i >= rows || len(named) == rows {
			return nil
		}
		named = append(named, i)
	}
	return named
}

// retryAfter reads a Retry-After header: seconds, or a date.
func retryAfter(v string, now time.Time) (time.Duration, bool) {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0, false
	}
	const most = time.Hour
	if seconds, err := strconv.ParseUint(v, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(most/time.Second))) * time.Second, true
	} else if errors.Is(err, strconv.ErrRange) {
		return most, true
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), most), true
	}
	return 0, false
}
