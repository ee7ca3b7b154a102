package fuzz

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// features are what a store has gone through, a bit each.
type features uint16

const (
	didCompaction features = 1 << iota
	didRanges
	didSpaces
	didDrop
	didUpdate
	didBackup
	didBackground // compactions that nobody asked for
	// Not before the cut, but at it: a Compact, or a Backup, is under way.
	inCompact
	inBackup
)

// featureNames are the words for features, in the order of their bits.
var featureNames = [...]string{"compactions", "range deletes", "keyspaces", "drops", "transactions", "backups", "compactions in the background", "within Compact", "within Backup"}

// note takes down whether a step has led to compactions.
func (r *recorder) note(st *store, s *step) {
	n := st.compactions()
	switch {
	case n == r.compactions:
		return
	case s.kind != stepCompact && s.beside != stepCompact:
		r.does(didBackground)
	}
	r.does(didCompaction)
	r.compactions = n
}

func (r *recorder) does(f features) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.did |= f
}

// during does something while a feature holds.
func (r *recorder) during(f features, do func() error) error {
	r.does(f)
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.did &^= f
	}()
	return do()
}

// noteCommit takes down what a commit is about to do.
func (r *recorder) noteCommit(c commit) {
	var f features
	for _, op := range c.ops {
		switch {
		case op.Kind == DeleteRange:
			f |= didRanges
		case op.Kind == Drop:
			f |= didDrop
		}
		if op.Space > 0 {
			f |= didSpaces
		}
	}
	if c.how == byUpdate {
		f |= didUpdate
	}
	r.does(f)
}

// step does one step.
func (r *recorder) step(st *store, s *step) error {
	switch s.kind {
	case stepCommit:
		return r.commit(st, s.commits[0][0])
	case stepSync:
		return r.settle(st, s, st.syncer.Sync)
	case stepCheckpoint:
		return r.settle(st, s, st.checkpoint.Checkpoint)
	case stepCompact:
		return r.during(inCompact, func() error { return r.settle(st, s, st.compacter.Compact) })
	case stepBackup:
		return r.during(inBackup, func() error { return r.backup(st) })
	case stepIdle:
		time.Sleep(3 * markDelay)
	case stepPipeline:
		return r.pipeline(st, s.commits[0])
	case stepBurst:
		return r.burst(st, s)
	}
	return nil
}

// settle makes all that was committed durable.
func (r *recorder) settle(st *store, s *step, do func() error) error {
	last := st.Last()
	if err := st.settled(do()); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	r.ack(last, Durable)
	return nil
}

// backup makes a backup; while it is being made nobody knows what it is.
func (r *recorder) backup(st *store) error {
	last := st.Last()
	r.mu.Lock()
	r.made++
	b := backup{dir: fmt.Sprintf("backup%d", r.made), n: last}
	before := r.backups
	r.backups = append(slices.Clone(before), b)
	r.did |= didBackup
	r.mu.Unlock()
	n, err := st.backups.Backup(b.dir)
	if st.numbered == nil {
		n = last
	}
	switch {
	case err != nil:
		return fmt.Errorf("backup: %w", err)
	case n < last:
		return fmt.Errorf("backup holds %d commits, there were %d", n, last)
	}
	b.n, b.done = n, true
	r.mu.Lock()
	r.backups = append(slices.Clone(before), b)
	r.mu.Unlock()
	r.ack(n, Durable)
	return nil
}

