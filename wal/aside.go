package wal

import (
	"context"
	"fmt"
	"slices"
)

// aside is a sync of much beside the writes that follow: a full file, or what Sync was
// asked for, while others commit at lower levels. There is one at a time, and no other
// sync of the log runs meanwhile: of two that meet one might take the error that
// the other needs.
//
// The leader begins it and takes its result; in between a goroutine has it, which
// changes nothing of the log but, where it fails, that it is poisoned.
type aside struct {
	files []*logFile
	sizes []int64 // of what was unsynced in each when it began
	last  LSN     // durable when it has ended
	done  chan struct{}
	err   error // once done is closed
}

// asideFrom is how many unsynced bytes are synced aside, where files are not so small
// that it would never come to it.
const asideFrom = 1 << 20

// large says whether what is unsynced is worth an aside.
func (l *Log) large() bool { return l.unsynced() >= min(asideFrom, l.opts.FileSize/4) }

// startAside begins a sync of all that was written. None is under way.
func (l *Log) startAside() {
	a := &aside{files: slices.Clone(l.behind), last: l.written.Load(), done: make(chan struct{})}
	if l.cur != nil {
		a.files = append(a.files, l.cur)
	}
	for _, f := range a.files {
		a.sizes = append(a.sizes, f.unsynced)
	}
	l.aside = a
	l.goBackground(func() {
		for i, f := range a.files {
			if a.err == nil && a.sizes[i] > 0 {
				a.err = l.sync(l.slowAside, f)
			}
		}
		if a.err != nil {
			l.poisonWith(a.err)
		}
		close(a.done)
		// An error means that the log is poisoned, which others meet, or closed, and
		// then who closed it has taken the result.
		_ = l.exec(func() error {
			if l.aside != a {
				return nil
			}
			err := l.nextAside()
			if err != nil {
				l.poisonWith(err)
			}
			return err
		})
	})
}

// takeAside waits for the sync that is under way, if there is one, and takes its
// result.
func (l *Log) takeAside() error {
	a := l.aside
	if a == nil {
		return nil
	}
	<-a.done
	l.aside = nil
	if a.err != nil {
		return a.err
	}
	for i, f := range a.files {
		if a.sizes[i] > 0 {
			f.synced(a.sizes[i])
			f.unsynced -= a.sizes[i]
		}
	}
	for len(l.behind) > 0 && l.behind[0].unsynced == 0 {
		l.behind[0].close()
		l.behind = l.behind[1:]
	}
	l.madeDurable(a.last)
	l.archiveSoon()
	return nil
}

// nextAside is takeAside, and begins another one for a file that was left meanwhile.
// The log is not closed.
func (l *Log) nextAside() error {
	if err := l.takeAside(); err != nil {
		return err
	}
	more := len(l.behind) > 0 && l.opts.Policy.kind != policyNever
	if l.cur != nil && l.wanted > l.durable.Load() { // a Sync asked for it meanwhile
		more = true
		if err := l.writeOut(false); err != nil {
			return err
		}
	}
	l.wanted = 0
	if more {
		l.startAside()
	}
	l.arm()
	return nil
}

// madeDurable says that all through last is.
func (l *Log) madeDurable(last LSN) {
	if last > l.durable.Load() {
		l.durable.Store(last)
		l.notify()
	}
}

// Sync returns when everything committed before it is durable. When ctx ends
// first, it returns ctx's error and the sync goes on. Where it has much to do, others
// commit meanwhile at lower levels.
func (l *Log) Sync(ctx context.Context) error {
	var target LSN
	for {
		var a *aside
		r := &Request{fn: func() (err error) {
			if target == 0 {
				target = l.next - 1
			}
			a, err = l.syncTo(target)
			return err
		}}
		err := error(nil)
		if ctx.Done() == nil {
			err = l.do(r)
		} else if err = l.Submit(r); err == nil {
			err = l.Wait(ctx, r)
		}
		if err != nil || a == nil {
			return err
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// syncTo makes everything through lsn durable, or returns a sync aside that is under
// way: behind it syncTo is called again. The leader calls it.
func (l *Log) syncTo(lsn LSN) (*aside, error) {
	if err := l.Err(); err != nil {
		return nil, err
	}
	if l.cur == nil {
		return nil, nil
	}
	err := l.endedAside()
	switch {
	case err != nil:
	case l.unsynced() == 0: // not even a mark is
		return nil, nil
	case lsn <= l.durable.Load() && (l.aside != nil || l.next-1 > l.durable.Load()):
		return nil, nil
	case l.aside != nil:
		l.wanted = max(l.wanted, lsn)
		return l.aside, nil
	case !l.large():
		if err = l.writeOut(true); err == nil {
			l.arm()
		}
	default:
		if err = l.writeOut(false); err == nil {
			l.startAside()
			return l.aside, nil
		}
	}
	if err != nil {
		l.poisonWith(err)
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return nil, err
}

// endedAside is nextAside of one that has ended.
func (l *Log) endedAside() error {
	if l.aside != nil {
		select {
		case <-l.aside.done:
			return l.nextAside()
		default:
		}
	}
	return nil
}
