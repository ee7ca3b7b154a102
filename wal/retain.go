package wal

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// FileInfo describes one file of the history.
type FileInfo struct {
	Number uint64
	Name   string
	// Size in bytes on disk, zeros included.
	Size int64
	// First and Last are LSNs of the records that count; Last < First: none.
	First, Last LSN
	Epoch       uint64
	// Keep is what is left of the sum of the records' keep-counts, in bytes.
	Keep uint64
	// Retained files lie below the floor; Closed ones are not written any more.
	Retained, Closed bool
}

// Files lists the files of the history, oldest first.
func (l *Log) Files() []FileInfo {
	l.histMu.Lock()
	defer l.histMu.Unlock()
	out := make([]FileInfo, len(l.hist))
	for i, sp := range l.hist {
		out[i] = FileInfo{Number: sp.meta.Number, Name: FileName(sp.meta.Number), Size: sp.size, First: sp.first, Last: sp.last,
			Epoch: sp.meta.Epoch, Keep: sp.keep, Retained: !sp.live, Closed: !l.growing(i)}
		if l.growing(i) {
			out[i].Last = l.assigned.Load()
		}
	}
	return out
}

// growing says whether span i of the history is of the file that is written, so that its
// last record is the log's. Behind Trim the last one may be retained. histMu is held.
func (l *Log) growing(i int) bool { return i == len(l.hist)-1 && l.hist[i].live }

// Floor returns the LSN behind which the log is contiguous and is replayed by
// the next open.
func (l *Log) Floor() LSN {
	l.histMu.Lock()
	defer l.histMu.Unlock()
	return l.floor.LSN
}

// TruncateFront says that records up to lsn need not be replayed any more. The
// files that hold nothing above it leave the log: they are removed or recycled,
// or, when a pin, a keep-count or the archive hook holds them, retained. lsn
// above the durable LSN is ErrRange.
func (l *Log) TruncateFront(lsn LSN) error {
	late, err := l.truncateFront(lsn)
	if err == nil && late {
		err = l.reap()
	}
	return err
}

// truncateFront is TruncateFront; late says that a file was let go of while it was put
// down as retained.
func (l *Log) truncateFront(lsn LSN) (late bool, err error) {
	if lsn > l.durable.Load() {
		return false, fmt.Errorf("%w: truncate front to %d, durable is %d", ErrRange, lsn, l.durable.Load())
	}
	if err := l.Err(); err != nil {
		return false, err
	}
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if l.isClosed() {
		return false, ErrClosed
	}
	l.histMu.Lock()
	var gone []*span
	for i, sp := range l.hist {
		if sp.live && sp.last <= lsn && i < len(l.hist)-1 {
			gone = append(gone, sp)
		}
	}
	l.histMu.Unlock()
	if len(gone) == 0 {
		return false, nil
	}
	end := gone[len(gone)-1]
	var e Edit
	e.Floor = &Floor{File: end.meta.Number, LSN: end.last, Hash: end.hash, Epoch: end.epochOf(end.last)}
	if end.last < end.first {
		e.Floor.Epoch = l.floor.Epoch
	}
	var drop []*span
	for _, sp := range gone {
		if l.held(sp) {
			l.histMu.Lock()
			e.Put = append(e.Put, sp.retained())
			l.histMu.Unlock()
		} else {
			drop = append(drop, sp)
			e.Remove = append(e.Remove, sp.meta.Number)
		}
	}
	if err := l.cat.EditLog(&e); err != nil {
		return false, err
	}
	l.histMu.Lock()
	l.floor = *e.Floor
	for _, sp := range gone {
		sp.live = false
		late = late || sp.keep == 0 && len(e.Put) > 0 // Unkeep took it for a live one
	}
	l.histMu.Unlock()
	l.discard(drop)
	return late, nil
}

// retained returns what the catalog says of a span below the floor.
func (s *span) retained() FileMeta {
	m := s.meta
	m.Retained, m.First, m.Last, m.Hash, m.Index, m.Keep = true, s.first, s.last, s.hash, s.index, s.keep
	return m
}

