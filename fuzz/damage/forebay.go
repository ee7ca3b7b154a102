package damage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// Forebay is the engine that this module is about. Its stores are "closed", which
// has a bit of everything and was closed in order; "crashed", a log that a process
// left behind when it was killed after its last acknowledgement; and "backup".
type Forebay struct {
	// ReadOnly opens the copies for reading only.
	ReadOnly bool
	// Strict is with LogAlign.
	Strict bool
}

const dir = "db"

// spaceKey marks the keys of the keyspace "other".
const spaceKey = "other/"

// Name is Subject.Name.
func (e Forebay) Name() string {
	name := "forebay"
	if e.Strict {
		name += "-aligned"
	}
	if e.ReadOnly {
		name += "-readonly"
	}
	return name
}

func (e Forebay) options(fsys vfs.FS) *forebay.Options {
	o := &forebay.Options{
		FS: fsys, MemtableSize: 64 << 10, MemoryLimit: 1 << 20, LogFileSize: 16 << 10, MarkDelay: -1,
		Compression: forebay.NoCompression, ReadOnly: e.ReadOnly, Rand: rand.NewChaCha8([32]byte{1}),
	}
	if e.Strict {
		o.LogAlign = 4096
	}
	return o
}

// Kind is Subject.Kind.
func (Forebay) Kind(file string) string {
	base := path.Base(file)
	switch {
	case base == "LOCK":
		return ""
	case strings.HasPrefix(base, "MANIFEST"), strings.HasPrefix(base, "manifest"):
		return "manifest"
	case path.Ext(base) == ".seg":
		return "segment"
	case path.Ext(base) == ".log":
		return "log"
	}
	return "other"
}

// Blame is Subject.Blame.
func (Forebay) Blame(err error, _ *Copy) string {
	file := ""
	var c *forebay.CorruptionError
	var p *fs.PathError
	switch {
	case errors.As(err, &c):
		file = c.File
	case errors.As(err, &p):
		file = p.Path
	}
	name, ok := strings.CutPrefix(filepath.ToSlash(file), dir+"/")
	if !ok {
		return ""
	}
	return name
}

// Open is Subject.Open.
func (e Forebay) Open(c *Copy, r *Reading) error {
	mem, err := c.Mem(dir)
	if err != nil {
		return err
	}
	db, err := forebay.Open(dir, e.options(mem))
	if err != nil {
		if e.ReadOnly {
			return err
		}
		if changed := unchanged(mem, c); changed != nil {
			return changed // and no error of the store: it names no file
		}
		return err
	}
	defer db.Close()
	return read(db, r)
}

// unchanged is an error if a failed open has changed what was there.
func unchanged(mem *vfs.Mem, c *Copy) error {
	for name, b := range c.Image {
		if !bytes.Equal(mem.Bytes(dir+"/"+name), b) {
			return errors.New("the open that failed has changed " + name)
		}
	}
	return nil
}

// read shows all of an open store.
func read(db *forebay.DB, r *Reading) error {
	s, err := db.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	r.Says(db.LastLSN())
	other, err := s.Keyspace("other")
	if err != nil {
		return err
	}
	spaces := []space{{"", s.Reader}, {spaceKey, other}}
	for _, sp := range spaces {
		for e, err := range sp.Range(nil, nil) {
			if err != nil {
				return err
			}
			r.Next(sp.key(e.Key), e.Value, e.LSN)
		}
	}
	slices.Reverse(spaces)
	for _, sp := range spaces {
		for e, err := range sp.RangeReverse(nil, nil) {
			if err != nil {
				return err
			}
			r.Prev(sp.key(e.Key), e.Value, e.LSN)
		}
	}
	return get(spaces, r)
}

// space is a keyspace whose keys are shown with a prefix.
type space struct {
	prefix string
	forebay.Reader
}

func (s *space) key(k []byte) []byte {
	if s.prefix == "" {
		return k
	}
	return append([]byte(s.prefix), k...)
}

// get asks for every key; spaces[0] is the keyspace "other".
func get(spaces []space, r *Reading) error {
	var buf []byte
	for _, key := range r.Keys() {
		sp := &spaces[1]
		if strings.HasPrefix(key, spaceKey) {
			sp = &spaces[0]
		}
		buf = append(buf[:0], key[len(sp.prefix):]...)
		found := false
		err := sp.GetFunc(buf, func(value []byte) error {
			found = true
			r.Got(value, true)
			return nil
		})
		switch {
		case errors.Is(err, forebay.ErrNotFound):
			r.Got(nil, false)
		case err != nil:
			return err
		case !found:
			return errors.New("GetFunc called nobody")
		}
	}
	return nil
}

// Build is Subject.Build.
func (e Forebay) Build() ([]*Store, error) {
	e.ReadOnly = false
	closed, backup, err := e.manySided()
	if err != nil {
		return nil, err
	}
	crashed, err := e.crashed()
	if err != nil {
		return nil, err
	}
	return []*Store{closed, crashed, backup}, nil
}

// builder makes a store and notes what it does.
type builder struct {
	mem   *vfs.Mem
	db    *forebay.DB
	other *forebay.Keyspace
	store *Store
	err   error
	ops   atomic.Int64 // changes of mem

	mu   sync.Mutex // guards store.Writes and last: log files are made ahead in the background
	last uint64     // At of the last batch
}

