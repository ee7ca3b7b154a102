package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

func join(dir, name string) string { return filepath.Join(dir, name) }

// reserve is what a file keeps free at its end for an index frame and marks.
func reserve(size, align int64) int64 {
	return (size/frame.IndexSpacing+2)*20 + 3*(frame.FrameOverhead+frame.FrameAlign) + 3*align
}

// room says whether a group of records with that sum of RecordSize fits into
// the current file behind what is laid out already.
func (l *Log) room(records int64) bool {
	f := l.cur
	if f == nil {
		return false
	}
	return l.b.Offset()+int64(l.b.Len())+frame.GroupSize(records, f.head.Align)+reserve(f.size, f.head.Align) <= f.size
}

// nextFile returns a file that has room for a group, for rotate or giveBack. An
// error means that nothing was done.
func (l *Log) nextFile(records int64) (*logFile, error) {
	align := l.opts.Align
	need := frame.GroupSize(records+frame.LinkSize, align) + frame.FrameOverhead + 2*frame.BlockAlign
	need += reserve(need+align, align)
	lf, err := l.takeFile(need)
	if errors.Is(err, vfs.ErrDirSync) { // there will be none until the log is opened again
		l.poisonWith(err)
		return nil, l.Err()
	}
	if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrFull) {
		return nil, fmt.Errorf("%w: no next log file: %w", ErrFull, err)
	}
	if err != nil {
		return nil, fmt.Errorf("wal: no next log file: %w", err)
	}
	return lf, nil
}

// giveBack makes a file of nextFile, to which nothing was written, the spare.
func (l *Log) giveBack(lf *logFile) {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if l.spare != nil && l.dropSpare() != nil { // it was too small
		lf.close()
		l.unused.Add(-lf.size)
		l.void = append(l.void, lf.meta.Number)
		return
	}
	l.spare = lf
}

// rotate makes a file current. A record follows: a file that has none is no
// part of the history.
func (l *Log) rotate(lf *logFile) error {
	if err := l.leave(); err != nil {
		lf.close()
		l.poisonWith(err)
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	link := frame.Link{Pred: l.pos.File, Kept: l.pos.LSN, Hash: l.pos.Hash, Copies: l.pos.LSN, PredIndex: l.predIndex()}
	l.cur, l.entries, l.keepSum = lf, l.entries[:0], 0
	l.places.reset(lf.meta.Number)
	l.b.Reset(&lf.head, l.opts.Compression, lf.head.Start(), 0)
	l.b.Link(link, l.durable.Load())
	l.histMu.Lock()
	l.hist = append(l.hist, &span{meta: lf.meta, first: l.next, last: l.next - 1, size: lf.size, live: true})
	l.unused.Add(-lf.size)
	l.histMu.Unlock()
	l.archiveSoon()
	return nil
}

// predIndex returns the offset of the index frame of the file that ends at pos.
func (l *Log) predIndex() int64 {
	l.histMu.Lock()
	defer l.histMu.Unlock()
	if n := len(l.hist); n > 0 && l.hist[n-1].meta.Number == l.pos.File {
		return l.hist[n-1].index
	}
	return 0
}

// leave ends the current file, which is full.
func (l *Log) leave() error {
	f := l.cur
	if f == nil {
		return nil
	}
	l.b.CloseFrame(true)
	if h := l.b.LastData(); h != 0 {
		l.pos = Floor{File: f.meta.Number, LSN: l.next - 1, Hash: h, Epoch: f.meta.Epoch}
	}
	if err := l.writeOut(false); err != nil {
		return err
	}
	var index int64
	if len(l.entries) > 0 {
		l.b.Index(l.next, l.durable.Load(), l.entries)
		index = l.b.Offset()
	}
	f.filled = f.size // or the sync would fill what nothing comes to
	synced := l.opts.Policy.kind != policyNever
	aside := synced && l.large()
	if err := l.writeOut(synced && !aside); err != nil {
		return err
	}
	l.histMu.Lock()
	sp := l.hist[len(l.hist)-1]
	sp.last, sp.hash, sp.index, sp.keep = l.pos.LSN, l.pos.Hash, index, l.keepSum-min(l.keepSum, sp.given)
	l.histMu.Unlock()
	f.window.close()
	l.cur = nil
	if f.unsynced == 0 {
		f.close()
		return nil
	}
	l.behind = append(l.behind, f)
	if aside && len(l.behind) > 1 { // no more than one file waits for its sync
		if err := l.takeAside(); err != nil {
			return err
		}
	}
	if aside && l.aside == nil {
		l.startAside()
	}
	return nil
}

// takeFile returns the spare, or a new file, of at least need bytes.
func (l *Log) takeFile(need int64) (*logFile, error) {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	if f := l.spare; f != nil && f.size >= need && f.meta.Epoch == l.epoch {
		l.spare = nil
		return f, nil
	}
	least := (need + frame.BlockAlign - 1) &^ (frame.BlockAlign - 1)
	// What is large beside its file does not wait for zeros that it writes over.
	zero := l.syncsSmall() && need <= max(l.nextSize, 1<<20)
	for need > l.nextSize && l.nextSize < l.opts.FileSize { // or each group would have a file of its own
		l.grow(l.nextSize)
	}
	size := l.fit()
	if need > size {
		size, zero = least, zero && need <= 1<<20
	}
	f, err := l.bounded(size, zero)
	if small := max(least, l.opts.FirstFileSize); errors.Is(err, syscall.ENOSPC) && size > small {
		size = small
		f, err = l.bounded(size, zero)
	}
	if err != nil {
		return nil, err
	}
	l.grow(size)
	return f, nil
}

// grow makes the file after one of that size a larger one; fileMu is held.
func (l *Log) grow(size int64) {
	if size == l.nextSize {
		l.nextSize = min(size*4, l.opts.FileSize)
	}
}

// bounded is makeFile within MaxBytes; fileMu is held.
func (l *Log) bounded(size int64, zero bool) (*logFile, error) {
	if l.opts.MaxBytes <= 0 {
		return l.makeFile(size, zero)
	}
	more := func() int64 {
		if slices.ContainsFunc(l.recycle, func(r recyclable) bool { return r.size == size }) {
			return 0 // it becomes the new file
		}
		return size
	}
	if l.totalBytes()+more() > l.opts.MaxBytes {
		l.dropRecyclable()
	}
	if n := l.totalBytes() + more(); l.spare != nil && n > l.opts.MaxBytes && n-l.spare.size <= l.opts.MaxBytes {
		if err := l.dropSpare(); err != nil {
			return nil, err
		}
	}
	if n := l.totalBytes(); n+more() > l.opts.MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes in use, limit %d, and a file of %d is due", ErrFull, n, l.opts.MaxBytes, size)
	}
	return l.makeFile(size, zero)
}

