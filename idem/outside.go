package idem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/forebaydb/forebay"
)

// DoOutside is Do for a request with an effect outside of the store: fn is called once,
// after a mark of the call is durable, and its value is made durable in the place of the
// mark.
//
// An error of fn says that the effect did not happen: the mark is removed, and the request
// may be tried again. One that is wrapped by Final is stored as the result; one that is
// wrapped by Unknown leaves the mark. The mark is left, too, when the process ends, or fn
// panics, before it returns, and when the result cannot be stored: with an error that says
// so, beside which the Result has the value. Such a mark is an *InProgressError to everyone,
// until it is resolved (Resolve, Forget), or Options.UnknownTTL is over. A value that is too
// large to be stored is the result as a *FinalError that says so, and returned beside the
// error this once.
//
// When ctx ends before fn is called, it will not be; when it ends while the result is being
// stored, that goes on, and Close waits for it. Other errors are those of Do.
func (k *Keys) DoOutside(ctx context.Context, key, fingerprint []byte, fn func(ctx context.Context) (value []byte, err error)) (Result, error) {
	if err := k.enter(ctx, key); err != nil {
		return Result{}, err
	}
	defer k.leave()
	key = bytes.Clone(key) // what goes on when ctx ends uses it behind the return
	k.makeRoom(ctx)
	print := sha256.Sum256(fingerprint)
	r, f, err := k.claim(ctx, key, print)
	if f == nil {
		return r, err
	}
	handed := false
	defer func() { // also when fn panics
		if !handed {
			k.core.end(key, f)
		}
	}()
	var found *entry
	handed, err = k.aside(ctx, func() (err error) {
		found, err = k.mark(key, print)
		return err
	}, func(err error) {
		if err == nil && found == nil { // nobody is there to run it
			_ = k.unmark(key) // it stays, as unknown, if that fails
		}
		k.core.end(key, f)
	})
	switch {
	case err != nil:
		return Result{}, err
	case found != nil:
		return answer(key, found, print)
	}
	value, err := fn(ctx)
	var u *unknown
	if errors.As(err, &u) {
		return Result{Value: value}, err
	}
	work := func() error { return k.unmark(key) }
	final := asFinal(err)
	e := &entry{state: done, print: print, value: value}
	if err == nil || final != nil {
		if final != nil {
			e.state, e.text = failed, cutText(final.Message)
		}
		work = func() error { return k.finish(key, e) }
	}
	var stored error
	handed, stored = k.aside(ctx, work, func(error) { k.core.end(key, f) })
	switch {
	case handed: // it goes on, with the value
		return Result{Value: bytes.Clone(value)}, errors.Join(err, stored)
	case stored != nil:
		stored = fmt.Errorf("idem: what became of %q is not stored: %w", key, stored)
		return Result{Value: value}, errors.Join(err, stored)
	case err != nil && final == nil:
		return Result{}, err
	}
	r = Result{Value: value, At: e.at()}
	switch {
	case final != nil:
		return r, final
	case e.state == failed: // it was too large
		return r, &FinalError{Message: e.text}
	}
	return r, nil
}

// aside runs work, whose commits heed no context, and returns its error; or ctx's when that
// ends first: then late is called with the error, when it comes.
func (k *Keys) aside(ctx context.Context, work func() error, late func(err error)) (handed bool, err error) {
	result := make(chan error, 1)
	k.calls.Go(func() { result <- work() })
	select {
	case err := <-result:
		return false, err
	case <-ctx.Done():
		k.calls.Go(func() { late(<-result) })
		return true, ctx.Err()
	}
}

func (k *Keys) update(fn func(tx *forebay.Tx) error) error {
	return k.db.UpdateLevel(context.Background(), forebay.Durable, fn)
}

// mark makes the mark of a call durable, unless something is found.
func (k *Keys) mark(key []byte, print fingerprint) (found *entry, err error) {
	err = k.update(func(tx *forebay.Tx) error {
		found = nil
		ks, old, err := k.ask(tx, key, &found)
		if err != nil || found != nil {
			return err
		}
		e := &entry{state: runs, stamp: k.stamp(), print: print, text: cutText(k.o.Owner)}
		return k.replace(tx, ks, key, old, e)
	})
	return found, err
}

