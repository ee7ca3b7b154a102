package real

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// settings are those of one store, and of the load on it.
type settings struct {
	Seed    uint64
	Writers int

	Align, FileSize, TableSize int64
	Mechanism                  forebay.Mechanism
	Compression                forebay.Compression
	Policy                     int
	MarkDelay                  time.Duration

	// Boast makes the load call what it wrote at a lower level Durable. It shows
	// that a loss is seen.
	Boast bool
}

var policies = [...]forebay.SyncPolicy{
	forebay.SyncGroup, forebay.SyncGroup, forebay.SyncNever, forebay.SyncEach, forebay.SyncBytes(8 << 10), forebay.SyncInterval(2 * time.Millisecond),
}

// mechanisms returns those of the log's mechanisms that the file system of dir has.
func mechanisms(dir string) []forebay.Mechanism {
	name := filepath.Join(dir, "mechanisms")
	defer os.Remove(name)
	all := []forebay.Mechanism{forebay.Fdatasync}
	for _, m := range []struct {
		mechanism forebay.Mechanism
		mode      vfs.Mode
	}{{forebay.DSync, vfs.DSync}, {forebay.DirectDSync, vfs.DSync | vfs.Direct}, {forebay.Direct, vfs.Direct}} {
		f, err := vfs.OS().Create(name, m.mode)
		if err != nil {
			continue
		}
		_ = f.Close()
		_ = os.Remove(name)
		all = append(all, m.mechanism)
	}
	return all
}

// newSettings decides on settings, with one of these mechanisms.
func newSettings(r *rand.Rand, mechanisms []forebay.Mechanism) settings {
	s := settings{
		Seed: r.Uint64(), Writers: 1 + r.IntN(4), Align: 4096 * int64(r.IntN(2)),
		FileSize: 16 << 10 << r.IntN(5), TableSize: 8 << 10 << r.IntN(5),
		Mechanism: mechanisms[r.IntN(len(mechanisms))], Compression: forebay.Compression(r.IntN(4)),
		Policy: r.IntN(len(policies)), MarkDelay: -1,
	}
	if s.Mechanism == forebay.DirectDSync || s.Mechanism == forebay.Direct {
		s.Align = 4096
	}
	if r.IntN(2) == 0 {
		s.MarkDelay = 2 * time.Millisecond
	}
	return s
}

// options are those of an open.
func (s *settings) options(fsys vfs.FS) *forebay.Options {
	return &forebay.Options{
		FS: fsys, LogAlign: s.Align, LogFileSize: s.FileSize, MemtableSize: s.TableSize, MemoryLimit: 2 << 20,
		Mechanism: s.Mechanism, Compression: s.Compression, Sync: policies[s.Policy], MarkDelay: s.MarkDelay,
	}
}

// String describes the settings.
func (s *settings) String() string {
	return fmt.Sprintf("seed %#x, %d writers, align %d, log files %d, memtables %d, mechanism %d, compression %d, policy %d, mark %v",
		s.Seed, s.Writers, s.Align, s.FileSize, s.TableSize, s.Mechanism, s.Compression, s.Policy, s.MarkDelay)
}

// load writes to an open store.
type load struct {
	settings
	life    int
	db      *forebay.DB
	side    *forebay.Keyspace
	tell    teller
	phases  *phases
	scratch string // a directory for backups
	patient bool   // tries a write again that found no room
}

// errAccepted says that a poisoned store has taken a write.
var errAccepted = errors.New("a write was accepted after another had failed")

// start makes the side keyspace, when the store is new.
func (l *load) start() (err error) {
	l.side, err = l.db.Keyspace(sideSpace)
	return err
}

// run writes until ctx ends, or until every writer has met an error. It returns the
// errors, or one that is not legal alone.
func (l *load) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var writers, chores sync.WaitGroup
	errs := make([]error, l.Writers+1)
	chores.Go(func() { errs[l.Writers] = l.chores(ctx) })
	for w := range l.Writers {
		writers.Go(func() { errs[w] = l.write(ctx, w) })
	}
	writers.Wait()
	cancel()
	chores.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return !legal(err) }); i >= 0 {
		return errs[i]
	}
	return errors.Join(errs...)
}

