package httpsink_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/httpsink"
	"github.com/forebaydb/forebay/sink/sinktest"
)

// line is a row as it comes.
type line struct {
	Offset      uint64            `json:"offset"`
	Time        time.Time         `json:"time"`
	Key         *string           `json:"key"`
	KeyBase64   []byte            `json:"key_base64"`
	Value       *string           `json:"value"`
	ValueBase64 []byte            `json:"value_base64"`
	Headers     map[string]string `json:"headers"`
}

func (l line) row() sink.Row {
	r := sink.Row{Offset: l.Offset, Time: l.Time, Key: l.KeyBase64, Value: l.ValueBase64, Headers: l.Headers}
	if l.Key != nil {
		r.Key = []byte(*l.Key)
	}
	if l.Value != nil {
		r.Value = []byte(*l.Value)
	}
	return r
}

func decode(body io.Reader) (rows []sink.Row, err error) {
	in := bufio.NewScanner(body)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			return nil, err
		}
		rows = append(rows, l.row())
	}
	return rows, in.Err()
}

// service remembers keys, and refuses bad rows. The target of a real one would do both in
// one transaction.
type service struct {
	memory sinktest.Memory
	names  bool
	fault  atomic.Int32
	down   atomic.Bool
}

const (
	dropBefore = iota + 1 // the connection ends before anything is done
	dropBehind            // and behind it
	cutAnswer             // in the middle of the answer
	busy
)

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault := s.fault.Swap(0)
	if s.down.Load() || fault == dropBefore {
		panic(http.ErrAbortHandler)
	}
	if fault == busy {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	rows, err := decode(r.Body)
	if err != nil { // it did not come whole
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	err = s.memory.Write(context.Background(), sink.Batch{ID: r.Header.Get("Idempotency-Key"), Rows: rows})
	var rejected *sink.Rejected
	switch {
	case errors.As(err, &rejected):
		if s.names {
			w.Header().Set("Rejected-Rows", strings.Trim(strings.ReplaceAll(fmt.Sprint(rejected.Rows), " ", ", "), "[]"))
		}
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case fault == dropBehind:
		panic(http.ErrAbortHandler)
	case fault == cutAnswer:
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "half")
		panic(http.ErrAbortHandler)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func TestSuite(t *testing.T) {
	for _, names := range []bool{false, true} {
		t.Run(fmt.Sprint("names=", names), func(t *testing.T) {
			var of *service
			arm := func(fault int32) func(*testing.T) {
				return func(*testing.T) { of.fault.Store(fault) }
			}
			sinktest.Run(t, sinktest.Harness{
				New: func(t *testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
					s := &service{names: names}
					of = s
					s.memory.Name = true
					s.memory.Refuse(func(r sink.Row) error {
						if bytes.HasPrefix(r.Value, []byte("bad")) {
							return errors.New("a bad row")
						}
						return nil
					})
					server := httptest.NewUnstartedServer(s)
					server.Config.ErrorLog = log.New(io.Discard, "", 0)
					server.Start()
					t.Cleanup(server.Close)
					// On connections that it uses again, net/http repeats what has a key
					// by itself, and no fault is to be seen.
					client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
					to, err := httpsink.New(server.URL, &httpsink.Options{Client: client})
					require.NoError(t, err)
					return to, func(*testing.T) []sink.Row { return s.memory.Rows() }
				},
				ExactlyOnce: true,
				Same: func(wrote, read sink.Row) bool {
					if len(wrote.Headers) != len(read.Headers) {
						return false
					}
					for name, v := range wrote.Headers {
						if read.Headers[name] != v {
							return false
						}
					}
					return wrote.Offset == read.Offset && wrote.Time.Equal(read.Time) && bytes.Equal(wrote.Key, read.Key) && bytes.Equal(wrote.Value, read.Value)
				},
				Bad:   func() []byte { return []byte("bad") },
				Stop:  func(*testing.T) { of.down.Store(true) },
				Start: func(*testing.T) { of.down.Store(false) },
				Faults: map[string]func(*testing.T){
					"dropped before": arm(dropBefore),
					"dropped behind": arm(dropBehind),
					"answer cut":     arm(cutAnswer),
					"busy":           arm(busy),
				},
			})
		})
	}
}

// answers makes a server that answers with a status and headers, and counts requests.
func answers(t *testing.T, status int, header ...string) (*httptest.Server, *atomic.Int32) {
	var n atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if r.URL.Path == "/elsewhere" {
			return // 200
		}
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(status)
		if status >= 200 && status != 204 && status != 304 {
			fmt.Fprint(w, strings.Repeat("why ", 1000))
		}
	}))
	t.Cleanup(server.Close)
	return server, &n
}

