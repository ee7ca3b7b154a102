package clickhouse_test

import (
	"bufio"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/sink/clickhouse"
	"github.com/forebaydb/forebay/sink/sinktest"
)

// libraries are where chDB, the engine of ClickHouse as a library, may be. Its packages
// (chdb of npm and PyPI) have it as libchdb.so.
var libraries = []string{os.Getenv("FOREBAY_CHDB"), "/usr/local/lib/libchdb.so", "/usr/lib/libchdb.so"}

// engine is where the real engine listens: a process of its own, as the library and Go
// both want the signals.
type engine string

func startEngine(t *testing.T) engine {
	t.Helper()
	i := slices.IndexFunc(libraries, func(path string) bool {
		_, err := os.Stat(path)
		return path != "" && err == nil
	})
	python, err := exec.LookPath("python3")
	if i < 0 || err != nil {
		t.Skip("no libchdb.so (FOREBAY_CHDB says where it is) or no python3")
	}
	cmd := exec.Command(python, "testdata/engine.py", libraries[i])
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return engine("http://127.0.0.1:" + strings.TrimSpace(port))
}

// must does a statement, and returns what it says in CSV.
func (e engine) must(t testing.TB, sql string) string {
	t.Helper()
	res, err := http.Post(string(e)+"/do", "text/plain", strings.NewReader(sql))
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, 200, res.StatusCode, "%s: %s", sql, b)
	return string(b)
}

const engineDDL = ` (offset UInt64, time DateTime64(6, 'UTC'), key String, value String, headers Map(String, String),
	CONSTRAINT good CHECK value != 'bad') ENGINE = MergeTree ORDER BY offset SETTINGS non_replicated_deduplication_window = 1000`

// TestEngine runs the suite with the real engine.
func TestEngine(t *testing.T) {
	e := startEngine(t)
	// A table of its own for each test: DROP waits for threads that the library lacks.
	table, tables := "", 0
	h := sinktest.Harness{
		New: func(t *testing.T) (sink.Sink, func(*testing.T) []sink.Row) {
			tables++
			table = fmt.Sprint("events", tables)
			e.must(t, `CREATE TABLE `+table+engineDDL)
			return open(t, clickhouse.Options{URL: string(e), Table: table}), func(t *testing.T) (all []sink.Row) {
				out := e.must(t, `SELECT offset, toUnixTimestamp64Micro(time), hex(key), hex(value), arrayStringConcat(arrayMap((k, v) -> hex(k) || ':' || hex(v), mapKeys(headers), mapValues(headers)), ' ') FROM `+table+` ORDER BY offset`)
				lines, err := csv.NewReader(strings.NewReader(out)).ReadAll()
				require.NoError(t, err)
				un := func(s string) []byte {
					b, err := hex.DecodeString(s)
					require.NoError(t, err)
					return b
				}
				for _, f := range lines {
					offset, err := strconv.ParseUint(f[0], 10, 64)
					require.NoError(t, err)
					at, err := strconv.ParseInt(f[1], 10, 64)
					require.NoError(t, err)
					r := sink.Row{Offset: offset, Time: time.UnixMicro(at), Key: un(f[2]), Value: un(f[3]), Headers: map[string]string{}}
					for _, kv := range strings.Fields(f[4]) {
						k, v, _ := strings.Cut(kv, ":")
						r.Headers[string(un(k))] = string(un(v))
					}
					all = append(all, r)
				}
				return all
			}
		},
		ExactlyOnce: true,
		Unordered:   true,
		Same:        same,
		Bad:         func() []byte { return []byte("bad") },
	}
	sinktest.Run(t, h)

	t.Run("OneBlock", func(t *testing.T) {
		s, _ := h.New(t)
		b := sink.Batch{ID: "large", Rows: make([]sink.Row, 200_000)}
		for i := range b.Rows {
			b.Rows[i] = sink.Row{Offset: uint64(i), Value: []byte("value")}
		}
		b.Rows[len(b.Rows)-1].Value = []byte("bad")
		rejected(t, s.Write(t.Context(), b))
		require.Equal(t, "0\n", e.must(t, `SELECT count() FROM `+table))
		b.Rows[len(b.Rows)-1].Value = nil
		require.NoError(t, s.Write(t.Context(), b))
		require.Equal(t, "1,200000\n", e.must(t, `SELECT count(), sum(rows) FROM system.parts WHERE table = '`+table+`' AND database = currentDatabase() AND active`))
	})
	t.Run("OtherTypes", func(t *testing.T) {
		s, _ := h.New(t)
		e.must(t, `ALTER TABLE `+table+` MODIFY COLUMN value FixedString(9)`)
		err := s.Write(t.Context(), batch("a", "x"))
		transient(t, err)
		require.ErrorContains(t, err, "Type of 'value' must be")
		e.must(t, `ALTER TABLE `+table+` MODIFY COLUMN value String`)
		require.NoError(t, s.Write(t.Context(), batch("a", "x")))
		e.must(t, `RENAME TABLE `+table+` TO away`)
		transient(t, s.Write(t.Context(), batch("b", "x")))
	})
	t.Run("BadRows", func(t *testing.T) {
		_, _ = h.New(t)
		for format, bad := range map[string]string{
			"JSONEachRow": "{\"offset\": \"x\"}\n{\"offset\": 1, \"time\": \"yesterday\"}\n",
			"CSV":         "x\n", "TSV": "-y\n", "Values": "('z')", "RowBinary": "abc",
		} {
			s := open(t, clickhouse.Options{
				URL: string(e), Table: table, Columns: []string{"offset"}, Format: format,
				Encode: func(dst []byte, r sink.Row) ([]byte, error) { return append(dst, bad...), nil },
			})
			rejected(t, s.Write(t.Context(), batch(format, "x")))
		}
	})
}
