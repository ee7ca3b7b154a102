package engines

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func key(i int) []byte   { return fmt.Appendf(nil, "%016d", i) }
func value(i int) []byte { return fmt.Appendf(nil, "value of %d", i) }

// TestEngines: what is written by an adapter is read back by it, over a reopen.
func TestEngines(t *testing.T) {
	for _, e := range All() {
		for _, l := range Levels {
			if !e.Has(l) {
				continue
			}
			t.Run(e.Name+"/"+l.String(), func(t *testing.T) {
				dir, cfg := t.TempDir(), Config{Level: l, Memtable: 1 << 20, Cache: 1 << 20}
				s, err := e.Open(dir, cfg)
				require.NoError(t, err)
				fillStore(t, s, l)
				readStore(t, s)
				require.NoError(t, s.Settle(context.Background()))
				readStore(t, s)
				require.NoError(t, s.Close())
				s, err = e.Open(dir, cfg)
				require.NoError(t, err)
				readStore(t, s)
				if s, ok := s.(Snapshotter); ok {
					snapshot(t, s, l)
				}
				require.NoError(t, s.Close())
			})
		}
	}
}

const records = 300

// fillStore writes the even records of 0 … 298, by puts and batches.
func fillStore(t *testing.T, s Store, l Level) {
	w, err := s.Writer(l)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	for i := 0; i < 100; i += 2 {
		require.NoError(t, w.Put(key(i), value(-1)))
		require.NoError(t, w.Put(key(i), value(i)))
		require.NoError(t, w.Put(key(i+1), value(i+1)))
		require.NoError(t, w.Delete(key(i+1)))
	}
	k, v := make([]byte, 0, 32), make([]byte, 0, 32)
	require.NoError(t, w.Batch((records-100)/2, func(i int) ([]byte, []byte) {
		// The same memory each time, as the interface allows.
		i = 100 + 2*i
		k, v = append(k[:0], key(i)...), append(v[:0], value(i)...)
		return k, v
	}))
}

func readStore(t *testing.T, s Store) {
	r, err := s.Reader()
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	readRecords(t, r)
}

func readRecords(t *testing.T, r Reader) {
	for i := range records + 2 {
		got := ""
		found, err := r.Get(key(i), func(v []byte) { got = string(v) })
		require.NoError(t, err)
		want := i%2 == 0 && i < records
		require.Equal(t, want, found, "record %d", i)
		if want {
			require.Equal(t, string(value(i)), got)
		}
	}
	for _, c := range []struct {
		from, limit, first, step, want int
		reverse                        bool
	}{
		{-1, 1000, 0, 2, records / 2, false},
		{-1, 1000, records - 2, -2, records / 2, true},
		{-1, 7, records - 2, -2, 7, true},
		{100, 10, 100, 2, 10, false},
		{101, 10, 102, 2, 10, false},
		{records - 6, 10, records - 6, 2, 3, false},
		{records, 10, 0, 0, 0, false},
		{0, 0, 0, 0, 0, false},
	} {
		var from []byte
		if c.from >= 0 {
			from = key(c.from)
		}
		i := c.first
		n, err := r.Scan(from, c.limit, c.reverse, func(k, v []byte) {
			require.Equal(t, string(key(i)), string(k))
			require.Equal(t, string(value(i)), string(v))
			i += c.step
		})
		require.NoError(t, err)
		require.Equal(t, c.want, n, "%+v", c)
		require.Equal(t, c.want*c.step, i-c.first, "%+v", c)
	}
}

func snapshot(t *testing.T, s Snapshotter, l Level) {
	snap, err := s.Snapshot()
	require.NoError(t, err)
	w, err := s.(Store).Writer(l)
	require.NoError(t, err)
	require.NoError(t, w.Put(key(0), value(99)))
	require.NoError(t, w.Put(key(records+1), value(99)))
	require.NoError(t, w.Close())
	readRecords(t, snap)
	require.NoError(t, snap.Close())
	r, err := s.(Store).Reader()
	require.NoError(t, err)
	found, err := r.Get(key(0), func(v []byte) { require.Equal(t, string(value(99)), string(v)) })
	require.NoError(t, err)
	require.True(t, found)
	require.NoError(t, r.Close())
}

// TestTransform: no increment of a counter is lost.
func TestTransform(t *testing.T) {
	for _, e := range All() {
		t.Run(e.Name, func(t *testing.T) {
			s, err := e.Open(t.TempDir(), Config{Level: e.Weakest(), Goroutines: 4})
			require.NoError(t, err)
			defer func() { require.NoError(t, s.Close()) }()
			tr, ok := s.(Transactor)
			if !ok {
				return
			}
			add := func(old []byte) []byte {
				n := uint64(0)
				if old != nil {
					n = binary.BigEndian.Uint64(old)
				}
				return binary.BigEndian.AppendUint64(nil, n+1)
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 50 {
						if _, err := tr.Transform(e.Weakest(), key(0), add); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			r, err := s.Reader()
			require.NoError(t, err)
			_, err = r.Get(key(0), func(v []byte) { require.EqualValues(t, 200, binary.BigEndian.Uint64(v)) })
			require.NoError(t, err)
			require.NoError(t, r.Close())
		})
	}
}

// TestPromises: every engine says what its levels, its settling and its figure of
// syncs are.
func TestPromises(t *testing.T) {
	for _, e := range All() {
		require.True(t, e.Has(Durable), e.Name)
		require.NotEmpty(t, e.Notes, e.Name)
		require.NotEmpty(t, e.Settled, e.Name)
		require.NotEmpty(t, e.Syncs, e.Name)
		for _, l := range Levels {
			if !e.Has(l) {
				_, err := e.Open(t.TempDir(), Config{Level: l})
				require.Error(t, err)
			}
		}
	}
	_, err := Find("rocksdb")
	if err != nil {
		require.ErrorIs(t, err, ErrNotBuilt)
	}
	_, err = Find("mongodb")
	require.Error(t, err)
}
