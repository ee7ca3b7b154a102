package buffer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/buffer"
	"github.com/forebaydb/forebay/sink"
)

func TestDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 10})
		w.sink.Refuse(func(r sink.Row) error {
			if strings.HasPrefix(string(r.Value), "bad") {
				return errors.New(strings.Repeat("ä", buffer.MaxReason))
			}
			return nil
		})
		added := time.Now()
		row := buffer.Row{Key: []byte("k"), Value: []byte("bad"), Headers: map[string]string{"a": "b"}}
		_, err := w.b.Add(row)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		w.addSome(10, 3, 7)
		w.flush()
		w.reopen()
		dead := letters(t, w.b)
		require.Len(t, dead, 3)
		l := dead[0]
		require.Equal(t, row, l.Row)
		require.True(t, added.Equal(l.Added))
		require.Equal(t, 100*time.Millisecond, l.Died.Sub(l.Added))
		require.EqualValues(t, 1, l.Attempts)
		require.Equal(t, strings.Repeat("ä", buffer.MaxReason/2), l.Reason)
		require.True(t, strings.HasPrefix(l.Batch, "b/"), l.Batch)
		require.Greater(t, dead[1].Attempts, uint64(2))
		n := 0
		for l, err := range w.b.DeadLetters(t.Context(), dead[1].Number) {
			require.NoError(t, err)
			require.Equal(t, dead[1+n], l)
			n++
		}
		require.Equal(t, 2, n)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, err := range w.b.DeadLetters(ctx, 0) {
			require.ErrorIs(t, err, context.Canceled)
		}

		// One is mended, one thrown away, one is bad again.
		n, err = w.b.Redrive(t.Context(), func(l *buffer.DeadLetter) bool {
			if l.Offset == 0 {
				l.Value = []byte("good")
			}
			return l.Offset != dead[1].Offset
		})
		require.NoError(t, err)
		require.Equal(t, 2, n)
		w.balanced()
		w.flush()
		left := letters(t, w.b)
		require.Len(t, left, 2)
		require.Equal(t, dead[1], left[0])
		require.Equal(t, dead[2].Value, left[1].Value)
		require.True(t, dead[2].Added.Equal(left[1].Added), "it is as old as it was")
		rows := w.sink.Rows()
		last := rows[len(rows)-1]
		require.Equal(t, "good", string(last.Value))
		require.Equal(t, "k", string(last.Key))
		require.Equal(t, row.Headers, last.Headers)
		require.True(t, added.Equal(last.Time))
		n, err = w.b.Purge(t.Context(), func(l *buffer.DeadLetter) bool { return l.Number == left[0].Number })
		require.NoError(t, err)
		require.Equal(t, 1, n)
		n, err = w.b.Purge(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		s := w.balanced()
		require.EqualValues(t, 11, s.In)
		require.EqualValues(t, 9, s.Done)
		require.EqualValues(t, 2, s.Purged)
		require.Zero(t, s.Dead+s.Pending+s.Lost)
		w.close()
		_, err = w.b.Purge(t.Context(), nil)
		require.ErrorIs(t, err, forebay.ErrClosed)
	})
}

// TestRedriveOnce: by several at once, and with purges beside them, each letter goes one
// way.
func TestRedriveOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 500, Age: time.Hour})
		w.sink.Name = true
		w.sink.Refuse(refuseBad)
		bad := make([]int, 2500)
		for i := range bad {
			bad[i] = i
		}
		w.addSome(2500, bad...)
		w.flush()
		require.EqualValues(t, 2500, w.balanced().Dead)
		w.sink.Refuse(nil)
		total := make(chan int, 8)
		for i := range 8 {
			go func() {
				do := w.b.Redrive
				if i%4 == 3 {
					do = w.b.Purge
				}
				n, err := do(context.Background(), func(l *buffer.DeadLetter) bool { return i%2 == 0 || l.Number%3 == 0 })
				if err != nil {
					t.Error(err)
				}
				total <- n
			}()
		}
		n := 0
		for range 8 {
			n += <-total
		}
		require.Equal(t, 2500, n)
		w.flush()
		s := w.balanced()
		require.EqualValues(t, 2500, s.In)
		require.Zero(t, s.Dead)
		require.EqualValues(t, 2500, s.Done+s.Purged)
		seen := map[string]bool{}
		for _, v := range values(w.sink.Rows()) {
			require.False(t, seen[v], v)
			seen[v] = true
		}
		require.Len(t, seen, int(s.Done))
		require.Zero(t, s.PendingBytes)
		w.close()
	})
}