func (e Forebay) builder(name string) *builder {
	b := &builder{mem: vfs.NewMem(), store: &Store{Name: name, Absent: []string{"key 900", "other/900", "a", "z"}}}
	b.mem.OnIO(func(o vfs.Op) {
		b.ops.Add(1)
		file, ok := strings.CutPrefix(filepath.ToSlash(o.Name), dir+"/")
		// The header of a file, at 0, is written ahead of use and proves nothing.
		b.mu.Lock()
		defer b.mu.Unlock()
		if ok && b.last > 0 && o.Call == vfs.CallWrite && o.Off > 0 && e.Kind(file) == "log" {
			b.store.Writes = append(b.store.Writes, Write{After: b.last, File: file, From: o.Off, To: o.Off + o.Len})
		}
	})
	b.db, b.err = forebay.Open(dir, e.options(b.mem))
	if b.err == nil {
		b.other, b.err = b.db.Keyspace("other")
	}
	return b
}

// do commits operations as one durable batch.
func (b *builder) do(ops ...Op) {
	if b.err != nil {
		return
	}
	batch := b.db.NewBatch()
	for _, o := range ops {
		key, ok := strings.CutPrefix(o.Key, spaceKey)
		var in interface {
			Put(key, value []byte) error
			Delete(key []byte) error
			DeleteRange(lo, hi []byte) error
		} = batch
		if ok {
			in = batch.In(b.other)
		}
		switch {
		case o.End != "":
			b.err = errors.Join(b.err, in.DeleteRange([]byte(key), []byte(o.End)))
		case o.Delete:
			b.err = errors.Join(b.err, in.Delete([]byte(key)))
		default:
			b.err = errors.Join(b.err, in.Put([]byte(key), []byte(o.Value)))
		}
	}
	if b.err = errors.Join(b.err, b.db.Apply(batch, forebay.Durable)); b.err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.last = b.db.LastLSN()
		b.store.Batches = append(b.store.Batches, Batch{At: b.last, Ops: ops})
	}
}

// then does something that commits nothing.
func (b *builder) then(what func() error) {
	if b.err == nil {
		b.err = what()
	}
}

// image returns the files in a directory as a crash of the process leaves them.
func image(mem *vfs.Mem, dir string) (Image, error) {
	im := Image{}
	mem = mem.Snapshot() // one moment, whatever is done in the background
	names, err := mem.List(dir)
	for _, name := range names {
		im[name] = mem.Bytes(dir + "/" + name)
	}
	return im, err
}

func (b *builder) keep(to *Image, from string) {
	b.then(func() (err error) {
		*to, err = image(b.mem, from)
		return err
	})
}

// rest waits until nothing is written for a moment: log files are made ahead in the
// background. It is so that two Builds most often make the same files.
func (b *builder) rest() {
	for last := int64(-1); b.err == nil && last != b.ops.Load(); {
		last = b.ops.Load()
		time.Sleep(5 * time.Millisecond)
	}
}

// manySided makes a store that has a bit of everything, and closes it; and a backup
// of it, whose older version is an earlier backup.
func (e Forebay) manySided() (closed, backup *Store, err error) {
	b := e.builder("closed")
	backup = &Store{Name: "backup", Absent: b.store.Absent}
	put := func(round, n int) {
		var ops []Op
		for i := range n {
			ops = append(ops, Op{Key: fmt.Sprintf("key %03d", i*7%200), Value: fmt.Sprintf("%d %s", round, strings.Repeat("v", 40))},
				Op{Key: fmt.Sprintf("other/%03d", i), Value: fmt.Sprintf("round %d", round)})
		}
		b.rest()
		b.do(ops...)
	}
	background := context.Background()
	toBackup := func(name string) func() error {
		return func() error { _, err := b.db.Backup(background, name); return err }
	}
	put(1, 150)
	b.then(func() error { return b.db.Compact(background) })
	put(2, 60)
	b.do(Op{Key: "key 050", End: "key 080"})
	b.do(Op{Key: "other/003", Delete: true})
	b.then(toBackup("backup1"))
	b.keep(&backup.Older, "backup1")
	put(3, 5)
	b.keep(&b.store.Older, dir)
	put(4, 10)
	b.then(toBackup("backup2"))
	b.keep(&backup.Image, "backup2")
	backup.Batches = slices.Clone(b.store.Batches)
	put(5, 20)
	b.do(Op{Key: "key 000", Delete: true})
	b.rest()
	if b.db != nil {
		b.err = errors.Join(b.err, b.db.Close())
	}
	b.keep(&b.store.Image, dir)
	return b.store, backup, b.err
}

// crashed makes a store whose log is all there is, and kills the process after the
// last of its commits.
func (e Forebay) crashed() (*Store, error) {
	b := e.builder("crashed")
	n := 240
	if e.Strict {
		n = 16 // each of which has a block of its own
	}
	for i := range n {
		if i%(n/8) == 0 {
			b.rest()
		}
		if i == n*3/4 {
			b.keep(&b.store.Older, dir)
		}
		b.do(Op{Key: fmt.Sprintf("key %04d", i%200), Value: fmt.Sprintf("value %d", i)})
	}
	b.rest()
	b.keep(&b.store.Image, dir)
	b.mem.OnIO(nil)
	if b.db != nil {
		b.err = errors.Join(b.err, b.db.Close())
	}
	return b.store, b.err
}
