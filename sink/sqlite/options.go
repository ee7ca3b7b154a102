package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	driver "modernc.org/sqlite"

	"github.com/forebaydb/forebay/sink"
)

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
	// Table is the target, in the main database of the file. The name is quoted.
	Table string
	// Inbox is the table of IDs, forebay_inbox unless set. Sinks may share one.
	Inbox string
	// Columns are those that Map fills; nil: the five of the package comment.
	Columns []string
	// Map sets dst, which has a place for each of Columns, to the values of a row: int64,
	// float64, bool, []byte, string, nil, or what database/sql makes one of these. It must
	// give the same for the same row each time. Its error rejects the row. It may keep
	// bytes of the row in dst, but not elsewhere. Any number of goroutines may call it at
	// once; no transaction is open.
	Map func(r sink.Row, dst []any) error
	// Conflict is what happens with a row whose Key is there already.
	Conflict Conflict
	// Key are the columns of the unique index that Conflict is about. ConflictIgnore may
	// be without: then it is about any.
	Key []string
	// Version is a column of Columns that orders the rows of a key: ConflictUpdate leaves
	// rows alone whose version is higher. "": the last that is written stays.
	Version string
	// Permanent says of an error of SQLite that it is of a row and stays; nil: Permanent.
	Permanent func(*driver.Error) bool
	// Busy is how long a write waits for writers of other programs; 0: 5 seconds;
	// negative: not at all.
	Busy time.Duration
	// KeepInbox is how long an ID is known at least; 0: 30 days; negative: for ever.
	KeepInbox time.Duration
	// PruneEvery is how much time is between two looks for old IDs, by one of the writers,
	// after its commit; 0: an hour; negative: only Prune does it.
	PruneEvery time.Duration
}

// Permanent says of an error of SQLite that it is of a row and comes again however often
// the row is written: SQLITE_CONSTRAINT, SQLITE_MISMATCH and SQLITE_TOOBIG.
func Permanent(err *driver.Error) bool {
	switch err.Code() & 0xff {
	case 18, 19, 20: // TOOBIG, CONSTRAINT, MISMATCH
		return true
	}
	return false
}

var defaultColumns = []string{"offset", "time", "key", "value", "headers"}

func defaultMap(r sink.Row, dst []any) error {
	if r.Offset > 1<<63-1 {
		return fmt.Errorf("sqlite: offset %d is too large for an integer", r.Offset)
	}
	value := r.Value
	if value == nil {
		value = []byte{}
	}
	dst[0], dst[1], dst[3] = int64(r.Offset), r.Time.UnixMicro(), value
	if r.Key != nil {
		dst[2] = r.Key
	}
	if len(r.Headers) > 0 {
		headers, err := json.Marshal(r.Headers)
		if err != nil {
			return err
		}
		dst[4] = string(headers)
	}
	return nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Inbox == "" {
		o.Inbox = "forebay_inbox"
	}
	if (o.Columns == nil) != (o.Map == nil) {
		return o, errors.New("sqlite: Columns and Map go together")
	}
	if o.Columns == nil {
		o.Columns, o.Map = defaultColumns, defaultMap
	}
	o.Columns, o.Key = slices.Clone(o.Columns), slices.Clone(o.Key)
	if n := len(o.Columns); n == 0 || n > 2000 {
		return o, fmt.Errorf("sqlite: %d columns: a table has 1 to 2000", n)
	}
	for _, name := range append([]string{o.Table, o.Inbox}, o.Columns...) {
		if name == "" || strings.IndexByte(name, 0) >= 0 {
			return o, fmt.Errorf("sqlite: %q is no name of a table or column", name)
		}
	}
	if o.Permanent == nil {
		o.Permanent = Permanent
	}
	if o.Busy == 0 {
		o.Busy = 5 * time.Second
	}
	if o.KeepInbox == 0 {
		o.KeepInbox = 30 * 24 * time.Hour
	}
	if o.PruneEvery == 0 {
		o.PruneEvery = time.Hour
	}
	return o, checkConflict(&o)
}

func checkConflict(o *Options) error {
	switch o.Conflict {
	case ConflictError:
		if o.Key != nil || o.Version != "" {
			return errors.New("sqlite: Key and Version are for Conflict")
		}
		return nil
	case ConflictIgnore:
		if o.Version != "" {
			return errors.New("sqlite: Version is for ConflictUpdate")
		}
	case ConflictUpdate:
		if len(o.Key) == 0 {
			return errors.New("sqlite: ConflictUpdate needs Key")
		}
	default:
		return fmt.Errorf("sqlite: no conflict %d", o.Conflict)
	}
	for _, c := range o.Key {
		if !slices.Contains(o.Columns, c) {
			return fmt.Errorf("sqlite: key %q is none of Columns", c)
		}
	}
	if o.Version != "" && !slices.Contains(o.Columns, o.Version) {
		return fmt.Errorf("sqlite: version %q is none of Columns", o.Version)
	}
	return nil
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func quoteAll(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = quote(n)
	}
	return strings.Join(q, ", ")
}

// insertSQL is the statement for one row.
func insertSQL(o *Options) string {
	s := `INSERT INTO main.` + quote(o.Table) + ` AS forebay_target (` + quoteAll(o.Columns) + `) VALUES (?` + strings.Repeat(", ?", len(o.Columns)-1) + `)`
	if o.Conflict == ConflictError {
		return s
	}
	s += ` ON CONFLICT`
	if len(o.Key) > 0 {
		s += ` (` + quoteAll(o.Key) + `)`
	}
	var set []string
	for _, c := range o.Columns {
		if o.Conflict == ConflictUpdate && !slices.Contains(o.Key, c) {
			set = append(set, quote(c)+` = excluded.`+quote(c))
		}
	}
	if set == nil {
		return s + ` DO NOTHING`
	}
	s += ` DO UPDATE SET ` + strings.Join(set, ", ")
	if v := quote(o.Version); o.Version != "" {
		s += ` WHERE forebay_target.` + v + ` IS NULL OR excluded.` + v + ` >= forebay_target.` + v
	}
	return s
}