// flying is a commit on its way.
type flying struct {
	place
	level  forebay.Level
	commit *forebay.Commit
}

// write makes the commits of one writer.
func (l *load) write(ctx context.Context, w int) error {
	var flight []flying
	for n := uint32(1); ctx.Err() == nil; n++ {
		p := place{l.life, w, n}
		c := newCommit(l.Seed, p)
		if l.patient && c.how == bySubmit {
			c.how = byApply
		}
		if c.how != bySubmit || len(flight) == maxFlight-1 {
			if err := l.land(flight); err != nil {
				return l.refused(p, err)
			}
			flight = flight[:0]
		}
		l.tell(report{kind: sayBegin, writer: uint8(w), number: n})
		f, err := l.commit(p, c)
		for l.patient && errors.Is(err, forebay.ErrFull) && !errors.Is(err, forebay.ErrPoisoned) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
			f, err = l.commit(p, c)
		}
		if err != nil {
			_ = l.land(flight)
			return l.refused(p, err)
		}
		if f.commit != nil {
			flight = append(flight, f)
		}
	}
	return l.land(flight)
}

// refused looks, after an error that needs a reopen, that nothing more is
// accepted.
func (l *load) refused(p place, err error) error {
	if !errors.Is(err, forebay.ErrUnknown) && !errors.Is(err, forebay.ErrPoisoned) {
		return err
	}
	for range 5 {
		p.number++
		c := newCommit(l.Seed, p)
		c.how = byApply
		if _, again := l.commit(p, c); again == nil {
			return fmt.Errorf("%w: level %d, after: %w", errAccepted, c.level, err)
		}
	}
	return err
}

// land waits for the commits on their way. After the first error it waits for the
// others too, and what of them is acknowledged counts.
func (l *load) land(flight []flying) (err error) {
	for _, f := range flight {
		if werr := f.commit.Wait(context.Background()); werr != nil {
			l.tell(report{kind: sayFailed, writer: uint8(f.writer), number: f.number})
			err = errors.Join(err, werr)
			continue
		}
		l.acked(f.place, f.level, f.commit.LSN())
	}
	return err
}

func (l *load) acked(p place, level forebay.Level, lsn uint64) {
	if l.Boast {
		level = forebay.Durable
	}
	l.tell(report{kind: sayAck, writer: uint8(p.writer), level: level, number: p.number, lsn: lsn})
}

// commit makes one commit. One that was submitted comes back on its way.
func (l *load) commit(p place, c commit) (f flying, err error) {
	level := c.level
	if l.Boast {
		level = forebay.Buffered
	}
	if c.how == byUpdate {
		err = l.db.UpdateLevel(context.Background(), level, func(tx *forebay.Tx) error { return l.transact(tx, c) })
		if err == nil {
			l.acked(p, level, l.lsnOf(p))
		}
		return f, err
	}
	b := l.db.NewBatch()
	side := b.In(l.side)
	for _, o := range c.ops {
		if o.space == 0 {
			err = errors.Join(err, do(b, o))
		} else {
			err = errors.Join(err, do(side, o))
		}
	}
	if err != nil {
		return f, err
	}
	if c.how == bySubmit {
		f.place, f.level = p, level
		f.commit, err = l.db.Submit(b, level)
		return f, err
	}
	if err = l.db.Apply(b, level); err == nil {
		l.acked(p, level, l.lsnOf(p))
	}
	return f, err
}

