package inspect

import (
	"fmt"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
)

// jsonKey is a stored key, or a bound of such keys, in JSON.
type jsonKey struct {
	ID       uint64 `json:"keyspace_id"`
	Keyspace string `json:"keyspace"` // its name; "" for the default one, and where it is not known
	Key      string `json:"key"`      // quoted as Go does
}

func (n spaces) jsonKey(stored []byte) jsonKey {
	id, user, ok := keyspace.Cut(stored)
	if !ok {
		return jsonKey{Key: quote(stored, false, -1)}
	}
	return jsonKey{ID: id, Keyspace: n[id], Key: quote(user, false, -1)}
}

// operation is one operation of a batch in JSON. Hi is the upper bound of a range
// delete, whose lower bound is Key; a bound of another keyspace says which.
type operation struct {
	Op         string  `json:"op"`
	ID         uint64  `json:"keyspace_id"`
	Keyspace   string  `json:"keyspace"`
	Key        string  `json:"key"`
	Value      *string `json:"value,omitempty"`
	Hi         *string `json:"hi,omitempty"`
	HiKeyspace uint64  `json:"hi_keyspace_id,omitempty"`
	Says       string  `json:"says,omitempty"` // what it does to the list of keyspaces
}

func (n spaces) operation(b *batch.Reader, text func([]byte) string) operation {
	op := operation{Op: b.Kind().String()}
	id, user, ok := keyspace.Cut(b.Key())
	if !ok {
		op.Key, op.Says = text(b.Key()), "a key of no keyspace"
		return op
	}
	op.ID, op.Keyspace, op.Key = id, n[id], text(user)
	switch b.Kind() {
	case base.KindPut:
		v := text(b.Value())
		op.Value = &v
	case base.KindAppend:
		v := text(b.Value())
		op.Value = &v
		op.Says = fmt.Sprintf("items from %d on, each behind its length", batch.FirstOffset(b.Value()))
	case base.KindRangeDelete:
		hi, user, ok := keyspace.Cut(b.Value())
		if !ok {
			user = b.Value()
		} else if hi != id {
			op.HiKeyspace = hi
		}
		v := text(user)
		op.Hi = &v
	}
	if id == keyspace.System {
		op.Key = fmt.Sprintf("%x", user)
		op.Says = systemOp(b.Kind(), user, b.Value())
	}
	return op
}