// dropRecyclable removes what was kept for recycling; fileMu is held.
func (l *Log) dropRecyclable() {
	for _, r := range l.recycle {
		l.unused.Add(-r.size)
		l.fsys.Remove(join(l.dir, r.name))
	}
	l.recycle = nil
}

// dropSpare gives up a spare that is too small for what is to be written; fileMu
// is held.
func (l *Log) dropSpare() error {
	f := l.spare
	if err := l.cat.EditLog(&Edit{Remove: []uint64{f.meta.Number}}); err != nil {
		if l.cat.Err() == nil { // refused
			return err
		}
		l.poisonWith(err)
		return l.Err()
	}
	l.spare = nil
	l.unused.Add(-f.size)
	f.close()
	l.fsys.Remove(f.path) // an unlisted file that stays is removed by the next open
	return nil
}

// fit returns the size of the next file: where MaxBytes is near, as much as is
// left, and never more than a quarter of it, so that one file can go while
// another is written. fileMu is held.
func (l *Log) fit() int64 {
	if l.opts.MaxBytes <= 0 {
		return l.nextSize
	}
	size := min(l.nextSize, max(l.opts.MaxBytes/4, l.opts.FirstFileSize))
	if left := l.opts.MaxBytes - l.totalBytes(); left < size {
		size = max(left, l.opts.FirstFileSize)
	}
	return size &^ (frame.BlockAlign - 1)
}

// newFile is takeFile for an open, before there are spares.
func (l *Log) newFile(size int64, zero bool) (*logFile, error) {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	return l.makeFile(size, zero)
}

