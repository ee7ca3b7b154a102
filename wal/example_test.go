package wal_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/forebaydb/forebay/wal"
)

// A log needs no engine around it.
func Example() {
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := wal.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}

	// One record, durable when the call returns.
	lsn, err := l.Append([]byte("first"))
	fmt.Println(lsn, err)

	// Several records in one write and one sync.
	r := &wal.Request{Records: []wal.Record{{Data: []byte("second")}, {Data: []byte("third")}}}
	err = l.Commit(r)
	fmt.Println(r.First, r.Last(), err)

	// Read them back, in order, and wait for more if you like.
	tail, err := l.NewTail(wal.Position{})
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		pos, rec, err := tail.Next(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d %s\n", pos.LSN, rec)
	}
	tail.Close()

	// What was dealt with elsewhere need not be replayed; whole files go.
	if err := l.TruncateFront(2); err != nil {
		log.Fatal(err)
	}
	if err := l.Close(); err != nil {
		log.Fatal(err)
	}

	// The next open replays what is above the floor.
	l, err = wal.Open(dir, &wal.Options{OnRecord: func(lsn wal.LSN, _ uint64, rec []byte) error {
		fmt.Printf("replay %d %s\n", lsn, rec)
		return nil
	}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Recovery().Verdict, l.LastLSN())
	l.Close()
	// Output:
	// 1 <nil>
	// 2 3 <nil>
	// 1 first
	// 2 second
	// 3 third
	// replay 1 first
	// replay 2 second
	// replay 3 third
	// clean 3
}

// A Raft log overwrites what a new leader disagrees with.
func ExampleLog_TruncateBack() {
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := wal.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	for _, s := range []string{"a", "b", "c"} {
		l.Append([]byte(s))
	}
	seen := wal.Position{Epoch: l.EpochAt(3), LSN: 3}
	if err := l.TruncateBack(1); err != nil {
		log.Fatal(err)
	}
	lsn, _ := l.Append([]byte("B"))
	fmt.Println("B is", lsn)
	_, err = l.NewTail(seen)
	fmt.Println(err)
	// Output:
	// B is 2
	// wal: position is of another history: LSN 3 of epoch 1; the log ends at 2
}
