// Package commit is the path of a write: it takes encoded batches, gives them
// to the log, enters them into the memtable in LSN order, and moves the visible
// mark, in LSN order, over commits that have reached their own level.
//
// The log's leader does the work (see package wal): it calls Admit, Assign,
// Apply and Publish here, one goroutine at a time and in LSN order. What a
// Pipeline needs of the log and of the table are two small interfaces, so that
// it is tested without a database.
//
// A transaction is a commit with the Reads that it rests upon. The leader admits
// it, in the order of the log, when nothing that it read was written at an LSN
// above the one at which it read: then it might as well have run as a whole at
// its own LSN. Transactions that conflict take turns in a Lane.
//
// A commit may have a guard: a function that the leader asks in the order of the
// log whether the commit may still be. What one guard sets, those of all later
// commits see, and none of earlier ones; so a thing can be dropped by a commit,
// and no commit behind that writes to it.
package commit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/publish"
	"github.com/forebaydb/forebay/wal"
)

// Log is what a Pipeline needs of a log; *wal.Log is one.
type Log interface {
	Commit(r *wal.Request) error
	Submit(r *wal.Request) error
	Wait(ctx context.Context, r *wal.Request) error
	// Poison makes the log refuse everything from now on.
	Poison(err error)
}

// Table takes committed batches.
type Table interface {
	// Apply enters one encoded batch at its LSN. Calls come in LSN order from
	// one goroutine at a time. record is valid during the call.
	Apply(lsn base.LSN, record []byte) error
	// Ahead says that the Apply after the next, or the next one, will be of that
	// record, so that a table can ask the memory for what it will need. It is called
	// like Apply, and changes nothing that can be seen.
	Ahead(lsn base.LSN, record []byte)
	// Place gives the items that a record appends to sequences their offsets. It is
	// called in LSN order, before the record is copied to the log, and only for those
	// that append something.
	Place(record []byte)
	// Applied follows the Apply calls of one group; last is the group's last
	// LSN. No batch is split by it.
	Applied(last base.LSN)
}

// Pipeline is the path of writes of one store.
type Pipeline struct {
	log     Log
	table   Table
	visible atomic.Uint64
	applied atomic.Uint64
	failed  atomic.Pointer[error]
	track   tracker
	waiting waiters // for visible
	// entering wait for applied.
	entering waiters
}

// New returns a pipeline over a table, with the visible mark at lsn. Start
// gives it its log, which has it as Applier.
func New(table Table) *Pipeline {
	return &Pipeline{table: table, track: tracker{limits: defaultLimits}}
}

// Start gives the pipeline its log; visible is the log's last LSN.
func (p *Pipeline) Start(log Log, visible base.LSN) {
	p.log = log
	p.applied.Store(visible)
	p.visible.Store(visible)
}

// Visible returns the visible mark: all commits up to it have reached their
// level, and reads see them.
func (p *Pipeline) Visible() base.LSN { return p.visible.Load() }

// Applied returns the LSN up to which all commits have been entered into the
// table. They need not have reached their level: who shows to others what he
// read there waits for it with WaitVisible.
//
// A table that is replaced when it is full is looked at as it was both before
// and after the call, or it may lack what was entered into its successor.
func (p *Pipeline) Applied() base.LSN { return p.applied.Load() }

// Commit is one commit on its way.
type Commit struct {
	p    *Pipeline
	req  wal.Request
	rec  [1]wal.Record
	hook func(lsn base.LSN, record []byte)
	// reads is what a transaction rests upon, until the leader has decided: a
	// commit that keeps it would keep all that it was read from, and so on.
	reads *Reads
	tx    bool
	// guard is asked by the leader, once, and then forgotten as reads are.
	guard func() error
	// outcome is pending, refused, or the LSN with which the commit was
	// admitted; it changes once, under the tracker's lock. It is kept for
	// commits while transactions are active.
	outcome atomic.Uint64
}

var pool = sync.Pool{New: func() any { return new(Commit) }}

// Apply commits an encoded batch and returns its LSN when it has reached its
// level. hook, which may be nil, is called in LSN order with the LSN, before
// the record is copied to the log: it may change the record's bytes.
func (p *Pipeline) Apply(record []byte, level wal.Level, hook func(lsn base.LSN, record []byte)) (base.LSN, error) {
	c := pool.Get().(*Commit)
	c.prepare(p, record, level, hook)
	return p.commit(c)
}

// ApplyGuarded is Apply of a commit with a guard instead of a hook. The leader
// calls guard, in the order of the log, when nothing else can refuse the commit:
// on nil the commit is in the log, or the log is poisoned. An error refuses this
// commit alone, and is what is returned; nothing was applied. All commits wait for
// a guard: it must be quick, and must not call log, pipeline or lane. It may be
// nil.
func (p *Pipeline) ApplyGuarded(record []byte, level wal.Level, guard func() error) (base.LSN, error) {
	c := pool.Get().(*Commit)
	lsn, err := p.ApplyIn(c, record, level, guard)
	pool.Put(c)
	return lsn, err
}