// makeFile makes, syncs and lists a file; fileMu is held. zero fills it with
// zeros, so that writes into it change no metadata; else it has room alone, and no
// more than its header where the options want no zeros.
func (l *Log) makeFile(size int64, zero bool) (*logFile, error) {
	if err := l.cat.Err(); err != nil {
		l.poisonWith(err)
		return nil, l.Err()
	}
	switch {
	case l.number >= base.MaxFileNumber:
		return nil, fmt.Errorf("%w: file numbers are used up at %d", ErrFull, l.number)
	case l.epoch > base.MaxListed:
		return nil, fmt.Errorf("%w: epochs are used up at %d", ErrFull, l.epoch)
	}
	var salt [8]byte
	if _, err := io.ReadFull(l.opts.Rand, salt[:]); err != nil {
		return nil, err
	}
	l.number++
	lf := &logFile{
		head: frame.FileHeader{Kind: frame.FileLog, Align: l.opts.Align, Store: l.cat.StoreID(), Number: l.number, Salt: binary.LittleEndian.Uint64(salt[:]), Epoch: l.epoch},
		path: join(l.dir, FileName(l.number)),
		size: size,
	}
	lf.meta = FileMeta{Number: l.number, Salt: lf.head.Salt, Epoch: l.epoch}
	if err := l.fillFile(lf, zero); err != nil {
		if lf.f != nil {
			lf.close()
			l.fsys.Remove(lf.path) // best effort: an unlisted file is removed by the next open
		}
		return nil, err
	}
	e := Edit{Put: []FileMeta{lf.meta}}
	if len(l.void) > 0 && l.durable.Load() > l.rec.Last {
		e.Remove = l.void
	}
	if err := l.cat.EditLog(&e); err != nil {
		lf.close()
		if l.cat.Err() == nil { // refused: nothing has changed
			l.fsys.Remove(lf.path)
			return nil, err
		}
		// Whether the file is listed the next open will tell: it stays.
		l.poisonWith(err)
		return nil, l.Err()
	}
	for _, n := range e.Remove {
		l.fsys.Remove(join(l.dir, FileName(n)))
	}
	if e.Remove != nil {
		l.void = nil
	}
	l.unused.Add(lf.size)
	return lf, nil
}

// fillFile makes the file, recycled or new, writes its header and gives it its room.
func (l *Log) fillFile(lf *logFile, zero bool) error {
	var err error
	fresh := false
	if i := slices.IndexFunc(l.recycle, func(r recyclable) bool { return r.size == lf.size }); i >= 0 {
		r := l.recycle[i]
		l.recycle = slices.Delete(l.recycle, i, i+1)
		l.unused.Add(-r.size)
		if err := l.fsys.Rename(join(l.dir, r.name), lf.path); err != nil {
			return err
		}
		lf.head.Compat |= frame.CompatRecycled
		lf.f, err = l.fsys.Open(lf.path, vfs.ReadWrite)
	} else {
		fresh = true
		lf.f, err = l.fsys.Create(lf.path, vfs.ReadWrite)
	}
	if err != nil {
		return err
	}
	start := lf.head.Start()
	if err := writeAt(lf.f, lf.head.Encode(), 0); err != nil {
		return err
	}
	lf.filled = lf.size
	if fresh && !l.opts.NoZeros {
		if err := l.makeRoom(lf, start, zero); err != nil {
			return err
		}
	}
	if err := lf.f.Sync(); err != nil {
		return err
	}
	if err := l.fsys.SyncDir(l.dir); err != nil {
		return err
	}
	switch l.opts.Mechanism {
	case Fsync:
		lf.f = fullSync{lf.f}
	case DSync:
		lf.sync, err = l.fsys.Open(lf.path, vfs.ReadWrite|vfs.DSync)
	case DirectDSync:
		lf.sync, err = l.fsys.Open(lf.path, vfs.ReadWrite|vfs.DSync|vfs.Direct)
	case Direct:
		lf.sync, err = l.fsys.Open(lf.path, vfs.ReadWrite|vfs.Direct)
	}
	if err != nil {
		return fmt.Errorf("sync mechanism %s: %w", l.opts.Mechanism, err)
	}
	return nil
}

const (
	// zeroPiece is how many zeros are written at once. Linux keeps what was written
	// at once together, and each later write and sync there looks at all of it.
	zeroPiece = 64 << 10
	// smallSync is how many bytes a sync must make durable for the zeros beneath
	// them not to be worth it. They take as much from the disk as the bytes; without
	// them a sync writes metadata, too.
	smallSync = 256 << 10
	// fewSyncs is how many small syncs one after the other begin to fill a file that
	// was given room alone, by fillStep each time.
	fewSyncs = 16
	fillStep = 1 << 20
)

