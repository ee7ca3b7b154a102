package clickhouse

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/forebaydb/forebay/sink"
)

// Options says where rows go and how.
type Options struct {
	// URL is that of the HTTP interface, "http://localhost:8123". Parameters in it go with
	// each INSERT.
	URL string
	// Database and Table are the target. The names are quoted. "": the user's default.
	Database, Table string
	// User and Password go in headers, if User is set.
	User, Password string
	// Columns are those that Encode writes; nil with Encode nil: the five of the package
	// comment.
	Columns []string
	// Format is that of Encode, as ClickHouse names it: RowBinary unless set, JSONEachRow,
	// Values, …
	Format string
	// Encode appends a row in Format to dst and returns it. It must give the same for the
	// same row each time, and keep nothing of the row. Its error rejects the row, also
	// when an earlier version of it did not and the batch was written. Any number of
	// goroutines may call it at once.
	Encode func(dst []byte, r sink.Row) ([]byte, error)
	// Gzip compresses what is sent.
	Gzip bool
	// Settings go with each INSERT: "insert_quorum": "2". They cannot change those that
	// exactly once depends on.
	Settings map[string]string
	// Client is used without its CheckRedirect; nil: http.DefaultTransport without a limit
	// of time but that of the context.
	Client *http.Client
	// Permanent says of the code of an exception that it is of a row and stays; nil:
	// Permanent, and with the default columns, which take all bytes, VIOLATED_CONSTRAINT
	// (469) alone: there an error of reading is one of the table.
	Permanent func(code int) bool
}

// Sink writes batches into a table. Any number of goroutines may call it at once. It holds
// nothing but idle connections of its client.
type Sink struct {
	o      Options // not changed
	url    *url.URL
	head   []byte     // of the body, before the rows; not changed
	query  url.Values // but for the token
	client *http.Client
}

var _ sink.Sink = (*Sink)(nil)

// own are the settings that the sink depends on.
var own = map[string]string{
	"wait_end_of_query":  "1", // the status is known when it is sent
	"async_insert":       "0",
	"insert_deduplicate": "1",
	// A batch is one block, and so there or not: blocks are joined up to that many rows.
	"min_insert_block_size_rows":    strconv.Itoa(maxRows),
	"min_insert_block_size_bytes":   "0",
	"max_insert_block_size":         strconv.Itoa(maxRows),
	"max_insert_threads":            "1",
	"input_format_parallel_parsing": "0",
	// Also where views hang on the table: a token counts for them, too.
	"deduplicate_blocks_in_dependent_materialized_views": "1",
	"input_format_allow_errors_num":                      "0", // a bad row is refused and not passed over
	"input_format_allow_errors_ratio":                    "0",
}

const maxRows = 1 << 20

// New makes a sink. It does not connect.
func New(o Options) (*Sink, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the URL, in which there may be a password
		}
		return nil, fmt.Errorf("clickhouse: URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("clickhouse: %q is no URL of http or https", u.Redacted())
	}
	if (o.Columns == nil) != (o.Encode == nil) {
		return nil, errors.New("clickhouse: Columns and Encode go together")
	}
	var head []byte
	if o.Encode == nil {
		if o.Format != "" {
			return nil, errors.New("clickhouse: Format is that of Encode")
		}
		o.Columns, o.Encode, o.Format, head = defaultColumns, defaultEncode, "RowBinaryWithNamesAndTypes", defaultHead()
		if o.Permanent == nil {
			o.Permanent = func(code int) bool { return code == violatedConstraint }
		}
	}
	if o.Format == "" {
		o.Format = "RowBinary"
	}
	for _, c := range o.Format {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return nil, fmt.Errorf("clickhouse: %q is no format", o.Format)
		}
	}
	if len(o.Columns) == 0 {
		return nil, errors.New("clickhouse: no columns")
	}
	names := append([]string{o.Table}, o.Columns...)
	if o.Database != "" {
		names = append(names, o.Database)
	}
	for _, name := range names {
		if name == "" || strings.IndexByte(name, 0) >= 0 {
			return nil, fmt.Errorf("clickhouse: %q is no name", name)
		}
	}
	if o.Permanent == nil {
		o.Permanent = Permanent
	}
	s := &Sink{o: o, head: head, url: u, query: u.Query()}
	for k, v := range o.Settings {
		if _, ok := own[k]; ok || k == "query" || k == "insert_deduplication_token" {
			return nil, fmt.Errorf("clickhouse: %s is the sink's own", k)
		}
		s.query.Set(k, v)
	}
	for k, v := range own {
		s.query.Set(k, v)
	}
	s.query.Set("query", insertSQL(&o))
	client := http.Client{}
	if o.Client != nil {
		client = *o.Client
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s.client = &client
	return s, nil
}

