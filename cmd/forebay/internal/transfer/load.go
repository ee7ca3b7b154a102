package transfer

import (
	"context"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

const (
	// loadBatch is the size at which a batch is submitted: large enough that a
	// sync is shared by much, small enough that several are under way.
	loadBatch = 512 << 10
	// loadAhead is how many batches may be under way.
	loadAhead = 8
)

// loader puts entries in the order in which they come, so that the last of two
// on one key counts, and waits for syncs as little as it can: batches are
// submitted in order and awaited later.
type loader struct {
	db    *forebay.DB
	level forebay.Level
	batch *forebay.Batch
	into  cli.Writer // writes to the keyspace through the batch
	ahead []*forebay.Commit
}

func newLoader(db *forebay.DB, ks *forebay.Keyspace, level forebay.Level) *loader {
	b := db.NewBatch()
	return &loader{db: db, level: level, batch: b, into: cli.In(b, ks)}
}

// put copies key and value.
func (l *loader) put(ctx context.Context, key, value []byte) error {
	if l.batch.Size() > 0 && l.batch.Size()+len(key)+len(value) > loadBatch {
		if err := l.flush(ctx); err != nil {
			return err
		}
	}
	return l.into.Put(key, value)
}

func (l *loader) flush(ctx context.Context) error {
	if l.batch.Len() == 0 {
		return nil
	}
	c, err := l.db.Submit(l.batch, l.level)
	if err != nil {
		return err
	}
	l.batch.Reset()
	l.ahead = append(l.ahead, c)
	if len(l.ahead) > loadAhead {
		err = l.ahead[0].Wait(ctx)
		l.ahead = l.ahead[1:]
	}
	return err
}

// finish commits the rest and waits for all of it.
func (l *loader) finish(ctx context.Context) error {
	err := l.flush(ctx)
	for _, c := range l.ahead {
		if werr := c.Wait(ctx); err == nil {
			err = werr
		}
	}
	return err
}
