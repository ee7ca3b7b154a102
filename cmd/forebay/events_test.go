package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
)

// bank makes a store with an event store in which Alice has an account: an event a
// minute, from 21:40:28 on. Others have what is less plain.
func bank(t *testing.T) (dir string) {
	t.Helper()
	ctx := context.Background()
	dir = filepath.Join(t.TempDir(), "store")
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	var minute atomic.Int64
	s, err := eventstore.Open(db, "bank", &eventstore.Options{
		Now:        func() time.Time { return time.Date(2026, 11, 26, 21, 40+int(minute.Load()), 28, 0, time.UTC) },
		Rand:       strings.NewReader(strings.Repeat("\x01\x02", 4096)),
		MasterKeys: []eventstore.MasterKey{{ID: 1}},
	})
	require.NoError(t, err)
	for _, ev := range [][2]string{
		{"AccountCreated", `{"name": "Alice"}`}, {"Deposited", `{"amount": 1000}`}, {"Withdrawn", `{"amount": 300}`},
		{"NameChanged", `{"name": "Alicia"}`}, {"Deposited", `{"amount": 100}`}, {"Withdrawn", `{"amount": 300}`},
	} {
		_, err := s.Append(ctx, "account-42", eventstore.Any, eventstore.New{Type: ev[0], Payload: []byte(ev[1])})
		require.NoError(t, err)
		minute.Add(1)
	}
	_, err = s.Append(ctx, "other\n", eventstore.NoStream,
		eventstore.New{Type: "Said", Correlation: "c", Headers: map[string]string{"h": "v"}, Payload: []byte("no <json>")},
		eventstore.New{Type: "Told", Schema: 2, Subject: "ann", Payload: []byte(`{"secret": 1}`)},
		eventstore.New{Type: "Raw", Payload: []byte("\xff")})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return dir
}

// TestEventsState is the account of which the balance is known, and how it came to be.
func TestEventsState(t *testing.T) {
	dir := bank(t)
	sums := []string{"events", "state", dir, "account-42", "--sum", "balance=amount", "--subtract", "Withdrawn"}
	require.Equal(t, `account-42 at version 6, 2026-11-26T21:45:28.000Z
  balance          500
  name             Alicia
`, fine(t, sums...))
	at := func(when string) string { return fine(t, append(sums, "--at", when, "--json")...) }
	for _, tt := range []struct{ at, want string }{
		{"1", `{"name":"Alice"}`}, {"2", `{"balance":1000,"name":"Alice"}`}, {"3", `{"balance":700,"name":"Alice"}`},
		{"4", `{"balance":700,"name":"Alicia"}`}, {"5", `{"balance":800,"name":"Alicia"}`}, {"6", `{"balance":500,"name":"Alicia"}`},
		{"2026-11-26T21:41:28Z", `{"balance":1000,"name":"Alice"}`}, {"2026-11-26T21:41:27.999Z", `{"name":"Alice"}`},
		{"2026-11-26T22:43:00+01:00", `{"balance":700,"name":"Alice"}`}, {"2026-11-27", `{"balance":500,"name":"Alicia"}`},
	} {
		require.Contains(t, at(tt.at), `"state":`+tt.want, tt.at)
	}
	require.Equal(t, "account-42 had no events then\n", fine(t, append(sums, "--at", "2026-11-26T21:40:27Z")...))
	require.JSONEq(t, `{"stream":"account-42","version":0,"ignored":0,"state":{}}`, at("0"))
	require.JSONEq(t, `{"stream":"account-42","version":3,"ignored":0,"time":"2026-11-26T21:42:28Z","state":{"amount":300,"name":"Alice"}}`,
		fine(t, "events", "state", dir, "account-42", "--at", "3", "--json"))
	require.Contains(t, fine(t, "events", "state", dir, "other\n"), "3 events ignored")
}

func TestEventsRead(t *testing.T) {
	dir := bank(t)
	require.Equal(t, `     first    version  last event                stream
         1          6  2026-11-26T21:45:28.000Z  account-42
         1          3  2026-11-26T21:46:28.000Z  other\n
`, fine(t, "events", "streams", dir))
	require.Regexp(t, `^\{"first":1,"hash":"[0-9a-f]{64}","stream":"account-42","time":"2026-11-26T21:45:28Z","version":6\}\n$`,
		fine(t, "events", "streams", dir, "--prefix", "acc", "--json"))
	require.Equal(t, `       3  2026-11-26T21:43:28.000Z  account-42/4  NameChanged  {"name": "Alicia"}
       4  2026-11-26T21:44:28.000Z  account-42/5  Deposited  {"amount": 100}
`, fine(t, "events", "read", dir, "account-42", "--from", "4", "--limit", "2", "--store", "bank"))
	require.Equal(t, `       6  2026-11-26T21:46:28.000Z  other\n/1  Said  no <json>
       7  2026-11-26T21:46:28.000Z  other\n/2  Told  (sealed)
       8  2026-11-26T21:46:28.000Z  other\n/3  Raw  \xff
`, fine(t, "events", "read", dir, "--from", "6"))
	require.Equal(t, 9, strings.Count(fine(t, "events", "read", dir), "\n"))
	require.Empty(t, fine(t, "events", "read", dir, "account-42", "--from", "7"))
	lines := strings.Split(fine(t, "events", "read", dir, "other\n", "--json"), "\n")
	require.Len(t, lines, 4)
	require.Regexp(t, `^\{"offset":6,"lsn":\d+,"stream":"other\\n","version":1,"id":"[0-9a-f]{32}","type":"Said","schema":1,"time":"2026-11-26T21:46:28Z","correlation":"c","headers":\{"h":"v"\},"payload_text":"no <json>"\}$`, lines[0])
	require.Contains(t, lines[1], `"schema":2,"time":"2026-11-26T21:46:28Z","subject":"ann","sealed":true}`)
	require.Contains(t, lines[2], `"payload_b64":"/w=="}`)
}

