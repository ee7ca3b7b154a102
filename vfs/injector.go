package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// SyncFailer is what a File may offer, itself or by an Unwrap() File, so that
// an Injector can make it fail as a disk does. The files of Mem do.
type SyncFailer interface {
	// FailSync leaves all that is unsynced clean but not durable: reads show
	// it, a power cut may take it, and only writing it again lets a later sync
	// make it durable.
	FailSync()
	// FailWrite is a write with DSync of which only the cache gets the bytes.
	FailWrite(p []byte, off int64) (int, error)
}

// DirSyncFailer is the same for the entries of a directory; an FS may offer it,
// itself or by an Unwrap() FS.
type DirSyncFailer interface {
	FailSyncDir(dir string)
}

// Rule says which calls an Injector makes fail, and how.
type Rule struct {
	// Call is the kind of call; CallNone is every kind.
	Call Call
	// Name is a pattern of path.Match, of the base name unless it has a slash;
	// of a rename either name may match. Empty matches every name.
	Name string
	// K is the call that fails, counted from 1 over the calls that match since
	// the rule was made; 0 means 1.
	K int
	// Forever makes all later ones fail too.
	Forever bool
	// Err is what the call returns, inside an *fs.PathError: syscall.EIO,
	// ENOSPC, EINTR, EMFILE, ErrLocked. A nil Err lets the call go on; that is
	// of use with Gate.
	Err error
	// Part is how many bytes a failing CallRead, CallWrite or CallZero moves
	// before it fails; at most what was asked.
	Part int
	// After makes the call take effect before it returns Err. A Sync then has
	// reached the disk; without After it leaves the pages clean but not durable
	// where the file is a SyncFailer.
	After bool
	// Gate, if not nil, blocks the call until the gate is released.
	Gate *Gate
}

// Gate blocks calls: a disk that hangs.
type Gate struct {
	arrived, released chan struct{}
	arrive, release   sync.Once
}

// NewGate returns a closed gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}), released: make(chan struct{})}
}

// Arrived is closed when the first call has come to the gate.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Release lets all calls through, for ever. It may be called more than once.
func (g *Gate) Release() { g.release.Do(func() { close(g.released) }) }

func (g *Gate) wait() {
	g.arrive.Do(func() { close(g.arrived) })
	<-g.released
}

// Injector is an FS that passes calls to another and makes chosen ones fail.
// It counts the calls of each kind, so that a test can run once without rules
// and then once for each call. All methods may be called at once from many
// goroutines.
type Injector struct {
	fs FS

	mu     sync.Mutex // guards all that follows; not held during a call
	counts [numCalls]int
	rules  []*Armed
}

// Armed is a rule at work in an Injector.
type Armed struct {
	in         *Injector
	rule       Rule
	seen, hits int // guarded by in.mu
}

// NewInjector returns an Injector over fsys without rules.
func NewInjector(fsys FS) *Injector { return &Injector{fs: fsys} }

// Unwrap returns the FS below.
func (in *Injector) Unwrap() FS { return in.fs }

// Add puts a rule to work. Where several rules match a call each of them counts
// it, and the first added that fires decides. It panics when r.Name is no
// pattern.
func (in *Injector) Add(r Rule) *Armed {
	if _, err := path.Match(r.Name, ""); err != nil {
		panic("vfs: bad pattern in rule: " + r.Name)
	}
	a := &Armed{in: in, rule: r}
	in.mu.Lock()
	in.rules = append(in.rules, a)
	in.mu.Unlock()
	return a
}

// Hits returns how many calls the rule has made fail or has blocked.
func (a *Armed) Hits() int {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	return a.hits
}

// Remove takes the rule away. Calls that it blocks stay blocked.
func (a *Armed) Remove() {
	a.in.mu.Lock()
	a.in.rules = slices.DeleteFunc(a.in.rules, func(b *Armed) bool { return a == b })
	a.in.mu.Unlock()
}

// Count returns how many calls of a kind there were, failed ones included;
// CallNone counts all.
func (in *Injector) Count(c Call) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.counts[c]
}

// ResetCounts sets all counts of calls to zero. Rules keep their own.
func (in *Injector) ResetCounts() {
	in.mu.Lock()
	in.counts = [numCalls]int{}
	in.mu.Unlock()
}

func (r *Rule) matches(c Call, names ...string) bool {
	if r.Call != CallNone && r.Call != c {
		return false
	}
	if r.Name == "" {
		return true
	}
	for _, name := range names {
		name = filepath.ToSlash(name)
		if path.Base(r.Name) == r.Name {
			name = path.Base(name)
		}
		if ok, _ := path.Match(r.Name, name); ok {
			return true
		}
	}
	return false
}

