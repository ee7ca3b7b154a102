package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// spaces are names of keyspaces by id. An id is given to one name for ever, so
// that a name may come from anywhere, also from what does not count any more.
type spaces map[uint64]string

// learn takes in one version that was put.
func (n spaces) learn(key, value []byte) {
	if id, user, ok := keyspace.Cut(key); ok && id == keyspace.System {
		if e, err := keyspace.DecodeEntry(user, value); err == nil && e.ID != 0 && e.Name != "" {
			n[e.ID] = e.Name
		}
	}
}

// learnRecord takes in a record of the log, if it is a batch.
func (n spaces) learnRecord(rec []byte) {
	b, err := batch.Decode(rec)
	if err != nil {
		return
	}
	for b.Next() {
		if b.Kind() == base.KindPut && b.Key()[0] == byte(keyspace.System) {
			n.learn(b.Key(), b.Value())
		}
	}
}

// label names a keyspace where a key of it is shown; "" for the default one.
func (n spaces) label(id uint64) string {
	name, ok := n[id]
	switch {
	case id == keyspace.Default:
		return ""
	case id == keyspace.System:
		return "[keyspaces] "
	case !ok:
		return fmt.Sprintf("[#%d] ", id)
	case strings.ContainsFunc(name, func(r rune) bool { return r == '[' || r == ']' || r == '"' || !unicode.IsPrint(r) }):
		return fmt.Sprintf("[%q] ", name)
	}
	return "[" + name + "] "
}

// key shows a stored key as keyspace and user key.
func (n spaces) key(stored []byte, hex bool, max int) string {
	id, user, ok := keyspace.Cut(stored)
	if !ok {
		return "[no keyspace] " + quote(stored, hex, max)
	}
	return n.label(id) + quote(user, hex, max)
}

// bounds shows [lo, hi) of stored keys.
func (n spaces) bounds(lo, hi []byte, hex bool, max int) string {
	id, from, ok := keyspace.Cut(lo)
	if !ok {
		return n.key(lo, hex, max) + " … " + n.key(hi, hex, max)
	}
	out := n.label(id)
	if len(from) == 0 {
		out += "start"
	} else {
		out += quote(from, hex, max)
	}
	last, to, ok := keyspace.Cut(hi)
	switch {
	case string(hi) == string(keyspace.End(id)):
		return out + " … end"
	case !ok:
		return out + " … " + n.key(hi, hex, max)
	case last == id:
		return out + " … " + quote(to, hex, max)
	case len(to) == 0: // the end of the keyspace before
		return out + " … " + n.label(last-1) + "end"
	case last == keyspace.Default:
		return out + " … [default] " + quote(to, hex, max)
	}
	return out + " … " + n.label(last) + quote(to, hex, max)
}

// op shows one operation of a batch.
func (n spaces) op(b *batch.Reader, hex bool, max int) string {
	id, user, ok := keyspace.Cut(b.Key())
	if ok && id == keyspace.System && b.Kind() != base.KindRangeDelete {
		if s := systemOp(b.Kind(), user, b.Value()); s != "" {
			return s
		}
	}
	switch b.Kind() {
	case base.KindRangeDelete:
		return b.Kind().String() + " " + n.bounds(b.Key(), b.Value(), hex, max)
	case base.KindPut:
		return b.Kind().String() + " " + n.key(b.Key(), hex, max) + " " + quote(b.Value(), hex, max)
	case base.KindAppend:
		first, count := batch.FirstOffset(b.Value()), uint64(batch.CountItems(b.Value()))
		out := fmt.Sprintf("append to %sitems %d to %d:", n.label(id), first, first+count-1)
		for i := batch.ItemsOf(b.Value()); i.Next(); {
			if out += " " + quote(i.Item(), hex, max); max >= 0 && len(out) > 4*max {
				return out + " …"
			}
		}
		return out
	}
	return b.Kind().String() + " " + n.key(b.Key(), hex, max)
}

// systemOp tells what an operation does to the list of keyspaces, "" if it
// cannot be told.
func systemOp(kind base.Kind, user, value []byte) string {
	if kind == base.KindDelete {
		value = nil
	}
	e, err := keyspace.DecodeEntry(user, value)
	switch {
	case err != nil:
		return ""
	case e.Named && value == nil:
		return fmt.Sprintf("drop keyspace %q", e.Name)
	case e.Named:
		return fmt.Sprintf("create keyspace %q, number %d", e.Name, e.ID)
	case e.ID != 0 && value != nil:
		return fmt.Sprintf("keyspace %d has the name %q", e.ID, e.Name)
	case e.ID == 0 && value != nil:
		if next, err := keyspace.DecodeID(value); err == nil {
			return fmt.Sprintf("the next keyspace gets number %d", next)
		}
	}
	return ""
}

// names collects the names of a store's keyspaces from everything that can be
// read; a dump of damaged files shows numbers where a name is missing.
func (t *tool) names(s *store) spaces {
	n := spaces{}
	for i := range s.state.Segments {
		g := &s.state.Segments[i]
		if len(g.Lo) > 0 && g.Lo[0] != byte(keyspace.System) {
			continue
		}
		t.namesInSegment(n, filepath.Join(s.dir, segment.FileName(g.Number)), segment.ID{Store: s.id, Number: g.Number})
	}
	for _, name := range s.logFiles() {
		t.namesInLog(n, filepath.Join(s.logDir, name))
	}
	return n
}

// Keys returns what shows the stored keys of a store as keyspace and user key. The
// store may be damaged.
func Keys(fsys vfs.FS, dir, logDir string) func(stored []byte) string {
	t, names := &tool{fsys}, spaces{}
	if s, err := t.load(dir, logDir); err == nil {
		names = t.names(s)
	}
	return func(stored []byte) string { return names.key(stored, false, 64) }
}

// namesBeside collects them for a file that was given by itself.
func (t *tool) namesBeside(path string) spaces {
	s, err := t.load(filepath.Dir(path), "")
	if err != nil {
		n := spaces{}
		t.namesInLog(n, path)
		return n
	}
	return t.names(s)
}

func (t *tool) namesInSegment(n spaces, path string, id segment.ID) {
	r, err := t.openSegment(path, id)
	if err != nil {
		return
	}
	defer r.Close()
	it := r.NewIter()
	defer it.Close()
	for ok := it.First(); ok && it.Key()[0] == byte(keyspace.System); ok = it.Next() {
		if it.Kind() == base.KindPut {
			n.learn(it.Key(), it.Value())
		}
	}
}

func (t *tool) namesInLog(n spaces, path string) {
	m, err := t.openFramed(path)
	if err != nil {
		return
	}
	defer m.close()
	if m.headErr != nil || m.head.Kind != frame.FileLog {
		return
	}
	r := frame.NewReader(m.f, m.size, m.head)
	defer r.Release()
	for {
		fr, end, err := r.Next()
		if err != nil || end != nil {
			return
		}
		if fr.Kind == frame.KindData {
			fr.EachRecord(func(_ frame.LSN, _ uint64, rec []byte) error { n.learnRecord(rec); return nil }) // it verified
		}
	}
}

// openSegment opens a segment for reading. It may be gone: a store that is in use
// removes what it has merged.
func (t *tool) openSegment(path string, id segment.ID) (*segment.Reader, error) {
	f, err := t.fsys.Open(path, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, damaged("%s does not exist", path)
	}
	if err != nil {
		return nil, err
	}
	r, err := segment.Open(f, path, id, segment.Options{})
	if err != nil {
		f.Close()
	}
	return r, err
}