// unmark removes the mark of a call that had no effect.
func (k *Keys) unmark(key []byte) error {
	return k.update(func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(k.ks.Name())
		if err != nil {
			return err
		}
		old, _, err := k.look(ks, key)
		if err != nil || old == nil || old.state != runs {
			return err
		}
		return k.replace(tx, ks, key, old, nil)
	})
}

// finish puts a result in the place of the mark. Nobody else changes the entry of a call
// that runs, and the effect happened: so it asks for nothing.
func (k *Keys) finish(key []byte, e *entry) error {
	put := func() error {
		return k.update(func(tx *forebay.Tx) error {
			ks, err := tx.Keyspace(k.ks.Name())
			if err != nil {
				return err
			}
			old, _, err := k.look(ks, key)
			if err != nil {
				return err
			}
			e.stamp = k.stamp()
			return k.replace(tx, ks, key, old, e)
		})
	}
	err := put()
	if isLimit(err) {
		e.text = fmt.Sprintf("idem: done, but a result of %d bytes is too large to be stored", len(e.value))
		e.state, e.value = failed, nil
		err = put()
	}
	return err
}

// Mark is of a call of DoOutside that has no result.
type Mark struct {
	Key   []byte
	Owner string
	Since time.Time
	// Running: its call runs in this process. Otherwise it is unknown whether its effect
	// happened.
	Running bool
}

// Marks iterates over the marks that there are, the oldest first: behind a crash, over what
// is to be resolved. An error ends it and comes as the last pair, ErrDamaged among them.
func (k *Keys) Marks(ctx context.Context) iter.Seq2[Mark, error] {
	return func(yield func(Mark, error) bool) {
		if err := k.enter(ctx, []byte{0}); err != nil {
			yield(Mark{}, err)
			return
		}
		defer k.leave()
		for x, err := range k.ks.Prefix([]byte{markKeys}) {
			m := Mark{}
			if err == nil {
				err = ctx.Err()
			}
			var i indexed
			if err == nil {
				i, err = decodeIndex(x.Key, x.Value)
			}
			if err == nil {
				var e *entry
				running := k.core.running(i.key) // asked first: a mark goes before its call
				if e, _, err = k.look(k.ks, i.key); err == nil && (e == nil || e.state != runs || e.stamp != i.stamp) {
					continue // it has ended meanwhile
				}
				if err == nil {
					m = Mark{Key: i.key, Owner: e.text, Since: e.at(), Running: running}
				}
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Resolve says what became of a call that ended in an unknown way: value, and failure nil or
// an error whose message is stored, are its result from now on, durably. Errors:
// forebay.ErrNotFound where there is no such mark, ErrInProgress where the call runs.
func (k *Keys) Resolve(ctx context.Context, key, value []byte, failure error) error {
	return k.settle(ctx, key, func(tx *forebay.Tx, ks forebay.Space) error {
		old, _, err := k.look(ks, key)
		if err != nil {
			return err
		}
		if old == nil || old.state != runs {
			return fmt.Errorf("idem: a mark of %q: %w", key, forebay.ErrNotFound)
		}
		e := &entry{state: done, stamp: k.stamp(), print: old.print, value: value}
		if failure != nil {
			e.state, e.text = failed, cutText(failure.Error())
		}
		return k.replace(tx, ks, key, old, e)
	})
}

// Forget removes what is stored of a key, durably: it may be run again. ErrInProgress: it
// runs. It is no error if there is nothing, and works on what is damaged.
func (k *Keys) Forget(ctx context.Context, key []byte) error {
	return k.settle(ctx, key, func(tx *forebay.Tx, ks forebay.Space) error {
		old, _, err := k.look(ks, key)
		switch {
		case errors.Is(err, ErrDamaged): // a sweep takes its index
			return ks.Delete(entryKey(key))
		case err != nil || old == nil:
			return err
		}
		return k.replace(tx, ks, key, old, nil)
	})
}

// settle runs fn while no call of the key does.
func (k *Keys) settle(ctx context.Context, key []byte, fn func(tx *forebay.Tx, ks forebay.Space) error) error {
	if err := k.enter(ctx, key); err != nil {
		return err
	}
	defer k.leave()
	f := &flight{any: true}
	if other := k.core.begin(key, f); other != nil {
		return &InProgressError{Key: bytes.Clone(key), Running: true}
	}
	defer k.core.end(key, f)
	return k.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(k.ks.Name())
		if err != nil {
			return err
		}
		return fn(tx, ks)
	})
}
