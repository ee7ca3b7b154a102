package walbench

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftwal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	tidwall "github.com/tidwall/wal"
	"go.etcd.io/etcd/raft/v3/raftpb"
	etcd "go.etcd.io/etcd/server/v3/wal"
	"go.etcd.io/etcd/server/v3/wal/walpb"
)

// Pebble's writer has no files of its own: what is here around it is what Pebble
// has, a file that is preallocated, and a mutex.
var pebbleRecord = &library{
	name: "pebble", module: "github.com/cockroachdb/pebble/v2",
	unsynced: "survives nothing: records wait in memory of the process until a block of 32 KiB is full", buffered: true,
	note: "record.LogWriter on one file, with WAL sync offsets, as the newest format has it",
	open: func(dir string, sync bool) (log, error) { return openPebble(dir, sync) },
	load: func(dir string, n int, rec func(i int) []byte) error {
		l, err := openPebble(dir, true)
		if err != nil {
			return err
		}
		for i := range n {
			if err := l.append(rec(i)); err != nil {
				return errors.Join(err, l.close())
			}
		}
		return l.close()
	},
	replay: func(dir string, each func([]byte) error) error {
		f, err := os.Open(filepath.Join(dir, "log"))
		if err != nil {
			return err
		}
		defer f.Close()
		// As Pebble's own open does it: each record through one buffer.
		r, buf := record.NewReader(f, 1), bytes.Buffer{}
		for {
			one, err := r.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			buf.Reset()
			if _, err := buf.ReadFrom(one); err != nil {
				return err
			}
			if err := each(buf.Bytes()); err != nil {
				return err
			}
		}
	},
}

type pebbleOpen struct {
	mu sync.Mutex // guards w: the writer is for one at a time
	w  *record.LogWriter
	// A writer has room for so many that wait for a sync.
	queue chan struct{}
}

func openPebble(dir string, sync bool) (*pebbleOpen, error) {
	f, err := vfs.Default.Create(filepath.Join(dir, "log"), "")
	if err != nil {
		return nil, err
	}
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{PreallocateSize: 64 << 20})
	if !sync {
		f = neverSynced{f}
	}
	p := &pebbleOpen{queue: make(chan struct{}, record.SyncConcurrency)}
	p.w = record.NewLogWriter(f, 1, record.LogWriterConfig{
		QueueSemChan: p.queue, WriteWALSyncOffsets: func() bool { return true },
	})
	return p, nil
}

func (p *pebbleOpen) append(rec []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.w.WriteRecord(rec)
	return err
}

func (p *pebbleOpen) durable(rec []byte) error {
	var (
		wg      sync.WaitGroup
		syncErr error
	)
	wg.Add(1)
	p.queue <- struct{}{}
	p.mu.Lock()
	_, err := p.w.SyncRecord(rec, &wg, &syncErr)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	wg.Wait()
	return syncErr
}

// flush closes the writer: it has no other way, and what waits for its goroutine has
// no bound but the file's end.
func (p *pebbleOpen) flush() error {
	w := p.w
	p.w = nil
	return w.Close()
}

func (p *pebbleOpen) close() error {
	if p.w == nil {
		return nil
	}
	return p.flush()
}

// neverSynced is a file that the writer's Close does not sync.
type neverSynced struct{ vfs.File }

func (neverSynced) Sync() error { return nil }

var tidwallWAL = &library{
	name: "tidwall", module: "github.com/tidwall/wal",
	unsynced: "NoSync: survives a crash of the process",
	note:     "the caller gives each record its index: a mutex around both; loads in batches",
	open:     openTidwall,
	load: func(dir string, n int, rec func(i int) []byte) error {
		l, err := tidwall.Open(dir, &tidwall.Options{NoSync: true})
		if err != nil {
			return err
		}
		b := new(tidwall.Batch)
		for i := range n {
			b.Write(uint64(i+1), rec(i))
			if (i+1)%loadBatch == 0 || i+1 == n {
				if err := l.WriteBatch(b); err != nil {
					return errors.Join(err, l.Close())
				}
				b.Clear()
			}
		}
		return errors.Join(l.Sync(), l.Close())
	},
	replay: func(dir string, each func([]byte) error) error {
		l, err := tidwall.Open(dir, &tidwall.Options{NoCopy: true})
		if err != nil {
			return err
		}
		last, err := l.LastIndex()
		for i := uint64(1); err == nil && i <= last; i++ {
			var rec []byte
			if rec, err = l.Read(i); err == nil {
				err = each(rec)
			}
		}
		return errors.Join(err, l.Close())
	},
}

// loadBatch is how many records of a load go into one batch, where a library has
// those.
const loadBatch = 100

// numbered is a log whose caller gives the indexes.
type numbered struct {
	mu    sync.Mutex // guards index, and that records come in its order
	index uint64
	write func(index uint64, rec []byte) error
	end   func() error
}

