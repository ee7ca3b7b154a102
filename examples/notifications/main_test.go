package main

import (
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/examples/internal/kill"
	"github.com/forebaydb/forebay/queue"
)

func TestMain(m *testing.M) { kill.Main(m, main) }

// TestKill: whatever crashes, each notification is enqueued once and sent by each channel,
// or is a dead letter for a reason that stays; and the figures fit.
func TestKill(t *testing.T) {
	outside := newGateways(2)
	server := httptest.NewServer(outside)
	defer server.Close()
	dir, n := t.TempDir(), 0
	kill.Run(t, kill.Victim{Lines: 30, Args: func(life int) []string {
		n = 8 * (life + 1)
		return []string{"-dir", dir, "-gateways", server.URL, "-n", strconv.Itoa(n)}
	}})

	c, err := open(dir, server.URL, log.New(io.Discard, "", 0))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.close()) }()
	sent, err := c.db.Keyspace("sent")
	require.NoError(t, err)
	outside.mu.Lock()
	defer outside.mu.Unlock()
	copies := 0
	for _, k := range outside.copies {
		copies += k
	}
	t.Logf("%d copies of %d messages", copies, len(outside.copies))
	for _, ch := range c.channels {
		s, err := ch.figures(t.Context())
		require.NoError(t, err)
		dead := map[string]bool{}
		for d, err := range ch.group.DeadLetters() {
			require.NoError(t, err)
			require.Contains(t, d.Reason, errAddress.Error())
			note, err := queue.JSON[notification]{}.Decode(d.Payload)
			require.NoError(t, err)
			require.Equal(t, "nobody", note.User)
			dead[note.ID] = true
		}
		for i := range n {
			id := fmt.Sprintf("n-%04d", i)
			has, err := sent.Has([]byte(ch.name + " " + id))
			require.NoError(t, err)
			never := ch.name == "sms" && users[i%len(users)] == "nobody"
			require.Equal(t, never, dead[id], "%s by %s", id, ch.name)
			require.Equal(t, !never, has, "%s by %s", id, ch.name)
			require.Equal(t, !never, outside.copies[ch.name+" "+id] > 0, "%s by %s", id, ch.name)
		}
		require.EqualValues(t, n, s.Enqueued, ch.name)
		require.EqualValues(t, n-len(dead), s.Done, ch.name)
		require.EqualValues(t, len(dead), s.Dead, ch.name)
		require.Zero(t, s.Pending, ch.name)
	}
}