var batch = sink.Batch{ID: "id", Rows: []sink.Row{{Offset: 1, Value: []byte("v")}, {Offset: 2, Value: []byte("w")}, {Offset: 3}}}

func TestStatuses(t *testing.T) {
	const done, again, rejected = 0, 1, 2
	want := map[int]int{}
	for status := 200; status < 600; status++ {
		switch {
		case status < 300:
			want[status] = done
		case status < 400 || status >= 500:
			want[status] = again
		default:
			want[status] = rejected
		}
	}
	for _, status := range []int{401, 402, 403, 404, 405, 407, 408, 409, 421, 425, 426, 429} {
		want[status] = again
	}
	for _, status := range []int{200, 201, 202, 204, 206, 226, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 414, 415, 416, 417, 418, 421, 422, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 507, 511, 599} {
		server, n := answers(t, status, "Location", "/elsewhere")
		s, err := httpsink.New(server.URL, nil)
		require.NoError(t, err)
		err = s.Write(t.Context(), batch)
		var r *sink.Rejected
		var of *httpsink.StatusError
		switch want[status] {
		case done:
			require.NoError(t, err, status)
		case again:
			require.Error(t, err, status)
			require.False(t, errors.As(err, &r), status)
		case rejected:
			require.ErrorAs(t, err, &r, status)
			require.Empty(t, r.Rows)
		}
		if err != nil {
			require.ErrorAs(t, err, &of)
			require.Equal(t, status, of.Status)
			require.LessOrEqual(t, len(of.Body), 1<<10)
			require.ErrorContains(t, err, fmt.Sprint("status ", status))
		}
		require.EqualValues(t, 1, n.Load(), "%d: one request", status)
	}
}

// TestRedirect: a POST that becomes a GET loses its rows, and the GET says 200.
func TestRedirect(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		server, n := answers(t, status, "Location", "/elsewhere")
		// A client that would follow.
		s, err := httpsink.New(server.URL, &httpsink.Options{Client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}})
		require.NoError(t, err)
		err = s.Write(t.Context(), batch)
		require.ErrorIs(t, err, httpsink.ErrRedirect)
		require.ErrorContains(t, err, "/elsewhere")
		require.EqualValues(t, 1, n.Load())
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		header string
		least  time.Duration
		most   time.Duration
		ok     bool
	}{
		{"", 0, 0, false},
		{"0", 0, 0, true},
		{" 7 ", 7 * time.Second, 7 * time.Second, true},
		{"86400", time.Hour, time.Hour, true},
		{"99999999999999999999999", time.Hour, time.Hour, true},
		{"-1", 0, 0, false},
		{"soon", 0, 0, false},
		{time.Now().Add(10 * time.Minute).UTC().Format(http.TimeFormat), 8 * time.Minute, 10 * time.Minute, true},
		{time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), 0, 0, true},
		{time.Now().Add(1000 * time.Hour).UTC().Format(http.TimeFormat), time.Hour, time.Hour, true},
	} {
		server, _ := answers(t, 429, "Retry-After", c.header)
		s, err := httpsink.New(server.URL, nil)
		require.NoError(t, err)
		err = s.Write(t.Context(), batch)
		require.Error(t, err)
		wait, ok := sink.RetryAfter(err)
		require.Equal(t, c.ok, ok, c.header)
		require.GreaterOrEqual(t, wait, c.least, c.header)
		require.LessOrEqual(t, wait, c.most, c.header)
	}
}

func TestRejectedRows(t *testing.T) {
	for header, want := range map[string][]int{
		"":            nil,
		"0":           {0},
		" 2 ,0 ":      {2, 0},
		"3":           nil,
		"-1":          nil,
		"1,x":         nil,
		"0,1,2,0,1,2": nil,
		",,1,,":       {1},
	} {
		server, _ := answers(t, 400, "Rejected-Rows", header)
		s, err := httpsink.New(server.URL, nil)
		require.NoError(t, err)
		var r *sink.Rejected
		require.ErrorAs(t, s.Write(t.Context(), batch), &r)
		require.Equal(t, want, r.Rows, header)
	}
}

