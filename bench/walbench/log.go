// Package walbench compares libraries of logs: Forebay's package wal, alone, and
// tidwall/wal, etcd's, raft-wal, and the log writer inside of Pebble.
package walbench

import (
	"encoding/binary"
	"fmt"
)

// log is an open log. append and durable may be called by many goroutines at once.
type log interface {
	// append adds a record at the library's level without a sync.
	append(rec []byte) error
	// durable adds a record and returns when a power cut cannot take it.
	durable(rec []byte) error
	// flush returns when all that was appended is with the operating system. It
	// comes last before close.
	flush() error
	close() error
}

// library is one kind of log.
type library struct {
	name, module string
	// unsynced says what append promises; "": the library always syncs. buffered:
	// the bytes may still be in memory of the process.
	unsynced string
	buffered bool
	note     string

	// open makes a log in dir, which is empty. sync false: it is for append alone, and
	// syncs nothing until it is closed, not even a file that is full.
	open func(dir string, sync bool) (log, error)
	// load writes n records, of which rec makes the i-th, as fast as the library
	// can, and closes the log.
	load func(dir string, n int, rec func(i int) []byte) error
	// replay opens the log in dir and gives each record to each, in order.
	replay func(dir string, each func(rec []byte) error) error
}

var libraries = []*library{forebayLog, pebbleRecord, etcdWAL, tidwallWAL, raftWAL}

// recordOf writes a record of the length of dst: its number, and noise.
func recordOf(dst []byte, i int) []byte {
	binary.BigEndian.PutUint64(dst, uint64(i))
	x := uint64(i)*0x9e3779b97f4a7c15 + 1
	for p := 8; p+8 <= len(dst); p += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(dst[p:], x)
	}
	return dst
}

// checker looks whether records come in order and whole, cheaply: their numbers
// and lengths, and of each 64th all bytes.
type checker struct {
	n       int
	scratch []byte
}

func (c *checker) each(rec []byte) error {
	if len(rec) != len(c.scratch) || binary.BigEndian.Uint64(rec) != uint64(c.n) {
		return fmt.Errorf("record %d is not the one that was written", c.n)
	}
	if c.n%64 == 0 && string(recordOf(c.scratch, c.n)) != string(rec) {
		return fmt.Errorf("record %d has other bytes than were written", c.n)
	}
	c.n++
	return nil
}
