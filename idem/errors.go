package idem

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrMismatch: the key was used, or is being used, with another fingerprint.
	ErrMismatch = errors.New("idem: the key belongs to another request")
	// ErrInProgress: a call with the key runs, or one ran and nobody knows how it
	// ended. It comes as an *InProgressError.
	ErrInProgress = errors.New("idem: a call with the key is in progress")
	// ErrDamaged: what is stored is not what this package writes.
	ErrDamaged = errors.New("idem: not what idem writes")
	// ErrClosed: the handle was closed.
	ErrClosed = errors.New("idem: handle is closed")
	// ErrKey: a key has 1 to MaxKeySize bytes.
	ErrKey = fmt.Errorf("idem: a key has 1 to %d bytes", MaxKeySize)
)

// InProgressError says what is known of a call that has no result yet.
type InProgressError struct {
	Key []byte
	// Owner and Since are of its mark; both are empty for a call of Do, which has none.
	Owner string
	Since time.Time
	// Running: it runs in this process. Otherwise it is unknown whether its effect
	// happened: see Keys.Resolve.
	Running bool
}

func (e *InProgressError) Error() string {
	if e.Running {
		return fmt.Sprintf("%v: %q", ErrInProgress, e.Key)
	}
	return fmt.Sprintf("%v, or has ended in an unknown way: %q, owner %q, since %s", ErrInProgress, e.Key, e.Owner, e.Since.UTC().Format(time.RFC3339))
}

// Is makes it an ErrInProgress.
func (e *InProgressError) Is(target error) bool { return target == ErrInProgress }

// FinalError is an error that is the result of a request: it is stored, and everyone
// who comes with the key gets it.
type FinalError struct {
	// Message is what is stored.
	Message string
	// Err is what was given to Final; nil in what comes from the store.
	Err error
}

func (e *FinalError) Error() string { return e.Message }

// Unwrap returns Err.
func (e *FinalError) Unwrap() error { return e.Err }

// Final makes an error the result of the request: what is refused for good, and would be
// the next time. Its message is stored, up to 4 KiB. nil stays nil.
func Final(err error) error {
	if err == nil {
		return nil
	}
	return &FinalError{Message: err.Error(), Err: err}
}

// unknown is what Unknown returns.
type unknown struct{ err error }

func (u *unknown) Error() string { return u.err.Error() }
func (u *unknown) Unwrap() error { return u.err }

// Unknown says, of an error of a function given to DoOutside, that its effect may have
// happened: a time-out of the other side, say. The mark stays then. nil stays nil.
func Unknown(err error) error {
	if err == nil {
		return nil
	}
	return &unknown{err}
}

const maxText = 4 << 10

// cutText bounds what is stored of a text.
func cutText(s string) string { return s[:min(len(s), maxText)] }
