package postgres

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/forebaydb/forebay/sink"
)

// Permanent says of an error of the server that it is of a row and comes again however
// often the row is written:
//
//   - class 21: cardinality, as two rows for one key in one statement;
//   - class 22: data, as a number out of range or a text that is no JSON;
//   - class 23: a constraint; also a foreign key whose other side may come later;
//   - class 44: the check of a view;
//   - 54000 and 54001: a row or an index entry that is too large, a value nested too deep;
//   - P0001: RAISE in a trigger.
func Permanent(err *pgconn.PgError) bool {
	if len(err.Code) != 5 {
		return false
	}
	switch err.Code[:2] {
	case "21", "22", "23", "44":
		return true
	}
	return err.Code == "54000" || err.Code == "54001" || err.Code == "P0001"
}

// badRows are rows that this side knows to be bad.
type badRows struct {
	rows []int
	err  error
}

func (e *badRows) Error() string { return e.err.Error() }

// judge makes an answer of why a transaction failed. The caller knows that it is rolled
// back.
func (s *Sink) judge(err error) error {
	if bad := (*badRows)(nil); errors.As(err, &bad) {
		return &sink.Rejected{Rows: bad.rows, Err: bad.err}
	}
	var pg *pgconn.PgError
	if none := (*notOfARow)(nil); errors.As(err, &none) || !errors.As(err, &pg) {
		return err
	}
	switch pg.SeverityUnlocalized {
	case "FATAL", "PANIC": // of the session
		return err
	}
	if !s.o.Permanent(pg) {
		return err
	}
	rejected := &sink.Rejected{Err: err}
	if one := (*rowError)(nil); errors.As(err, &one) {
		rejected.Rows = []int{one.row}
	}
	return rejected
}

// rowError is an error of a statement for one row alone.
type rowError struct {
	row int
	err error
}

func (e *rowError) Error() string { return e.err.Error() }
func (e *rowError) Unwrap() error { return e.err }
