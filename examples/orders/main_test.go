package main

import (
	"context"
	"io"
	"log"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/examples/internal/kill"
)

func TestMain(m *testing.M) { kill.Main(m, main) }

// TestKill: whatever crashes, each order that was placed is charged once or declined, and
// the shop, the bank and the mail service agree.
func TestKill(t *testing.T) {
	outside := newServices(2)
	server := httptest.NewServer(outside)
	defer server.Close()
	dir, orders := t.TempDir(), 0
	out := kill.Run(t, kill.Victim{Lines: 30, Args: func(life int) []string {
		orders = 10 * (life + 1)
		return []string{"-dir", dir, "-services", server.URL, "-orders", strconv.Itoa(orders)}
	}})
	require.Contains(t, out, strconv.Itoa(orders)+" orders: ")

	s, err := open(dir, server.URL, log.New(io.Discard, "", 0))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	outside.mu.Lock()
	defer outside.mu.Unlock()
	charged := map[string]payment{} // by order
	for _, p := range outside.charges {
		require.NotContains(t, charged, p.order, "the bank has it twice")
		charged[p.order] = p
	}
	n, requests := 0, map[int64]bool{}
	require.NoError(t, s.all(func(id string, o order) error {
		n++
		require.False(t, requests[o.Cents], "%s: a second order of one request", id)
		requests[o.Cents] = true // each request has a price of its own
		p, ok := charged[id]
		require.True(t, ok, "%s was never charged", id)
		require.Equal(t, payment{id, o.Customer, o.Cents, o.Receipt}, p)
		want := paid
		if o.Customer == "mallory" {
			want = declined
		}
		require.Equal(t, want, o.Status, id)
		require.True(t, o.MailSent, id)
		require.GreaterOrEqual(t, outside.mails["<"+id+"@shop>"], 1, id)
		return nil
	}))
	require.Equal(t, orders, n)
	require.Len(t, charged, n, "the bank has charges of no order")
	require.Len(t, outside.mails, n)
	copies := 0
	for _, c := range outside.mails {
		copies += c
	}
	t.Logf("the bank was asked %d times for %d orders; %d copies of mails", outside.asked, n, copies)
	charges, err := s.cashier.Stats(context.Background())
	require.NoError(t, err)
	mails, err := s.postman.Stats(context.Background())
	require.NoError(t, err)
	for _, st := range []int64{charges.Done, charges.Enqueued, mails.Done, mails.Enqueued} {
		require.EqualValues(t, n, st)
	}
}
