package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/forebaydb/forebay/sink"
)

// Mode is how rows get into the table.
type Mode int

const (
	// Copy is COPY FROM STDIN in the binary format.
	Copy Mode = iota
	// Unnest is INSERT … SELECT FROM unnest, with an array for each column. It cannot have
	// columns that are arrays themselves.
	Unnest
	// Values is INSERT with up to 1,000 rows in VALUES.
	Values
	// Insert is an INSERT for each row, in one transaction.
	Insert
)

func (m Mode) String() string {
	switch m {
	case Copy:
		return "copy"
	case Unnest:
		return "unnest"
	case Values:
		return "values"
	case Insert:
		return "insert"
	}
	return fmt.Sprintf("mode %d", int(m))
}

// Conflict is what happens with a row whose key is there already.
type Conflict int

const (
	// ConflictError refuses it: *sink.Rejected.
	ConflictError Conflict = iota
	// ConflictIgnore leaves the row out.
	ConflictIgnore
	// ConflictUpdate overwrites the row that is there.
	ConflictUpdate
)

// Options says where rows go and how. The zero value of each field but Table is a default.
type Options struct {
	// Table is the name of the target, with or without a schema: {"events"}, {"app",
	// "events"}. Names are quoted: they are as they are in the catalogue.
	Table pgx.Identifier
	// Inbox is the name of the table of IDs, {"forebay_inbox"} unless set. Sinks may share
	// one.
	Inbox pgx.Identifier
	// Columns are those that Map fills; nil: the five of the package comment.
	Columns []string
	// Map sets dst, which has a place for each of Columns, to the values of a row; nil is
	// NULL. It must give the same for the same row each time. Its error rejects the row.
	// It may keep bytes of the row in dst, but not elsewhere. Any number of goroutines
	// may call it at once; no transaction is open.
	Map func(r sink.Row, dst []any) error
	// Mode is how the rows are written.
	Mode Mode
	// Conflict is what happens with a row whose Key is there already.
	Conflict Conflict
	// Key are the columns of the unique index that Conflict is about. ConflictIgnore may
	// be without: then it is about any.
	Key []string
	// Version is a column of Columns that orders the rows of a key: ConflictUpdate leaves
	// rows alone whose version is higher. "": the last that is written stays, and batches
	// that are written at once may come in any order.
	Version string
	// Permanent says of an error of the server that it is of a row and stays; nil: Permanent.
	Permanent func(*pgconn.PgError) bool
	// KeepInbox is how long an ID is known at least; 0: 30 days; negative: for ever.
	KeepInbox time.Duration
	// PruneEvery is how much time is between two looks for old IDs, by one of the writers,
	// after its commit; 0: an hour; negative: only Prune does it.
	PruneEvery time.Duration
}

var defaultColumns = []string{"offset", "time", "key", "value", "headers"}

func defaultMap(r sink.Row, dst []any) error {
	if r.Offset > 1<<63-1 {
		return fmt.Errorf("postgres: offset %d is no bigint", r.Offset)
	}
	value := r.Value
	if value == nil {
		value = []byte{}
	}
	dst[0], dst[1], dst[2], dst[3] = int64(r.Offset), r.Time, r.Key, value
	if len(r.Headers) > 0 {
		dst[4] = r.Headers
	}
	return nil
}

// maxName is NAMEDATALEN - 1: the server would cut a longer name off, and take another.
const maxName = 63

func checkName(what string, parts ...string) error {
	for _, p := range parts {
		if p == "" || len(p) > maxName || strings.IndexByte(p, 0) >= 0 {
			return fmt.Errorf("postgres: %s %q: a name has 1 to %d bytes, and none is zero", what, p, maxName)
		}
	}
	return nil
}

// New makes a sink. The pool stays the caller's: who closes it ends the sink, and calls
// of Write that wait for a connection then return. New does not connect.
func New(pool *pgxpool.Pool, o Options) (*Sink, error) {
	if pool == nil {
		return nil, errors.New("postgres: no pool")
	}
	if len(o.Inbox) == 0 {
		o.Inbox = pgx.Identifier{"forebay_inbox"}
	}
	for what, id := range map[string]pgx.Identifier{"Table": o.Table, "Inbox": o.Inbox} {
		if len(id) < 1 || len(id) > 2 {
			return nil, fmt.Errorf("postgres: %s has %d parts: it is a table, or a schema and a table", what, len(id))
		}
		if err := checkName(what, id...); err != nil {
			return nil, err
		}
	}
	if (o.Columns == nil) != (o.Map == nil) {
		return nil, errors.New("postgres: Columns and Map go together")
	}
	s := &Sink{pool: pool, ownTable: o.Columns == nil, start: time.Now()}
	s.pruned.Store(-1)
	if s.ownTable {
		o.Columns, o.Map = defaultColumns, defaultMap
	}
	o.Columns, o.Key = slices.Clone(o.Columns), slices.Clone(o.Key)
	o.Table, o.Inbox = slices.Clone(o.Table), slices.Clone(o.Inbox)
	if err := checkName("column", o.Columns...); err != nil {
		return nil, err
	}
	if n := len(o.Columns); n == 0 || n > 1600 {
		return nil, fmt.Errorf("postgres: %d columns: a table has 1 to 1600", n)
	}
	for i, c := range o.Columns {
		if slices.Contains(o.Columns[:i], c) || c == ordinal {
			return nil, fmt.Errorf("postgres: column %q is there twice, or a name of the sink's own", c)
		}
	}
	if o.Mode < Copy || o.Mode > Insert {
		return nil, fmt.Errorf("postgres: no mode %d", o.Mode)
	}
	if err := checkConflict(&o); err != nil {
		return nil, err
	}
	if o.Permanent == nil {
		o.Permanent = Permanent
	}
	if o.KeepInbox == 0 {
		o.KeepInbox = 30 * 24 * time.Hour
	}
	if o.PruneEvery == 0 {
		o.PruneEvery = time.Hour
	}
	s.o = o
	s.sql = newStatements(&s.o)
	return s, nil
}

func checkConflict(o *Options) error {
	switch o.Conflict {
	case ConflictError:
		if o.Key != nil || o.Version != "" {
			return errors.New("postgres: Key and Version are for Conflict")
		}
		return nil
	case ConflictIgnore:
		if o.Version != "" {
			return errors.New("postgres: Version is for ConflictUpdate")
		}
	case ConflictUpdate:
		if len(o.Key) == 0 {
			return errors.New("postgres: ConflictUpdate needs Key")
		}
	default:
		return fmt.Errorf("postgres: no conflict %d", o.Conflict)
	}
	for _, c := range o.Key {
		if !slices.Contains(o.Columns, c) {
			return fmt.Errorf("postgres: key %q is none of Columns", c)
		}
	}
	if o.Version != "" && !slices.Contains(o.Columns, o.Version) {
		return fmt.Errorf("postgres: version %q is none of Columns", o.Version)
	}
	return nil
}
