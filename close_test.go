package forebay_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// TestCloseUnderAll: a store may be closed while everything is under way; each
// call then ends, with its result or with ErrClosed, and what is acknowledged is
// there after the next open.
func TestCloseUnderAll(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	mem := vfs.NewMem()
	acked := make([]int, 4)
	for round := range rounds {
		db := openSmall(t, mem)
		ks, err := db.Keyspace("space")
		require.NoError(t, err)
		for w, n := range acked {
			v, err := ks.Get(fmt.Append(nil, "n", w))
			require.True(t, err == nil || n == 0, "round %d: %v", round, err)
			if n > 0 {
				require.Equal(t, fmt.Sprint(n), string(v[:len(fmt.Sprint(n))]))
			}
		}
		var wg sync.WaitGroup
		loop := func(what string, call func(i int) error) {
			wg.Go(func() {
				for i := 0; ; i++ {
					err := call(i)
					if errors.Is(err, forebay.ErrClosed) {
						return
					}
					if err != nil {
						panic(fmt.Sprint(what, ": ", err))
					}
				}
			})
		}
		underAll(db, ks, acked, round, loop)
		time.Sleep(time.Duration(round%7) * 3 * time.Millisecond)
		require.NoError(t, db.Close())
		wg.Wait()
	}
}

func underAll(db *forebay.DB, ks *forebay.Keyspace, acked []int, round int, loop func(string, func(int) error)) {
	for w := range acked {
		loop("put", func(int) error {
			n := acked[w] + 1
			err := ks.Put(fmt.Append(nil, "n", w), fmt.Appendf(nil, "%d%300s", n, ""))
			if err == nil {
				acked[w] = n
			}
			return err
		})
	}
	loop("update", func(i int) error {
		return db.Update(func(tx *forebay.Tx) error {
			for _, err := range tx.Range(nil, []byte("m")) {
				if err != nil {
					return err
				}
			}
			return tx.Put(fmt.Append(nil, i%50), make([]byte, 100))
		})
	})
	loop("range", func(int) error {
		for _, err := range ks.RangeReverse(nil, nil) {
			if err != nil {
				return err
			}
		}
		return nil
	})
	loop("iterator", func(int) error {
		it := db.NewIterator(nil)
		defer it.Close()
		for ok := it.First(); ok; ok = it.Next() {
			_ = len(it.Key()) + len(it.Value())
		}
		return it.Err()
	})
	loop("view", func(int) error {
		return db.View(func(s *forebay.Snapshot) error {
			_, err := s.Has([]byte("1"))
			return err
		})
	})
	loop("get", func(int) error {
		err := ks.GetFunc([]byte("n1"), func(v []byte) error { _ = v[0]; return nil })
		if errors.Is(err, forebay.ErrNotFound) {
			return nil
		}
		return err
	})
	loop("keyspace", func(i int) error {
		name := fmt.Sprint("other", i%3)
		if _, err := db.Keyspace(name); err != nil {
			return err
		}
		return db.DropKeyspace(name)
	})
	loop("backup", func(i int) error { _, err := db.Backup(background, fmt.Sprintf("backup-%d-%d", round, i)); return err })
	loop("checkpoint", func(int) error { return db.Checkpoint(background) })
	loop("compact", func(int) error { return db.Compact(background) })
	loop("verify", func(int) error { _, err := db.Verify(background); return err })
	loop("sync", func(int) error { return db.Sync(background) })
	loop("pin", func(int) error { return db.Pin("p", db.DurableLSN()) })
	loop("follow", func(int) error {
		for _, err := range db.Follow(background, db.Position()) {
			var gone *forebay.CompactedError // a checkpoint was faster than it
			if err != nil && !errors.As(err, &gone) {
				return err
			}
		}
		return nil
	})
}
