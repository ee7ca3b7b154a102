package idem

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/forebaydb/forebay"
)

// reader is a keyspace, in a transaction or not.
type reader interface {
	Get(key []byte) ([]byte, error)
}

// look returns what is stored of a key, nil when nothing is, and whether it counts.
func (k *Keys) look(from reader, key []byte) (e *entry, live bool, err error) {
	b, err := from.Get(entryKey(key))
	if errors.Is(err, forebay.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	if e, err = decodeEntry(key, b); err != nil {
		return nil, false, err
	}
	return e, !k.expired(e.state, e.stamp, k.now()), nil
}

// answer is what a live entry says to who comes with a fingerprint and runs it himself if
// there is none.
func answer(key []byte, e *entry, print fingerprint) (Result, error) {
	switch {
	case e.print != print:
		return Result{}, fmt.Errorf("%w: %q", ErrMismatch, key)
	case e.state == runs:
		return Result{}, &InProgressError{Key: bytes.Clone(key), Owner: e.text, Since: e.at()}
	}
	return e.result()
}

// replace puts an entry in the place of another; either may be nil.
func (k *Keys) replace(tx *forebay.Tx, ks forebay.Space, key []byte, old, e *entry) error {
	by := Stats{}
	if old != nil {
		if err := ks.Delete(old.index(key)); err != nil {
			return err
		}
		if old.state != runs {
			by.add(Stats{Results: -1, Bytes: -old.space(key)})
		}
	}
	if e == nil {
		if err := ks.Delete(entryKey(key)); err != nil {
			return err
		}
		k.core.count(tx, by)
		return nil
	}
	b := e.encode()
	if err := ks.Put(entryKey(key), b); err != nil {
		return err
	}
	if err := ks.Put(e.index(key), e.indexValue()); err != nil {
		return err
	}
	if e.state != runs {
		by.add(Stats{Results: 1, Bytes: e.space(key)})
	}
	k.core.count(tx, by)
	return nil
}

// claim returns what is stored of a key, or enters a call of it.
func (k *Keys) claim(ctx context.Context, key []byte, print fingerprint) (Result, *flight, error) {
	for {
		e, live, err := k.look(k.ks, key)
		if err != nil {
			return Result{}, nil, err
		}
		if live && e.state != runs { // what is visible is durable
			r, err := answer(key, e, print)
			return r, nil, err
		}
		mine := &flight{print: print}
		other := k.core.begin(key, mine)
		switch {
		case other == nil:
			return Result{}, mine, nil
		case other.print != print && !other.any:
			return Result{}, nil, fmt.Errorf("%w: %q", ErrMismatch, key)
		case k.o.NoWait:
			in := &InProgressError{Key: bytes.Clone(key), Running: true}
			if e != nil && e.state == runs {
				in.Owner, in.Since = e.text, e.at()
			}
			return Result{}, nil, in
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return Result{}, nil, ctx.Err()
		case <-k.ctx.Done():
			return Result{}, nil, ErrClosed
		}
	}
}

// errStop ends an attempt whose outcome is in a variable.
var errStop = errors.New("idem: stop")

// Do has a request run once: fn is called in a transaction of the store, and its value is
// stored, for who comes with the key again, in the commit of what it wrote. That is
// durable when Do returns. When there is a result already, it is returned instead.
//
// fingerprint says which request it is: its body, say. Its SHA-256 is stored; with another
// one the key is ErrMismatch. While a call with the key runs, in this process, others wait
// (but see Options.NoWait), and run by themselves if it failed. fn is called again when
// its transaction meets a conflict, see forebay.DB.Update. It must not ask for its own key.
//
// An error of fn comes back, nothing that it wrote is committed, and nothing stored: the
// request may be tried again. But one that is wrapped by Final is the result: it is
// stored, by a commit of its own with fn's value and nothing else that fn wrote, and comes
// as a *FinalError, to everyone.
//
// Other errors: ErrInProgress after DoOutside, ErrDamaged, ErrKey, ErrClosed, ctx's, and
// those of forebay.DB.UpdateLevel. After ctx's and forebay.ErrUnknown it may have been
// done, wholly: who comes again is told.
func (k *Keys) Do(ctx context.Context, key, fingerprint []byte, fn func(tx *forebay.Tx) (value []byte, err error)) (Result, error) {
	if err := k.enter(ctx, key); err != nil {
		return Result{}, err
	}
	defer k.leave()
	k.makeRoom(ctx)
	print := sha256.Sum256(fingerprint)
	r, f, err := k.claim(ctx, key, print)
	if f == nil {
		return r, err
	}
	defer k.core.end(key, f)
	var final *FinalError
	var value []byte
	var found *entry
	err = k.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		final, value, found = nil, nil, nil
		ks, old, err := k.ask(tx, key, &found)
		if err != nil || found != nil {
			return err
		}
		if value, err = fn(tx); err != nil {
			if final = asFinal(err); final != nil {
				return errStop
			}
			return err
		}
		e := &entry{state: done, stamp: k.stamp(), print: print, value: value}
		r = Result{Value: value, At: e.at()}
		return k.replace(tx, ks, key, old, e)
	})
	switch {
	case err == nil && found != nil:
		return answer(key, found, print)
	case err == errStop && final != nil:
		e := &entry{state: failed, print: print, value: value, text: cutText(final.Message)}
		return k.store(ctx, key, e, final)
	case err != nil:
		return Result{}, err
	}
	return r, nil
}

// ask looks, in a transaction, whether there is something that counts: then it is put
// into found. Otherwise old is what lies in its place.
func (k *Keys) ask(tx *forebay.Tx, key []byte, found **entry) (ks forebay.Space, old *entry, err error) {
	if ks, err = tx.Keyspace(k.ks.Name()); err != nil {
		return ks, nil, err
	}
	e, live, err := k.look(ks, key)
	if live {
		*found = e
	}
	return ks, e, err
}

func asFinal(err error) *FinalError {
	var final *FinalError
	errors.As(err, &final)
	return final
}

// store stores a result by itself, unless another one came first, and returns it with the
// error.
func (k *Keys) store(ctx context.Context, key []byte, e *entry, final *FinalError) (Result, error) {
	var found *entry
	err := k.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		found = nil
		ks, old, err := k.ask(tx, key, &found)
		if err != nil || found != nil {
			return err
		}
		e.stamp = k.stamp()
		return k.replace(tx, ks, key, old, e)
	})
	switch {
	case err != nil:
		return Result{}, err
	case found != nil: // only somebody who writes past this package can have put it
		return answer(key, found, e.print)
	}
	return Result{Value: e.value, At: e.at()}, final
}