func (n *numbered) append(rec []byte) error { return n.durable(rec) }

func (n *numbered) durable(rec []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.index++
	return n.write(n.index, rec)
}

// flush has nothing to do: none of these keeps what was written.
func (n *numbered) flush() error { return nil }

func (n *numbered) close() error { return n.end() }

func openTidwall(dir string, sync bool) (log, error) {
	l, err := tidwall.Open(dir, &tidwall.Options{NoSync: !sync})
	if err != nil {
		return nil, err
	}
	return &numbered{write: l.Write, end: l.Close}, nil
}

var etcdWAL = &library{
	name: "etcd", module: "go.etcd.io/etcd/server/v3",
	unsynced: "SetUnsafeNoFsync: survives a crash of the process",
	note:     "one writer at a time, as etcd has it: a mutex; entries have index and term; files of 64 MB; loads in batches",
	open: func(dir string, sync bool) (log, error) {
		w, err := etcd.Create(nil, filepath.Join(dir, "wal"), nil)
		if err != nil {
			return nil, err
		}
		if !sync {
			w.SetUnsafeNoFsync()
		}
		entries := make([]raftpb.Entry, 1)
		return &numbered{end: w.Close, write: func(i uint64, rec []byte) error {
			entries[0] = raftpb.Entry{Term: 1, Index: i, Data: rec}
			return w.Save(raftpb.HardState{}, entries)
		}}, nil
	},
	load: func(dir string, n int, rec func(i int) []byte) error {
		w, err := etcd.Create(nil, filepath.Join(dir, "wal"), nil)
		if err != nil {
			return err
		}
		w.SetUnsafeNoFsync()
		var entries []raftpb.Entry
		for i := range n {
			entries = append(entries, raftpb.Entry{Term: 1, Index: uint64(i + 1), Data: bytes.Clone(rec(i))})
			if len(entries) == loadBatch || i+1 == n {
				if err := w.Save(raftpb.HardState{}, entries); err != nil {
					return errors.Join(err, w.Close())
				}
				entries = entries[:0]
			}
		}
		return errors.Join(w.Sync(), w.Close())
	},
	replay: func(dir string, each func([]byte) error) error {
		w, err := etcd.OpenForRead(nil, filepath.Join(dir, "wal"), walpb.Snapshot{})
		if err != nil {
			return err
		}
		// There is no other way than all at once.
		_, _, entries, err := w.ReadAll()
		for i := range entries {
			if err == nil {
				err = each(entries[i].Data)
			}
		}
		// Of a log that is open for reading Close always fails: it has no directory.
		_ = w.Close()
		return err
	},
}

var raftWAL = &library{
	name: "raft-wal", module: "github.com/hashicorp/raft-wal",
	note: "the caller gives each record its index: a mutex around both; entries have index and term; it always syncs; loads in batches",
	open: func(dir string, _ bool) (log, error) {
		w, err := openRaft(dir)
		if err != nil {
			return nil, err
		}
		return &numbered{end: w.Close, write: func(i uint64, rec []byte) error {
			return w.StoreLog(&raft.Log{Index: i, Term: 1, Data: rec})
		}}, nil
	},
	load: func(dir string, n int, rec func(i int) []byte) error {
		w, err := openRaft(dir)
		if err != nil {
			return err
		}
		var logs []*raft.Log
		for i := range n {
			logs = append(logs, &raft.Log{Index: uint64(i + 1), Term: 1, Data: bytes.Clone(rec(i))})
			if len(logs) == loadBatch || i+1 == n {
				if err := w.StoreLogs(logs); err != nil {
					return errors.Join(err, w.Close())
				}
				logs = logs[:0]
			}
		}
		return w.Close()
	},
	replay: func(dir string, each func([]byte) error) error {
		w, err := openRaft(dir)
		if err != nil {
			return err
		}
		last, err := w.LastIndex()
		if last == math.MaxUint64 {
			err = errors.New("the log has no end")
		}
		var l raft.Log
		for i := uint64(1); err == nil && i <= last; i++ {
			if err = w.GetLog(i, &l); err == nil {
				err = each(l.Data)
			}
		}
		return errors.Join(err, w.Close())
	},
}

// raftOpen is a log with the store of its metadata, which its Close leaves open
// and locked.
type raftOpen struct {
	*raftwal.WAL
	meta *metadb.BoltMetaDB
}

func openRaft(dir string) (*raftOpen, error) {
	meta := &metadb.BoltMetaDB{}
	w, err := raftwal.Open(dir, raftwal.WithMetaStore(meta), raftwal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		return nil, errors.Join(err, meta.Close())
	}
	return &raftOpen{w, meta}, nil
}

func (r *raftOpen) Close() error { return errors.Join(r.WAL.Close(), r.meta.Close()) }
