package fuzz

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"github.com/forebaydb/forebay/vfs"
)

// store is a Store, and what it has beside that. Where it has no numbers, they
// are those of one writer, counted here.
type store struct {
	Store
	numbered   Numbered
	getter     Getter
	reverse    ReverseScanner
	syncer     Syncer
	checkpoint Checkpointer
	compacter  Compacter
	counter    Counter
	submitter  Submitter
	updater    Updater
	spacer     Spacer
	backups    BackupMaker

	last, durable atomic.Uint64 // where numbered is nil
}

func newStore(s Store) *store {
	st := &store{Store: s}
	st.numbered, _ = s.(Numbered)
	st.getter, _ = s.(Getter)
	st.reverse, _ = s.(ReverseScanner)
	st.syncer, _ = s.(Syncer)
	st.checkpoint, _ = s.(Checkpointer)
	st.compacter, _ = s.(Compacter)
	st.counter, _ = s.(Counter)
	st.submitter, _ = s.(Submitter)
	st.updater, _ = s.(Updater)
	st.spacer, _ = s.(Spacer)
	st.backups, _ = s.(BackupMaker)
	return st
}

// open opens a store of which it is known that it is, or should be, S(n) of hist
// for an n from lo to hi. It returns that n; where what is there is no S(n), n is
// above every commit. hist may be nil where nothing is known.
func (x *explorer) open(fsys vfs.FS, s Settings, hist *history, lo, hi uint64) (st *store, n uint64, err error) {
	opened, err := openEngine(x.cfg.Engine, fsys, s)
	if err != nil {
		return nil, 0, err
	}
	st = newStore(opened)
	if st.numbered != nil {
		return st, st.numbered.Last(), nil
	}
	if hist == nil {
		return st, 0, nil
	}
	sum, err := scan(st)
	if err != nil {
		st.Close()
		return nil, 0, fmt.Errorf("scan: %w", err)
	}
	n = hist.find(sum, lo, hi)
	st.last.Store(n)
	st.durable.Store(n)
	return st, n, nil
}

// openEngine is Engine.Open, whose panic over a state is an error like others: it
// has a replay id then.
func openEngine(e Engine, fsys vfs.FS, s Settings) (st Store, err error) {
	defer func() {
		if p := recover(); p != nil {
			st, err = nil, fmt.Errorf("the engine panics: %v\n%s", p, debug.Stack())
		}
	}()
	return e.Open(fsys, s)
}

// find returns the n for which sum is H(n): the last within the bounds, or else
// any; or one more than there are commits.
func (h *history) find(sum, lo, hi uint64) uint64 {
	n := uint64(len(h.hashes))
	for i, s := range h.hashes {
		at := uint64(i)
		if s == sum && (at <= hi || n > hi) && (n > hi || n < lo || at >= n) {
			n = at
		}
	}
	return n
}

// Last is Numbered.Last. A commit under way counts: it may be there already.
func (s *store) Last() uint64 {
	if s.numbered != nil {
		return s.numbered.Last()
	}
	return s.last.Load()
}

// DurableLSN is Numbered.DurableLSN.
func (s *store) DurableLSN() uint64 {
	if s.numbered != nil {
		return s.numbered.DurableLSN()
	}
	return s.durable.Load()
}

// commit lets do make a commit, and numbers it if nobody else does.
func (s *store) commit(l Level, do func() (uint64, error)) (uint64, error) {
	if s.numbered != nil {
		return do()
	}
	n := s.last.Add(1)
	_, err := do()
	if err == nil && l == Durable {
		s.durable.Store(n)
	}
	return n, err
}

// settled is called when all that was committed is durable.
func (s *store) settled(err error) error {
	if err == nil && s.numbered == nil {
		s.durable.Store(s.last.Load())
	}
	return err
}

// Apply is Store.Apply.
func (s *store) Apply(ops []Op, l Level) (uint64, error) {
	return s.commit(l, func() (uint64, error) { return s.Store.Apply(ops, l) })
}

// Close is Store.Close.
func (s *store) Close() error { return s.settled(s.Store.Close()) }

// compactions is 0 where nobody counts.
func (s *store) compactions() int64 {
	if s.counter == nil {
		return 0
	}
	return s.counter.Compactions()
}

// spaces lists the keyspaces, none where an engine knows none.
func (s *store) spaces() ([]int, error) {
	if s.spacer == nil {
		return nil, nil
	}
	return s.spacer.Spaces()
}

// powers are what the engine of a run can do: Abilities, and what its Store has.
type powers struct {
	Abilities
	sync, checkpoint, compact, submit, update, spaces, backup bool
}

// powersOf opens a store to see what it has.
func powersOf(e Engine) (p powers, err error) {
	if able, ok := e.(Able); ok {
		p.Abilities = able.Abilities()
	}
	s, err := e.Open(vfs.NewMem(), Settings{FileSize: 16 << 10, TableSize: 4 << 10, MarkDelay: -1, Rand: newRand(1)})
	if err != nil {
		return p, fmt.Errorf("fuzz: a new store does not open: %w", err)
	}
	st := newStore(s)
	p.sync, p.checkpoint, p.compact = st.syncer != nil, st.checkpoint != nil, st.compacter != nil
	p.submit, p.update, p.spaces, p.backup = st.submitter != nil && st.numbered != nil, st.updater != nil, st.spacer != nil, st.backups != nil
	p.Writers = p.Writers && st.numbered != nil
	if err := st.Close(); err != nil {
		return p, fmt.Errorf("fuzz: a new store does not close: %w", err)
	}
	return p, nil
}
