package forebay

import (
	"context"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/wal"
)

// Verified says what Verify has read.
type Verified struct {
	Segments     int
	SegmentBytes int64
	// Records of the log, from its floor to what was durable.
	Records     int
	RecordBytes int64
	// Items of sequences, and their bytes in the log.
	Items     uint64
	ItemBytes uint64
}

// Verify reads every byte of every live segment, past the cache, every record
// of the log, and every durable item of every sequence, beside readers and writers, and
// checks them: all checksums, the order and the counts of what is in a segment, what
// filter and index say of it, that items are where the index of their sequence says.
// The error joins one *CorruptionError for each segment and each sequence that is
// damaged and one for the log. When ctx ends it returns ctx's error. Package check does the same,
// and more, for a store that is not open.
func (db *DB) Verify(ctx context.Context) (Verified, error) {
	var done Verified
	ctx, end, err := db.beginRead(ctx)
	if err != nil {
		return done, err
	}
	defer end() // until then nobody else has the files of the log
	v, shard, err := db.enter()
	if err != nil {
		return done, err
	}
	defer v.gate.exit(shard)
	var errs []error
	v.tables(func(t *table) {
		if ctx.Err() != nil {
			return
		}
		if err := t.file.r.Verify(ctx); err != nil {
			if ctx.Err() == nil {
				errs = append(errs, db.seen(err))
			}
			return
		}
		done.Segments++
		done.SegmentBytes += int64(t.meta.Size)
	})
	if !db.readOnly { // else Open has read all of it
		if err := db.verifyLog(ctx, &done); err != nil {
			errs = append(errs, db.seen(err))
		}
		errs = append(errs, db.verifySequences(ctx, &done)...)
	}
	if err := ctx.Err(); err != nil {
		return done, db.ended(err)
	}
	return done, errors.Join(errs...)
}

// verifyLog reads the log from its floor on.
func (db *DB) verifyLog(ctx context.Context, done *Verified) error {
	for {
		floor := db.log.Floor()
		t, err := db.log.NewTail(Position{Epoch: db.log.EpochAt(floor), LSN: floor})
		if err == nil {
			err = db.verifyTail(ctx, t.TryNext, done)
			t.Close()
		}
		var gone *CompactedError
		if errors.As(err, &gone) || errors.Is(err, ErrDiverged) {
			continue // a checkpoint let go of it meanwhile
		}
		return public(err)
	}
}

func (db *DB) verifyTail(ctx context.Context, next func() (Position, []byte, bool, error), done *Verified) error {
	for ctx.Err() == nil {
		pos, rec, ok, err := next()
		if err != nil || !ok {
			return err
		}
		if _, err := batch.Check(rec); err != nil {
			return db.noBatch(pos, err)
		}
		done.Records++
		done.RecordBytes += int64(len(rec))
	}
	return nil
}

// verifySequences reads what the indexes of all sequences name.
func (db *DB) verifySequences(ctx context.Context, done *Verified) (errs []error) {
	all, err := db.Sequences()
	if err != nil {
		return []error{db.seen(err)}
	}
	for _, name := range all {
		s, err := db.Sequence(name)
		if err == nil {
			err = s.verify(ctx, done)
		}
		if ctx.Err() != nil {
			return nil // it is told as that
		}
		if err != nil && !errors.Is(err, ErrKeyspaceDropped) {
			errs = append(errs, db.seen(public(err)))
		}
	}
	return errs
}

// farRecords is how many records lie between two that are wanted where a tail is begun
// anew: it finds its place by the index of the file.
const farRecords = 4096

// verify reads the records that the sequence's index names.
func (s *Sequence) verify(ctx context.Context, done *Verified) (err error) {
	var t *wal.Tail
	defer func() {
		if t != nil {
			t.Close()
		}
	}()
	durable, at := s.db.log.DurableLSN(), uint64(0) // the record that t has shown
	var rec []byte
	eachErr := s.entries(func(e *batch.Entry) bool {
		lsn := e.LSN
		switch {
		case lsn > durable || ctx.Err() != nil:
			return false
		case e.Size == 0: // of nothing
			return true
		case e.Settled != nil:
			done.Items += e.Count
			done.ItemBytes += e.Size
			return true
		}
		if t == nil || lsn-at > farRecords {
			if t != nil {
				t.Close()
				t = nil
			}
			if t, err = s.db.log.NewSkippingTail(Position{Epoch: s.db.log.EpochAt(lsn - 1), LSN: lsn - 1}); err != nil {
				return false
			}
		}
		for ok := true; at < lsn && ok && err == nil; {
			var pos Position
			if pos, rec, ok, err = t.TryNext(); ok {
				at = pos.LSN
			}
		}
		if err == nil && (at != lsn || !s.appended(rec, e)) {
			err = &CorruptionError{File: s.db.cfg.LogDir, Offset: -1, Reason: fmt.Sprintf("item %d of sequence %q is not in log record %d", e.Offset, s.Name(), lsn)}
		}
		if err != nil {
			// It may have gone meanwhile, settled or trimmed, or one after the other: what
			// is not settled by now shows in the bounds if it was trimmed.
			v, serr := s.settledOf(lsn)
			first, _, berr := s.Bounds()
			switch {
			case errors.Is(berr, ErrKeyspaceDropped):
				err = berr // all of it
				return false
			case serr == nil && v != nil:
				err = nil // and was read
			case berr == nil && e.Offset < first:
				err = nil
				return true
			default:
				return false
			}
		}
		done.Items += e.Count
		done.ItemBytes += e.Size
		return true
	})
	return errors.Join(err, eachErr)
}

// appended says whether a record appends what an entry of the index says.
func (s *Sequence) appended(rec []byte, e *batch.Entry) bool {
	v, err := batch.Appended(rec, s.ks.prefix)
	return err == nil && v != nil && batch.FirstOffset(v) == e.Offset && uint64(batch.CountItems(v)) == e.Count && uint64(len(v)) == e.Size
}

// noBatch says that a record of the log verifies and is not what a store writes.
func (db *DB) noBatch(pos Position, err error) error {
	return &CorruptionError{File: db.cfg.LogDir, Offset: -1, Reason: fmt.Sprintf("log record %d verifies and is no batch", pos.LSN), Err: err}
}
