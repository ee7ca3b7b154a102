package crash

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/forebaydb/forebay/fuzz/damage"
	"github.com/forebaydb/forebay/peers/engine"
	"github.com/forebaydb/forebay/vfs"
)

// batches is how many there are in a store, valueSize the bytes of each value.
const (
	batches   = 200
	valueSize = 200
)

// Names of the two stores of each engine: one that a process left behind when it was
// killed after its last acknowledgement; and one whose data was settled, and that
// was closed.
const (
	inLog  = "log"
	inData = "data"
)

// subject is an engine under damage.
type subject struct {
	e   *engine.Engine
	tmp string // where engines without a seam have their directories
}

func (s *subject) Name() string { return s.e.ID() }

func (s *subject) Kind(file string) string {
	k := s.e.Kind(file)
	if k == engine.Gone {
		return ""
	}
	return k
}

func (s *subject) Blame(err error, c *damage.Copy) string { return damage.BlameText(err, c) }

// place is a directory in which an engine can open a store.
type place struct {
	fsys vfs.FS
	mem  *vfs.Mem // nil: a real directory
	dir  string
}

const memDir = "store"

func (s *subject) place() (*place, error) {
	if s.e.Seam {
		mem := vfs.NewMem()
		return &place{mem, mem, memDir}, mem.MkdirAll(memDir)
	}
	dir, err := os.MkdirTemp(s.tmp, "forebay-peers-")
	return &place{vfs.OS(), nil, dir}, err
}

func (p *place) remove() {
	if p.mem == nil {
		os.RemoveAll(p.dir)
	}
}

// image is what the files hold now, as a killed process leaves them.
func (s *subject) image(p *place) (damage.Image, error) {
	im := damage.Image{}
	fsys := p.fsys
	if p.mem != nil {
		fsys = p.mem.Snapshot()
	}
	names, err := fsys.List(p.dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if s.e.Kind(name) == engine.Gone {
			continue
		}
		b, err := vfs.ReadFile(fsys, filepath.Join(p.dir, name), 1<<30)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		im[name] = b
	}
	return im, nil
}

// Open reads a damaged copy in every way.
func (s *subject) Open(c *damage.Copy, r *damage.Reading) (err error) {
	p := &place{dir: memDir}
	if s.e.Seam {
		if p.mem, err = c.Mem(memDir); err != nil {
			return err
		}
		p.fsys = p.mem
	} else {
		if p, err = s.place(); err != nil {
			return err
		}
		defer p.remove()
		for name, b := range c.Image {
			if err := os.WriteFile(filepath.Join(p.dir, name), b, 0o600); err != nil {
				return err
			}
		}
	}
	defer func() {
		v := recover()
		if fatal, ok := v.(*engine.Fatal); ok {
			err = fatal
		} else if v != nil {
			panic(v)
		}
	}()
	st, err := s.e.Open(p.fsys, p.dir)
	if err != nil {
		return err
	}
	defer shut(st)
	return read(st, r)
}

// shut closes a store. What it says then comes too late to count, and so does a
// panic.
func shut(st engine.Store) {
	defer func() { _ = recover() }()
	st.Close()
}

func read(st engine.Store, r *damage.Reading) error {
	if err := st.Scan(false, func(k, v []byte) { r.Next(k, v, 0) }); err != nil {
		return err
	}
	if err := st.Scan(true, func(k, v []byte) { r.Prev(k, v, 0) }); err != nil {
		return err
	}
	for _, key := range r.Keys() {
		v, ok, err := st.Get(key)
		if err != nil {
			return err
		}
		r.Got(v, ok)
	}
	return nil
}

// Build is damage.Subject.Build.
func (s *subject) Build() ([]*damage.Store, error) {
	log, err := s.build(inLog, s.fillLog)
	if err != nil {
		return nil, err
	}
	data, err := s.build(inData, s.fillData)
	return []*damage.Store{log, data}, err
}

func (s *subject) build(name string, fill func(p *place, out *damage.Store) error) (*damage.Store, error) {
	p, err := s.place()
	if err != nil {
		return nil, err
	}
	defer p.remove()
	out := &damage.Store{Name: name, Absent: []string{"absent", "key 9999"}}
	if err := fill(p, out); err != nil {
		return nil, fmt.Errorf("%s: make store %s: %w", s.Name(), name, err)
	}
	return out, nil
}

// apply commits batch number at; a quarter of the keys is written twice.
func apply(st engine.Store, out *damage.Store, at int) error {
	key, value := fmt.Sprintf("key %04d", at%(batches*3/4)), valueOf(at)
	out.Batches = append(out.Batches, damage.Batch{At: uint64(at), Ops: []damage.Op{{Key: key, Value: value}}})
	return st.Apply([2]string{key, value})
}

// valueOf is like no other value, and cannot be compressed well.
func valueOf(at int) string {
	rng := rand.NewPCG(uint64(at), 0x76616c7565)
	b := make([]byte, valueSize*3/4)
	for i := range b {
		b[i] = byte(rng.Uint64() >> 56)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// fillLog notes after each batch what it has written.
func (s *subject) fillLog(p *place, out *damage.Store) error {
	st, err := s.e.Open(p.fsys, p.dir)
	if err == nil && s.e.Twice {
		if err = st.Close(); err == nil {
			st, err = s.e.Open(p.fsys, p.dir)
		}
	}
	if err != nil {
		return err
	}
	defer st.Close()
	before, err := s.image(p)
	if err != nil {
		return err
	}
	for at := 1; at <= batches; at++ {
		if err := apply(st, out, at); err != nil {
			return err
		}
		now, err := s.image(p)
		if err != nil {
			return err
		}
		if at == batches/2 {
			out.Older = now
		}
		out.Writes = append(out.Writes, s.written(before, now, at)...)
		before = now
	}
	out.Image = before
	// What lies between two writes to a file is padding of the first.
	for i := range out.Writes[1:] {
		w, next := &out.Writes[i], &out.Writes[i+1]
		if w.File == next.File {
			w.To = max(w.To, next.From)
		}
	}
	return nil
}

// written are the ranges that batch at has written: of the log, if there is one,
// where its value is, or else of the data.
func (s *subject) written(before, now damage.Image, at int) (out []damage.Write) {
	for _, name := range now.Names() {
		kind := s.Kind(name)
		a, b := before[name], now[name]
		if kind != "log" && kind != "data" || bytes.Equal(a, b) {
			continue
		}
		from, to := 0, len(b)
		for from < min(len(a), to) && a[from] == b[from] {
			from++
		}
		for to > from && to <= len(a) && a[to-1] == b[to-1] {
			to--
		}
		if !bytes.Contains(b[from:to], []byte(valueOf(at))) {
			continue
		}
		w := damage.Write{After: uint64(at - 1), File: name, From: int64(from), To: int64(to)}
		if s.e.Torn != nil {
			w.From, w.To = s.e.Torn(w.From, w.To)
		}
		out = append(out, w)
	}
	return out
}

// fillData settles twice: the older version is that of the first time.
func (s *subject) fillData(p *place, out *damage.Store) error {
	at := 0
	life := func(until int) (damage.Image, error) {
		st, err := s.e.Open(p.fsys, p.dir)
		if err != nil {
			return nil, err
		}
		for ; at < until && err == nil; at++ {
			err = apply(st, out, at+1)
		}
		if err == nil {
			err = st.Settle()
		}
		if err = errors.Join(err, st.Close()); err != nil {
			return nil, err
		}
		return s.image(p)
	}
	var err error
	if out.Older, err = life(batches * 3 / 4); err == nil {
		out.Image, err = life(batches)
	}
	return err
}
