package vfs

import (
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Mem is a file system in memory whose power can be cut. It keeps, beside what
// reads show, what a disk may hold: for each 512-byte sector the durable
// content and the versions written since, for each file the durable size and
// the sizes since, for each directory the entries that no SyncDir has covered.
// Unsynced lists all that is not durable, and PowerCut makes the file system
// that a machine would find after a cut, with a chosen fate for each. What
// holds after a cut is written at PowerCut, Fate and Model.
//
// A Mem is cheap to copy (Snapshot), shares its pages with its copies until
// either side writes, and does no work for ranges of zeros (Zero). Names are
// slash or platform paths; "/a", "a" and "./a" are the same name. There are no
// symbolic links, permissions or times. A file may have 64 GiB.
//
// All methods may be called at once from many goroutines, also on a Mem and
// its copies.
type Mem struct {
	hookMu sync.Mutex // held during a changing call and its hook; taken before mu
	hook   atomic.Pointer[func(Op)]

	mu       sync.RWMutex // guards all that follows
	gen      uint64       // marks what this Mem may change in place
	seq      uint64       // of the last operation that took effect
	barrier  uint64       // of the last sync
	floor    uint64       // versions before it may have been forgotten
	names    []dent       // sorted; replaced, never changed in place
	durable  []dent       // what every SyncDir so far has covered; as names
	ops      []entryOp    // what no SyncDir has covered, in order
	inodes   []*inode     // by number; 0 is the root; nil: gone
	open     []openCount  // by number, grown when needed; not copied
	orphans  []orphan     // without a name, but not yet gone
	grave    []*inode     // the last files that went, newest last
	capacity int64
	used     int64
}

type dent struct {
	path string
	ino  int32
}

// entryOp is one change of directory entries.
type entryOp struct {
	seq   uint64
	call  Call   // CallCreate, CallMkdir, CallRemove or CallRename
	name  string // the target of a rename
	from  string // its source
	ino   int32
	limbo bool // a failed SyncDir covered it
}

type openCount struct {
	handles int32
	locked  bool  // the exclusive lock is held
	readers int32 // how many hold a shared one
}

type orphan struct {
	ino   int32
	freed bool // its size is no longer in used
}

// Op describes a change to an OnIO hook.
type Op struct {
	// Seq counts the changes of this Mem from 1; units name them by it.
	Seq uint64
	// Call is the kind of change: CallCreate, CallRemove, CallRename,
	// CallMkdir, CallSyncDir, CallLock (which made its file), CallWrite,
	// CallZero, CallSync or CallSyncData.
	Call Call
	// Name of the file when it was opened, or of the directory.
	Name string
	// To is the new name after a rename.
	To string
	// Off and Len are the written range in bytes.
	Off, Len int64
	// Failed is true for a sync or a write that an Injector made fail.
	Failed bool
}

var memGen atomic.Uint64

// NewMem returns an empty file system: a root directory and no limit.
func NewMem() *Mem {
	return &Mem{gen: memGen.Add(1), inodes: []*inode{{dir: true}}}
}

// OnIO makes f the hook that is called after each change that took effect, on
// the goroutine that made it, with no other change in between: inside f the
// Mem is exactly as the change left it. f may read, and call Snapshot, Unsynced
// and PowerCut; a call that changes the same Mem would deadlock (its copies may
// be changed). nil takes the hook away. Copies have no hook.
func (m *Mem) OnIO(f func(Op)) {
	if f == nil {
		m.hook.Store(nil)
		return
	}
	m.hook.Store(&f)
}

// lock begins a changing call.
func (m *Mem) lock() (hook *func(Op)) {
	if m.hook.Load() != nil {
		m.hookMu.Lock()
		if hook = m.hook.Load(); hook == nil {
			m.hookMu.Unlock()
		}
	}
	m.mu.Lock()
	return hook
}

// unlock ends a changing call; effect says whether it changed anything.
func (m *Mem) unlock(hook *func(Op), op Op, effect bool) {
	op.Seq = m.seq
	m.mu.Unlock()
	if hook != nil {
		defer m.hookMu.Unlock()
		if effect {
			(*hook)(op)
		}
	}
}

// SetCapacity limits the sum of the sizes of all files to n bytes; 0 is no
// limit. A write beyond writes what fits and returns syscall.ENOSPC, and Create
// returns it when nothing is left.
func (m *Mem) SetCapacity(n int64) {
	m.mu.Lock()
	m.capacity = n
	m.mu.Unlock()
}

// Used returns the sum in bytes of the sizes of all files, those included that
// have no name any more but are open.
func (m *Mem) Used() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.used
}

