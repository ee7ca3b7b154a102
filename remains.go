package forebay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sort"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/wal"
)

// A log file stays for one item that is in it. When little of one is live, and nothing
// else keeps it, that little is settled: the entries of the index are written once more
// with the items themselves, by ordinary commits, and the file goes. So what is kept of
// the log is a share of what is live, however sequences are trimmed.

// settleChunk is about how many bytes of items one commit settles.
const settleChunk = 1 << 20

// worthSettling says whether so little of a file is live that it is settled.
func (db *DB) worthSettling(f *wal.FileInfo) bool {
	share := db.opts.SettleShare
	return f.Retained && f.Closed && f.Keep > 0 && f.First <= f.Last && float64(f.Keep) < share*float64(f.Size)
}

// settleRemainsSoon has what is left of nearly dead log files settled in the background, if
// there are such. While that runs, it is done once more behind it: it looked at the files
// as they were when it began.
func (db *DB) settleRemainsSoon() {
	files := db.log.Files()
	if !slices.ContainsFunc(files, func(f wal.FileInfo) bool { return db.worthSettling(&f) }) || db.seqs.settling.Add(1) > 1 {
		return
	}
	if !db.spawn(func() {
		for {
			asked := db.seqs.settling.Load()
			if err := db.settleRemains(db.ctx); err != nil && !errors.Is(err, ErrClosed) && db.ctx.Err() == nil {
				db.opts.Logger.Warn("log files of which little is needed stay", "error", err)
			}
			if db.seqs.settling.CompareAndSwap(asked, 0) {
				return
			}
		}
	}) {
		db.seqs.settling.Store(0)
	}
}

// settleRemains settles what is left of all nearly dead log files.
func (db *DB) settleRemains(ctx context.Context) error {
	for _, f := range db.log.Files() {
		if !db.worthSettling(&f) {
			continue
		}
		if err := db.settleFile(ctx, &f); err != nil {
			return err
		}
	}
	return nil
}

// settleFile settles what is left of a log file. Nobody takes items out meanwhile.
func (db *DB) settleFile(ctx context.Context, f *wal.FileInfo) error {
	db.seqs.trims.Lock()
	defer db.seqs.trims.Unlock()
	names, err := db.Sequences()
	if err != nil {
		return err
	}
	for _, name := range names {
		s, err := db.Sequence(name)
		if err == nil {
			err = s.settle(ctx, f)
		}
		if err != nil && !errors.Is(err, ErrKeyspaceDropped) {
			return err
		}
	}
	return nil
}

// settle settles what the sequence has in a log file, and gives back what kept it there.
func (s *Sequence) settle(ctx context.Context, f *wal.FileInfo) error {
	db := s.db
	it := s.ks.NewIterator(nil)
	defer it.Close()
	var b Batch
	var size uint64 // of what b settles
	var value []byte
	flush := func() error {
		if size == 0 {
			return nil
		}
		if err := db.Apply(&b, Durable); err != nil {
			return err
		}
		err := public(db.log.Unkeep(f.First, size))
		b.Reset()
		size = 0
		return err
	}
	for ok := s.seekLSN(it, f.First); ok; ok = it.Next() {
		e, err := s.entry(it)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case e.Size == 0:
			continue
		case e.LSN > f.Last:
			return flush()
		case e.Settled != nil || e.Size > base.MaxValueSize-2*settleChunk: // no value can be that long; the file stays
			continue
		}
		items, err := s.commitOf(ctx, e.LSN)
		if err != nil {
			return err
		}
		value = batch.SettledEntry(value[:0], e.LSN, items)
		if err := b.In(s.ks).Put(it.Key(), value); err != nil {
			return err
		}
		if size += e.Size; size >= settleChunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return errors.Join(it.Err(), flush())
}

// seekLSN moves to the first entry of items which a commit at or above lsn appended, and
// says whether there is one. The LSNs of entries ascend with their offsets, but for
// those of nothing.
func (s *Sequence) seekLSN(it *Iterator, lsn uint64) bool {
	first, next, err := s.Bounds()
	if err != nil {
		return it.First() // what is wrong shows there
	}
	var key [8]byte
	// at moves to the first entry of items that ends behind an offset.
	at := func(offset uint64) (e batch.Entry, ok bool) {
		binary.BigEndian.PutUint64(key[:], offset)
		if ok = it.SeekGE(key[:]); !ok || !bytes.Equal(it.Key(), key[:]) {
			if it.SeekLT(key[:]) {
				if e, err := s.entry(it); err == nil && e.Size > 0 && e.End() > offset {
					return e, true
				}
				ok = it.Next()
			} else {
				ok = it.First()
			}
		}
		for ; ok; ok = it.Next() {
			if e, err := s.entry(it); err == nil && e.Size > 0 {
				return e, true
			}
		}
		return e, false
	}
	n := sort.Search(int(next-first), func(i int) bool {
		e, ok := at(first + uint64(i))
		return !ok || e.LSN >= lsn
	})
	_, ok := at(first + uint64(n))
	return ok
}

// settledOf returns what a commit appended that was settled, nil if that is not there.
func (s *Sequence) settledOf(lsn uint64) ([]byte, error) {
	it := s.ks.NewIterator(nil)
	defer it.Close()
	if !s.seekLSN(it, lsn) {
		return nil, it.Err()
	}
	e, err := s.entry(it)
	if err != nil || e.LSN != lsn {
		return nil, err
	}
	return slices.Clone(e.Settled), nil
}
