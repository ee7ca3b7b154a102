package cli

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/spf13/pflag"

	"github.com/forebaydb/forebay"
)

// Reader reads one keyspace: a store is one of its default keyspace.
type Reader interface {
	Get(key []byte) ([]byte, error)
	Range(lo, hi []byte) iter.Seq2[forebay.Entry, error]
	RangeReverse(lo, hi []byte) iter.Seq2[forebay.Entry, error]
	Prefix(prefix []byte) iter.Seq2[forebay.Entry, error]
}

// Writer takes the writes of one keyspace: a batch is one of the default one.
type Writer interface {
	Put(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(lo, hi []byte) error
}

// KeyspaceFlag adds --keyspace.
func KeyspaceFlag(flags *pflag.FlagSet, name *string) {
	flags.StringVar(name, "keyspace", "", "the `name` of a keyspace; default: the one without a name")
}

// Space returns the keyspace with a name, nil for the default one, and makes it
// when there is none.
func Space(db *forebay.DB, name string) (*forebay.Keyspace, error) {
	if name == "" {
		return nil, nil
	}
	return db.Keyspace(name)
}

// ExistingSpace is Space that makes none.
func ExistingSpace(db *forebay.DB, name string) (*forebay.Keyspace, error) {
	if name == "" {
		return nil, nil
	}
	names, err := db.Keyspaces()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, fmt.Errorf("%w: %q", forebay.ErrNoKeyspace, name)
	}
	return db.Keyspace(name)
}

// ReadSpace returns the reader of a keyspace that must exist.
func ReadSpace(db *forebay.DB, name string) (Reader, error) {
	ks, err := ExistingSpace(db, name)
	if err != nil || ks == nil {
		return db, err
	}
	return ks, nil
}

// In returns what writes to a keyspace through a batch; nil is the default one.
func In(b *forebay.Batch, ks *forebay.Keyspace) Writer {
	if ks == nil {
		return b
	}
	return b.In(ks)
}

// Bounds returns the range of the keys from lo to before hi that begin with
// prefix; nil, and an empty lo or prefix, is open.
func Bounds(prefix, lo, hi []byte) (from, to []byte) {
	from, to = lo, hi
	if string(prefix) > string(from) {
		from = prefix
	}
	if end := after(prefix); end != nil && (to == nil || string(end) < string(to)) {
		to = end
	}
	if len(from) == 0 {
		from = nil
	}
	return from, to
}

// after returns the first key behind all that begin with prefix, nil if none.
func after(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			end := slices.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}

// SpaceSize is what a keyspace holds.
type SpaceSize struct {
	Name       string `json:"name"` // "" for the default one
	Keys       int64  `json:"keys"`
	KeyBytes   int64  `json:"key_bytes"`
	ValueBytes int64  `json:"value_bytes"`
}

// Measure reads all of a keyspace.
func Measure(ctx context.Context, name string, from Reader) (*SpaceSize, error) {
	s := &SpaceSize{Name: name}
	for e, err := range from.Range(nil, nil) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		s.Keys++
		s.KeyBytes += int64(len(e.Key))
		s.ValueBytes += int64(len(e.Value))
	}
	return s, nil
}
