package wal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"sync"

	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// Position names a record of a history: the last one that a reader has seen.
// The zero Position is before the first record.
type Position struct {
	Epoch uint64
	LSN   LSN
}

// notify wakes readers that wait for durable records.
func (l *Log) notify() {
	l.histMu.Lock()
	if l.wait != nil {
		close(l.wait)
		l.wait = nil
	}
	l.histMu.Unlock()
}

// Tail reads durable records in LSN order, beside appends. It is used by one
// goroutine at a time.
type Tail struct {
	l  *Log
	at Position
	// skips: what is gone between two files that are held is passed over.
	skips bool
	gen   uint64
	sp    *span
	seen  span // a copy of *sp, of when its file was opened or read last
	f     vfs.File
	r     frame.Reader
	// start is where the file's frames begin; sought says that r does not come
	// from there, but from a place that an index named.
	start  int64
	sought bool
	recs   [][]byte // records of fr that are still to be returned
	from   int
}

// NewTail returns a reader of the records behind from. ErrDiverged says that
// from is of a history that was cut off, a *CompactedError that records behind
// it are no longer held.
func (l *Log) NewTail(from Position) (*Tail, error) {
	t := &Tail{l: l, at: from}
	l.histMu.Lock()
	defer l.histMu.Unlock()
	if err := l.checkPosition(t); err != nil {
		return nil, err
	}
	return t, nil
}

// NewSkippingTail is NewTail that reads what there is left of the log, for an owner who
// knows that nothing of his was in the rest: where files are gone it goes on with the
// next record that is held, and there is no *CompactedError.
func (l *Log) NewSkippingTail(from Position) (*Tail, error) {
	t := &Tail{l: l, at: from, skips: true}
	l.histMu.Lock()
	defer l.histMu.Unlock()
	if err := l.checkPosition(t); err != nil {
		return nil, err
	}
	return t, nil
}

// checkPosition validates where t stands; histMu is held. A reader whose
// position is of another history stays of the old generation, so that it is
// told each time it asks.
func (l *Log) checkPosition(t *Tail) error {
	at := t.at
	if at.LSN > l.durable.Load() {
		return fmt.Errorf("%w: LSN %d of epoch %d; the log ends at %d", ErrDiverged, at.LSN, at.Epoch, l.durable.Load())
	}
	oldest := l.floor.LSN + 1
	for i := len(l.hist) - 1; i >= 0; i-- {
		sp := l.hist[i]
		if !sp.live && sp.last+1 == oldest {
			oldest = sp.first
		}
	}
	if at.LSN+1 < oldest && !t.skips {
		return &CompactedError{Oldest: oldest}
	}
	if at.LSN > 0 {
		if epoch := l.epochAt(at.LSN); epoch != 0 && epoch != at.Epoch {
			return fmt.Errorf("%w: LSN %d is of epoch %d here, not %d", ErrDiverged, at.LSN, epoch, at.Epoch)
		}
	}
	t.gen = l.gen.Load()
	return nil
}

// epochAt returns the epoch of record lsn, or 0 when it is not known any more;
// histMu is held.
func (l *Log) epochAt(lsn LSN) uint64 {
	if lsn == l.floor.LSN {
		return l.floor.Epoch
	}
	for i, sp := range l.hist {
		if lsn >= sp.first && (lsn <= sp.last || l.growing(i)) {
			return sp.epochOf(lsn)
		}
	}
	return 0
}

// DurablePosition returns the position of the last durable record; a tail from
// there reads what is committed from now on.
func (l *Log) DurablePosition() Position {
	l.histMu.Lock()
	defer l.histMu.Unlock()
	lsn := l.durable.Load() // a cut lowers it under histMu
	return Position{Epoch: l.epochAt(lsn), LSN: lsn}
}

// EpochAt returns the epoch in which record lsn was committed, or 0 when the
// log does not hold it.
func (l *Log) EpochAt(lsn LSN) uint64 {
	l.histMu.Lock()
	defer l.histMu.Unlock()
	if lsn > l.assigned.Load() {
		return 0
	}
	return l.epochAt(lsn)
}

// Next waits for the next durable record and returns its position and bytes,
// which are valid until the next call. Errors: ctx's, ErrClosed, ErrPoisoned
// when no more will come, ErrDiverged after a cut below the reader's position,
// *CompactedError, *CorruptionError.
func (t *Tail) Next(ctx context.Context) (Position, []byte, error) {
	for {
		pos, rec, more, err := t.try()
		if more == nil {
			return pos, rec, err
		}
		select {
		case <-more:
		case <-ctx.Done():
			return t.at, nil, ctx.Err()
		}
	}
}

