package main

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/queue"
)

// mails makes a store with a queue of a group: one dead letter for each reason, and
// messages that wait. Another queue has no group, a third two.
func mails(t *testing.T, reasons ...string) (dir string) {
	t.Helper()
	ctx := context.Background()
	dir = filepath.Join(t.TempDir(), "store")
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	now := time.Date(2020, 11, 26, 21, 40, 28, 0, time.UTC)
	opts := &queue.Options{Priorities: 2, Now: func() time.Time { return now }}
	q, err := queue.Open(db, "mails", queue.Bytes{}, opts)
	require.NoError(t, err)
	g, err := q.Group("sender", nil)
	require.NoError(t, err)
	for _, reason := range reasons {
		_, err := q.Enqueue(ctx, []byte(`{"to": "`+reason+`"}`), nil)
		require.NoError(t, err)
		ms, err := g.Receive(ctx, 1)
		require.NoError(t, err)
		require.NoError(t, ms[0].Kill(ctx, errors.New(reason)))
	}
	for value, m := range map[string]queue.Meta{"first": {Key: "ann", DedupeID: "d"}, "\xffurgent": {Priority: 1, Headers: map[string]string{"h": "v"}}} {
		_, err := q.Enqueue(ctx, []byte(value), &m)
		require.NoError(t, err)
	}
	_, err = q.Enqueue(ctx, []byte(strings.Repeat("é", 200)), &queue.Meta{Delay: time.Hour})
	require.NoError(t, err)
	require.NoError(t, q.Close())
	for _, name := range []string{"alone", "both"} {
		q, err = queue.Open(db, name, queue.Bytes{}, nil)
		require.NoError(t, err)
		_, err = q.Enqueue(ctx, nil, nil)
		require.NoError(t, err)
		if name == "both" {
			for _, group := range []string{"a", "b"} {
				_, err := q.Group(group, nil)
				require.NoError(t, err)
			}
		}
		require.NoError(t, q.Close())
	}
	require.NoError(t, db.Close())
	return dir
}

func TestQueueStats(t *testing.T) {
	dir := mails(t, "no such user", "mailbox full")
	out := fine(t, "queue", "stats", dir)
	require.Regexp(t, `(?m)^queue mails$`, out)
	require.Regexp(t, `(?m)^ +3 +0 +[01] +2 +0 +\d+d\d\dh +- +sender$`, out)
	require.Regexp(t, `(?m)^ +1 +0 +0 +0 +0 +[\d.]+ .s +- +\(none yet\)$`, out)
	require.Regexp(t, `(?m)^ +1 .* b$`, out)
	require.Regexp(t, ` 6\.0 s +sender$`, strings.TrimSpace(fine(t, "queue", "stats", dir, "mails", "--rate", "0.5")))
	lines := strings.Split(strings.TrimSpace(fine(t, "queue", "stats", dir, "--json", "--rate", "100")), "\n")
	require.Len(t, lines, 4)
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[3]), &got))
	require.Equal(t, "mails", got["queue"])
	require.Equal(t, "sender", got["group"])
	for name, want := range map[string]int{"enqueued": 5, "done": 0, "dead": 2, "pending": 3} {
		require.EqualValues(t, want, got[name], name)
	}
	require.InEpsilon(t, .03, got["drain_eta_s"], 1e-9)
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &got))
	require.Nil(t, got["group"])

	empty := fill(t, nil)
	require.Equal(t, empty+" has no queues\n", fine(t, "queue", "stats", empty))
	require.Empty(t, fine(t, "queue", "stats", empty, "--json"))
}

func TestQueuePeek(t *testing.T) {
	dir := mails(t, "gone")
	require.Equal(t, strings.ReplaceAll(`1-0  2020-11-26T21:40:28.000Z  \xffurgent
0-1  2020-11-26T21:40:28.000Z  key ann; first
10-0  2020-11-26T21:40:28.000Z  due 2020-11-26T22:40:28.000Z; LONG…
`, "LONG", strings.Repeat("é", 60)), fine(t, "queue", "peek", dir, "mails"))
	require.Equal(t, `{"id":"1-0","priority":1,"headers":{"h":"v"},"enqueued":"2020-11-26T21:40:28Z","attempts":0,"payload_b64":"/3VyZ2VudA=="}
{"id":"0-1","key":"ann","dedupe_id":"d","enqueued":"2020-11-26T21:40:28Z","attempts":0,"payload_text":"first"}
`, fine(t, "queue", "peek", dir, "mails", "--json", "--limit", "2", "--group", "sender"))
	require.Equal(t, fine(t, "queue", "peek", dir, "mails"), fine(t, "queue", "peek", dir, "mails", "--limit", "0"))
	require.Contains(t, fine(t, "queue", "peek", dir, "alone", "--json"), `"payload_text":""`)
}

