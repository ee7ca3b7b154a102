package forebay

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// TestGapSeesEachPut: one puts a key, Buffered, while a scan that read at the LSN before
// tells the gap what it passed. Who is assigned an LSN behind what note was told sees that
// he is watched: on a processor that lets a load pass a store, the LSN has to be stored by
// an exchange (it was missed some ten times a second where it was not).
func TestGapSeesEachPut(t *testing.T) {
	db, err := Open("db", &Options{FS: vfs.NewMem(), DefaultLevel: Buffered})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("it takes two processors")
	}
	length := 2 * time.Second
	if testing.Short() {
		length = 300 * time.Millisecond
	}
	var round, ready, done atomic.Int64
	var key [12]byte
	value := make([]byte, 300)
	var sink atomic.Int64
	go func() {
		for n := int64(1); ; n++ {
			if db.gap.on.Load() { // the line is here now
				sink.Add(1)
			}
			ready.Store(n)
			for round.Load() < n {
				runtime.Gosched()
			}
			if round.Load() > 1<<60 {
				return
			}
			if err := db.Put(key[:], value); err != nil {
				panic(err)
			}
			done.Store(n)
		}
	}()
	stored := func(k []byte) []byte { return append(append([]byte{}, defaultPrefix...), k...) }
	rng := rand.New(rand.NewPCG(1, 2))
	missed, rounds := 0, int64(0)
	end := time.Now().Add(length)
	for n := int64(1); missed < 5 && (n%64 != 0 || time.Now().Before(end)); n++ {
		rounds = n
		for done.Load() < n-1 {
			runtime.Gosched()
		}
		db.gap.mu.Lock()
		db.gap.on.Store(false)
		db.gap.lsn, db.gap.least, db.gap.armed, db.gap.unused = 0, nil, 0, 0
		db.gap.mu.Unlock()
		binary.BigEndian.PutUint64(key[:], uint64(n))
		for ready.Load() < n {
			runtime.Gosched()
		}
		lo := stored(key[:8])
		hi := stored(append(append([]byte{}, key[:]...), 0xff))
		at := db.LastLSN() // all of it is visible
		round.Store(n)
		for range rng.IntN(600) {
			sink.Load()
		}
		db.gap.note(lo, hi, at, db.LastLSN)
		for done.Load() < n {
			runtime.Gosched()
		}
		put := db.LastLSN()
		if db.gap.armed < put && db.gap.least == nil {
			missed++
		}
	}
	round.Store(1 << 61)
	if missed > 0 {
		t.Fatalf("missed %d of %d", missed, rounds)
	}
}