// burst lets writers commit at once. What is refused because its keyspace was
// dropped meanwhile has not happened.
func (r *recorder) burst(st *store, s *step) error {
	var dropped *commit
	for _, cs := range s.commits {
		for i := range cs {
			if err := r.ensure(st, cs[i]); err != nil {
				return err
			}
			if cs[i].ops[0].Kind == Drop {
				dropped = &cs[i]
			}
		}
	}
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	if s.beside != stepBurst {
		wg.Go(func() {
			if err := r.step(st, &step{kind: s.beside}); err != nil {
				failed.Store(&err)
			}
		})
	}
	for _, cs := range s.commits {
		wg.Go(func() {
			for i := range cs {
				var err error
				if &cs[i] == dropped {
					r.noteCommit(cs[i])
					_, err = st.spacer.Drop(cs[i].ops[0].Space)
				} else if err = r.do(st, cs[i]); dropped != nil && errors.Is(err, ErrNoSpace) {
					err = nil
				}
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if e := failed.Load(); e != nil {
		return *e
	}
	if dropped == nil {
		return nil
	}
	r.mu.Lock()
	err := r.hist.fill(st.Last(), *dropped)
	r.mu.Unlock()
	return err
}

// ensure makes the keyspaces that a commit needs.
func (r *recorder) ensure(st *store, c commit) error {
	if c.how == byUpdate || c.ops[0].Kind == Create || !slices.ContainsFunc(c.ops, func(op Op) bool { return op.Space > 0 }) {
		return nil
	}
	spaces, err := st.spaces()
	for _, op := range c.ops {
		if op.Space == 0 || slices.Contains(spaces, op.Space) {
			continue
		}
		spaces = append(spaces, op.Space)
		if err == nil {
			err = r.do(st, commit{level: r.w.Settings.Level, ops: []Op{{Kind: Create, Space: op.Space}}})
		}
	}
	return err
}

// commit does a commit, with the keyspaces that it needs.
func (r *recorder) commit(st *store, c commit) error {
	if c.ops[0].Kind == Create {
		spaces, err := st.spaces()
		if err != nil || slices.Contains(spaces, c.ops[0].Space) {
			return err
		}
	}
	if err := r.ensure(st, c); err != nil {
		return err
	}
	return r.do(st, c)
}

// do does a commit alone.
func (r *recorder) do(st *store, c commit) error {
	if k := c.ops[0].Kind; k == Create || k == Drop {
		c.level = r.w.Settings.Level // whatever the text of the workload says
	}
	r.noteCommit(c)
	lsn, err := st.commit(c.level, func() (lsn uint64, err error) {
		switch {
		case c.ops[0].Kind == Create:
			return st.spacer.Create(c.ops[0].Space)
		case c.ops[0].Kind == Drop:
			return st.spacer.Drop(c.ops[0].Space)
		case c.how == bySubmit:
			wait, err := st.submitter.Submit(c.ops, c.level)
			if err != nil {
				return 0, err
			}
			return wait()
		case c.how == byUpdate:
			lsn, c.seen, err = st.updater.Update(c.ops, c.level)
			return lsn, err
		}
		return st.Store.Apply(c.ops, c.level)
	})
	return r.done(c, lsn, err)
}

func (r *recorder) pipeline(st *store, cs []commit) error {
	for _, c := range cs {
		if err := r.ensure(st, c); err != nil {
			return err
		}
	}
	var waits []func() (uint64, error)
	for _, c := range cs {
		r.noteCommit(c)
		wait, err := st.submitter.Submit(c.ops, c.level)
		if err != nil {
			return fmt.Errorf("submit %s: %w", c, err)
		}
		waits = append(waits, wait)
	}
	for i := len(cs) - 1; i >= 0; i-- {
		lsn, err := waits[i]()
		if err := r.done(cs[i], lsn, err); err != nil {
			return err
		}
	}
	return nil
}

// done takes down a commit that was acknowledged.
func (r *recorder) done(c commit, lsn uint64, err error) error {
	if err != nil {
		return fmt.Errorf("commit %s: %w", c, err)
	}
	r.mu.Lock()
	err = r.hist.set(lsn, c)
	r.mu.Unlock()
	r.ack(lsn, c.level)
	return err
}

func (r *recorder) ack(lsn uint64, l Level) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch l {
	case Durable:
		r.acked.lo = max(r.acked.lo, lsn)
		r.acked.kill = max(r.acked.kill, lsn)
		if d := r.open.DurableLSN(); d < lsn && r.err == nil {
			r.err = fmt.Errorf("commit %d was acknowledged as durable, DurableLSN is %d", lsn, d)
		}
	case Written:
		r.acked.kill = max(r.acked.kill, lsn)
	}
}
