package eventstore_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/vfs"
)

// TestLeaveSealed: who has no master keys sees all but the payloads that need one, and
// leaves nothing behind that who has them could take for whole.
func TestLeaveSealed(t *testing.T) {
	db := openDB(t, vfs.NewMem())
	names, err := eventstore.Names(db)
	require.NoError(t, err)
	require.Empty(t, names)
	up := eventstore.Upcaster{Type: "Said", From: 1, To: 2, Up: func(ev eventstore.Event) (eventstore.Event, error) {
		require.NotEmpty(t, ev.Payload)
		ev.Payload = bytes.ToUpper(ev.Payload)
		return ev, nil
	}}
	whole := open(t, db, &eventstore.Options{MasterKeys: []eventstore.MasterKey{{ID: 1, Key: [32]byte{1}}}, Upcasters: []eventstore.Upcaster{up}})
	add(t, whole, "a", "plain")
	for _, subject := range []string{"ann", "bob"} {
		_, err = whole.Append(ctx, "a", eventstore.Any, eventstore.New{Type: "Said", Subject: subject, Payload: []byte("secret")})
		require.NoError(t, err)
	}
	require.NoError(t, whole.Forget(ctx, "bob"))
	require.Equal(t, []string{"a/1 PLAIN", "a/2 SECRET", "a/3 erased"}, stream(t, whole, "a", 1))
	_, err = db.Keyspace("events/none") // somebody else's
	require.NoError(t, err)
	names, err = eventstore.Names(db)
	require.NoError(t, err)
	require.Equal(t, []string{"bank"}, names)

	for _, err := range open(t, db, nil).All(ctx, 1) {
		require.ErrorIs(t, err, eventstore.ErrNoMasterKey)
		break
	}
	s := open(t, db, &eventstore.Options{LeaveSealed: true, Upcasters: []eventstore.Upcaster{up}})
	require.Equal(t, []string{"a/1 PLAIN", "a/2 ", "a/3 erased"}, stream(t, s, "a", 1))
	var sealed []uint64
	for ev, err := range s.All(ctx, 0) {
		require.NoError(t, err)
		if ev.Sealed {
			require.Nil(t, ev.Payload)
			sealed = append(sealed, ev.Offset)
		}
	}
	require.Equal(t, []uint64{1}, sealed)
	r, err := s.Verify(ctx)
	require.NoError(t, err)
	require.Zero(t, r.Sealed)
	require.Equal(t, uint64(1), r.Erased)
	a := &eventstore.Aggregate[int]{Name: "n", SnapshotEvery: 1, Apply: func(n int, ev eventstore.Event) (int, error) { return n + len(ev.Payload), nil }}
	l, err := a.Load(ctx, s, "a")
	require.NoError(t, err)
	require.Equal(t, len("plain"), l.State)
	l, err = a.Load(ctx, whole, "a")
	require.NoError(t, err)
	require.Equal(t, len("plain")+len("secret"), l.State)
	require.Zero(t, l.Snapshot)
	_, err = s.Projection(eventstore.ProjectionOptions{Name: "p", Apply: func(forebay.Space, eventstore.Event) error { return nil }})
	require.ErrorIs(t, err, eventstore.ErrNoMasterKey)
}
