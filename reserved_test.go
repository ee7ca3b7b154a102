package forebay

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// TestRoomIsGivenBackBehindAFreeze: the first group behind a freeze is large, but smaller than the memtable before was.
func TestRoomIsGivenBackBehindAFreeze(t *testing.T) {
	db, err := Open("db", &Options{FS: vfs.NewMem(), DefaultLevel: Written, MemtableSize: 4 << 20, MemoryLimit: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	apply := func(from, bytes int) {
		b := db.NewBatch()
		for i := range bytes / 1000 {
			if err := b.Put(binary.BigEndian.AppendUint64(nil, uint64(from+i)), make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Apply(b, Written); err != nil {
			t.Fatal(err)
		}
	}
	apply(0, 4300<<10) // it freezes a memtable
	for len(db.view.Load().frozen) > 0 || db.view.Load().active.Bytes() > 1<<20 {
		time.Sleep(time.Millisecond)
	}
	apply(100_000, 3300<<10)
	for i := range 100 { // small commits behind it change nothing
		apply(200_000+i, 1000)
	}
	n, kept := db.view.Load().active.Bytes(), db.reserved.Load()
	t.Logf("the active memtable has %d bytes, %d are kept for it", n, kept)
	if n > kept+grewStep {
		t.Fatal("the cache has room that the memtable has taken")
	}
}
