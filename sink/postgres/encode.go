package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// column is one of the target, as it is in this transaction.
type column struct {
	name  string
	oid   uint32 // of the base type, for a domain
	array uint32 // of the type of its arrays; 0: none
	typ   string // as SQL has it, without a length
}

// pgType is what is known of a type. It cannot change while the OID is in use.
type pgType struct {
	array uint32
	name  string
}

// columns asks what types the columns have. Whoever wants to change them waits from now
// on until the transaction ends.
func (s *Sink) columns(ctx context.Context, tx pgx.Tx) ([]column, error) {
	d, err := tx.Conn().PgConn().Prepare(ctx, "", s.sql.describe, nil)
	if err != nil {
		return nil, err
	}
	if len(d.Fields) != len(s.o.Columns) {
		return nil, fmt.Errorf("the server describes %d columns of %d", len(d.Fields), len(s.o.Columns))
	}
	cols := make([]column, len(d.Fields))
	for i, f := range d.Fields {
		cols[i] = column{name: s.o.Columns[i], oid: f.DataTypeOID}
	}
	if err := s.describeTypes(ctx, tx, cols); err != nil {
		return nil, err
	}
	for _, c := range cols {
		if _, ok := tx.Conn().TypeMap().TypeForOID(c.oid); ok {
			continue
		}
		t, err := tx.Conn().LoadType(ctx, c.typ)
		if err != nil {
			return nil, fmt.Errorf("column %q: pgx has no type %s; AfterConnect of the pool can register it: %w", c.name, c.typ, err)
		}
		tx.Conn().TypeMap().RegisterType(t)
	}
	return cols, nil
}

// describeTypes fills in what is known of types, and asks for the rest.
func (s *Sink) describeTypes(ctx context.Context, tx pgx.Tx, cols []column) error {
	if s.fillTypes(cols) {
		return nil
	}
	oids := make([]uint32, len(cols))
	for i, c := range cols {
		oids[i] = c.oid
	}
	// With -1 instead of NULL, bpchar is not called character, which would be one long.
	rows, err := tx.Query(ctx, `SELECT oid, typarray, format_type(oid, -1) FROM pg_catalog.pg_type WHERE oid = ANY($1::oid[])`, oids)
	if err != nil {
		return err
	}
	found := map[uint32]pgType{}
	var oid uint32
	var t pgType
	if _, err := pgx.ForEachRow(rows, []any{&oid, &t.array, &t.name}, func() error {
		found[oid] = t
		return nil
	}); err != nil {
		return err
	}
	s.mu.Lock()
	if s.types == nil {
		s.types = map[uint32]pgType{}
	}
	for oid, t := range found {
		s.types[oid] = t
	}
	s.mu.Unlock()
	if !s.fillTypes(cols) {
		return fmt.Errorf("types %v are not all in pg_type", oids)
	}
	return nil
}

func (s *Sink) fillTypes(cols []column) (all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range cols {
		t, ok := s.types[cols[i].oid]
		if !ok {
			return false
		}
		cols[i].array, cols[i].typ = t.array, t.name
	}
	return true
}

// encoded is a batch in the binary format of COPY, without its header and trailer: for
// each row a count of fields in two bytes, for each field its length in four, -1 for
// NULL, and its bytes. All modes take their parameters out of it.
type encoded struct {
	buf  []byte
	at   []int // where in buf each field begins, at its length
	cols int
	rows int
}

// field returns a field with its length before it.
func (e *encoded) field(row, col int) []byte {
	at := e.at[row*e.cols+col]
	n := int32(binary.BigEndian.Uint32(e.buf[at:]))
	return e.buf[at : at+4+max(int(n), 0)]
}

// param returns a field as a parameter; nil is NULL.
func (e *encoded) param(row, col int) []byte {
	f := e.field(row, col)
	if int32(binary.BigEndian.Uint32(f)) < 0 {
		return nil
	}
	return f[4:]
}

// size is how many bytes rows i to j have.
func (e *encoded) size(i, j int) int {
	end := len(e.buf)
	if j < e.rows {
		end = e.at[j*e.cols]
	}
	return end - e.at[i*e.cols]
}

// encode encodes a batch. Values that cannot be encoded for their column are badRows; a
// Go type for which there is no way at all is an error of who wrote Map, not of a row.
func (s *Sink) encode(types *pgtype.Map, cols []column, values []any) (*encoded, error) {
	n := len(cols)
	fields := n
	if s.ordinal() {
		fields++
	}
	e := &encoded{cols: fields, rows: len(values) / n, at: make([]int, 0, len(values)/n*fields), buf: make([]byte, 0, 64*len(values))}
	var bad *badRows
	for i := range e.rows {
		e.buf = binary.BigEndian.AppendUint16(e.buf, uint16(fields))
		for j, c := range cols {
			at := len(e.buf)
			e.at = append(e.at, at)
			e.buf = append(e.buf, 0, 0, 0, 0)
			v, err := fromText(types, c.oid, values[i*n+j])
			var after []byte
			if err == nil {
				after, err = types.Encode(c.oid, pgtype.BinaryFormatCode, v, e.buf)
			}
			if err == nil && len(after)-at-4 > math.MaxInt32 {
				err = fmt.Errorf("%d bytes", len(after)-at-4)
			}
			if err != nil {
				if v != nil && types.PlanEncode(c.oid, pgtype.BinaryFormatCode, v) == nil {
					return nil, fmt.Errorf("column %q: a %T cannot be a %s", c.name, v, c.typ)
				}
				if bad == nil {
					bad = &badRows{err: fmt.Errorf("postgres: column %q: %w", c.name, err)}
				}
				if k := len(bad.rows); k == 0 || bad.rows[k-1] != i {
					bad.rows = append(bad.rows, i)
				}
				after = nil
			}
			if after == nil {
				binary.BigEndian.PutUint32(e.buf[at:], math.MaxUint32)
				e.buf = e.buf[:at+4]
				continue
			}
			e.buf = after
			binary.BigEndian.PutUint32(e.buf[at:], uint32(len(after)-at-4))
		}
		if s.ordinal() {
			e.at = append(e.at, len(e.buf))
			e.buf = binary.BigEndian.AppendUint32(e.buf, 8)
			e.buf = binary.BigEndian.AppendUint64(e.buf, uint64(i))
		}
	}
	if bad != nil {
		return nil, bad
	}
	return e, nil
}

// fromText makes of a string what the text means for the type, where pgx has no way to
// its binary format: it sends such strings as text, which COPY and arrays cannot.
func fromText(types *pgtype.Map, oid uint32, v any) (any, error) {
	text, ok := v.(string)
	if !ok || types.PlanEncode(oid, pgtype.BinaryFormatCode, text) != nil {
		return v, nil
	}
	t, ok := types.TypeForOID(oid)
	if !ok {
		return v, nil
	}
	return t.Codec.DecodeValue(types, oid, pgtype.TextFormatCode, []byte(text))
}