// begin counts a call and returns the rule that makes it fail, or nil. It waits
// at the gate of a rule.
func (in *Injector) begin(c Call, names ...string) *Rule {
	in.mu.Lock()
	in.counts[c]++
	in.counts[CallNone]++
	var hit *Armed
	for _, a := range in.rules {
		if !a.rule.matches(c, names...) {
			continue
		}
		a.seen++
		if k := max(a.rule.K, 1); hit == nil && (a.seen == k || a.seen > k && a.rule.Forever) {
			a.hits++
			hit = a
		}
	}
	in.mu.Unlock()
	if hit == nil {
		return nil
	}
	if hit.rule.Gate != nil {
		hit.rule.Gate.wait()
	}
	if hit.rule.Err == nil {
		return nil
	}
	return &hit.rule
}

func (r *Rule) err(c Call, name string) error {
	return &fs.PathError{Op: c.String(), Path: name, Err: r.Err}
}

// do passes a call on that does all or nothing.
func (in *Injector) do(c Call, call func() error, names ...string) error {
	r := in.begin(c, names...)
	if r == nil {
		return call()
	}
	if r.After {
		if err := call(); err != nil {
			return err
		}
	}
	return r.err(c, names[0])
}

// Create is FS.Create.
func (in *Injector) Create(name string, mode Mode) (File, error) {
	return in.openWith(CallCreate, in.fs.Create, name, mode|ReadWrite)
}

// Open is FS.Open.
func (in *Injector) Open(name string, mode Mode) (File, error) {
	return in.openWith(CallOpen, in.fs.Open, name, mode)
}

func (in *Injector) openWith(c Call, open func(string, Mode) (File, error), name string, mode Mode) (File, error) {
	var f File
	err := in.do(c, func() (err error) { f, err = open(name, mode); return err }, name)
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return &injFile{in: in, f: f, name: name, mode: mode}, nil
}

// Remove is FS.Remove.
func (in *Injector) Remove(name string) error {
	return in.do(CallRemove, func() error { return in.fs.Remove(name) }, name)
}

// Rename is FS.Rename.
func (in *Injector) Rename(oldName, newName string) error {
	return in.do(CallRename, func() error { return in.fs.Rename(oldName, newName) }, oldName, newName)
}

// MkdirAll is FS.MkdirAll.
func (in *Injector) MkdirAll(dir string) error {
	return in.do(CallMkdir, func() error { return in.fs.MkdirAll(dir) }, dir)
}

// List is FS.List.
func (in *Injector) List(dir string) (names []string, err error) {
	err = in.do(CallList, func() (err error) { names, err = in.fs.List(dir); return err }, dir)
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Stat is FS.Stat.
func (in *Injector) Stat(name string) (info Info, err error) {
	err = in.do(CallStat, func() (err error) { info, err = in.fs.Stat(name); return err }, name)
	if err != nil {
		return Info{}, err
	}
	return info, nil
}

// SyncDir is FS.SyncDir.
func (in *Injector) SyncDir(dir string) error {
	r := in.begin(CallSyncDir, dir)
	if r == nil {
		return in.fs.SyncDir(dir)
	}
	if r.After {
		if err := in.fs.SyncDir(dir); err != nil {
			return err
		}
	} else if d, ok := unwrapFS[DirSyncFailer](in.fs); ok && !errors.Is(r.Err, syscall.EMFILE) && !errors.Is(r.Err, syscall.ENFILE) {
		d.FailSyncDir(dir) // without a descriptor it was not even begun
	}
	return r.err(CallSyncDir, dir)
}

// Lock is FS.Lock.
func (in *Injector) Lock(name string) (io.Closer, error) {
	return in.lockWith(CallLock, in.fs.Lock, name)
}

// LockShared is FS.LockShared.
func (in *Injector) LockShared(name string) (io.Closer, error) {
	return in.lockWith(CallLockShared, in.fs.LockShared, name)
}

func (in *Injector) lockWith(call Call, lock func(string) (io.Closer, error), name string) (io.Closer, error) {
	var c io.Closer
	err := in.do(call, func() (err error) { c, err = lock(name); return err }, name)
	if err != nil {
		if c != nil {
			c.Close()
		}
		return nil, err
	}
	return &injLock{in: in, c: c, name: name}, nil
}

type injLock struct {
	in   *Injector
	c    io.Closer
	name string
}

// Close gives the lock back also where it fails, as the kernel does.
func (l *injLock) Close() error {
	r := l.in.begin(CallUnlock, l.name)
	err := l.c.Close()
	if r != nil && err == nil {
		err = r.err(CallUnlock, l.name)
	}
	return err
}

// unwrapFS finds a T in fsys or below it.
func unwrapFS[T any](fsys FS) (t T, ok bool) {
	for {
		if t, ok = fsys.(T); ok {
			return t, true
		}
		u, wraps := fsys.(interface{ Unwrap() FS })
		if !wraps {
			return t, false
		}
		fsys = u.Unwrap()
	}
}

// unwrapFile finds a T in f or below it.
func unwrapFile[T any](f File) (t T, ok bool) {
	for {
		if t, ok = f.(T); ok {
			return t, true
		}
		u, wraps := f.(interface{ Unwrap() File })
		if !wraps {
			return t, false
		}
		f = u.Unwrap()
	}
}

var _ FS = (*Injector)(nil)