// Snapshot returns an exact copy, what is unsynced included, in time
// proportional to the number of files. Open handles and locks stay behind: the
// copy is what the next process finds when this one is killed.
func (m *Mem) Snapshot() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &Mem{
		seq: m.seq, barrier: m.barrier, floor: m.floor,
		names: m.names, durable: m.durable,
		inodes:   append(make([]*inode, 0, len(m.inodes)+4), m.inodes...),
		grave:    m.grave,
		capacity: m.capacity, used: m.used,
	}
	m.ops = slices.Clip(m.ops)
	s.ops = m.ops
	m.gen = memGen.Add(1)
	s.gen = memGen.Add(1)
	if len(m.orphans) > 0 {
		s.orphans = slices.Clone(m.orphans)
		s.bury()
	}
	return s
}

// own returns inode ino for changing in place.
func (m *Mem) own(ino int32) *inode {
	n := m.inodes[ino]
	if n.gen != m.gen {
		c := *n
		c.gen, c.ownTable = m.gen, false
		c.dirty = slices.Clip(c.dirty)
		n = &c
		m.inodes[ino] = n
	}
	return n
}

// memName returns the form of a name that the tables hold: clean, with
// slashes, without a leading one; "" is the root.
func memName(name string) string {
	if filepath.Separator != '/' {
		name = filepath.ToSlash(name)
	}
	name = path.Clean(name)
	if strings.HasPrefix(name, "..") {
		name = path.Clean("/" + name)
	}
	if name == "." || name == "/" {
		return ""
	}
	return strings.TrimPrefix(name, "/")
}

func parentOf(name string) string {
	return name[:max(0, strings.LastIndexByte(name, '/'))]
}

// search returns where name is, or belongs, in a sorted table.
func search(t []dent, name string) (int, bool) {
	lo, hi := 0, len(t)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t[mid].path < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < len(t) && t[lo].path == name
}

// put returns a table that has name. It leaves t alone.
func put(t []dent, name string, ino int32) []dent {
	i, ok := search(t, name)
	out := make([]dent, 0, len(t)+1)
	out = append(append(out, t[:i]...), dent{name, ino})
	if ok {
		i++
	}
	return append(out, t[i:]...)
}

// drop returns a table that has not name. It leaves t alone.
func drop(t []dent, name string) []dent {
	i, ok := search(t, name)
	if !ok {
		return t
	}
	return append(append(make([]dent, 0, len(t)), t[:i]...), t[i+1:]...)
}

func (o *entryOp) apply(t []dent) []dent {
	switch o.call {
	case CallRemove:
		return drop(t, o.name)
	case CallRename:
		t = drop(t, o.from)
	}
	return put(t, o.name, o.ino)
}

// touches tells whether two changes have a name in common.
func (o *entryOp) touches(p *entryOp) bool {
	return o.name == p.name || o.name == p.from || o.from != "" && (o.from == p.name || o.from == p.from)
}

// lookup finds a clean name.
func (m *Mem) lookup(name string) (int32, error) {
	if name == "" {
		return 0, nil
	}
	if i, ok := search(m.names, name); ok {
		return m.names[i].ino, nil
	}
	for dir := parentOf(name); dir != ""; dir = parentOf(dir) {
		if i, ok := search(m.names, dir); ok {
			if !m.inodes[m.names[i].ino].dir {
				return 0, syscall.ENOTDIR
			}
			break
		}
	}
	return 0, fs.ErrNotExist
}

// lookupParent checks that the directory of a clean name is there.
func (m *Mem) lookupParent(name string) error {
	ino, err := m.lookup(parentOf(name))
	if err == nil && !m.inodes[ino].dir {
		err = syscall.ENOTDIR
	}
	return err
}

// enter carries out a change of entries.
func (m *Mem) enter(o entryOp) {
	m.seq++
	o.seq = m.seq
	m.names = o.apply(m.names)
	m.ops = append(m.ops, o)
}

