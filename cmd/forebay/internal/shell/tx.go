package shell

import (
	"context"
	"errors"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// readWriter is a keyspace that is read and written: of a transaction, or of the
// store itself.
type readWriter interface {
	cli.Reader
	cli.Writer
}

// transaction is one that is open between commands. The engine's takes a
// function, which here waits for the commands.
type transaction struct {
	ops  chan func(*forebay.Tx) error
	told chan error
	stop chan error // nil: commit
	done chan error
}

var (
	errRollback = errors.New("rolled back")
	// errTwice: the function is called again after a conflict, but the commands
	// cannot be given again.
	errTwice = errors.New("what the transaction read was changed meanwhile; nothing of it was kept")
)

func begin(ctx context.Context, db *forebay.DB, level forebay.Level) *transaction {
	t := &transaction{ops: make(chan func(*forebay.Tx) error), told: make(chan error), stop: make(chan error), done: make(chan error, 1)}
	go func() {
		calls := 0
		t.done <- db.UpdateLevel(ctx, level, func(tx *forebay.Tx) error {
			if calls++; calls > 1 {
				return errTwice
			}
			for {
				select {
				case op := <-t.ops:
					t.told <- op(tx)
				case err := <-t.stop:
					return err
				}
			}
		})
	}()
	return t
}

// do runs op inside of the transaction.
func (t *transaction) do(op func(*forebay.Tx) error) error {
	select {
	case t.ops <- op:
		return <-t.told
	case err := <-t.done: // it could not begin
		t.done <- err
		return err
	}
}

// end commits, with a nil err, or rolls back, and returns what came of it.
func (t *transaction) end(err error) error {
	select {
	case t.stop <- err:
		return <-t.done
	case err := <-t.done:
		return err
	}
}

// reading runs fn on the keyspace in use.
func (s *shell) reading(fn func(cli.Reader) error) error {
	if s.tx != nil {
		return s.inTx(func(rw readWriter) error { return fn(rw) })
	}
	from, err := cli.ReadSpace(s.db, s.space)
	if err != nil {
		return err
	}
	return fn(from)
}

// writing runs fn on the keyspace in use: in the transaction or the batch that is
// open, else as a commit of its own.
func (s *shell) writing(fn func(cli.Writer) error) error {
	if s.tx != nil {
		return s.inTx(func(rw readWriter) error { return fn(rw) })
	}
	ks, err := cli.ExistingSpace(s.db, s.space)
	if err != nil {
		return err
	}
	if s.batch != nil {
		return fn(cli.In(s.batch, ks))
	}
	b := s.db.NewBatch()
	if err := fn(cli.In(b, ks)); err != nil {
		return err
	}
	return s.db.Apply(b, s.level)
}

func (s *shell) inTx(fn func(readWriter) error) error {
	return s.tx.do(func(tx *forebay.Tx) error {
		if s.space == "" {
			return fn(tx)
		}
		space, err := tx.Keyspace(s.space)
		if err != nil {
			return err
		}
		return fn(space)
	})
}
