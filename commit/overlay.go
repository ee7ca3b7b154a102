package commit

import (
	"bytes"
	"context"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
)

// The overlay holds no more than this, but for the last commit that enters it.
const (
	overlayCommits = 1 << 10
	overlayBytes   = 8 << 20
)

// overlay is what the commits of a lane write that are ordered and not yet known
// to be applied. The lane's lock guards it.
type overlay struct {
	queue []*ahead // in the order of the log
	keys  map[uint64]*overWrite
	bytes int
	// opaque: a range delete is among them, which get does not show.
	opaque bool
}

// ahead is one commit in the overlay.
type ahead struct {
	c      *Commit
	writes []overWrite
	bytes  int
	// valid: nothing that it read was written at or below this LSN.
	valid base.LSN
}

// overWrite is one write of a commit; those of one hash are a list.
type overWrite struct {
	hash         uint64
	key, value   []byte // of the record
	kind         base.Kind
	c            *Commit
	older, newer *overWrite
}

func (o *overlay) full() bool {
	return o.opaque || len(o.queue) >= overlayCommits || o.bytes >= overlayBytes
}

func (o *overlay) add(c *Commit, record []byte, at base.LSN) {
	a := &ahead{c: c, bytes: len(record), valid: at}
	ops, err := batch.Decode(record)
	if err != nil { // the leader refuses it
		o.opaque = true
	}
	a.writes = make([]overWrite, 0, ops.Len())
	if o.keys == nil {
		o.keys = map[uint64]*overWrite{}
	}
	for ops.Next() {
		if ops.Kind() == base.KindRangeDelete {
			o.opaque = true
			continue
		}
		hash := hashOf(ops.Key())
		a.writes = append(a.writes, overWrite{hash: hash, key: ops.Key(), value: ops.Value(), kind: ops.Kind(), c: c, older: o.keys[hash]})
		w := &a.writes[len(a.writes)-1]
		if w.older != nil {
			w.older.newer = w
		}
		o.keys[hash] = w
	}
	o.queue = append(o.queue, a)
	o.bytes += a.bytes
}

func (o *overlay) get(key []byte) (value []byte, kind base.Kind, from *Commit, ok bool) {
	for w := o.keys[hashOf(key)]; w != nil; w = w.older {
		if w.c.outcome.Load() != refused && bytes.Equal(w.key, key) {
			return w.value, w.kind, w.c, true
		}
	}
	return nil, 0, nil, false
}

// ended is a context that has ended: with it Wait asks and does not wait.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// prune forgets, from the oldest on, commits that were refused or that who reads
// at the LSN at finds in the tables.
func (o *overlay) prune(p *Pipeline, at base.LSN) {
	n := 0
	for ; n < len(o.queue); n++ {
		a := o.queue[n]
		if out := a.c.outcome.Load(); out > at && out != refused || out == pending {
			if err := p.log.Wait(ended, &a.c.req); err == nil || err == context.Canceled {
				break
			}
			// The log failed, or had no room: no leader was asked.
			p.track.refuse(a.c)
		}
		for i := range a.writes {
			o.drop(&a.writes[i])
		}
		o.bytes -= a.bytes
		o.queue[n] = nil
	}
	o.queue = o.queue[n:]
	if len(o.queue) == 0 {
		o.queue, o.opaque = nil, false
	}
}

// drop takes a write off its list.
func (o *overlay) drop(w *overWrite) {
	if w.older != nil {
		w.older.newer = w.newer
	}
	switch {
	case w.newer != nil:
		w.newer.older = w.older
	case w.older != nil:
		o.keys[w.hash] = w.older
	default:
		delete(o.keys, w.hash)
	}
}

// validate marks those as refused of which it is certain by now that they will
// be, so that nobody sees a state that mixes what they write with what they did
// not know. A transaction sees what is applied up to its LSN, and the tracker
// was told of all that before.
func (o *overlay) validate(p *Pipeline) {
	t := &p.track
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.on {
		return
	}
	for _, a := range o.queue {
		if a.valid >= t.last || a.c.outcome.Load() != pending {
			continue
		}
		if t.check(a.c.reads, false) != nil {
			a.c.outcome.Store(refused)
		}
		a.valid = t.last
	}
}