// held says whether somebody needs a closed span; fileMu is held.
func (l *Log) held(sp *span) bool {
	for _, pin := range l.pins {
		if pin <= sp.last {
			return true
		}
	}
	l.histMu.Lock()
	defer l.histMu.Unlock()
	return sp.keep > 0 || l.opts.Archive != nil && !sp.meta.Archived
}

// discard takes spans out of the history and their files off the disk; the
// catalog has forgotten them. fileMu is held.
func (l *Log) discard(drop []*span) {
	l.histMu.Lock()
	l.hist = slices.DeleteFunc(l.hist, func(sp *span) bool { return slices.Contains(drop, sp) })
	l.histMu.Unlock()
	for _, sp := range drop {
		l.histMu.Lock()
		reader := sp.refs > 0
		l.histMu.Unlock()
		name := FileName(sp.meta.Number)
		if !reader && sp.size == l.nextSize && len(l.recycle) == 0 && !l.opts.NoSpares && !l.opts.NoZeros {
			l.recycle = append(l.recycle, recyclable{name, sp.size})
			l.unused.Add(sp.size)
			continue
		}
		l.fsys.Remove(join(l.dir, name)) // an unlisted file that stays is removed by the next open
	}
}

// reap lets go of retained files that nobody holds any more.
func (l *Log) reap() error {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	l.histMu.Lock()
	all := slices.Clone(l.hist)
	l.histMu.Unlock()
	var drop []*span
	var e Edit
	for _, sp := range all {
		if !sp.live && !l.held(sp) {
			drop = append(drop, sp)
			e.Remove = append(e.Remove, sp.meta.Number)
		}
	}
	if len(drop) == 0 {
		return nil
	}
	if err := l.cat.EditLog(&e); err != nil {
		return err
	}
	l.discard(drop)
	return nil
}

// Release lets go of one closed file below the floor, whatever holds it but a
// pin. Any may go, not only the oldest.
func (l *Log) Release(number uint64) error {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	l.histMu.Lock()
	i := slices.IndexFunc(l.hist, func(sp *span) bool { return sp.meta.Number == number })
	var sp *span
	if i >= 0 && !l.hist[i].live {
		sp = l.hist[i]
	}
	l.histMu.Unlock()
	if sp == nil {
		return fmt.Errorf("%w: file %d is not a closed file below the floor", ErrRange, number)
	}
	for name, pin := range l.pins {
		if pin <= sp.last {
			return fmt.Errorf("%w: file %d is held by pin %q at %d", ErrRange, number, name, pin)
		}
	}
	if err := l.cat.EditLog(&Edit{Remove: []uint64{number}}); err != nil {
		return err
	}
	l.discard([]*span{sp})
	return nil
}

// Pin keeps every file that holds records at or above lsn, under a name that
// survives reopening. A pin of the same name moves.
func (l *Log) Pin(name string, lsn LSN) error {
	l.fileMu.Lock()
	err := l.cat.EditLog(&Edit{Pin: map[string]LSN{name: lsn}})
	if err == nil {
		if l.pins == nil {
			l.pins = map[string]LSN{}
		}
		l.pins[name] = lsn
	}
	l.fileMu.Unlock()
	if err != nil {
		return err
	}
	return l.reap()
}

// Unpin drops a pin; files that nobody else holds go.
func (l *Log) Unpin(name string) error {
	l.fileMu.Lock()
	err := l.cat.EditLog(&Edit{Unpin: []string{name}})
	if err == nil {
		delete(l.pins, name)
	}
	l.fileMu.Unlock()
	if err != nil {
		return err
	}
	return l.reap()
}

// Pins returns the pins by name.
func (l *Log) Pins() map[string]LSN {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	return maps.Clone(l.pins)
}