// TestRequest: what a request has.
func TestRequest(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	s, err := httpsink.New(server.URL+"/rows?t=1", nil)
	require.NoError(t, err)
	b := sink.Batch{ID: "buffer/1", Rows: []sink.Row{
		{Offset: 1, Time: time.Unix(1, 5), Value: []byte("a\n\"b\"")},
		{Offset: 1 << 63, Time: time.Unix(2, 0), Key: []byte{0xff}, Value: []byte{0xfe}, Headers: map[string]string{"b": "2", "a": "1"}},
	}}
	require.NoError(t, s.Write(t.Context(), b))
	require.Equal(t, http.MethodPost, got.Method)
	require.Equal(t, "/rows?t=1", got.URL.String())
	require.Equal(t, "buffer/1", got.Header.Get("Idempotency-Key"))
	require.Equal(t, "application/x-ndjson", got.Header.Get("Content-Type"))
	require.Equal(t, `{"offset":1,"time":"1970-01-01T00:00:01.000000005Z","value":"a\n\"b\""}
{"offset":9223372036854775808,"time":"1970-01-01T00:00:02Z","key_base64":"/w==","value_base64":"/g==","headers":{"a":"1","b":"2"}}
`, string(body))

	s, err = httpsink.New(server.URL, &httpsink.Options{
		Method: http.MethodPut,
		Header: http.Header{"content-type": {"text/plain"}, "Authorization": {"Bearer x"}, "host": {"other"}, "Idempotency-Key": {"no"}},
		Encode: func(dst []byte, b sink.Batch) ([]byte, error) {
			for i, r := range b.Rows {
				if len(r.Value) == 0 {
					return nil, &sink.RowError{Row: i, Err: errors.New("no value")}
				}
				dst = append(append(dst, r.Value...), '|')
			}
			return dst, nil
		},
		Permanent: func(int) bool { return true },
	})
	require.NoError(t, err)
	require.NoError(t, s.Write(t.Context(), sink.Batch{ID: "x", Rows: batch.Rows[:2]}))
	require.Equal(t, http.MethodPut, got.Method)
	require.Equal(t, "x", got.Header.Get("Idempotency-Key"))
	require.Equal(t, "text/plain", got.Header.Get("Content-Type"))
	require.Equal(t, "Bearer x", got.Header.Get("Authorization"))
	require.Equal(t, "other", got.Host)
	require.Equal(t, "v|w|", string(body))
	var r *sink.Rejected
	err = s.Write(t.Context(), batch)
	require.ErrorAs(t, err, &r)
	require.Equal(t, []int{2}, r.Rows)
	require.ErrorContains(t, err, "row 2: no value")

	for _, address := range []string{"", "x", "ftp://x", "http://", "http://user:secret@", "http://a b/", ":"} {
		_, err := httpsink.New(address, nil)
		require.Error(t, err, address)
		require.NotContains(t, err.Error(), "secret")
	}
	for _, method := range []string{"GET", "HEAD", "a b"} {
		_, err := httpsink.New(server.URL, &httpsink.Options{Method: method})
		require.Error(t, err, method)
	}
}

// TestEndlessAnswer: no more of it is read than is wanted, and the connections of others
// are used again.
func TestEndlessAnswer(t *testing.T) {
	var endless atomic.Bool
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		chunk := make([]byte, 4<<10)
		for range 5 {
			w.Write(chunk)
		}
		for endless.Load() {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	var mu sync.Mutex
	opened := 0
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if s == http.StateNew {
			opened++
		}
	}
	server.Start()
	defer server.Close()
	s, err := httpsink.New(server.URL, &httpsink.Options{Client: &http.Client{Transport: &http.Transport{}}})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, s.Write(t.Context(), batch))
	}
	mu.Lock()
	// Where the machine is busy, net/http may give one up that it could use again.
	require.LessOrEqual(t, opened, 5)
	mu.Unlock()
	endless.Store(true)
	require.NoError(t, s.Write(t.Context(), batch))
}

func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Printf("%s %s\n%s", r.Method, r.Header.Get("Idempotency-Key"), body)
	}))
	defer server.Close()
	s, err := httpsink.New(server.URL, nil)
	if err != nil {
		panic(err)
	}
	err = s.Write(context.Background(), sink.Batch{ID: "orders/1", Rows: []sink.Row{
		{Offset: 7, Time: time.Unix(0, 0), Key: []byte("o-1"), Value: []byte("ordered")},
	}})
	fmt.Println(err)
	// Output:
	// POST orders/1
	// {"offset":7,"time":"1970-01-01T00:00:00Z","key":"o-1","value":"ordered"}
	// <nil>
}

// TestSecrets: an error does not show the address.
func TestSecrets(t *testing.T) {
	server, _ := answers(t, 200)
	address := strings.Replace(server.URL, "http://", "http://u:secret@", 1) + "/?token=secret"
	server.Close()
	s, err := httpsink.New(address, nil)
	require.NoError(t, err)
	err = s.Write(t.Context(), batch)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Write(ctx, batch), context.Canceled)
}