func quote(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

func insertSQL(o *Options) string {
	var cols []string
	for _, c := range o.Columns {
		cols = append(cols, quote(c))
	}
	table := quote(o.Table)
	if o.Database != "" {
		table = quote(o.Database) + "." + table
	}
	return "INSERT INTO " + table + " (" + strings.Join(cols, ", ") + ") FORMAT " + o.Format
}

// Write is sink.Sink: one INSERT. With any error but *sink.Rejected whether the batch was
// written is unknown.
func (s *Sink) Write(ctx context.Context, b sink.Batch) error {
	if len(b.ID) < 1 || len(b.ID) > sink.MaxID {
		return fmt.Errorf("clickhouse: an ID of %d bytes: it has 1 to %d", len(b.ID), sink.MaxID)
	}
	if len(b.Rows) == 0 {
		return ctx.Err()
	}
	if len(b.Rows) > maxRows {
		// No row is bad, but nothing was written, and in halves it may go.
		return &sink.Rejected{Err: fmt.Errorf("clickhouse: %d rows in a batch: more than %d would not be one block", len(b.Rows), maxRows)}
	}
	body, bad := s.encode(b.Rows)
	if bad != nil {
		return bad
	}
	if s.o.Gzip {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := w.Write(body); err != nil {
			return fmt.Errorf("clickhouse: gzip: %w", err)
		}
		if err := w.Close(); err != nil {
			return fmt.Errorf("clickhouse: gzip: %w", err)
		}
		body = z.Bytes()
	}
	u, query := *s.url, maps.Clone(s.query)
	query.Set("insert_deduplication_token", b.ID)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("clickhouse: %w", err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if s.o.Gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if s.o.User != "" {
		req.Header.Set("X-ClickHouse-User", s.o.User)
		req.Header.Set("X-ClickHouse-Key", s.o.Password)
	}
	res, err := s.client.Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the URL, in which there may be a password
		}
		return fmt.Errorf("clickhouse: %w", err)
	}
	defer res.Body.Close()
	answer, err := readAnswer(res.Body)
	return s.judge(res, answer, err)
}

// maxAnswer is what is read of an answer.
const maxAnswer = 16 << 10

// readAnswer reads an answer to its end: an exception may be at the end of a long one.
// What it returns is the beginning, with the last part behind it where there is more.
func readAnswer(r io.Reader) ([]byte, error) {
	head, err := io.ReadAll(io.LimitReader(r, maxAnswer))
	if err != nil || len(head) < maxAnswer {
		return head, err
	}
	tail, buf := []byte(nil), make([]byte, maxAnswer)
	for read := 0; read < 64*maxAnswer; {
		n, err := r.Read(buf)
		read += n
		tail = append(tail, buf[:n]...)
		tail = tail[max(0, len(tail)-maxAnswer):]
		if err == io.EOF {
			return slices.Concat(head, tail), nil
		}
		if err != nil {
			return slices.Concat(head, tail), err
		}
	}
	return slices.Concat(head, tail), errors.New("it has no end")
}

func (s *Sink) encode(rows []sink.Row) ([]byte, error) {
	body := slices.Clone(s.head)
	var bad *sink.Rejected
	for i, r := range rows {
		after, err := s.o.Encode(body, r)
		if err != nil {
			if bad == nil {
				bad = &sink.Rejected{Err: fmt.Errorf("clickhouse: %w", err)}
			}
			bad.Rows = append(bad.Rows, i)
			continue
		}
		body = after
	}
	if bad != nil {
		return nil, bad
	}
	return body, nil
}
