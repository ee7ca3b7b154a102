package vfs

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
)

// Tree is what a directory holds, with all below it: the content of each file by
// its name, with slashes and without the directory's, and nil for a directory. The
// content of an empty file is not nil.
type Tree map[string][]byte

// ReadTree reads a directory, each file of at most max bytes.
func ReadTree(fsys FS, dir string, max int64) (Tree, error) {
	t := Tree{}
	return t, t.read(fsys, dir, "", max)
}

func (t Tree) read(fsys FS, dir, below string, max int64) error {
	names, err := fsys.List(dir)
	for _, name := range names {
		path := filepath.Join(dir, name)
		info, err := fsys.Stat(path)
		switch {
		case err != nil:
			return err
		case info.Dir:
			t[below+name] = nil
			if err := t.read(fsys, path, below+name+"/", max); err != nil {
				return err
			}
		case !info.Regular:
			return &fs.PathError{Op: "read", Path: path, Err: ErrNotRegular}
		default:
			b, err := ReadFile(fsys, path, max)
			if err != nil {
				return err
			}
			t[below+name] = append([]byte{}, b...)
		}
	}
	return err
}

// Contains says whether a power cut can leave t, by the model SectorAtomic: nil,
// or what in it no PowerCut gives. It is for comparing the model with real file
// systems.
//
// A sector that never was durable may hold what the disk held there before, and a
// Mem does not remember all versions of a sector (MaxVersions): where one of the
// two matters, known is asked, and says whether the bytes, a sector or its
// beginning, were ever written to the disk. nil knows none.
func (m *Mem) Contains(t Tree, known func(sector []byte) bool) error {
	if known == nil {
		known = func([]byte) bool { return false }
	}
	s := &membership{m: m.Snapshot(), t: t, known: known, verdicts: map[verdictKey]error{}}
	s.chosen = make([]Fate, len(s.m.ops))
	if s.entries(0) {
		return nil
	}
	if s.why == nil {
		s.why = fmt.Errorf("no choice of %d unsynced entries gives the names %q; durable are %q, and now %q",
			len(s.m.ops), slices.Sorted(maps.Keys(t)), paths(s.m.durable), paths(s.m.names))
	}
	return s.why
}

func paths(t []dent) (out []string) {
	for _, d := range t {
		out = append(out, d.path)
	}
	return out
}

// membership looks for fates that give a tree.
type membership struct {
	m        *Mem // private
	t        Tree
	known    func([]byte) bool
	chosen   []Fate
	verdicts map[verdictKey]error
	why      error // of the first choice that has the right names
}

type verdictKey struct {
	ino  int32
	name string
}

// entries tries all fates of the entries from i on.
func (s *membership) entries(i int) bool {
	if i == len(s.chosen) {
		return s.files(s.m.settleEntries(s.chosen))
	}
	lost := func() bool {
		for j := range i {
			if s.chosen[j] == Lost && s.m.ops[j].touches(&s.m.ops[i]) {
				return true
			}
		}
		return false
	}
	if !lost() {
		s.chosen[i] = Kept
		if s.fits(i) && s.entries(i+1) {
			return true
		}
	}
	s.chosen[i] = Lost
	return s.fits(i) && s.entries(i+1)
}

// fits says whether the names of entry i can still come out right: where no later
// entry touches them, they are decided.
func (s *membership) fits(i int) bool {
	o := &s.m.ops[i]
	for j := i + 1; j < len(s.chosen); j++ {
		if o.touches(&s.m.ops[j]) {
			return true
		}
	}
	if s.chosen[i] == Kept {
		_, ok := s.t[o.name]
		if o.call == CallRemove {
			return !ok
		}
		// The directory may go.
		return ok || parentOf(o.name) != ""
	}
	return true
}

// files checks a choice of the entries.
func (s *membership) files(names []dent) bool {
	if len(names) != len(s.t) {
		return false
	}
	for _, d := range names {
		b, ok := s.t[d.path]
		if !ok || (b == nil) != s.m.inodes[d.ino].dir {
			return false
		}
	}
	for _, d := range names {
		n := s.m.inodes[d.ino]
		if n.dir {
			continue
		}
		key := verdictKey{d.ino, d.path}
		err, done := s.verdicts[key]
		if !done {
			err = n.contains(s.t[d.path], s.known)
			s.verdicts[key] = err
		}
		if err != nil {
			if s.why == nil {
				s.why = fmt.Errorf("%s: %w", d.path, err)
			}
			return false
		}
	}
	return true
}

// contains says whether a power cut can leave a file with content b.
func (n *inode) contains(b []byte, known func([]byte) bool) error {
	size := int64(len(b))
	legal := size == n.size || size == n.durSize || size%pageSize == 0 && n.durSize < size && size < n.size
	for _, v := range n.sizes[:n.nsizes] {
		legal = legal || size == v.size
	}
	if n.nsizes == len(n.sizes) { // some were forgotten
		legal = legal || n.durSize <= size && size <= n.size
	}
	if !legal {
		return fmt.Errorf("it has %d bytes; durable are %d, and the sizes since are %v", size, n.durSize, n.sizes[:n.nsizes])
	}
	for sec := int64(0); sec*SectorSize < size; sec++ {
		got := b[sec*SectorSize : min(size, (sec+1)*SectorSize)]
		if why := n.containsSector(sec, got, known); why != "" {
			return fmt.Errorf("sector %d, size %d: %s", sec, size, why)
		}
	}
	return nil
}

// containsSector says why a sector cannot hold got, a whole one or its beginning.
func (n *inode) containsSector(sec int64, got []byte, known func([]byte) bool) string {
	var zero sector
	same := func(want []byte) bool {
		if want == nil {
			want = zero[:]
		}
		return string(got) == string(want[:len(got)])
	}
	idx, at := int(sec/sectorsPerPage), int(sec%sectorsPerPage)
	var s slot
	if idx < len(n.slots) {
		s = n.slots[idx]
	}
	var now []byte
	if s.p != nil {
		now = sectorOf(s.p, at)
	}
	if same(now) {
		return ""
	}
	if s.d == nil || s.d.mask>>at&1 == 0 {
		for _, z := range n.zeros {
			if z.fresh && z.first <= sec && sec < z.end && known(got) {
				return ""
			}
		}
		return fmt.Sprintf("it is durable, and %x… instead of it", got[:min(16, len(got))])
	}
	fresh, old := s.d.fresh>>at&1 != 0, s.d.old[at]
	if !fresh && same(s.d.baseSector(at)) || fresh && (same(nil) || known(got)) {
		return ""
	}
	versions := 1
	if old != nil {
		for _, v := range old.v[:old.n] {
			if same(v.data[:]) {
				return ""
			}
		}
		versions += old.n
	}
	if versions == MaxVersions && known(got) {
		return ""
	}
	return fmt.Sprintf("it is none of %d versions, fresh %v: %x…", versions, fresh, got[:min(16, len(got))])
}
