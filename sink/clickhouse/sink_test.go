package clickhouse_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/clickhouse"
	"github.com/forebaydb/forebay/sink/sinktest"
)

func batch(id string, values ...string) sink.Batch {
	b := sink.Batch{ID: id}
	for i, v := range values {
		b.Rows = append(b.Rows, sink.Row{Offset: uint64(i), Value: []byte(v)})
	}
	return b
}

func open(t testing.TB, o clickhouse.Options) *clickhouse.Sink {
	t.Helper()
	if o.Table == "" {
		o.Table = "events"
	}
	if o.Client == nil {
		tr := http.DefaultTransport.(*http.Transport).Clone()
		t.Cleanup(tr.CloseIdleConnections)
		o.Client = &http.Client{Transport: tr}
	}
	s, err := clickhouse.New(o)
	require.NoError(t, err)
	return s
}

func transient(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.False(t, errors.As(err, new(*sink.Rejected)), "not for good: %v", err)
}

func rejected(t *testing.T, err error, rows ...int) {
	t.Helper()
	var r *sink.Rejected
	require.ErrorAs(t, err, &r)
	require.ElementsMatch(t, rows, r.Rows)
}

func same(wrote, read sink.Row) bool {
	if len(wrote.Headers) != len(read.Headers) {
		return false
	}
	for k, v := range wrote.Headers {
		if w, ok := read.Headers[k]; !ok || v != w {
			return false
		}
	}
	return wrote.Offset == read.Offset && wrote.Time.Equal(read.Time) && string(wrote.Key) == string(read.Key) && string(wrote.Value) == string(read.Value)
}

func TestSuite(t *testing.T) {
	for _, zip := range []bool{false, true} {
		t.Run(fmt.Sprint("gzip=", zip), func(t *testing.T) {
			var s *server
			fault := func(f func(w http.ResponseWriter, r *http.Request, apply func() bool)) func(*testing.T) {
				return func(*testing.T) { s.set(func() { s.fault = f }) }
			}
			sinktest.Run(t, sinktest.Harness{
				New: func(t *testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
					s = newServer(t)
					return open(t, clickhouse.Options{URL: s.URL, Gzip: zip}), s.read
				},
				ExactlyOnce: true,
				Same:        same,
				Bad:         func() []byte { return []byte("bad") },
				Stop:        func(*testing.T) { s.set(func() { s.stopped = true }) },
				Start:       func(*testing.T) { s.set(func() { s.stopped = false }) },
				Faults: map[string]func(*testing.T){
					"connection lost": fault(func(w http.ResponseWriter, _ *http.Request, _ func() bool) { cut(w) }),
					"reply lost":      fault(func(w http.ResponseWriter, _ *http.Request, apply func() bool) { apply(); cut(w) }),
					"exception in a 200 body, not written": fault(func(w http.ResponseWriter, _ *http.Request, _ func() bool) {
						w.Header().Set("X-ClickHouse-Query-Id", "q")
						io.WriteString(w, "Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)")
					}),
					"exception in a 200 body, written": fault(func(w http.ResponseWriter, _ *http.Request, apply func() bool) {
						apply()
						w.Header().Set("X-ClickHouse-Query-Id", "q")
						io.WriteString(w, strings.Repeat("progress ", 10_000)+"\nCode: 319. DB::Exception: Unknown status, client must retry.")
					}),
					"200 of somebody else": fault(func(w http.ResponseWriter, _ *http.Request, _ func() bool) {}),
					"the answer breaks off": fault(func(w http.ResponseWriter, _ *http.Request, apply func() bool) {
						apply()
						w.Header().Set("X-ClickHouse-Query-Id", "q")
						w.Header().Set("Content-Length", "100")
					}),
					"redirect": fault(func(w http.ResponseWriter, r *http.Request, _ func() bool) {
						http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
					}),
					"too many parts": fault(func(w http.ResponseWriter, _ *http.Request, _ func() bool) { exception(w, 500, 252, "Too many parts") }),
					"gateway":        fault(func(w http.ResponseWriter, _ *http.Request, _ func() bool) { w.WriteHeader(502) }),
				},
			})
			s.set(func() { require.Equal(t, zip, s.gzipped) })
		})
	}
}