func TestEventsReplay(t *testing.T) {
	dir := bank(t)
	all := fine(t, "events", "replay", dir)
	require.Equal(t, fine(t, "events", "read", dir, "--json"), all)
	lines := strings.SplitAfter(all, "\n")
	require.Contains(t, lines[3], `"payload":{"name":"Alicia"}`)
	tail := func(n int) string { return strings.Join(lines[n:], "") }
	require.Equal(t, tail(4), fine(t, "events", "replay", dir, "--from", "4"))
	require.Equal(t, tail(4), fine(t, "events", "replay", dir, "--since", "2026-11-26T21:43:29Z"))
	require.Equal(t, tail(4), fine(t, "events", "replay", dir, "--since", "2026-11-26T21:44:28Z"))
	require.Equal(t, lines[4], fine(t, "events", "replay", dir, "--from", "4", "--limit", "1"))
	require.Empty(t, fine(t, "events", "replay", dir, "--since", "2030-01-01"))
	require.Equal(t, all, fine(t, "events", "replay", dir, "--since", "2000-01-01", "--rate", "1e9"))
	begin := time.Now()
	require.Equal(t, all, fine(t, "events", "replay", dir, "--rate", "100"))
	require.GreaterOrEqual(t, time.Since(begin), 79*time.Millisecond) // nine events are eight waits of 10 ms
}

// Events that were taken out are said to be gone where somebody asks for them.
func TestEventsRetained(t *testing.T) {
	dir := bank(t)
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	s, err := eventstore.Open(db, "bank", nil)
	require.NoError(t, err)
	_, err = s.Retain(t.Context(), eventstore.Retention{Before: 3})
	require.NoError(t, err)
	require.NoError(t, db.Close())
	for _, args := range []string{"events read DIR", "events read DIR account-42", "events replay DIR"} {
		require.Contains(t, strings.SplitAfter(fine(t, strings.Fields(strings.ReplaceAll(args, "DIR", dir))...), "\n")[0], "NameChanged", args)
	}
	for _, args := range []string{"events read DIR --from 1", "events read DIR account-42 --from 2", "events replay DIR --from 0", "events state DIR account-42"} {
		code, _, errs := forebayCmd("", strings.Fields(strings.ReplaceAll(args, "DIR", dir))...)
		require.Equal(t, 1, code, args)
		require.Contains(t, errs, "were taken out", args)
	}
}

func TestEventsMistakes(t *testing.T) {
	dir := bank(t)
	empty := fill(t, nil)
	for _, tt := range []struct {
		code int
		args string
		want string
	}{
		{1, "events streams EMPTY", "has no event stores"},
		{1, "events streams DIR --store shop", `it has "bank"`},
		{1, "events read DIR nobody", "events streams"},
		{1, "events state DIR nobody", "events streams"},
		{1, "events state DIR account-42 --at 7", "has 6 versions"},
		{1, "events state DIR account-42 --sum name", `is to be added up (--sum): it is "Alice", and no number`},
		{2, "events state DIR account-42 --at noon", "neither a version nor a time"},
		{2, "events state DIR account-42 --at -1", "neither a version nor a time"},
		{2, "events state DIR account-42 --sum =x", "--sum"},
		{2, "events state DIR account-42 --sum a=x,b=x", "twice"},
		{2, "events state DIR account-42 --subtract Withdrawn", "without --sum"},
		{2, "events state DIR", "accepts 2 arg"},
		{2, "events replay DIR --since noon", "is no time"},
		{2, "events replay DIR --since 2026-01-01 --from 1", "not by both"},
		{2, "events replay DIR --rate -1", "--rate"},
		{2, "events read DIR --limit -1", "below 0"},
		{2, "events read DIR --from x", "invalid argument"},
		{2, "events", "needs a command"},
	} {
		code, out, errs := forebayCmd("", strings.Fields(strings.NewReplacer("DIR", dir, "EMPTY", empty).Replace(tt.args))...)
		require.Equal(t, tt.code, code, "%s: %s", tt.args, errs)
		require.Empty(t, out, tt.args)
		require.Contains(t, errs, tt.want, tt.args)
	}
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	_, err = eventstore.Open(db, "shop", nil)
	require.NoError(t, err)
	code, _, errs := forebayCmd("", "events", "read", dir)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "open in another process")
	require.NoError(t, db.Close())
	code, _, errs = forebayCmd("", "events", "read", dir)
	require.Equal(t, 2, code)
	require.Contains(t, errs, `"bank", "shop"`)
	require.Contains(t, errs, "--store")
}

// TestEventsReplayStops: an interrupt ends a slow replay, with what it has written whole.
func TestEventsReplayStops(t *testing.T) {
	dir := bank(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs strings.Builder
	out := writerFunc(func(b []byte) (int, error) {
		require.True(t, json.Valid(b), "%s", b)
		cancel()
		return len(b), nil
	})
	require.Equal(t, 1, run(ctx, []string{"events", "replay", dir, "--rate", "0.01"}, strings.NewReader(""), out, &errs))
	require.Contains(t, errs.String(), "interrupted")
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
