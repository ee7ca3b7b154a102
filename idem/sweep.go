package idem

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/forebaydb/forebay"
)

// sweepBatch is how many entries one commit of a sweep takes out.
const sweepBatch = 256

// sweepEvery calls Sweep until Close.
func (k *Keys) sweepEvery() {
	tick := time.NewTicker(k.o.Every)
	defer tick.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-tick.C:
		}
		// What fails now is tried again at the next tick; a store that is damaged or
		// full tells so itself.
		_, _ = k.sweep(k.ctx)
	}
}

// Sweep takes out results and marks whose time is over, and beyond Options.MaxBytes the
// oldest results, by durable commits of some hundred each, and returns how many went. It
// takes no mark of a call that runs. What is damaged it leaves, and tells of the first when
// it is done with the rest. Where another sweep of the name runs it waits for that first.
func (k *Keys) Sweep(ctx context.Context) (int, error) {
	if err := k.enter(ctx, []byte{0}); err != nil {
		return 0, err
	}
	defer k.leave()
	return k.sweep(ctx)
}

// makeRoom sweeps before a call when there is too much, unless somebody does already.
func (k *Keys) makeRoom(ctx context.Context) {
	if m := k.o.MaxBytes; m < 0 || k.core.figures().Bytes <= m {
		return
	}
	select {
	case k.core.sweeping <- struct{}{}:
		defer func() { <-k.core.sweeping }()
		_, _ = k.pass(ctx) // the call tells what is wrong with the store
	default:
	}
}

func (k *Keys) sweep(ctx context.Context) (int, error) {
	select {
	case k.core.sweeping <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { <-k.core.sweeping }()
	return k.pass(ctx)
}

// candidate is an entry that may go.
type candidate struct {
	indexed
	expired bool
}

// pass goes once over the fronts of the two indexes.
func (k *Keys) pass(ctx context.Context) (n int, err error) {
	now := k.now()
	var over int64 // bytes that have to go
	if m := k.o.MaxBytes; m >= 0 {
		if b := k.core.figures().Bytes; b > m {
			over = b - (m - m/16) // some more, so that not each call has to
		}
	}
	var damage error
	for _, first := range []byte{resultKeys, markKeys} {
		from := []byte{first}
		for from != nil {
			var some []candidate
			some, from, err = k.collect(ctx, first, from, now, &over, &damage)
			if err != nil {
				return n, errors.Join(err, damage)
			}
			if len(some) == 0 {
				continue
			}
			gone, err := k.takeOut(ctx, some, &damage)
			n += gone
			if err != nil {
				return n, errors.Join(err, damage)
			}
		}
	}
	return n, damage
}

// collect returns what may go from a place of an index on, and where to go on: nil at the
// first entry that stays. It looks at a bounded number.
func (k *Keys) collect(ctx context.Context, first byte, from []byte, now int64, over *int64, damage *error) (some []candidate, next []byte, err error) {
	seen := 0
	for e, err := range k.ks.Range(from, []byte{first + 1}) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, nil, err
		}
		if seen++; seen > sweepBatch {
			return some, append([]byte(nil), e.Key...), nil
		}
		x, err := decodeIndex(e.Key, e.Value)
		if err != nil {
			*damage = cmp.Or(*damage, err)
			continue
		}
		c := candidate{indexed: x}
		if first == markKeys {
			c.expired = k.expired(runs, x.stamp, now)
		} else {
			c.expired = k.expired(done, x.stamp, now)
		}
		if !c.expired && (first == markKeys || *over <= 0) {
			return some, nil, nil
		}
		*over -= x.bytes
		some = append(some, c)
	}
	return some, nil, nil
}

// takeOut takes candidates out, by one commit: those that are still what they were.
func (k *Keys) takeOut(ctx context.Context, some []candidate, damage *error) (n int, err error) {
	var damaged error
	err = k.db.UpdateLevel(ctx, forebay.Durable, func(tx *forebay.Tx) error {
		n, damaged = 0, nil
		ks, err := tx.Keyspace(k.ks.Name())
		if err != nil {
			return err
		}
		var by Stats
		for _, c := range some {
			e, _, err := k.look(ks, c.key)
			switch {
			case errors.Is(err, ErrDamaged):
				damaged = cmp.Or(damaged, err)
				continue
			case err != nil:
				return err
			}
			index := indexKey(c.first, c.stamp, c.key)
			same := e != nil && e.stamp == c.stamp && (e.state == runs) == (c.first == markKeys)
			switch {
			case !same: // it is another one since, or it was damaged and forgotten
				if has, err := ks.Has(index); err != nil || !has {
					if err != nil {
						return err
					}
					continue
				}
			// Asked behind the read: a call that enters later makes its mark behind
			// this commit, or this one meets a conflict and asks again.
			case e.state == runs && k.core.running(c.key):
				continue
			default:
				if err := ks.Delete(entryKey(c.key)); err != nil {
					return err
				}
				n++
				if c.expired {
					by.Expired++
				} else {
					by.Evicted++
				}
			}
			if err := ks.Delete(index); err != nil {
				return err
			}
			if c.first == resultKeys {
				by.Results--
				by.Bytes -= c.bytes
			}
		}
		k.core.count(tx, by)
		return nil
	})
	*damage = cmp.Or(*damage, damaged)
	if err != nil {
		return 0, err
	}
	return n, nil
}