// syncsSmall says whether the syncs of the current file are so near each other that
// the next one is better filled with zeros. The leader calls it.
func (l *Log) syncsSmall() bool { return l.cur == nil || l.cur.syncs*smallSync > l.b.Offset() }

// makeRoom gives a file its length from an offset on, filled with zeros or not.
func (l *Log) makeRoom(lf *logFile, from int64, zero bool) error {
	if !zero {
		if err := vfs.Reserve(lf.f, from, lf.size-from); !errors.Is(err, vfs.ErrUnsupported) {
			lf.filled = from
			return err
		}
	}
	return l.zero(lf, from, lf.size)
}

// zero fills a file with zeros.
func (l *Log) zero(lf *logFile, from, to int64) error {
	for from < to {
		n := min(to, (from+zeroPiece)&^(zeroPiece-1)) - from
		if err := lf.f.Zero(from, n); err != nil {
			return err
		}
		l.stats.zeroed.Add(n)
		from += n
	}
	return nil
}

// fillAhead goes on, before a small sync, with a file that is not filled yet: some of
// it, which this sync makes durable for those that follow. Where the disk has no room
// for what the file has room for, the file is filled no more: the sync tells.
func (l *Log) fillAhead() error {
	f, end := l.cur, l.b.Offset()
	if f.unsynced == 0 || f.sync != nil || f.small < fewSyncs || end <= f.filled || f.filled == f.size {
		return nil
	}
	to := min(f.size, (end+fillStep)&^(zeroPiece-1))
	f.filled = to
	err := l.zero(f, end, to)
	if errors.Is(err, syscall.ENOSPC) {
		f.filled, err = f.size, nil
	}
	return err
}

// totalBytes sums the sizes of all log files, but for those that keep-counts hold: what
// is kept for somebody is his to bound, and he needs room in the log to give it up.
// fileMu is held.
func (l *Log) totalBytes() int64 {
	l.histMu.Lock()
	defer l.histMu.Unlock()
	n := l.unused.Load()
	for _, sp := range l.hist {
		if sp.live || sp.keep == 0 {
			n += sp.size
		}
	}
	return n
}

// spareSoon makes a spare in the background once the current file is half full.
func (l *Log) spareSoon() {
	f := l.cur
	if f == nil || l.b.Offset() < f.size/2 || f.size < l.opts.FirstFileSize || l.opts.NoSpares || l.spareTried.Load() == f.meta.Number || !l.preparing.CompareAndSwap(false, true) {
		return
	}
	epoch, number, zero := l.epoch, f.meta.Number, l.syncsSmall()
	l.goBackground(func() {
		defer l.preparing.Store(false)
		l.fileMu.Lock()
		defer l.fileMu.Unlock()
		if l.epoch != epoch || l.Err() != nil || l.isClosed() {
			return // l.epoch changes under fileMu
		}
		// Made, there already, or not to be had: beside this file it is not asked for
		// again, least of all by each commit. An error the leader meets, and reports, when
		// it needs a file.
		l.spareTried.Store(number)
		if l.spare != nil {
			return
		}
		size := l.fit()
		f, err := l.bounded(size, zero)
		if err != nil {
			return
		}
		l.grow(size)
		l.spare = f
	})
}

// dropUnused takes the spare and void files off the catalog at Close, so that
// the next open has nothing to search. The leader calls it.
func (l *Log) dropUnused() error {
	l.fileMu.Lock()
	defer l.fileMu.Unlock()
	var e Edit
	if l.spare != nil {
		e.Remove = append(e.Remove, l.spare.meta.Number)
	}
	if l.cur != nil {
		e.Remove = append(e.Remove, l.void...)
	}
	if len(e.Remove) == 0 {
		return nil
	}
	if err := l.cat.EditLog(&e); err != nil {
		return err
	}
	if l.spare != nil {
		l.unused.Add(-l.spare.size)
		l.spare.close()
		l.spare = nil
	}
	var errs []error
	for _, n := range e.Remove {
		errs = append(errs, l.fsys.Remove(join(l.dir, FileName(n))))
	}
	return errors.Join(errs...)
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// fullSync is a file whose every sync is an fsync.
type fullSync struct{ vfs.File }

func (f fullSync) SyncData() error { return f.Sync() }
