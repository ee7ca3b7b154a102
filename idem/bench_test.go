package idem_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/idem"
)

// BenchmarkDo: new requests, each durable, by 64 at once; and answers from the store.
func BenchmarkDo(b *testing.B) {
	db, err := forebay.Open(b.TempDir(), nil)
	require.NoError(b, err)
	defer db.Close()
	k := openKeys(b, db, idem.Options{})
	var n atomic.Int64
	b.Run("new", func(b *testing.B) {
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				key := fmt.Sprint(n.Add(1))
				if _, err := do2(k, key, func(tx *forebay.Tx) ([]byte, error) { return []byte("answer"), tx.Put([]byte(key), nil) }); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			if _, err := do2(k, "1", nil); err != nil {
				b.Error(err)
			}
		}
	})
}
