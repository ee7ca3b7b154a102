package fuzz_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"

	"github.com/forebaydb/forebay/fuzz"
	"github.com/forebaydb/forebay/vfs"
)

// toy is a store of one file, to which every put and delete is appended with its
// length and its checksum, and synced. It has a bug.
type toy struct {
	f    vfs.File
	size int64
	live map[string]string
}

type toyEngine struct{}

func (toyEngine) Open(fsys vfs.FS, _ fuzz.Settings) (fuzz.Store, error) {
	f, err := fsys.Open("toy.log", vfs.ReadWrite)
	if err != nil {
		if f, err = fsys.Create("toy.log", vfs.ReadWrite); err != nil {
			return nil, err
		}
		// Here is the bug: the name of the new file is never made durable, by
		// fsys.SyncDir(".").
	}
	t := &toy{f: f, live: map[string]string{}}
	end, err := f.Size()
	if err != nil {
		return nil, err
	}
	log := make([]byte, end)
	if _, err := f.ReadAt(log, 0); err != nil && end > 0 {
		return nil, err
	}
	for len(log) >= 8 {
		n := binary.LittleEndian.Uint32(log)
		if uint64(n) > uint64(len(log)-8) || crc32.ChecksumIEEE(log[8:8+n]) != binary.LittleEndian.Uint32(log[4:]) || n == 0 {
			break // torn: nobody was told that it is there
		}
		t.apply(log[8 : 8+n])
		t.size, log = t.size+8+int64(n), log[8+n:]
	}
	// What was found may have been written and not synced when the process before
	// this one was killed. It must not be lost once it has been shown.
	return t, f.Sync()
}

func (t *toy) apply(record []byte) {
	key, value, put := bytes.Cut(record[1:], []byte{0})
	if delete(t.live, string(key)); put && record[0] == 'p' {
		t.live[string(key)] = string(value)
	}
}

func (t *toy) Apply(ops []fuzz.Op, _ fuzz.Level) (uint64, error) {
	record := append([]byte("d"), ops[0].Key...)
	if ops[0].Kind == fuzz.Put {
		record[0] = 'p'
		record = append(append(record, 0), ops[0].Value...)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(record)))
	head = binary.LittleEndian.AppendUint32(head, crc32.ChecksumIEEE(record))
	if _, err := t.f.WriteAt(append(head, record...), t.size); err != nil {
		return 0, err
	}
	t.size += int64(8 + len(record))
	t.apply(record)
	return 0, t.f.Sync()
}

func (t *toy) Scan(each func(space int, key, value []byte)) error {
	for _, k := range slices.Sorted(maps.Keys(t.live)) {
		each(0, []byte(k), []byte(t.live[k]))
	}
	return nil
}

func (t *toy) Close() error { return t.f.Close() }

// A store of fifty lines is put under the explorer. Its bug is found in the first
// workloads, and made as small as it gets: one put.
func Example() {
	cfg := fuzz.Config{Engine: toyEngine{}, MaxViolations: 20}
	rep, _, err := fuzz.Exhaust(context.Background(), cfg, fuzz.Bound{Ops: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range rep.Violations {
		if v.Kind != "acknowledged commits are lost" || v.Small == nil {
			continue
		}
		_, steps, _ := strings.Cut(v.Small.Workload, "| ")
		fmt.Println("workload: ", steps)
		fmt.Println("violation:", v.Small.Kind)
		fmt.Println("broken:   ", v.Small.Clause)
		fmt.Println("It could not happen where", v.Small.Property)
	}
	// Output:
	// workload:  d{k1=8}
	// violation: acknowledged commits are lost
	// broken:    a commit that was acknowledged as durable is there after a power cut, and one that was written after a crash of the process
	// It could not happen where changes of directories are durable at once
}
