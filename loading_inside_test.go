package forebay

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/memtable"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// TestLoadingChunksOfLargeRecords: they do not stay large, and what is on its way counts.
func TestLoadingChunksOfLargeRecords(t *testing.T) {
	load := memtable.NewLoader(64 << 20)
	l := newLoading(load)
	var sum, lag int64
	for i := range 12 {
		rec, err := batch.AppendPut(nil, nil, []byte{byte(i)}, make([]byte, 8<<20))
		if err != nil {
			t.Fatal(err)
		}
		sum += int64(len(rec))
		lag = max(lag, sum-l.add(base.LSN(i+1), rec))
	}
	if _, err := l.end(); err != nil {
		t.Fatal(err)
	}
	var kept int64
	for range loadChunks {
		kept += int64(cap((<-l.free).buf))
	}
	load.Drop()
	if lag > 0 {
		t.Fatalf("add is behind by %d bytes", lag)
	}
	if kept > 2*loadChunks*chunkSize {
		t.Fatalf("chunks have %d bytes, as large as the largest record", kept)
	}
}

// TestForgedAppendInALongLog: a record that verifies, and that Decode takes, but no table: an append under a key that
// is too long for the index.
func TestForgedAppendInALongLog(t *testing.T) {
	for _, puts := range []int{10, 60_000} {
		mem := vfs.NewMem()
		o := func(fsys vfs.FS) *Options {
			return &Options{FS: fsys, DefaultLevel: Written, MemtableSize: 32 << 20, MemoryLimit: 128 << 20}
		}
		db, err := Open("db", o(mem))
		if err != nil {
			t.Fatal(err)
		}
		seq, err := db.Sequence("s")
		if err != nil {
			t.Fatal(err)
		}
		for i := range puts {
			if err := db.Put(binary.BigEndian.AppendUint64(nil, uint64(i)), make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
		key := append([]byte{}, seq.ks.prefix...)
		key = append(key, make([]byte, base.MaxKeySize-len(key))...)
		var b batch.Batch
		if err := b.AppendItem(key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		rec := append([]byte{}, b.Bytes()...)
		_, err = db.log.AppendAt(wal.Written, rec)
		if err != nil {
			t.Fatal(err)
		}
		after := mem.Snapshot()
		db.Close()
		for _, ro := range []bool{false, true} {
			opts := o(after.Snapshot())
			opts.ReadOnly = ro
			db, err := Open("db", opts)
			if err == nil {
				db.Close()
			}
			var bad *CorruptionError
			if !errors.As(err, &bad) || !strings.Contains(bad.Reason, strconv.Itoa(puts+2)) {
				t.Errorf("%d puts, read only %v: %v", puts, ro, err)
			}
		}
	}
}
