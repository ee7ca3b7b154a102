package forebay

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
)

// Snapshot shows the store as it was at one moment, for as long as it is open.
// It is a Reader of the default keyspace. It keeps nothing in memory, but what it
// sees is not dropped by checkpoints and compactions: it must be closed. It may be
// used by many goroutines at once.
type Snapshot struct {
	Reader
	snap    *snapshot
	cleanup runtime.Cleanup
}

// snapshot is what a Snapshot reads from.
type snapshot struct {
	db     *DB
	lsn    base.LSN
	closed atomic.Bool
}

// Snapshot returns a snapshot of what is visible now: every commit that returned
// before, and nothing that returns after. One that is forgotten and collected by
// the garbage collector is closed, and reported to Options.Logger with where it
// was made.
func (db *DB) Snapshot() (*Snapshot, error) {
	s, err := db.snapshot()
	if err != nil {
		return nil, err
	}
	s.cleanup = db.leaks(s)
	return s, nil
}

// snapshot is Snapshot for who certainly closes it.
func (db *DB) snapshot() (*Snapshot, error) {
	if db.shut.Load() {
		return nil, ErrClosed
	}
	snap := &snapshot{db: db, lsn: db.readers.snapshot(db.pipe.Visible)}
	return &Snapshot{Reader: Reader{from: snap, prefix: defaultPrefix}, snap: snap}, nil
}

// View calls fn with a snapshot of what is visible now, closes it, and returns
// fn's error.
func (db *DB) View(fn func(s *Snapshot) error) error {
	s, err := db.snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(s)
}

// LSN returns the log sequence number of the last commit that it shows.
func (s *Snapshot) LSN() uint64 { return s.snap.lsn }

// Keyspace returns a reader of a keyspace as the snapshot has it, also of one that
// was dropped since. ErrNoKeyspace: there was none.
func (s *Snapshot) Keyspace(name string) (Reader, error) {
	id, err := lookUp(s.snap, name)
	if err != nil {
		return Reader{}, err
	}
	return Reader{from: s.snap, prefix: prefixOf(id)}, nil
}

// Keyspaces returns the names of the keyspaces that the snapshot has, sorted.
func (s *Snapshot) Keyspaces() ([]string, error) { return names(s.snap, sequencePrefix, false) }

// Close lets go of what the snapshot sees. Iterators over it that are open go on.
// A second call does nothing.
func (s *Snapshot) Close() error {
	s.cleanup.Stop()
	s.snap.close()
	return nil
}

func (s *snapshot) close() {
	if s.closed.CompareAndSwap(false, true) {
		s.db.readers.release(s.lsn)
	}
}

func (s *snapshot) enter() (*view, int, error) {
	v, shard, err := s.db.enter()
	// Asked behind it: nothing that the snapshot sees has been dropped in v.
	if err == nil && s.closed.Load() {
		v.gate.exit(shard)
		err = fmt.Errorf("%w: the snapshot", ErrClosed)
	}
	return v, shard, err
}

func (s *snapshot) get(key []byte) (held, bool, error) {
	v, shard, err := s.enter()
	if err != nil {
		return held{}, false, err
	}
	return s.db.lendValue(v, shard, key, s.lsn)
}

func (s *snapshot) open(lo, hi []byte) (*lease, error) {
	v, shard, err := s.enter()
	if err != nil {
		return nil, err
	}
	return s.db.lend(v, shard, s.lsn, lo, hi)
}

// leaks reports, with the place where it is called from, when the garbage
// collector finds a snapshot before its cleanup was stopped, and then closes it.
func (db *DB) leaks(p *Snapshot) runtime.Cleanup {
	pcs := make([]uintptr, 8)
	pcs = pcs[:runtime.Callers(3, pcs)]
	snap := p.snap
	return runtime.AddCleanup(p, func(pcs []uintptr) {
		db.opts.Logger.Error("forebay: a snapshot was never closed", "made in", placeOf(pcs))
		snap.close()
	}, pcs)
}
