package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	valuesRows = 1_000    // rows of one statement, at most
	maxParams  = 65_535   // of one statement
	pieceBytes = 32 << 20 // of one statement, but for one row that is larger
)

// statements are those that do not depend on types.
type statements struct {
	inbox, prune, describe string
	into                   string // INSERT INTO … ("a", "b")
	target                 string // "schema"."table" ("a", "b")
	columns                string // "a", "b"
	onConflict             string
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

func quoteAll(names []string) string {
	q := make([]string, len(names))
	for i, n := range names {
		q[i] = quote(n)
	}
	return strings.Join(q, ", ")
}

func newStatements(o *Options) statements {
	inbox, table, columns := o.Inbox.Sanitize(), o.Table.Sanitize(), quoteAll(o.Columns)
	return statements{
		inbox: `INSERT INTO ` + inbox + ` (id) VALUES ($1::bytea) ON CONFLICT (id) DO NOTHING`,
		// SKIP LOCKED: who prunes at the same time is not waited for.
		prune: `DELETE FROM ` + inbox + ` WHERE id = ANY (ARRAY(SELECT id FROM ` + inbox +
			` WHERE at < clock_timestamp() - make_interval(secs => $1::float8) ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
		into:       `INSERT INTO ` + table + ` AS forebay_target (` + columns + `)`,
		describe:   `SELECT ` + columns + ` FROM ` + table,
		target:     table + ` (` + columns + `)`,
		columns:    columns,
		onConflict: onConflict(o),
	}
}

func onConflict(o *Options) string {
	of := ""
	if len(o.Key) > 0 {
		of = ` (` + quoteAll(o.Key) + `)`
	}
	switch o.Conflict {
	case ConflictIgnore:
		return ` ON CONFLICT` + of + ` DO NOTHING`
	case ConflictUpdate:
		var set []string
		for _, c := range o.Columns {
			if !slices.Contains(o.Key, c) {
				set = append(set, quote(c)+` = EXCLUDED.`+quote(c))
			}
		}
		if set == nil { // the key is all there is
			return ` ON CONFLICT` + of + ` DO NOTHING`
		}
		s := ` ON CONFLICT` + of + ` DO UPDATE SET ` + strings.Join(set, ", ")
		if v := quote(o.Version); o.Version != "" {
			s += ` WHERE forebay_target.` + v + ` IS NULL OR EXCLUDED.` + v + ` >= forebay_target.` + v
		}
		return s
	}
	return ""
}

// ordinal says that rows carry their place in the batch, for the last of a key to win: a
// statement cannot update a row twice.
func (s *Sink) ordinal() bool { return s.o.Conflict == ConflictUpdate && s.o.Mode != Insert }

// selects returns a query of the columns from a source whose columns have the same names
// and, where rows carry it, "forebay ordinal". Of the rows of one key only the last is
// in it; rows with NULL in their key have no like, as in a unique index.
func (s *Sink) selects(from string) string {
	if !s.ordinal() {
		return ` SELECT ` + s.sql.columns + ` FROM ` + from
	}
	null := make([]string, len(s.o.Key))
	for i, c := range s.o.Key {
		null[i] = quote(c) + ` IS NULL`
	}
	key := quoteAll(s.o.Key) + `, CASE WHEN ` + strings.Join(null, ` OR `) + ` THEN ` + ordinalName + ` END`
	order := key
	if s.o.Version != "" {
		order += `, ` + quote(s.o.Version) + ` DESC NULLS LAST`
	}
	return ` SELECT ` + s.sql.columns + ` FROM (SELECT DISTINCT ON (` + key + `) * FROM ` + from +
		` ORDER BY ` + order + `, ` + ordinalName + ` DESC) AS forebay_last ORDER BY ` + ordinalName
}

const (
	ordinal     = "forebay ordinal"
	ordinalName = `"` + ordinal + `"`
)

// load gets encoded rows into the target.
func (s *Sink) load(ctx context.Context, tx pgx.Tx, cols []column, rows *encoded) error {
	pg := tx.Conn().PgConn()
	switch s.o.Mode {
	case Insert:
		return s.loadInsert(ctx, pg, cols, rows)
	case Values:
		return s.inPieces(rows, min(valuesRows, maxParams/rows.cols), func(i, j int) error {
			return s.loadValues(ctx, pg, cols, rows, i, j)
		})
	case Unnest:
		return s.inPieces(rows, rows.rows, func(i, j int) error {
			return s.loadUnnest(ctx, pg, cols, rows, i, j)
		})
	}
	if s.o.Conflict == ConflictError {
		return copyRows(ctx, pg, `COPY `+s.sql.target+` FROM STDIN (FORMAT binary)`, rows)
	}
	return s.loadStaged(ctx, pg, cols, rows)
}

// inPieces calls f for pieces of the rows of limited size.
func (s *Sink) inPieces(rows *encoded, most int, f func(i, j int) error) error {
	for i := 0; i < rows.rows; {
		j := i + 1
		for j < rows.rows && j-i < most && rows.size(i, j+1) <= pieceBytes {
			j++
		}
		if err := f(i, j); err != nil {
			return err
		}
		i = j
	}
	return nil
}

func exec(ctx context.Context, pg *pgconn.PgConn, sql string, params [][]byte, oids []uint32) error {
	_, err := pg.ExecParams(ctx, sql, params, oids, []int16{pgtype.BinaryFormatCode}, nil).Close()
	return err
}

func (s *Sink) loadInsert(ctx context.Context, pg *pgconn.PgConn, cols []column, rows *encoded) error {
	sql := s.sql.into + ` VALUES (` + placeholders(0, len(cols)) + `)` + s.sql.onConflict
	params, oids := make([][]byte, len(cols)), make([]uint32, len(cols))
	for j, c := range cols {
		oids[j] = c.oid
	}
	for i := range rows.rows {
		for j := range cols {
			params[j] = rows.param(i, j)
		}
		if err := exec(ctx, pg, sql, params, oids); err != nil {
			return &rowError{i, err}
		}
	}
	return nil
}

func placeholders(first, n int) string {
	p := make([]string, n)
	for i := range p {
		p[i] = "$" + strconv.Itoa(first+i+1)
	}
	return strings.Join(p, ", ")
}

func (s *Sink) loadValues(ctx context.Context, pg *pgconn.PgConn, cols []column, rows *encoded, from, to int) error {
	var params [][]byte
	var oids []uint32
	var values strings.Builder
	for i := from; i < to; i++ {
		if i > from {
			values.WriteString(", ")
		}
		values.WriteString("(" + placeholders(len(params), rows.cols) + ")")
		for j := range rows.cols {
			params = append(params, rows.param(i, j))
			if j < len(cols) {
				oids = append(oids, cols[j].oid)
			} else {
				oids = append(oids, pgtype.Int8OID)
			}
		}
	}
	sql := s.sql.into + ` VALUES ` + values.String() + s.sql.onConflict
	if s.ordinal() {
		sql = s.sql.into + s.selects(`(VALUES `+values.String()+`) AS forebay_rows (`+s.sql.columns+`, `+ordinalName+`)`) + s.sql.onConflict
	}
	return exec(ctx, pg, sql, params, oids)
}

func (s *Sink) loadUnnest(ctx context.Context, pg *pgconn.PgConn, cols []column, rows *encoded, from, to int) error {
	params, oids := make([][]byte, 0, rows.cols), make([]uint32, 0, rows.cols)
	for j := range rows.cols {
		elem, array := uint32(pgtype.Int8OID), uint32(pgtype.Int8ArrayOID)
		if j < len(cols) {
			elem, array = cols[j].oid, cols[j].array
			if array == 0 {
				return fmt.Errorf("column %q: there are no arrays of %s, as mode unnest needs", cols[j].name, cols[j].typ)
			}
		}
		params, oids = append(params, rows.array(elem, j, from, to)), append(oids, array)
	}
	names := s.sql.columns
	if s.ordinal() {
		names += `, ` + ordinalName
	}
	source := `unnest(` + placeholders(0, rows.cols) + `) AS forebay_rows (` + names + `)`
	return exec(ctx, pg, s.sql.into+s.selects(source)+s.sql.onConflict, params, oids)
}

// array returns a column of rows as an array in the server's binary format: number of
// dimensions, whether there are NULLs, type of the elements, their number, the first
// index, and the elements as in COPY.
func (e *encoded) array(oid uint32, col, from, to int) []byte {
	size, null := 20, uint32(0)
	for i := from; i < to; i++ {
		size += len(e.field(i, col))
		if e.param(i, col) == nil {
			null = 1
		}
	}
	b := make([]byte, 0, size)
	for _, v := range []uint32{1, null, oid, uint32(to - from), 1} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	for i := from; i < to; i++ {
		b = append(b, e.field(i, col)...)
	}
	return b
}

var (
	copyHeader  = append([]byte("PGCOPY\n\xff\r\n\x00"), make([]byte, 8)...) // no flags, no extension
	copyTrailer = []byte{0xff, 0xff}
)

func copyRows(ctx context.Context, pg *pgconn.PgConn, sql string, rows *encoded) error {
	tag, err := pg.CopyFrom(ctx, io.MultiReader(bytes.NewReader(copyHeader), bytes.NewReader(rows.buf), bytes.NewReader(copyTrailer)), sql)
	if err != nil {
		return err
	}
	// (A BEFORE trigger may have left rows out; more than there were cannot be.)
	if tag.RowsAffected() > int64(rows.rows) {
		return fmt.Errorf("COPY took %d rows of %d", tag.RowsAffected(), rows.rows)
	}
	return nil
}

// loadStaged copies into a table of the session, and from there into the target. The
// types of its columns are in its name: after a migration there is another one. They are
// without length and domain, whose rules are those of the target alone.
func (s *Sink) loadStaged(ctx context.Context, pg *pgconn.PgConn, cols []column, rows *encoded) error {
	defs := make([]string, 0, rows.cols)
	for _, c := range cols {
		defs = append(defs, quote(c.name)+` `+c.typ)
	}
	if s.ordinal() {
		defs = append(defs, ordinalName+` bigint`)
	}
	def := strings.Join(defs, ", ")
	h := fnv.New64a()
	for _, c := range cols {
		fmt.Fprintf(h, "%d ", c.oid)
	}
	io.WriteString(h, def)
	stage := fmt.Sprintf("pg_temp.forebay_stage_%016x", h.Sum64())
	if _, err := pg.Exec(ctx, `CREATE TEMPORARY TABLE IF NOT EXISTS `+stage+` (`+def+`) ON COMMIT DELETE ROWS`).ReadAll(); err != nil {
		return keepOut(err)
	}
	if err := copyRows(ctx, pg, `COPY `+stage+` FROM STDIN (FORMAT binary)`, rows); err != nil {
		return err
	}
	return exec(ctx, pg, s.sql.into+s.selects(stage)+s.sql.onConflict, nil, nil)
}
