package forebay_test

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	options := &forebay.Options{FS: disk, MemoryLimit: 64 << 20}
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
