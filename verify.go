package forebay

import (
	"context"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay/internal/batch"
)

// Verified says what Verify has read.
type Verified struct {
	Segments     int
	SegmentBytes int64
	// Records of the log, from its floor to what was durable.
	Records     int
	RecordBytes int64
}

// Verify reads every byte of every live segment, past the cache, and every record
// of the log, beside readers and writers, and checks them: all checksums, the
// order and the counts of what is in a segment, what filter and index say of it.
// The error joins one *CorruptionError for each segment that is damaged and one
// for the log. When ctx ends it returns ctx's error. Package check does the same,
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
		if _, err := batch.Decode(rec); err != nil {
			return db.noBatch(pos, err)
		}
		done.Records++
		done.RecordBytes += int64(len(rec))
	}
	return nil
}

// noBatch says that a record of the log verifies and is not what a store writes.
func (db *DB) noBatch(pos Position, err error) error {
	return &CorruptionError{File: db.cfg.LogDir, Offset: -1, Reason: fmt.Sprintf("log record %d verifies and is no batch", pos.LSN), Err: err}
}