// TestRedriveHasToFit: what is full takes no dead letters back, and loses none.
func TestRedriveHasToFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{MaxRows: 3})
		w.sink.Refuse(refuseBad)
		w.addSome(3, 0, 1, 2)
		w.flush()
		w.sink.Fault(func(int, sink.Batch) (bool, error) { return false, errors.New("away") })
		w.add(0, 1)
		n, err := w.b.Redrive(t.Context(), nil)
		require.ErrorIs(t, err, buffer.ErrFull)
		require.Zero(t, n)
		require.Len(t, letters(t, w.b), 3)
		var limit *forebay.LimitError
		_, err = w.b.Redrive(t.Context(), func(l *buffer.DeadLetter) bool {
			l.Value = make([]byte, buffer.MaxRow+1)
			return true
		})
		require.ErrorAs(t, err, &limit)
		w.sink.Fault(nil)
		w.flush()
		n, err = w.b.Redrive(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		w.flush()
		w.close()
	})
}

// TestDamagedRows: what somebody else has put into the topic is a dead letter, and the
// rows beside it are written.
func TestDamagedRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Age: time.Hour})
		w.add(0, 3)
		forged := [][]byte{
			nil, []byte("short"), make([]byte, 8), make([]byte, 100),
			[]byte("12345678\x01\x02"),             // unknown flags
			[]byte("12345678\x01\x00\xff\xff"),     // a length that does not end
			[]byte("12345678\x01\x00\x7f"),         // a key that is not there
			[]byte("12345678\x01\x00\x00\x7f"),     // headers that are not there
			[]byte("12345678\x01\x00\x00\x01\x00"), // half a header
			[]byte("12345678\x01\x01\x00"),         // half a time
			[]byte("12345678\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
		}
		for _, item := range forged {
			_, err := w.b.Topic().Sequence().Append(item)
			require.NoError(t, err)
		}
		w.add(3, 3)
		w.flush()
		require.Equal(t, count(0, 6), values(w.sink.Rows()))
		dead := letters(t, w.b)
		require.Len(t, dead, len(forged))
		for i, l := range dead {
			require.True(t, l.Damaged)
			require.Equal(t, string(forged[i]), string(l.Value))
			require.Contains(t, l.Reason, "not what a buffer writes")
		}
		n, err := w.b.Redrive(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, len(forged), n)
		w.flush()
		require.Len(t, w.sink.Rows(), 6+len(forged))
		w.balanced()
		w.close()
	})
}

// TestDamagedRecords: what is stored of a buffer and does not decode is an error of Open,
// or ends the work; nothing is written then.
func TestDamagedRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 4, Age: time.Hour})
		w.sink.Refuse(refuseBad)
		w.sink.Fault(func(n int, b sink.Batch) (bool, error) {
			if n > 1 {
				return false, errors.New("away")
			}
			return true, nil
		})
		w.addSome(4, 1) // it is halved, and then the sink goes away
		synctest.Wait()
		require.NoError(t, w.b.Close())
		ks, err := w.db.Keyspace("buffer/b")
		require.NoError(t, err)
		stored := map[string][]byte{}
		for e, err := range ks.Range(nil, nil) {
			require.NoError(t, err)
			stored[string(e.Key)] = []byte(string(e.Value))
		}
		require.Len(t, stored, 4) // owner, state, cut, plan
		try := func(what string) {
			b, err := buffer.Open(w.db, "b", w.sink, &w.o)
			if err != nil {
				require.ErrorIs(t, err, buffer.ErrDamaged, what)
				return
			}
			synctest.Wait()
			if err := b.Stats().Err; err != nil {
				require.ErrorIs(t, err, buffer.ErrDamaged, what)
			}
			if err := b.Close(); err != nil {
				require.ErrorIs(t, err, buffer.ErrDamaged, what)
			}
		}
		put := func(key string, value []byte) {
			require.NoError(t, ks.Put([]byte(key), value))
		}
		for key, value := range stored {
			if key == "owner" {
				continue
			}
			for n := range value {
				put(key, value[:n])
				_, err := buffer.Open(w.db, "b", w.sink, &w.o)
				if key[0] != 'l' {
					require.ErrorIs(t, err, buffer.ErrDamaged, "%q cut at %d", key, n)
				} else if err == nil {
					try(fmt.Sprintf("%q cut at %d", key, n))
				}
			}
			for i := range value {
				for _, flip := range []byte{1, 0x7f, 0x80, 0xff} {
					bad := []byte(string(value))
					bad[i] ^= flip
					put(key, bad)
					try(fmt.Sprintf("%q byte %d ^ %x", key, i, flip))
					for k, v := range stored { // a state that is another one may have been stored since
						put(k, v)
					}
				}
			}
			put(key, append([]byte(string(value)), 0))
			try(fmt.Sprintf("%q and a byte", key))
			put(key, value)
		}
		for _, key := range []string{"c", "c1234", "l", "l12345678", "l12345678123"} {
			put(key, nil)
			_, err := buffer.Open(w.db, "b", w.sink, &w.o)
			require.ErrorIs(t, err, buffer.ErrDamaged, key)
			require.NoError(t, ks.Delete([]byte(key)))
		}
		put("d1234", nil)
		require.NoError(t, w.db.Close())
	})
}

