// Package cli has what the commands share: exit codes and errors that say what
// to do, the opening of stores, output and progress.
package cli

import (
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
)

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usage makes err an error of usage; nil stays nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// Usagef returns an error of usage.
func Usagef(format string, args ...any) error { return Usage(fmt.Errorf(format, args...)) }

// IsUsage says whether err is a mistake on the command line.
func IsUsage(err error) bool {
	var u *usageError
	return errors.As(err, &u)
}

// Hint says what to do about an error of the engine, or nothing.
func Hint(err error) string {
	var corrupt *forebay.CorruptionError
	var limit *forebay.LimitError
	switch {
	case errors.As(err, &corrupt):
		return "Stored bytes that were durable are damaged. No file was changed. Copy the directory before anything else;\n`forebay recover --explain DIR` says what is there, `forebay check DIR` everything that is damaged, and\n`forebay salvage DIR DST` makes a new store of what can be read."
	case errors.Is(err, forebay.ErrLocked):
		return "The store is open in another process. Close it there, or wait, and try again.\n`forebay changes`, `find`, `wal`, `manifest`, `segment` and `recover --explain` take no lock and work meanwhile."
	case errors.Is(err, forebay.ErrNoKeyspace):
		return "`forebay keyspaces DIR` lists the keyspaces; put and import make the one that --keyspace names."
	case errors.As(err, &limit):
		return fmt.Sprintf("Keys have at most %s, values %s.", Bytes(forebay.MaxKeySize), Bytes(forebay.MaxValueSize))
	case errors.Is(err, forebay.ErrUnknown), errors.Is(err, forebay.ErrPoisoned):
		return "The write may be there or not. See to the disk (space, kernel log), then read the key again."
	}
	return ""
}