type writer interface {
	Put(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(lo, hi []byte) error
}

func do(w writer, o op) error {
	switch o.kind {
	case opDelete:
		return w.Delete([]byte(o.key))
	case opDeleteRange:
		var end []byte
		if o.end != "" {
			end = []byte(o.end)
		}
		return w.DeleteRange([]byte(o.key), end)
	}
	return w.Put([]byte(o.key), o.value)
}

func (l *load) transact(tx *forebay.Tx, c commit) error {
	side, err := tx.Keyspace(sideSpace)
	if err != nil {
		return err
	}
	for _, o := range c.ops {
		to, from := writer(tx.Writer), tx.Reader
		if o.space == 1 {
			to, from = side.Writer, side.Reader
		}
		if o.kind == opAdd {
			v, err := from.Get([]byte(o.key))
			if err != nil && !errors.Is(err, forebay.ErrNotFound) {
				return err
			}
			o.value = []byte(added(string(v)))
		}
		if err := do(to, o); err != nil {
			return err
		}
	}
	return nil
}

// lsnOf returns the LSN of a commit that was acknowledged, the last of its writer;
// 0 where it cannot be read.
func (l *load) lsnOf(p place) (lsn uint64) {
	key, _ := p.witness()
	for e, err := range l.db.Range([]byte(key), []byte(key+"\x00")) {
		if err != nil {
			return 0
		}
		lsn = e.LSN
	}
	return lsn
}

// chores does now and then what a store's owner does beside writing. An error of
// a store that is poisoned, or full, is left to the writers.
func (l *load) chores(ctx context.Context) error {
	r := rand.New(rand.NewPCG(l.Seed, uint64(l.life)))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(r.IntN(3000)) * time.Microsecond):
		}
		var err error
		switch k := r.IntN(10); {
		case k < 3:
			err = l.durable(l.db.Sync(ctx))
		case k < 5:
			err = l.durable(l.db.Checkpoint(ctx))
		case k < 8:
			err = l.durable(l.db.Compact(ctx))
		case k < 9:
			err = l.backup(ctx)
		default:
			err = l.look()
		}
		if !legal(err) && ctx.Err() == nil {
			return fmt.Errorf("beside the writers: %w", err)
		}
	}
}

// errDisk wraps errors of the disk under calls that do not poison the store.
var errDisk = errors.New("the disk failed")

// says are the errors of a store whose disk fails; those of the system are of calls
// that may be made again: the open, and the read of a transaction.
var says = []error{forebay.ErrUnknown, forebay.ErrPoisoned, forebay.ErrFull, errDisk, syscall.EIO, syscall.EROFS, syscall.ENOSPC, syscall.EMFILE}

// legal says whether an error is nil, or one that a store may say when its disk
// fails.
func legal(err error) bool {
	var damage *forebay.CorruptionError
	switch {
	case err == nil:
		return true
	case errors.Is(err, errAccepted), errors.As(err, &damage):
		return false
	}
	return slices.ContainsFunc(says, func(e error) bool { return errors.Is(err, e) })
}

// durable tells of what a call has made durable.
func (l *load) durable(err error) error {
	if err == nil {
		l.tell(report{kind: sayDurable, lsn: l.db.DurableLSN()})
		return nil
	}
	var damage *forebay.CorruptionError
	if errors.As(err, &damage) {
		return err
	}
	return fmt.Errorf("%w: %w", errDisk, err)
}

func (l *load) backup(ctx context.Context) error {
	l.phases.begin(phaseBackup)
	defer l.phases.end(phaseBackup)
	err := l.removeBackup()
	if err == nil {
		_, err = l.db.Backup(ctx, l.scratch)
	}
	return l.durable(err)
}

// removeBackup removes the last one, by the file system that the store has.
func (l *load) removeBackup() error {
	names, err := l.phases.List(l.scratch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, name := range names {
		err = errors.Join(err, l.phases.Remove(filepath.Join(l.scratch, name)))
	}
	return errors.Join(err, l.phases.Remove(l.scratch))
}

// look reads all of a snapshot.
func (l *load) look() error {
	return l.db.View(func(s *forebay.Snapshot) error {
		for _, err := range s.Range(nil, nil) {
			if err != nil {
				return l.durable(err)
			}
		}
		return nil
	})
}
