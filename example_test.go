package forebay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// The README shows this function without its first line; a test compares them.
func Example() {
	defer inTemporaryDirectory()()
	db, err := forebay.Open("data", nil) // nil: the safest settings
	if err != nil {
		panic(err)
	}
	defer db.Close()

	if err := db.Put([]byte("greeting"), []byte("hello")); err != nil {
		panic(err)
	}
	// From here on a power cut does not take it back.

	value, err := db.Get([]byte("greeting")) // a copy
	fmt.Printf("%s %v\n", value, err)
	_, err = db.Get([]byte("farewell"))
	fmt.Println(errors.Is(err, forebay.ErrNotFound))

	batch := db.NewBatch() // all of it, or nothing
	batch.Put([]byte("user/1"), []byte("Ada"))
	batch.Put([]byte("user/2"), []byte("Grace"))
	batch.Delete([]byte("greeting"))
	if err := db.Apply(batch, forebay.Durable); err != nil {
		panic(err)
	}

	for entry, err := range db.Prefix([]byte("user/")) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s = %s\n", entry.Key, entry.Value)
	}
	// Output:
	// hello <nil>
	// true
	// user/1 = Ada
	// user/2 = Grace
}

// inTemporaryDirectory goes to a new directory; what it returns goes back and
// removes it.
func inTemporaryDirectory() (back func()) {
	old, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "forebay-example")
	if err != nil {
		panic(err)
	}
	if err := os.Chdir(dir); err != nil {
		panic(err)
	}
	return func() {
		os.Chdir(old)
		os.RemoveAll(dir)
	}
}

// openInMemory opens an empty store that lies in memory.
func openInMemory() *forebay.DB {
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	return db
}

func ExampleOpen() {
	disk := vfs.NewMem() // leave Options.FS out for the operating system's files
	options := &forebay.Options{
		FS:           disk,
		MemoryLimit:  64 << 20,        // memtables, cache and indexes together
		MaxLogBytes:  256 << 20,       // beyond it writes get ErrFull
		Compression:  forebay.Zstd,    // of log and segments
		DefaultLevel: forebay.Written, // of Put, Delete, Update; Durable is the default
		Sync:         forebay.SyncInterval(time.Second),
		Logger:       slog.Default(), // nil: nobody is told of what happens in the background
	}
	db, err := forebay.Open("data", options)
	if err != nil {
		panic(err)
	}
	defer db.Close()

	_, err = forebay.Open("data", options)
	fmt.Println(errors.Is(err, forebay.ErrLocked))
	// Output: true
}

func ExampleDB_Get() {
	db := openInMemory()
	defer db.Close()
	db.Put([]byte("empty"), nil)

	value, err := db.Get([]byte("empty"))
	fmt.Println(len(value), err)
	_, err = db.Get([]byte("absent"))
	fmt.Println(errors.Is(err, forebay.ErrNotFound))
	// Output:
	// 0 <nil>
	// true
}

func ExampleBatch() {
	db := openInMemory()
	defer db.Close()

	batch := db.NewBatch()
	batch.Put([]byte("balance/ada"), []byte("70"))
	batch.Put([]byte("balance/grace"), []byte("130"))
	batch.Put([]byte("balance/ada"), []byte("60")) // the later one wins
	fmt.Println(batch.Len(), "operations")
	if err := db.Apply(batch, forebay.Durable); err != nil {
		panic(err)
	}

	value, _ := db.Get([]byte("balance/ada"))
	fmt.Println(string(value))
	// Output:
	// 2 operations
	// 60
}

func ExampleDB_Submit() {
	db := openInMemory()
	defer db.Close()

	// A hundred commits are under way at once, in this order, from one
	// goroutine; those that wait together share a sync.
	var commits []*forebay.Commit
	batch := db.NewBatch()
	for i := range 100 {
		batch.Reset()
		batch.Put(fmt.Appendf(nil, "event/%03d", i), []byte("…"))
		commit, err := db.Submit(batch, forebay.Durable) // copies the batch
		if err != nil {
			panic(err)
		}
		commits = append(commits, commit)
	}
	for _, commit := range commits {
		if err := commit.Wait(context.Background()); err != nil {
			panic(err)
		}
	}
	fmt.Println("durable through", db.DurableLSN())
	// Output: durable through 100
}