func TestNew(t *testing.T) {
	encode := func(dst []byte, r sink.Row) ([]byte, error) { return dst, nil }
	for want, o := range map[string]clickhouse.Options{
		"no URL of http":         {Table: "t"},
		"invalid control":        {Table: "t", URL: "http://\x00"},
		`"ftp://u:xxxxx@h"`:      {Table: "t", URL: "ftp://u:secret@h"},
		"go together":            {Table: "t", URL: "http://h", Encode: encode},
		"Format is that":         {Table: "t", URL: "http://h", Format: "Values"},
		"is no format":           {Table: "t", URL: "http://h", Format: "Values; DROP", Encode: encode, Columns: []string{"a"}},
		"no columns":             {Table: "t", URL: "http://h", Encode: encode, Columns: []string{}},
		`"" is no name`:          {URL: "http://h"},
		`"a\x00" is no name`:     {URL: "http://h", Table: "a\x00"},
		"async_insert is the":    {URL: "http://h", Table: "t", Settings: map[string]string{"async_insert": "1"}},
		"query is the sink's":    {URL: "http://h", Table: "t", Settings: map[string]string{"query": "SELECT 1"}},
		"insert_deduplication_t": {URL: "http://h", Table: "t", Settings: map[string]string{"insert_deduplication_token": "x"}},
	} {
		_, err := clickhouse.New(o)
		require.ErrorContains(t, err, want)
	}
	s := open(t, clickhouse.Options{URL: "http://h"})
	require.ErrorContains(t, s.Write(t.Context(), sink.Batch{}), "an ID of 0 bytes")
	require.ErrorContains(t, s.Write(t.Context(), sink.Batch{ID: strings.Repeat("x", 201)}), "an ID of 201 bytes")
	large := s.Write(t.Context(), sink.Batch{ID: "a", Rows: make([]sink.Row, 1<<20+1)})
	require.ErrorContains(t, large, "would not be one block")
	rejected(t, large) // in halves it goes
	_, err := clickhouse.New(clickhouse.Options{URL: "http://u:secret@h\x7f", Table: "t"})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
}

// TestAnswers: which answer means what.
func TestAnswers(t *testing.T) {
	const yes, no, never = "written", "again", "rejected"
	header := func(kv ...string) func(http.Header) {
		return func(h http.Header) {
			for i := 0; i < len(kv); i += 2 {
				h.Set(kv[i], kv[i+1])
			}
		}
	}
	speaks := []string{"X-ClickHouse-Summary", "{}"}
	for _, c := range []struct {
		name   string
		status int
		header func(http.Header)
		body   string
		want   string
		code   int
		after  time.Duration
	}{
		{name: "plain", status: 200, header: header(speaks...), want: yes},
		{name: "a code with 200", status: 200, header: header("X-ClickHouse-Exception-Code", "241"), want: no, code: 241},
		{name: "a bad row with 200", status: 200, header: header(speaks...), body: "Code: 469. DB::Exception: no", want: never, code: 469},
		{name: "a newer exception", status: 200, header: header(speaks...), body: "__exception__\r\nabc\r\nCode: 241. DB::Exception: no\n3 abc\r\n__exception__\r\n", want: no, code: 241},
		{name: "a page with 200", status: 200, header: header(speaks...), body: "<html>log in</html>", want: no},
		{name: "endless", status: 200, header: header(speaks...), body: strings.Repeat("x", 3<<20), want: no},
		{name: "204", status: 204, header: header(speaks...), want: no},
		{name: "a bad row", status: 400, header: header("X-ClickHouse-Exception-Code", "27"), want: never, code: 27},
		{name: "out of range", status: 500, body: "Code: 321. DB::Exception: no", want: never, code: 321},
		{name: "no table", status: 404, header: header("X-ClickHouse-Exception-Code", "60"), want: no, code: 60},
		{name: "syntax", status: 400, header: header("X-ClickHouse-Exception-Code", "62"), want: no, code: 62},
		{name: "password", status: 403, header: header("X-ClickHouse-Exception-Code", "516"), want: no, code: 516},
		{name: "unknown status", status: 500, header: header("X-ClickHouse-Exception-Code", "319"), want: no, code: 319},
		{name: "no code", status: 500, header: header("X-ClickHouse-Exception-Code", "x"), want: no},
		{name: "too large for a proxy", status: 413, want: never},
		{name: "later", status: 429, header: header("Retry-After", "7"), want: no, after: 7 * time.Second},
		{name: "much later", status: 503, header: header("Retry-After", "4000000000"), want: no, after: time.Hour},
		{name: "a date", status: 503, header: header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"), want: no},
		{name: "in the past", status: 503, header: header("Retry-After", "-7"), want: no},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			s.fault = func(w http.ResponseWriter, _ *http.Request, _ func() bool) {
				if c.header != nil {
					c.header(w.Header())
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}
			err := open(t, clickhouse.Options{URL: s.URL, Permanent: clickhouse.Permanent}).Write(t.Context(), batch("a", "x"))
			switch c.want {
			case yes:
				require.NoError(t, err)
				return
			case no:
				transient(t, err)
			case never:
				rejected(t, err)
			}
			var e *clickhouse.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.code, e.Code, "%v", err)
			require.Equal(t, c.status, e.Status)
			require.Less(t, len(err.Error()), 40<<10)
			after, ok := sink.RetryAfter(err)
			require.Equal(t, c.after > 0, ok)
			require.Equal(t, c.after, after)
		})
	}
}