// TestBehindASalvage: the topic has lost its end, and gives the same offsets again. What
// was cut of them is let go, and the new rows are written, by other ids.
func TestBehindASalvage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{Items: 4, Age: time.Hour, Lanes: 2})
		w.sink.Fault(func(n int, b sink.Batch) (bool, error) {
			return false, errors.New("away")
		})
		w.add(0, 10)
		synctest.Wait()
		require.NoError(t, w.b.Close())
		// The state of the buffer goes into a store whose topic has 6 rows.
		other := newWorld(t, w.o)
		other.sink = w.sink
		require.NoError(t, other.b.Close())
		from, err := w.db.Keyspace("buffer/b")
		require.NoError(t, err)
		to, err := other.db.Keyspace("buffer/b")
		require.NoError(t, err)
		for e, err := range from.Range(nil, nil) {
			require.NoError(t, err)
			require.NoError(t, to.Put(e.Key, e.Value))
		}
		n := 0
		for it, err := range w.b.Topic().Sequence().Read(t.Context(), 0) {
			require.NoError(t, err)
			if n++; n <= 6 {
				_, err := other.b.Topic().Sequence().Append(it.Value)
				require.NoError(t, err)
			}
		}
		w.sink.Fault(nil)
		other.b, err = buffer.Open(other.db, "b", w.sink, &w.o)
		require.NoError(t, err)
		other.add(100, 5)
		other.flush()
		require.ElementsMatch(t, append(count(0, 6), count(100, 5)...), values(w.sink.Rows()))
		s := other.balanced()
		require.EqualValues(t, 11, s.Done)
		require.EqualValues(t, 2, s.Lost, "of those that were cut")
		require.Zero(t, s.Pending)
		other.close()
		require.NoError(t, w.db.Close())
	})
}

// TestLettersOfNobody: letters that the buffer has not counted are an error.
func TestLettersOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{})
		w.sink.Refuse(refuseBad)
		w.addSome(1, 0)
		w.flush()
		ks, err := w.db.Keyspace("buffer/b")
		require.NoError(t, err)
		for e, err := range ks.Prefix([]byte("d")) {
			require.NoError(t, err)
			require.NoError(t, ks.Put([]byte("d\xff\xff\xff\xff\xff\xff\xff\xff"), e.Value))
		}
		_, err = w.b.Redrive(t.Context(), nil)
		require.ErrorIs(t, err, buffer.ErrDamaged)
		_, err = w.b.Purge(t.Context(), nil)
		require.ErrorIs(t, err, buffer.ErrDamaged)
		require.EqualValues(t, 1, w.balanced().Dead)
		w.close()
	})
}

// TestLargeHeadersAreRedriven: they count for what goes into one commit.
func TestLargeHeadersAreRedriven(t *testing.T) {
	if testing.Short() {
		t.Skip("it moves some hundred megabytes")
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, buffer.Options{})
		w.sink.Refuse(refuseBad)
		for range 9 {
			_, err := w.b.Add(buffer.Row{Value: []byte("bad"), Headers: map[string]string{"h": strings.Repeat("x", 8<<20)}})
			require.NoError(t, err)
		}
		w.flush()
		w.sink.Refuse(nil)
		n, err := w.b.Redrive(t.Context(), nil)
		require.NoError(t, err)
		require.Equal(t, 9, n)
		w.flush()
		require.Len(t, w.sink.Rows(), 9)
		w.close()
	})
}

// TestRedriveInParts: more dead letters than may wait at once are added as there is room,
// by number and by bytes.
func TestRedriveInParts(t *testing.T) {
	for name, o := range map[string]buffer.Options{"rows": {MaxRows: 3}, "bytes": {MaxBytes: 400}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, o)
				w.sink.Refuse(refuseBad)
				for range 10 {
					_, err := w.b.Add(buffer.Row{Value: append([]byte("bad"), make([]byte, 90)...), Headers: map[string]string{"a": "b"}})
					require.NoError(t, err)
					w.flush()
				}
				w.sink.Refuse(nil)
				total := 0
				for tries := 0; total < 10; tries++ {
					require.Less(t, tries, 10)
					n, err := w.b.Redrive(t.Context(), nil)
					if err != nil {
						require.ErrorIs(t, err, buffer.ErrFull)
					}
					require.Positive(t, n)
					total += n
					w.flush()
				}
				require.Len(t, w.sink.Rows(), 10)
				require.Empty(t, letters(t, w.b))
				require.Zero(t, w.balanced().PendingBytes)
				w.close()
			})
		})
	}
}