// create makes a file or a directory.
func (m *Mem) create(name string, dir bool) (int32, error) {
	if _, err := m.lookup(name); err != fs.ErrNotExist {
		if err == nil {
			err = fs.ErrExist
		}
		return 0, err
	}
	if err := m.lookupParent(name); err != nil {
		return 0, err
	}
	if m.capacity > 0 && m.used >= m.capacity {
		return 0, syscall.ENOSPC
	}
	ino := int32(len(m.inodes))
	m.inodes = append(m.inodes, &inode{gen: m.gen, dir: dir, ownTable: true})
	call := CallCreate
	if dir {
		call = CallMkdir
	}
	m.enter(entryOp{call: call, name: name, ino: ino})
	return ino, nil
}

func (m *Mem) counts(ino int32) *openCount {
	if int(ino) >= len(m.open) {
		m.open = append(m.open, make([]openCount, len(m.inodes)-len(m.open))...)
	}
	return &m.open[ino]
}

// isOpen tells whether ino has a handle.
func (m *Mem) isOpen(ino int32) bool {
	return int(ino) < len(m.open) && m.open[ino].handles > 0
}

// unname notes that ino has lost its name.
func (m *Mem) unname(ino int32) {
	if !m.inodes[ino].dir {
		m.orphans = append(slices.Clip(m.orphans), orphan{ino: ino})
		m.bury()
	}
}

// graveSize is how many files that went a Mem remembers for stale sectors.
const graveSize = 8

// bury frees the files that have no name and are not open. The file itself
// goes when no power cut can bring it back.
func (m *Mem) bury() {
	var left []orphan
	for _, o := range m.orphans {
		if m.isOpen(o.ino) {
			left = append(left, o)
			continue
		}
		if !o.freed {
			m.used -= m.inodes[o.ino].size
			o.freed = true
		}
		refers := func(d dent) bool { return d.ino == o.ino }
		if slices.ContainsFunc(m.durable, refers) ||
			slices.ContainsFunc(m.ops, func(e entryOp) bool { return e.ino == o.ino }) {
			left = append(left, o)
			continue
		}
		m.forgetInode(o.ino)
	}
	m.orphans = left
}

func (m *Mem) forgetInode(ino int32) {
	if n := m.inodes[ino]; len(n.slots) > 0 {
		g := m.grave
		g = g[max(0, len(g)-graveSize+1):]
		m.grave = append(slices.Clone(g), n)
	}
	m.inodes[ino] = nil
}

// syncDir makes the entries of a directory durable, except those that an
// earlier, failed SyncDir left in limbo. A rename between two directories is
// durable with either.
func (m *Mem) syncDir(dir string) {
	m.seq++
	m.barrier = m.seq
	m.settleOps(func(o *entryOp) bool { return !o.limbo && o.in(dir) })
}

// settleOps makes the wanted changes of entries durable, and those that they
// build upon.
func (m *Mem) settleOps(want func(o *entryOp) bool) {
	take := make([]bool, len(m.ops))
	all := true
	for i := len(m.ops) - 1; i >= 0; i-- {
		o := &m.ops[i]
		take[i] = want(o)
		for j := i + 1; j < len(m.ops) && !take[i]; j++ {
			take[i] = take[j] && o.touches(&m.ops[j])
		}
		all = all && take[i]
	}
	if all {
		m.durable, m.ops = m.names, nil
	} else {
		var left []entryOp
		for i := range m.ops {
			if take[i] {
				m.durable = m.ops[i].apply(m.durable)
			} else {
				left = append(left, m.ops[i])
			}
		}
		m.ops = left
	}
	m.bury()
}

func (o *entryOp) in(dir string) bool {
	return parentOf(o.name) == dir || o.call == CallRename && parentOf(o.from) == dir
}

// FailSyncDir does what a SyncDir does that fails: the entries of dir show,
// may be lost by a power cut, and are not made durable by a later SyncDir.
func (m *Mem) FailSyncDir(dir string) {
	h := m.lock()
	m.seq++
	clean := memName(dir)
	m.ops = slices.Clone(m.ops)
	for i := range m.ops {
		if m.ops[i].in(clean) {
			m.ops[i].limbo = true
		}
	}
	m.unlock(h, Op{Call: CallSyncDir, Name: dir, Failed: true}, true)
}

var _ FS = (*Mem)(nil)
var _ io.Closer = (*memLock)(nil)
