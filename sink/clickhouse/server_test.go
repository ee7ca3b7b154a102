package clickhouse_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/forebaydb/forebay/sink"
)

// server is an HTTP front that does with INSERTs what ClickHouse does, as far as the sink
// can see it: it checks the protocol, reads the rows, refuses the value "bad", and takes a
// token once.
type server struct {
	*httptest.Server
	t     testing.TB
	query string // the statement that is expected; "": that of the default columns

	mu      sync.Mutex // guards what follows
	rows    []sink.Row
	bodies  []string // of other formats than the default
	tokens  map[string]bool
	stopped bool
	fault   func(w http.ResponseWriter, r *http.Request, apply func() bool) // for one request
	gzipped bool
}

const defaultQuery = "INSERT INTO `events` (`offset`, `time`, `key`, `value`, `headers`) FORMAT RowBinaryWithNamesAndTypes"

func newServer(t testing.TB) *server {
	s := &server{t: t, query: defaultQuery, tokens: map[string]bool{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *server) read(*testing.T) (all []sink.Row) {
	s.set(func() { all = append(all, s.rows...) })
	return all
}

// exception answers as ClickHouse does.
func exception(w http.ResponseWriter, status, code int, format string, args ...any) {
	w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(code))
	w.WriteHeader(status)
	fmt.Fprintf(w, "Code: %d. DB::Exception: %s. (SOME_NAME) (version 26.7.3.1)\n", code, fmt.Sprintf(format, args...))
}

// cut ends the connection.
func cut(w http.ResponseWriter) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = c.Close()
	}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		cut(w)
		return
	}
	answered := false
	apply := func() bool {
		code, why := s.insert(r, body)
		if code != 0 {
			answered = true
			w.Header().Set("X-ClickHouse-Query-Id", "q")
			exception(w, 500, code, "%s", why)
		}
		return code == 0
	}
	if f := s.fault; f != nil {
		s.fault = nil
		f(w, r, apply)
		return
	}
	if apply() && !answered {
		w.Header().Set("X-ClickHouse-Query-Id", "q")
		w.Header().Set("X-ClickHouse-Summary", `{"written_rows":"1"}`)
	}
}

func (s *server) insert(r *http.Request, body []byte) (code int, why string) {
	q := r.URL.Query()
	wrong := func(format string, args ...any) (int, string) {
		s.t.Errorf(format, args...)
		return 36, "BAD_ARGUMENTS"
	}
	if r.Method != http.MethodPost || q.Get("query") != s.query {
		return wrong("%s %q", r.Method, q.Get("query"))
	}
	for k, v := range map[string]string{"wait_end_of_query": "1", "async_insert": "0", "insert_deduplicate": "1"} {
		if q.Get(k) != v {
			return wrong("%s is %q", k, q.Get(k))
		}
	}
	token := q.Get("insert_deduplication_token")
	if token == "" {
		return wrong("no token")
	}
	if r.Header.Get("Content-Encoding") == "gzip" {
		s.gzipped = true
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			return wrong("%v", err)
		}
		if body, err = io.ReadAll(z); err != nil {
			return wrong("%v", err)
		}
	}
	if s.query != defaultQuery {
		if bytes.Contains(body, []byte("bad")) {
			return 27, "CANNOT_PARSE_INPUT_ASSERTION_FAILED"
		}
		if !s.tokens[token] {
			s.tokens[token] = true
			s.bodies = append(s.bodies, string(body))
		}
		return 0, ""
	}
	rows, err := parse(body)
	if err != nil {
		return wrong("%v", err)
	}
	for _, r := range rows {
		if string(r.Value) == "bad" {
			return 469, "VIOLATED_CONSTRAINT"
		}
	}
	if !s.tokens[token] {
		s.tokens[token] = true
		s.rows = append(s.rows, rows...)
	}
	return 0, ""
}

// parse reads RowBinaryWithNamesAndTypes. It shares no code with the sink.
func parse(body []byte) ([]sink.Row, error) {
	r := bufio.NewReader(bytes.NewReader(body))
	str := func() string {
		n, err := binary.ReadUvarint(r)
		if err != nil || n > uint64(len(body)) {
			return "no string"
		}
		b := make([]byte, n)
		_, _ = io.ReadFull(r, b)
		return string(b)
	}
	u64 := func() uint64 {
		var b [8]byte
		_, _ = io.ReadFull(r, b[:])
		return binary.LittleEndian.Uint64(b[:])
	}
	n, _ := binary.ReadUvarint(r)
	head := []string{}
	for range 2 * n {
		head = append(head, str())
	}
	want := []string{"offset", "time", "key", "value", "headers", "UInt64", "DateTime64(6, 'UTC')", "String", "String", "Map(String, String)"}
	if fmt.Sprint(head) != fmt.Sprint(want) {
		return nil, fmt.Errorf("head %q", head)
	}
	var rows []sink.Row
	for {
		if _, err := r.Peek(1); err == io.EOF {
			return rows, nil
		}
		row := sink.Row{Offset: u64(), Time: time.UnixMicro(int64(u64())), Key: []byte(str()), Value: []byte(str()), Headers: map[string]string{}}
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, errors.New("a row ends early")
		}
		for range n {
			k := str()
			row.Headers[k] = str()
		}
		rows = append(rows, row)
	}
}