func ExampleDB_Range() {
	db := openInMemory()
	defer db.Close()
	for _, key := range []string{"apple", "banana", "cherry", "date"} {
		db.Put([]byte(key), nil)
	}

	for entry, err := range db.Range([]byte("b"), []byte("d")) {
		if err != nil {
			panic(err)
		}
		fmt.Println(string(entry.Key))
	}
	for entry, err := range db.RangeReverse(nil, nil) {
		if err != nil {
			panic(err)
		}
		fmt.Println("the last one is", string(entry.Key))
		break // the iterator closes itself
	}
	// Output:
	// banana
	// cherry
	// the last one is date
}

func ExampleDB_Prefix() {
	db := openInMemory()
	defer db.Close()
	for _, key := range []string{"user/1", "user/2", "uses"} {
		db.Put([]byte(key), nil)
	}

	for entry, err := range db.Prefix([]byte("user/")) {
		if err != nil {
			panic(err)
		}
		fmt.Println(string(entry.Key))
	}
	// Output:
	// user/1
	// user/2
}

func ExampleLevel() {
	disk := vfs.NewMem()
	db, err := forebay.Open("data", &forebay.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	put := func(key string, level forebay.Level) {
		batch := db.NewBatch()
		batch.Put([]byte(key), nil)
		if err := db.Apply(batch, level); err != nil {
			panic(err)
		}
	}
	put("first", forebay.Written)
	put("second", forebay.Durable) // makes all before it durable, too
	put("third", forebay.Buffered) // no system call

	// The power fails, and everything that no sync covered is lost.
	lost := func(int, vfs.Unit) vfs.Fate { return vfs.Lost }
	after, err := forebay.Open("data", &forebay.Options{FS: disk.PowerCut(lost)})
	if err != nil {
		panic(err)
	}
	defer after.Close()
	for _, key := range []string{"first", "second", "third"} {
		found, _ := after.Has([]byte(key))
		fmt.Println(key, found)
	}
	// Output:
	// first true
	// second true
	// third false
}

func ExampleDB_Sync() {
	db := openInMemory()
	defer db.Close()

	batch := db.NewBatch()
	for i := range 1000 { // an import: nothing waits for the disk …
		batch.Reset()
		batch.Put(fmt.Appendf(nil, "row/%04d", i), []byte("…"))
		if err := db.Apply(batch, forebay.Buffered); err != nil {
			panic(err)
		}
	}
	fmt.Println(db.DurableLSN() < db.LastLSN())
	if err := db.Sync(context.Background()); err != nil { // … but here
		panic(err)
	}
	fmt.Println(db.DurableLSN() == db.LastLSN())
	// Output:
	// true
	// true
}

func ExampleDB_Checkpoint() {
	db := openInMemory()
	defer db.Close()
	db.Put([]byte("key"), []byte("value"))

	if err := db.Checkpoint(context.Background()); err != nil {
		panic(err)
	}
	stats := db.Stats()
	fmt.Println(stats.Segments, "segment,", stats.MemtableEntries, "entries in memory")
	// Output: 1 segment, 0 entries in memory
}

func ExampleDB_Recovery() {
	disk := vfs.NewMem()
	db, err := forebay.Open("data", &forebay.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	db.Put([]byte("a"), []byte("1"))
	db.Put([]byte("b"), []byte("2"))

	// The process is killed: what it gave to the operating system is there.
	after, err := forebay.Open("data", &forebay.Options{FS: disk.Snapshot()})
	if err != nil {
		panic(err)
	}
	defer after.Close()
	report := after.Recovery()
	fmt.Println(report.Verdict, "end at commit", report.Last)
	fmt.Println(report.Replayed, "commits replayed, closed in order:", report.Closed)
	// Output:
	// clean end at commit 2
	// 2 commits replayed, closed in order: false
}

func ExampleDB_GetFunc() {
	db := openInMemory()
	defer db.Close()
	db.Put([]byte("page"), bytes.Repeat([]byte("x"), 1<<20))

	// The value is lent, not copied, until the function returns.
	size := 0
	err := db.GetFunc([]byte("page"), func(value []byte) error {
		size = len(value)
		return nil
	})
	fmt.Println(size, err)
	// Output: 1048576 <nil>
}

func ExampleDB_DeleteRange() {
	db := openInMemory()
	defer db.Close()
	for _, key := range []string{"log/01", "log/02", "log/03", "user"} {
		db.Put([]byte(key), nil)
	}

	// One commit, however many keys there are.
	if err := db.DeleteRange([]byte("log/"), []byte("log/03")); err != nil {
		panic(err)
	}
	for entry := range db.Range(nil, nil) {
		fmt.Println(string(entry.Key))
	}
	// Output:
	// log/03
	// user
}

func ExampleDB_NewIterator() {
	db := openInMemory()
	defer db.Close()
	for _, key := range []string{"a", "c", "e", "g"} {
		db.Put([]byte(key), []byte("value of "+key))
	}

	it := db.NewIterator(&forebay.IterOptions{Upper: []byte("g")})
	defer it.Close()
	for ok := it.SeekGE([]byte("b")); ok; ok = it.Next() {
		fmt.Printf("%s = %s\n", it.Key(), it.Value())
	}
	if it.SeekLT([]byte("e")) {
		fmt.Printf("before e: %s\n", it.Key())
	}
	if it.Prev() {
		fmt.Printf("before that: %s\n", it.Key())
	}
	fmt.Println(it.Last(), string(it.Key()), it.Next(), it.Err())
	// Output:
	// c = value of c
	// e = value of e
	// before e: c
	// before that: a
	// true e false <nil>
}

func ExampleDB_PrefixReverse() {
	db := openInMemory()
	defer db.Close()
	for _, key := range []string{"temp/2026-11-23", "temp/2026-11-24", "temp/2026-11-25", "wind/2026-11-25"} {
		db.Put([]byte(key), nil)
	}

	for entry, err := range db.PrefixReverse([]byte("temp/")) { // the newest first
		if err != nil {
			panic(err)
		}
		fmt.Println(string(entry.Key))
	}
	// Output:
	// temp/2026-11-25
	// temp/2026-11-24
	// temp/2026-11-23
}

func ExampleDB_Keyspace() {
	db := openInMemory()
	defer db.Close()

	users, err := db.Keyspace("users") // made when there is none
	if err != nil {
		panic(err)
	}
	users.Put([]byte("1"), []byte("Ada"))
	db.Put([]byte("1"), []byte("another key, of the default keyspace"))
	value, err := users.Get([]byte("1"))
	fmt.Println(string(value), err)

	names, err := db.Keyspaces()
	fmt.Println(names, err)
	fmt.Println(db.DropKeyspace("users")) // with everything in it
	_, err = users.Get([]byte("1"))
	fmt.Println(errors.Is(err, forebay.ErrKeyspaceDropped))
	// Output:
	// Ada <nil>
	// [users] <nil>
	// <nil>
	// true
}

func ExampleBatch_In() {
	db := openInMemory()
	defer db.Close()
	users, err := db.Keyspace("users")
	if err != nil {
		panic(err)
	}
	byName, err := db.Keyspace("users by name")
	if err != nil {
		panic(err)
	}

	batch := db.NewBatch() // a row and its index: both, or neither
	batch.In(users).Put([]byte("1"), []byte("Ada"))
	batch.In(byName).Put([]byte("Ada"), []byte("1"))
	if err := db.Apply(batch, forebay.Durable); err != nil {
		panic(err)
	}
	id, err := byName.Get([]byte("Ada"))
	fmt.Println(string(id), err)
	// Output: 1 <nil>
}

func ExampleDB_Update() {
	db := openInMemory()
	defer db.Close()

	visit := func() error {
		return db.Update(func(tx *forebay.Tx) error { // called again after a conflict
			value, err := tx.Get([]byte("visits"))
			if err != nil && !errors.Is(err, forebay.ErrNotFound) {
				return err
			}
			n, _ := strconv.Atoi(string(value))
			return tx.Put([]byte("visits"), strconv.AppendInt(nil, int64(n)+1, 10))
		})
	}
	errs := make(chan error, 100)
	for range 100 {
		go func() { errs <- visit() }()
	}
	for range 100 {
		if err := <-errs; err != nil {
			panic(err)
		}
	}
	value, _ := db.Get([]byte("visits"))
	fmt.Println(string(value))
	// Output: 100
}

func ExampleDB_UpdateLevel() {
	db := openInMemory()
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	// Two keyspaces, at a level of its own, and for no longer than a minute.
	err := db.UpdateLevel(ctx, forebay.Written, func(tx *forebay.Tx) error {
		jobs, err := tx.Keyspace("jobs")
		if err != nil {
			return err
		}
		if err := jobs.Put([]byte("1"), []byte("send a letter")); err != nil {
			return err
		}
		found, err := jobs.Has([]byte("1")) // it sees what it wrote
		fmt.Println(found, err)
		return tx.Put([]byte("last job"), []byte("1"))
	})
	fmt.Println(err)

	refused := errors.New("changed my mind")
	err = db.Update(func(tx *forebay.Tx) error {
		tx.Delete([]byte("last job"))
		return refused // and nothing is written
	})
	found, _ := db.Has([]byte("last job"))
	fmt.Println(err == refused, found)
	// Output:
	// true <nil>
	// <nil>
	// true true
}

func ExampleDB_View() {
	db := openInMemory()
	defer db.Close()
	db.Put([]byte("debit"), []byte("5"))
	db.Put([]byte("credit"), []byte("5"))

	err := db.View(func(s *forebay.Snapshot) error { // both from one moment
		debit, err := s.Get([]byte("debit"))
		if err != nil {
			return err
		}
		db.Put([]byte("credit"), []byte("6"))
		credit, err := s.Get([]byte("credit"))
		fmt.Println(string(debit), string(credit))
		return err
	})
	fmt.Println(err)
	// Output:
	// 5 5
	// <nil>
}

func ExampleDB_Snapshot() {
	db := openInMemory()
	defer db.Close()
	db.Put([]byte("a"), []byte("1"))

	snapshot, err := db.Snapshot()
	if err != nil {
		panic(err)
	}
	defer snapshot.Close() // what it sees is kept until then

	db.DeleteRange(nil, nil)
	db.Compact(context.Background())
	_, err = db.Get([]byte("a"))
	fmt.Println(errors.Is(err, forebay.ErrNotFound))
	value, err := snapshot.Get([]byte("a"))
	fmt.Println(string(value), err, "as of commit", snapshot.LSN())
	// Output:
	// true
	// 1 <nil> as of commit 1
}

func ExampleDB_Backup() {
	disk := vfs.NewMem()
	db, err := forebay.Open("data", &forebay.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	db.Put([]byte("a"), []byte("1"))

	info, err := db.Backup(context.Background(), "copy") // beside readers and writers
	if err != nil {
		panic(err)
	}
	fmt.Println(info.Segments, "segment, through commit", info.At.LSN)
	db.Put([]byte("a"), []byte("2"))

	backup, err := forebay.Open("copy", &forebay.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	defer backup.Close()
	value, err := backup.Get([]byte("a"))
	fmt.Println(string(value), err)
	// Output:
	// 1 segment, through commit 1
	// 1 <nil>
}

func ExampleDB_Changes() {
	db := openInMemory()
	defer db.Close()
	from := db.Position()

	db.Put([]byte("a"), []byte("1"))
	users, _ := db.Keyspace("users")
	batch := db.NewBatch()
	batch.Delete([]byte("a"))
	batch.In(users).Put([]byte("1"), []byte("Ada"))
	if err := db.Apply(batch, forebay.Durable); err != nil {
		panic(err)
	}

	for change, err := range db.Changes(context.Background(), from) {
		if err != nil {
			panic(err)
		}
		for _, op := range change.Ops {
			fmt.Printf("%d: %s %q %q %q\n", change.LSN, op.Kind, op.Keyspace, op.Key, op.Value)
		}
	}
	// Output:
	// 1: put "" "a" "1"
	// 2: create keyspace "users" "" ""
	// 3: delete "" "a" ""
	// 3: put "users" "1" "Ada"
}

func ExampleDB_Follow() {
	db := openInMemory()
	defer db.Close()

	// A follower that has seen everything up to position; a pin keeps the log
	// for it from there on, also over a restart.
	position := db.Position()
	if err := db.Pin("search index", position.LSN); err != nil {
		panic(err)
	}
	go func() {
		for i := range 3 {
			db.Put(fmt.Appendf(nil, "page/%d", i), nil)
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for change, err := range db.Follow(ctx, position) { // waits for more
		if errors.Is(err, context.Canceled) {
			break
		} else if err != nil {
			panic(err) // ErrDiverged and *CompactedError: begin anew
		}
		fmt.Printf("%s\n", change.Ops[0].Key)
		position = change.Position // to be stored with what was made of it
		if position.LSN == 3 {
			cancel()
		}
	}
	if err := db.Pin("search index", position.LSN); err != nil { // now and then
		panic(err)
	}
	fmt.Println(db.Pins())
	fmt.Println(db.Unpin("search index"))
	// Output:
	// page/0
	// page/1
	// page/2
	// map[search index:3]
	// <nil>
}

func ExampleDB_Verify() {
	disk := vfs.NewMem()
	db, err := forebay.Open("data", &forebay.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	db.Put([]byte("a"), []byte("1"))
	db.Checkpoint(context.Background())
	db.Put([]byte("b"), []byte("2"))

	read, err := db.Verify(context.Background())
	fmt.Println(read.Segments, "segment,", err)

	// Something writes into a file that is none of its business.
	f, _ := disk.Open("data/000001.seg", vfs.ReadWrite)
	f.WriteAt([]byte{255}, 10)
	f.Close()
	_, err = db.Verify(context.Background())
	var damage *forebay.CorruptionError
	fmt.Println(errors.As(err, &damage), damage.File)
	// Output:
	// 1 segment, <nil>
	// true data/000001.seg
}

func ExampleOptions_readOnly() {
	disk := vfs.NewMem()
	db, err := forebay.Open("data", &forebay.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	db.Put([]byte("a"), []byte("1"))
	db.Close()

	// Any number of processes at the same time, while none writes.
	options := &forebay.Options{FS: disk, ReadOnly: true}
	for range 2 {
		reader, err := forebay.Open("data", options)
		if err != nil {
			panic(err)
		}
		defer reader.Close()
		value, err := reader.Get([]byte("a"))
		fmt.Println(string(value), err)
		fmt.Println(errors.Is(reader.Put([]byte("a"), nil), forebay.ErrReadOnly))
	}
	_, err = forebay.Open("elsewhere", options)
	fmt.Println(errors.Is(err, fs.ErrNotExist))
	// Output:
	// 1 <nil>
	// true
	// 1 <nil>
	// true
	// true
}

func ExampleDB_Shutdown() {
	db := openInMemory()
	db.Put([]byte("a"), []byte("1"))

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := db.Shutdown(ctx); err != nil {
		fmt.Println(err) // the closing goes on by itself
	}
	_, err := db.Get([]byte("a"))
	fmt.Println(errors.Is(err, forebay.ErrClosed))
	// Output: true
}

func ExampleEvent() {
	checkpoints := make(chan forebay.Event, 1)
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem(), OnEvent: func(e forebay.Event) {
		switch e.Kind {
		case forebay.EventCheckpoint:
			checkpoints <- e
		case forebay.EventCorruption, forebay.EventSlowSync:
			fmt.Println("call somebody:", e.Kind, e.Err)
		}
	}})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	db.Put([]byte("a"), []byte("1"))
	db.Checkpoint(context.Background())

	e := <-checkpoints
	fmt.Println(e.Kind, "through commit", e.LSN, e.Err)
	// Output: checkpoint through commit 1 <nil>
}

func ExampleDB_Stats() {
	db := openInMemory()
	defer db.Close()
	for i := range 10 {
		db.Put(fmt.Appendf(nil, "key/%d", i), []byte("value"))
	}

	stats := db.Stats()
	fmt.Println(stats.LastLSN, "commits,", stats.Log.Syncs >= 10, stats.MemtableEntries, "entries in memory")
	fmt.Println(stats.Corruptions, stats.SlowSyncs, stats.Snapshots)
	// Output:
	// 10 commits, true 10 entries in memory
	// 0 0 0
}

func ExampleDB_Compact() {
	db := openInMemory()
	defer db.Close()
	for round := range 3 {
		for i := range 100 {
			db.Put(fmt.Appendf(nil, "key/%03d", i), fmt.Appendf(nil, "round %d", round))
		}
		db.Checkpoint(context.Background())
	}

	// The background does it in its time; this does it now.
	if err := db.Compact(context.Background()); err != nil {
		panic(err)
	}
	stats := db.Stats()
	last := stats.Levels[len(stats.Levels)-1]
	fmt.Println(stats.Segments, "segment with", last.Versions, "versions")
	// Output: 1 segment with 100 versions
}

func ExampleOptions_maxLogBytes() {
	db, err := forebay.Open("data", &forebay.Options{FS: vfs.NewMem(), MaxLogBytes: 256 << 10, LogFileSize: 64 << 10})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	// A follower that never comes keeps the whole log.
	if err := db.Pin("asleep", 0); err != nil {
		panic(err)
	}
	value := make([]byte, 4<<10)
	for err == nil {
		err = db.Put([]byte("key"), value)
	}
	fmt.Println(errors.Is(err, forebay.ErrFull), len(db.Pins()), "pin")

	// Nothing of that write was done. Give the log back, and try again.
	db.Unpin("asleep")
	for errors.Is(err, forebay.ErrFull) {
		time.Sleep(time.Millisecond) // the store settles what it can by itself
		err = db.Put([]byte("key"), value)
	}
	fmt.Println(err)
	// Output:
	// true 1 pin
	// <nil>
}

func ExampleExplain() {
	disk := vfs.NewMem()
	db, err := forebay.Open("data", &forebay.Options{FS: disk})
	if err != nil {
		panic(err)
	}
	db.Put([]byte("a"), []byte("1"))
	db.Close()

	report, err := forebay.Explain("data", &forebay.Options{FS: disk}) // changes nothing, takes no lock
	fmt.Println(report.Verdict, "end at commit", report.Last, "closed in order:", report.Closed, err)
	// Output: clean end at commit 1 closed in order: true <nil>
}

// An item and the keys that belong to it are one commit; a reader meets items in the
// order of the commits, without a gap.
func ExampleSequence() {
	db, err := forebay.Open("events", &forebay.Options{FS: vfs.NewMem()})
	if err != nil {
		panic(err)
	}
	defer db.Close()
	orders, err := db.Sequence("orders")
	if err != nil {
		panic(err)
	}
	for _, id := range []string{"o-1", "o-2", "o-3"} {
		err := db.Update(func(tx *forebay.Tx) error {
			if err := tx.Put([]byte("state of "+id), []byte("ordered")); err != nil {
				return err
			}
			return tx.Append(orders, []byte(id))
		})
		if err != nil {
			panic(err)
		}
	}
	for item, err := range orders.Read(context.Background(), 1) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%d %s\n", item.Offset, item.Value)
	}
	if err := orders.Trim(2); err != nil { // all readers have the first two behind them
		panic(err)
	}
	first, next, err := orders.Bounds()
	fmt.Println(first, next, err)
	// Output:
	// 1 o-2
	// 2 o-3
	// 2 3 <nil>
}
