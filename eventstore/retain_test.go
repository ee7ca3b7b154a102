package eventstore_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/eventstore"
)

// forge appends what does not decode as the next event of a stream, "": of none.
func forge(t *testing.T, db *forebay.DB, s *eventstore.Store, now time.Time, stream, what string) {
	t.Helper()
	item := binary.LittleEndian.AppendUint64(nil, uint64(now.UnixNano()))
	item = append(item, what...)
	require.NoError(t, db.Update(func(tx *forebay.Tx) error {
		main, err := tx.Keyspace("events/bank")
		if err != nil {
			return err
		}
		version := uint64(1)
		switch head, err := main.Get([]byte("h" + stream)); {
		case err == nil:
			version = binary.BigEndian.Uint64(head) + 1
		case !errors.Is(err, forebay.ErrNotFound):
			return err
		}
		head := binary.BigEndian.AppendUint64(nil, version)
		head = binary.BigEndian.AppendUint64(head, uint64(now.UnixNano()))
		hash := sha256.Sum256([]byte(what))
		return errors.Join(main.Put([]byte("h"+stream), append(head, hash[:]...)),
			main.Put(binary.BigEndian.AppendUint64([]byte("i"+stream+"\x00"), version), []byte{1}),
			tx.Append(s.Topic().Sequence(), item))
	}))
}

// One event that did not decode stopped Retain, and with it all that came behind, for ever.
func TestRetainPastWhatDoesNotDecode(t *testing.T) {
	var c clock
	db, s := newStore(t, &eventstore.Options{Now: c.now})
	short := func() { // it has no time, either
		require.NoError(t, db.Update(func(tx *forebay.Tx) error { return tx.Append(s.Topic().Sequence(), []byte("x")) }))
	}
	add(t, s, "a", "1", "2") // offsets 0, 1
	short()
	add(t, s, "a", "3")
	add(t, s, "b", "1")
	forge(t, db, s, c.now(), "b", "\x02 an event of another format, that has more behind it") // 5
	forge(t, db, s, c.now(), "c", "\x02 an event of another format, the last of its stream")  // 6
	add(t, s, "d", "1")
	short() // 8: nobody knows whether it is old
	c.advance(time.Hour)
	add(t, s, "b", "3")
	add(t, s, "a", "4")

	retain := func(first uint64, offsets ...uint64) {
		t.Helper()
		out, err := s.Retain(ctx, eventstore.Retention{MaxAge: time.Minute})
		at, _, berr := s.Topic().Bounds()
		require.NoError(t, berr)
		require.Equal(t, first, at)
		require.Equal(t, first, out.First)
		if len(offsets) == 0 {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, eventstore.ErrDamaged)
		var got []uint64
		for _, p := range out.Problems {
			require.ErrorIs(t, p, eventstore.ErrDamaged)
			require.ErrorIs(t, err, p)
			var ev *eventstore.EventError
			require.ErrorAs(t, p, &ev)
			got = append(got, ev.Offset)
		}
		require.Equal(t, offsets, got)
	}
	retain(8, 2, 5, 6)
	retain(8)
	require.Equal(t, []string{"b/3 3"}, stream(t, s, "b", 3))
	require.Equal(t, []string{"a/4 4"}, stream(t, s, "a", 4))
	for name, first := range map[string]uint64{"a": 4, "b": 3, "c": 2, "d": 2} {
		info, err := s.Info(name)
		require.NoError(t, err)
		require.Equal(t, first, info.First, name)
		for _, err := range s.Stream(ctx, name, 1) {
			require.ErrorIs(t, err, eventstore.ErrRetained, name)
		}
	}
	r, err := s.Verify(ctx) // of the one that is left
	require.Len(t, r.Problems, 1, err)

	c.advance(time.Hour)
	add(t, s, "d", "2")
	retain(11, 8)
	verify(t, s)
	require.NoError(t, s.Reindex(ctx))
	verify(t, s)
	require.Equal(t, uint64(2), add(t, s, "c", "2").First)
	require.Equal(t, uint64(4), add(t, s, "b", "4").First)
	verify(t, s)
}

// A stream of which all events were taken out lost its head in Reindex when the note of
// that was lost, and got none when the head was: the next append gave version 1 again.
func TestReindexOfWhatWasTakenOut(t *testing.T) {
	for name, lose := range map[string]func(main *forebay.Keyspace, older []byte) error{
		"its head":     func(main *forebay.Keyspace, _ []byte) error { return main.Delete([]byte("ha")) },
		"its base":     func(main *forebay.Keyspace, _ []byte) error { return main.Delete([]byte("ba")) },
		"a base's end": func(main *forebay.Keyspace, older []byte) error { return main.Put([]byte("ba"), older) },
	} {
		t.Run(name, func(t *testing.T) {
			db, s := newStore(t, nil)
			for _, p := range []string{"1", "2", "3"} {
				add(t, s, "a", p)
			}
			add(t, s, "b", "1", "2")
			main, err := db.Keyspace("events/bank")
			require.NoError(t, err)
			_, err = s.Retain(ctx, eventstore.Retention{Before: 1})
			require.NoError(t, err)
			older, err := main.Get([]byte("ba"))
			require.NoError(t, err)
			_, err = s.Retain(ctx, eventstore.Retention{Before: 3})
			require.NoError(t, err)
			verify(t, s)
			require.NoError(t, lose(main, bytes.Clone(older)))
			_, err = s.Verify(ctx)
			require.ErrorIs(t, err, eventstore.ErrDamaged)

			require.NoError(t, s.Reindex(ctx))
			verify(t, s)
			require.Equal(t, uint64(4), add(t, s, "a", "4").First)
			require.Equal(t, []string{"a/4 4"}, stream(t, s, "a", 4))
			for _, err := range s.Stream(ctx, "a", 1) {
				require.ErrorIs(t, err, eventstore.ErrRetained)
			}
			require.Equal(t, []string{"b/1 1", "b/2 2"}, stream(t, s, "b", 1))
			verify(t, s)
			require.NoError(t, s.Reindex(ctx))
			verify(t, s)
		})
	}
}