// Unkeep gives back bytes of the keep-count of the file that holds record lsn.
// The counts that are left are not stored: after a reopen they are again the
// sums of what the records said.
func (l *Log) Unkeep(lsn LSN, bytes uint64) error {
	l.histMu.Lock()
	done := false
	for i, sp := range l.hist {
		current := l.growing(i)
		if lsn >= sp.first && (lsn <= sp.last || current && lsn <= l.assigned.Load()) {
			sp.keep -= min(sp.keep, bytes)
			if current { // its sum is known when it closes
				sp.given += bytes
			}
			done = sp.keep == 0 && !sp.live
		}
	}
	l.histMu.Unlock()
	if done {
		return l.reap()
	}
	return nil
}

// TruncateBack cuts the log behind record lsn: what lies above it is gone for
// good, and a new epoch begins. It is durable when it returns. lsn below the
// floor or above the last LSN is ErrRange.
func (l *Log) TruncateBack(lsn LSN) error {
	return l.exec(func() error { return l.truncateBack(lsn) })
}

func (l *Log) truncateBack(lsn LSN) error {
	if err := l.Err(); err != nil {
		return err
	}
	if lsn > l.next-1 || lsn < l.Floor() {
		return fmt.Errorf("%w: truncate back to %d, the log holds %d to %d", ErrRange, lsn, l.Floor()+1, l.next-1)
	}
	if lsn == l.next-1 {
		return nil
	}
	if l.epoch >= base.MaxListed {
		return fmt.Errorf("%w: epochs are used up at %d", ErrFull, l.epoch)
	}
	if err := l.writeOut(true); err != nil {
		l.poisonWith(err)
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	e := Edit{Epoch: l.epoch + 1, Remove: l.void}
	pos, kept := l.floor, uint64(0)
	l.histMu.Lock()
	var keep, gone []*span
	for i, sp := range l.hist {
		switch {
		case sp.live && (sp.first > lsn || sp.last < sp.first && i < len(l.hist)-1):
			gone = append(gone, sp)
			e.Remove = append(e.Remove, sp.meta.Number)
		default:
			keep = append(keep, sp)
		}
	}
	l.histMu.Unlock()
	if l.spare != nil {
		e.Remove = append(e.Remove, l.spare.meta.Number)
	}
	if lsn > l.floor.LSN {
		sp := keep[len(keep)-1]
		hash, sum, err := l.hashAt(sp, lsn)
		kept = sum
		if err != nil {
			return err
		}
		pos = Floor{File: sp.meta.Number, LSN: lsn, Hash: hash, Epoch: sp.epochOf(lsn)}
		m := sp.meta
		m.Cut, m.CutLSN, m.CutHash = true, lsn, hash
		e.Put = append(e.Put, m)
	}
	if err := l.cat.EditLog(&e); err != nil {
		l.poisonWith(err)
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	l.cutTo(pos, kept, keep, gone, e.Put)
	return nil
}

// cutTo makes memory follow a cut that is durable.
func (l *Log) cutTo(pos Floor, kept uint64, keep, gone []*span, put []FileMeta) {
	if l.cur != nil {
		l.cur.close()
		l.cur = nil
	}
	if l.spare != nil {
		l.unused.Add(-l.spare.size)
		l.spare.close()
		l.fsys.Remove(l.spare.path)
		l.spare = nil
	}
	for _, n := range l.void {
		l.fsys.Remove(join(l.dir, FileName(n)))
	}
	l.void = nil
	l.epoch++
	l.next, l.pos, l.marked = pos.LSN+1, pos, 0
	l.histMu.Lock()
	l.hist = keep
	l.gen.Add(1)
	if len(put) > 0 {
		sp := keep[len(keep)-1]
		sp.meta, sp.last, sp.hash, sp.index = put[0], pos.LSN, pos.Hash, 0
		sp.copies = min(sp.copies, pos.LSN)
		// What was given back of it may have been of records above the cut: the
		// file rather stays too long.
		sp.keep, sp.given = kept, 0
	}
	l.assigned.Store(pos.LSN)
	l.written.Store(pos.LSN)
	l.durable.Store(pos.LSN)
	l.histMu.Unlock()
	for _, sp := range gone {
		l.fsys.Remove(join(l.dir, FileName(sp.meta.Number)))
	}
	l.notify()
}

// hashAt returns the closing hash of the frame of a span that holds lsn, and the
// sum of the keep-counts of the span's records through lsn.
func (l *Log) hashAt(sp *span, lsn LSN) (hash, keep uint64, err error) {
	path := join(l.dir, FileName(sp.meta.Number))
	f, err := l.fsys.Open(path, vfs.ReadOnly)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	at, err := measure(f, path, lsn)
	return at.hash, at.keep, err
}

// measured is what a file holds through a record.
type measured struct {
	hash uint64 // closing hash of the frame that holds the record
	keep uint64 // sum of the keep-counts
	end  int64  // behind that frame
}

// measure reads a file through the frame that holds record lsn.
func measure(f vfs.File, path string, lsn LSN) (m measured, err error) {
	head, size, err := editlog.ReadHeader(f, path)
	if err != nil {
		return m, err
	}
	r := frame.NewReader(f, size, head)
	defer r.Release()
	for {
		fr, end, err := r.Next()
		if err != nil {
			return m, fmt.Errorf("%s: %w", path, err)
		}
		if end != nil {
			return m, &CorruptionError{File: path, Offset: end.Offset, Reason: fmt.Sprintf("record %d does not verify: %s", lsn, end.Reason)}
		}
		if fr.Kind != frame.KindData {
			continue
		}
		err = fr.EachRecord(func(n LSN, k uint64, _ []byte) error {
			if n <= lsn {
				m.keep += k
			}
			return nil
		})
		if err != nil {
			return m, err
		}
		if lsn < fr.Next() {
			m.hash, m.end = fr.Hash, fr.End
			return m, nil
		}
	}
}

// goBackground runs fn in a goroutine that Close waits for.
func (l *Log) goBackground(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.bgCtx == nil {
		l.bgCtx, l.bgStop = context.WithCancel(context.Background())
	}
	l.background.Go(fn)
}

// archiveSoon gives closed files to the archive hook, in the background.
func (l *Log) archiveSoon() {
	if l.opts.Archive == nil || !l.archiving.CompareAndSwap(false, true) {
		return
	}
	l.goBackground(func() {
		defer l.archiving.Store(false)
		delay := 10 * time.Millisecond
		for l.bgCtx.Err() == nil {
			sp := l.unarchived()
			if sp == nil {
				return
			}
			if err := l.archive(sp); err == nil {
				delay = 10 * time.Millisecond
				continue
			}
			l.stats.archiveErrors.Add(1)
			select {
			case <-l.bgCtx.Done():
			case <-time.After(delay):
			}
			delay = min(2*delay, time.Minute)
		}
	})
}

func (l *Log) unarchived() *span {
	l.histMu.Lock()
	defer l.histMu.Unlock()
	for i, sp := range l.hist {
		if !sp.meta.Archived && !l.growing(i) && sp.last <= l.durable.Load() && sp.last >= sp.first {
			return sp
		}
	}
	return nil
}

func (l *Log) archive(sp *span) error {
	l.histMu.Lock()
	file := ArchiveFile{Path: join(l.dir, FileName(sp.meta.Number)), Number: sp.meta.Number, Salt: sp.meta.Salt, First: sp.first, Last: sp.last, Hash: sp.hash}
	l.histMu.Unlock()
	err := l.opts.Archive(l.bgCtx, file)
	if err != nil {
		return err
	}
	l.fileMu.Lock()
	l.histMu.Lock()
	if !slices.Contains(l.hist, sp) { // it was let go meanwhile, and must not be listed again
		l.histMu.Unlock()
		l.fileMu.Unlock()
		return nil
	}
	m := sp.meta
	if !sp.live {
		m = sp.retained()
	}
	l.histMu.Unlock()
	m.Archived = true
	err = l.cat.EditLog(&Edit{Put: []FileMeta{m}})
	if err == nil {
		l.histMu.Lock()
		sp.meta.Archived = true
		l.histMu.Unlock()
	}
	l.fileMu.Unlock()
	if err != nil {
		return err
	}
	return l.reap()
}