// TestDefaultColumnsTakeAll: where the sink makes the bytes, an error of reading them is
// not one of a row.
func TestDefaultColumnsTakeAll(t *testing.T) {
	s := newServer(t)
	c := open(t, clickhouse.Options{URL: s.URL})
	for code, good := range map[int]bool{117: true, 33: true, 6: true, 469: false} {
		s.fault = func(w http.ResponseWriter, _ *http.Request, _ func() bool) { exception(w, 500, code, "no") }
		err := c.Write(t.Context(), batch("a", "x"))
		if good {
			transient(t, err)
		} else {
			rejected(t, err)
		}
	}
}

// TestJSONEachRow writes with an encoding of the caller's, to a place of the caller's.
func TestJSONEachRow(t *testing.T) {
	s := newServer(t)
	s.query = "INSERT INTO `my \\\\db`.`t\\`` (`a\\\\b`) FORMAT JSONEachRow"
	wrong := errors.New("wrong")
	c := open(t, clickhouse.Options{
		URL: s.URL + "/?max_threads=1", Database: "my \\db", Table: "t`", Columns: []string{"a\\b"}, Format: "JSONEachRow",
		User: "u", Password: "p", Settings: map[string]string{"insert_quorum": "2"},
		Encode: func(dst []byte, r sink.Row) ([]byte, error) {
			if string(r.Value) == "wrong" {
				return dst, wrong
			}
			b, err := json.Marshal(map[string]string{"a\\b": string(r.Value)})
			return append(append(dst, b...), '\n'), err
		},
	})
	var user, quorum, threads string
	s.fault = func(w http.ResponseWriter, r *http.Request, apply func() bool) {
		user, quorum, threads = r.Header.Get("X-ClickHouse-User")+r.Header.Get("X-ClickHouse-Key"), r.URL.Query().Get("insert_quorum"), r.URL.Query().Get("max_threads")
		apply()
		w.Header().Set("X-ClickHouse-Query-Id", "q")
	}
	for range 2 {
		require.NoError(t, c.Write(t.Context(), batch("a", "x", "y")))
	}
	require.Equal(t, []string{"up", "2", "1"}, []string{user, quorum, threads})
	require.Equal(t, []string{"{\"a\\\\b\":\"x\"}\n{\"a\\\\b\":\"y\"}\n"}, s.bodies)
	rejected(t, c.Write(t.Context(), batch("b", "x", "bad")))
	err := c.Write(t.Context(), batch("c", "wrong", "x", "wrong"))
	rejected(t, err, 0, 2)
	require.ErrorIs(t, err, wrong)
	require.Len(t, s.bodies, 1)
}

// TestSecrets: an error does not show the password of the URL.
func TestSecrets(t *testing.T) {
	s := newServer(t)
	url := strings.Replace(s.URL, "http://", "http://u:secret@", 1)
	s.Close()
	err := open(t, clickhouse.Options{URL: url + "/?password=secret"}).Write(t.Context(), batch("a", "x"))
	transient(t, err)
	require.NotContains(t, err.Error(), "secret")
}

// TestHung: a server that does not answer is left when the context ends.
func TestHung(t *testing.T) {
	s := newServer(t)
	s.fault = func(_ http.ResponseWriter, r *http.Request, _ func() bool) { <-r.Context().Done() }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := open(t, clickhouse.Options{URL: s.URL}).Write(ctx, batch("a", "x"))
	transient(t, err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