func TestQueueDeadLetters(t *testing.T) {
	dir := mails(t, "no such user", "mailbox full", "third", "fourth")
	out := fine(t, "queue", "dlq", dir, "mails")
	require.Equal(t, `0-0  2020-11-26T21:40:28.000Z  attempts 1; no such user; {"to": "no such user"}
0-1  2020-11-26T21:40:28.000Z  attempts 1; mailbox full; {"to": "mailbox full"}
`, strings.Join(strings.SplitAfter(out, "\n")[:2], ""))
	require.Equal(t, `{"id":"0-0","enqueued":"2020-11-26T21:40:28Z","died":"2020-11-26T21:40:28Z","attempts":1,"reason":"no such user","payload":{"to":"no such user"}}
`, fine(t, "queue", "dlq", dir, "mails", "--json", "--limit", "1"))
	dead := func() int { return strings.Count(fine(t, "queue", "dlq", dir, "mails"), "\n") }

	// One that is none, and nothing is done with the other.
	code, stdout, errs := forebayCmd("", "queue", "redrive", dir, "mails", "0-0", "0-77")
	require.Equal(t, 1, code)
	require.Empty(t, stdout)
	require.Contains(t, errs, "0-77")
	require.Contains(t, errs, "nothing was redriven")
	require.Equal(t, 4, dead())

	require.Equal(t, "redriven 1 dead letter of group \"sender\"\n", fine(t, "queue", "redrive", dir, "mails", "0-1", "0-1"))
	require.Equal(t, 3, dead())
	require.Contains(t, fine(t, "queue", "peek", dir, "mails"), "mailbox full")
	require.JSONEq(t, `{"queue": "mails", "group": "sender", "purged": 1}`, fine(t, "queue", "purge", dir, "mails", "0-0", "--yes", "--json"))
	require.Equal(t, 2, dead())
	code, _, errs = forebayCmd("", "queue", "purge", dir, "mails", "--all")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--yes")
	require.Equal(t, 2, dead())
	require.Equal(t, "redriven 2 dead letters of group \"sender\"\n", fine(t, "queue", "redrive", dir, "mails", "--all", "--group", "sender"))
	require.Equal(t, "purged 0 dead letters of group \"sender\"\n", fine(t, "queue", "purge", dir, "mails", "--all", "--yes"))

	// What was redriven is delivered, and a dedupe id is not forgotten.
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	q, err := queue.Open(db, "mails", queue.Bytes{}, &queue.Options{Now: func() time.Time { return time.Date(2020, 11, 26, 21, 50, 0, 0, time.UTC) }})
	require.NoError(t, err)
	defer q.Close()
	_, err = q.Enqueue(t.Context(), nil, &queue.Meta{DedupeID: "d"})
	require.ErrorIs(t, err, queue.ErrDuplicate)
}

// What is wrong is said, with what there is instead.
func TestQueueMistakes(t *testing.T) {
	dir := mails(t)
	empty := fill(t, nil)
	for _, tt := range []struct {
		code int
		args string
		want string
	}{
		{1, "queue stats DIR nobody", `it has "alone", "both", "mails"`},
		{1, "queue peek DIR nobody", `it has "alone", "both", "mails"`},
		{1, "queue dlq EMPTY nobody", `has no queues`},
		{2, "queue peek DIR both", `say which by --group`},
		{1, "queue peek DIR both --group c", `it has "a", "b"`},
		{1, "queue peek DIR alone --group c", `has no groups`},
		{1, "queue dlq DIR alone", `has no groups`},
		{1, "queue redrive DIR alone --all", `has no groups`},
		{2, "queue redrive DIR mails", `or --all`},
		{2, "queue redrive DIR mails 0-0 --all", `or --all`},
		{2, "queue redrive DIR mails x", `no id of a message`},
		{2, "queue purge DIR mails 0-0", `--yes`},
		{2, "queue peek DIR mails --limit -1", `below 0`},
		{2, "queue stats DIR --rate NaN", `--rate`},
		{2, "queue", `needs a command`},
		{2, "queue deq", `did you mean`},
	} {
		code, out, errs := forebayCmd("", strings.Fields(strings.NewReplacer("DIR", dir, "EMPTY", empty).Replace(tt.args))...)
		require.Equal(t, tt.code, code, "%s: %s", tt.args, errs)
		require.Empty(t, out, tt.args)
		require.Contains(t, errs, tt.want, tt.args)
	}
	db, err := forebay.Open(dir, nil)
	require.NoError(t, err)
	defer db.Close()
	for _, args := range []string{"queue stats DIR", "queue purge DIR mails --all --yes"} {
		code, _, errs := forebayCmd("", strings.Fields(strings.ReplaceAll(args, "DIR", dir))...)
		require.Equal(t, 1, code)
		require.Contains(t, errs, "open in another process")
	}
}
