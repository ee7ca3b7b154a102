package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
)

// ErrFull: as much waits as may wait. It comes as a *FullError.
var ErrFull = errors.New("buffer: full")

// FullError says that a row was not added, because it would wait beyond Options.MaxRows
// or MaxBytes.
type FullError struct {
	// Rows and Bytes that wait, those of calls under way among them.
	Rows, Bytes int64
	// RetryAfter is when there may be room, by the rate at which rows are written.
	RetryAfter time.Duration
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%v: %d rows of %d bytes wait; try again in %v", ErrFull, e.Rows, e.Bytes, e.RetryAfter)
}

// Unwrap returns ErrFull.
func (e *FullError) Unwrap() error { return ErrFull }

// LimitError says that what is to be added at once is more than may wait, even where
// nothing does: to try again helps nobody.
type LimitError struct {
	// What is "rows" or "bytes".
	What string
	// Size is how many it would be, Limit that of Options.
	Size, Limit int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("buffer: %d %s at once, where %d may wait; add less at a time, or raise Options.MaxRows or MaxBytes", e.Size, e.What, e.Limit)
}

// Add adds a row, which is copied, and returns its offset when it is durable. Errors, with
// nothing added: *FullError, *LimitError, *forebay.LimitError, ErrClosed, what ended the buffer, and
// those of forebay.DB.Apply; after forebay.ErrUnknown it may have been added.
func (b *Buffer) Add(r Row) (offset uint64, err error) { return b.AddBatch([]Row{r}) }

// AddBatch adds rows, which are copied, by one commit, in their order: all or none. It
// returns the offset of the first; the others follow it. Errors as for Add. Together they
// may have 32 MiB. Of no rows it returns 0, and does nothing.
func (b *Buffer) AddBatch(rows []Row) (first uint64, err error) {
	if len(rows) == 0 {
		return 0, nil
	}
	var size held
	var batch forebay.Batch
	var item []byte
	now := time.Now()
	for _, r := range rows {
		if err := checkRow(r); err != nil {
			return 0, err
		}
		item = appendItem(item[:0], now, r, time.Time{})
		size.rows++
		size.bytes += sizeOf(len(item))
		if err := batch.Append(b.seq, item); err != nil {
			return 0, err
		}
	}
	if err := b.reserve(size); err != nil {
		return 0, err
	}
	if err := b.db.Apply(&batch, forebay.Durable); err != nil {
		b.room.release(size)
		return 0, err
	}
	first, _ = batch.Appended(b.seq)
	return first, nil
}

// AddTx adds a row, which is copied, when the transaction is committed, with all else
// that the transaction does. It is written once it is durable. Errors as for Add.
func (b *Buffer) AddTx(tx *forebay.Tx, r Row) error {
	if err := checkRow(r); err != nil {
		return err
	}
	return b.addTx(tx, appendItem(nil, time.Now(), r, time.Time{}))
}

func (b *Buffer) addTx(tx *forebay.Tx, item []byte) error {
	size := held{1, sizeOf(len(item))}
	if err := b.reserve(size); err != nil {
		return err
	}
	if err := tx.Append(b.seq, item); err != nil {
		b.room.release(size)
		return err
	}
	// Each attempt calls AddTx again.
	tx.OnDone(func(o forebay.Outcome) {
		if o.Err != nil {
			b.room.release(size)
		}
	})
	return nil
}

// appendItem makes an item of the topic. added is when the row was added first, if that
// was before.
func appendItem(dst []byte, now time.Time, r Row, added time.Time) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(now.UnixNano()))
	return appendEnvelope(dst, r, added)
}

func (b *Buffer) reserve(size held) error {
	err := b.room.reserve(size)
	var full *FullError
	if errors.As(err, &full) {
		full.RetryAfter = b.retryAfter(size.rows)
	}
	return err
}

// retryAfter guesses when some rows more will have been written.
func (b *Buffer) retryAfter(rows int64) time.Duration {
	if wait := b.circuit.wait(); wait > 0 {
		return wait
	}
	rate := b.rate.perSecond(time.Now())
	if rate <= 0 {
		return time.Second
	}
	// Room comes a batch at a time.
	return min(max(timeFor(float64(max(rows, int64(b.o.Items))), rate), time.Millisecond), time.Minute)
}

// room is what waits to be written, and how much may.
type room struct {
	mu   sync.Mutex // guards all
	used held
	most held
	err  error // why nothing may be added
}

func (r *room) init(rows, bytes int64, used held) {
	r.most, r.used = held{rows, bytes}, used
}

// reserve takes room for rows that are going to be added.
func (r *room) reserve(n held) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return r.err
	}
	switch most := r.most; {
	case most.rows > 0 && n.rows > most.rows:
		return &LimitError{"rows", n.rows, most.rows}
	case most.bytes > 0 && n.bytes > most.bytes:
		return &LimitError{"bytes", n.bytes, most.bytes}
	}
	rows, bytes := r.used.rows+n.rows, r.used.bytes+n.bytes
	if r.most.rows > 0 && rows > r.most.rows || r.most.bytes > 0 && bytes > r.most.bytes {
		return &FullError{Rows: r.used.rows, Bytes: r.used.bytes}
	}
	r.used = held{rows, bytes}
	return nil
}

// release gives the room back of rows that were not added, or do not wait any more. Of
// some it may not know: those that were added by a handle of before the Open.
func (r *room) release(n held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used.rows = max(r.used.rows-n.rows, 0)
	r.used.bytes = max(r.used.bytes-n.bytes, 0)
}

func (r *room) waiting() held {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// close has nothing added any more, for the first reason.
func (r *room) close(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
}