// TryNext is Next that does not wait: ok is false when no record behind the
// reader's position is durable now. Its errors are those of Next.
func (t *Tail) TryNext() (pos Position, rec []byte, ok bool, err error) {
	pos, rec, more, err := t.try()
	return pos, rec, more == nil && err == nil, err
}

// try returns the next record, or an error, or, with neither, what is closed
// when there may be one.
func (t *Tail) try() (pos Position, rec []byte, more <-chan struct{}, err error) {
	for {
		if t.from < len(t.recs) && t.gen == t.l.gen.Load() {
			pos = t.pop()
			return pos, t.recs[t.from-1], nil, nil
		}
		if more, err := t.ready(); more != nil || err != nil {
			return t.at, nil, more, err
		}
		if err := t.fill(); err != nil && !t.moved() {
			return t.at, nil, nil, err
		}
	}
}

func (t *Tail) pop() Position {
	t.from++
	t.at.LSN++
	t.at.Epoch = t.seen.epochOf(t.at.LSN)
	return t.at
}

// moved says whether the history has changed under the reader, so that an error
// of its file says nothing: the file may be gone. It lets go of the file then.
func (t *Tail) moved() bool {
	t.l.histMu.Lock()
	defer t.l.histMu.Unlock()
	if t.gen == t.l.gen.Load() && slices.Contains(t.l.hist, t.sp) {
		return false
	}
	t.drop()
	return true
}

// ready finds the file that holds record at+1. While that is not durable it
// returns what is closed when it may be, or why it never will.
func (t *Tail) ready() (more <-chan struct{}, err error) {
	l := t.l
	l.histMu.Lock()
	if t.gen != l.gen.Load() {
		t.drop()
		if err := l.checkPosition(t); err != nil {
			l.histMu.Unlock()
			return nil, err
		}
	}
	if t.at.LSN < l.durable.Load() {
		if err := t.place(); err != nil || t.sp != nil {
			l.histMu.Unlock()
			return nil, err
		}
	}
	if l.wait == nil {
		l.wait = make(chan struct{})
	}
	wait := l.wait
	l.histMu.Unlock()
	if err := l.Err(); err != nil {
		return nil, err
	}
	if l.isClosed() {
		return nil, ErrClosed
	}
	return wait, nil
}

// place makes t.sp the span that holds record at+1; histMu is held.
func (t *Tail) place() error {
	want := t.at.LSN + 1
	for i, sp := range t.l.hist {
		if want >= sp.first && (want <= sp.last || t.l.growing(i)) {
			if t.sp != sp {
				t.drop()
				t.sp = sp
				sp.refs++
			}
			return nil
		}
	}
	if t.skips {
		durable := t.l.durable.Load()
		for i, sp := range t.l.hist {
			if sp.first > want && sp.first <= durable && (sp.last >= sp.first || t.l.growing(i)) {
				t.at = Position{Epoch: sp.epochOf(sp.first), LSN: sp.first - 1}
				return t.place()
			}
		}
		t.drop() // nothing that is held and durable lies ahead
		t.at = Position{Epoch: t.l.epochAt(durable), LSN: durable}
		return nil
	}
	return t.l.checkPosition(t)
}

// drop lets go of the file; histMu is held.
func (t *Tail) drop() {
	if t.sp != nil {
		t.sp.refs--
	}
	if t.f != nil {
		t.f.Close()
	}
	t.sp, t.f, t.recs, t.from = nil, nil, nil, 0
}

// Close lets go of the reader's file.
func (t *Tail) Close() error {
	t.l.histMu.Lock()
	defer t.l.histMu.Unlock()
	t.drop()
	return nil
}

// fill reads the frame that holds record at+1.
func (t *Tail) fill() error {
	t.recs, t.from = nil, 0
	if t.f == nil {
		if err := t.openFile(); err != nil {
			return err
		}
	}
	retried := false
	for {
		fr, end, err := t.r.Next()
		if err != nil {
			return err
		}
		missing := end == nil && fr.Kind == frame.KindData && fr.First > t.at.LSN+1
		switch {
		case t.sought && (end != nil || missing):
			// The index lies, or what follows its place does not verify: the whole
			// file says which.
			t.sought = false
			t.r.SeekTo(t.start)
		case missing:
			return t.damaged(fr.Offset, "the file goes on with "+strconv.FormatUint(fr.First, 10))
		case end != nil && retried:
			return t.damaged(end.Offset, end.Reason)
		case end != nil:
			// What was read ahead may be older than what is durable now.
			retried = true
			size, err := t.f.Size()
			if err != nil {
				return err
			}
			t.r.Limit(size)
		case fr.Kind == frame.KindData && fr.Next() > t.at.LSN+1:
			t.sought = false
			return t.take(fr)
		}
	}
}