// ApplyIn is ApplyGuarded in memory of the caller's: c is a zero Commit, and is one
// again afterwards.
func (p *Pipeline) ApplyIn(c *Commit, record []byte, level wal.Level, guard func() error) (base.LSN, error) {
	c.prepare(p, record, level, nil)
	c.guard = guard
	return p.run(c)
}

// commit commits c, which is from the pool, and puts it back.
func (p *Pipeline) commit(c *Commit) (base.LSN, error) {
	lsn, err := p.run(c)
	pool.Put(c)
	return lsn, err
}

// run commits c and makes it a zero Commit.
func (p *Pipeline) run(c *Commit) (base.LSN, error) {
	err := p.log.Commit(&c.req)
	lsn := c.req.First
	if err == nil {
		err = p.failure()
	}
	*c = Commit{}
	return lsn, err
}

// Submit orders a commit and does not wait. record must not change until Wait
// has returned its result.
func (p *Pipeline) Submit(record []byte, level wal.Level) (*Commit, error) {
	return p.SubmitGuarded(record, level, nil)
}

// SubmitGuarded is Submit of a commit with a guard; see ApplyGuarded. Wait
// returns the guard's error.
func (p *Pipeline) SubmitGuarded(record []byte, level wal.Level, guard func() error) (*Commit, error) {
	c := new(Commit)
	c.prepare(p, record, level, nil)
	c.guard = guard
	if err := p.log.Submit(&c.req); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Commit) prepare(p *Pipeline, record []byte, level wal.Level, hook func(base.LSN, []byte)) {
	c.p, c.hook = p, hook
	c.rec[0].Data = record
	if batch.HasAppends(record) {
		c.rec[0].Keep = batch.AppendedBytes(record)
	}
	c.req = wal.Request{Records: c.rec[:], Level: level, Owner: c}
}

// Wait waits until the commit has reached its level. When ctx ends first, Wait
// returns its error, and the commit goes on.
func (c *Commit) Wait(ctx context.Context) error {
	err := c.p.log.Wait(ctx, &c.req)
	if err == nil {
		return c.p.failure()
	}
	if c.tx && !(ctx.Err() != nil && errors.Is(err, ctx.Err())) {
		c.p.track.refuse(c)
	}
	return err
}

// LSN returns the commit's LSN; it is known once Wait has returned nil.
func (c *Commit) LSN() base.LSN { return c.req.First }

// Assign is for wal.Applier.
func (p *Pipeline) Assign(reqs []*wal.Request) {
	for _, r := range reqs {
		if c, ok := r.Owner.(*Commit); ok && c.hook != nil {
			c.hook(r.First, c.rec[0].Data)
		}
		for i := range r.Records {
			if batch.HasAppends(r.Records[i].Data) {
				p.table.Place(r.Records[i].Data)
			}
		}
	}
	// The memory answers while the records are laid out.
	if len(reqs) > 0 && len(reqs[0].Records) > 0 {
		p.table.Ahead(reqs[0].First, reqs[0].Records[0].Data)
	}
}

func (p *Pipeline) enter(reqs []*wal.Request) {
	for n, r := range reqs {
		for i := range r.Records {
			if p.failed.Load() != nil {
				return
			}
			lsn := r.First + base.LSN(i)
			switch {
			case i+1 < len(r.Records):
				p.table.Ahead(lsn+1, r.Records[i+1].Data)
			case n+1 < len(reqs) && len(reqs[n+1].Records) > 0:
				p.table.Ahead(reqs[n+1].First, reqs[n+1].Records[0].Data)
			}
			if err := p.table.Apply(lsn, r.Records[i].Data); err != nil {
				p.fail(fmt.Errorf("%w: commit %d does not enter the memtable: %w", wal.ErrUnknown, lsn, err))
			}
		}
	}
}

// fail stops the pipeline. The table holds a part of a commit: nothing may be
// settled from it, and that is what a poisoned log stops.
func (p *Pipeline) fail(err error) {
	p.failed.CompareAndSwap(nil, &err)
	p.log.Poison(err)
}

// Publish is for wal.Applier.
func (p *Pipeline) Publish(last base.LSN) {
	if p.failed.Load() == nil {
		publish.Uint64(&p.visible, last)
		p.waiting.wake(last)
	}
}

// failure returns the error that stopped the pipeline, or nil.
func (p *Pipeline) failure() error {
	if e := p.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// Applier is the pipeline as the log sees it.
type Applier struct{ *Pipeline }

// Apply enters the batches of reqs into the table.
func (a Applier) Apply(reqs []*wal.Request, last base.LSN) {
	a.enter(reqs)
	if a.failed.Load() == nil {
		a.track.applied()
		publish.Uint64(&a.applied, last)
		a.entering.wake(last)
	}
	a.table.Applied(last)
}