func (t *Tail) damaged(off int64, reason string) error {
	return &CorruptionError{File: join(t.l.dir, FileName(t.seen.meta.Number)), Offset: off, Reason: fmt.Sprintf("record %d is durable and does not verify: %s", t.at.LSN+1, reason)}
}

// take copies the wanted records of a frame; none when the history was cut.
func (t *Tail) take(fr *frame.Frame) error {
	t.l.histMu.Lock()
	if t.gen != t.l.gen.Load() {
		t.l.histMu.Unlock()
		return nil
	}
	t.seen = *t.sp
	limit := t.l.durable.Load()
	if n := len(t.l.hist); n == 0 || t.sp != t.l.hist[n-1] || !t.l.growing(n-1) {
		limit = min(limit, t.sp.last)
	}
	t.l.histMu.Unlock()
	return fr.EachRecord(func(lsn LSN, _ uint64, rec []byte) error {
		if lsn > t.at.LSN && lsn <= limit {
			t.recs = append(t.recs, append([]byte(nil), rec...))
		}
		return nil
	})
}

// openFile opens t.sp's file at, or before, the frame that holds record at+1.
func (t *Tail) openFile() error {
	t.l.histMu.Lock()
	t.seen = *t.sp
	t.l.histMu.Unlock()
	meta := t.seen.meta
	path := join(t.l.dir, FileName(meta.Number))
	f, err := t.l.fsys.Open(path, vfs.ReadOnly)
	if err != nil {
		return err
	}
	head, size, err := editlog.ReadHeader(f, path)
	if err == nil && (head.Salt != meta.Salt || head.Number != meta.Number) {
		err = &CorruptionError{File: path, Offset: 0, Reason: "header is of another file"}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, frame.ErrNoHeader) {
			err = &CorruptionError{File: path, Offset: 0, Reason: "file header does not verify"}
		}
		return err
	}
	t.f, t.start, t.sought = f, head.Start(), false
	t.r.Reset(f, size, head)
	if t.seen.index == 0 {
		if off := t.l.places.before(meta.Number, t.at.LSN+1); off >= t.start {
			t.sought = true
			t.r.SeekTo(off)
		}
		return nil
	}
	t.r.SeekTo(t.seen.index)
	fr, _, err := t.r.Next()
	t.r.SeekTo(t.start)
	if err != nil || fr == nil || fr.Kind != frame.KindIndex {
		return err // a damaged index costs time alone
	}
	entries, _ := frame.DecodeIndex(fr.Payload) // it has verified
	for _, e := range entries {
		if e.LSN <= t.at.LSN+1 && e.Offset >= t.start {
			t.sought = true
			t.r.SeekTo(e.Offset)
		}
	}
	return nil
}

// placeSpacing is the distance in bytes between places.
const placeSpacing = 4 << 10

// places are where frames begin in the file that is written, which has no index yet: a
// reader of one record would have to walk to it from the beginning of the file.
type places struct {
	mu   sync.Mutex // a leaf
	file uint64
	at   []frame.IndexEntry
}

func (p *places) reset(file uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.file, p.at = file, p.at[:0]
}

// note adds frames that were laid out. Only the leader calls it.
func (p *places) note(frames []frame.IndexEntry) {
	var last int64 = -placeSpacing
	if n := len(p.at); n > 0 {
		last = p.at[n-1].Offset
	}
	for _, e := range frames {
		if e.Offset-last >= placeSpacing {
			last = e.Offset
			p.mu.Lock()
			p.at = append(p.at, e)
			p.mu.Unlock()
		}
	}
}

// before returns the offset of a frame at, or before, the one that holds a record of
// a file, 0 if it knows none.
func (p *places) before(file uint64, lsn LSN) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != file {
		return 0
	}
	if i := sort.Search(len(p.at), func(i int) bool { return p.at[i].LSN > lsn }); i > 0 {
		return p.at[i-1].Offset
	}
	return 0
}
