package sinktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/sink"
)

// Memory is a target in memory which has each batch once, for tests of what writes into
// sinks. It keeps what was written when the writer crashes. The zero value is ready.
type Memory struct {
	// Name says that Rejected names the rows. It is set before the first write.
	Name bool

	mu     sync.Mutex // guards what follows; not held while functions of the caller run
	refuse func(sink.Row) error
	fault  func(n int, b sink.Batch) (done bool, err error)
	writes int
	byID   map[string][]sink.Row
	order  []string
}

// Refuse says from now on for which rows it answers *sink.Rejected; nil: for none.
func (m *Memory) Refuse(f func(sink.Row) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = f
}

// Fault is asked from now on before each write, with the number of the write from 1 on.
// An error is what the write returns, and with done it has its effect nevertheless; nil:
// no faults.
func (m *Memory) Fault(f func(n int, b sink.Batch) (done bool, err error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Write is Sink.Write.
func (m *Memory) Write(ctx context.Context, b sink.Batch) error {
	m.mu.Lock()
	m.writes++
	n, refuse, ask := m.writes, m.refuse, m.fault
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.ID == "" || len(b.ID) > sink.MaxID {
		return fmt.Errorf("sinktest: an ID of %d bytes", len(b.ID))
	}
	done, fault := true, error(nil)
	if ask != nil {
		if done, fault = ask(n, b); fault == nil {
			done = true
		}
	}
	if !done {
		return fault
	}
	if err := m.apply(b, refuse); err != nil {
		return err
	}
	return fault
}

func (m *Memory) apply(b sink.Batch, refuse func(sink.Row) error) error {
	var bad []int
	var why error
	for i, r := range b.Rows {
		if refuse == nil {
			break
		}
		if err := refuse(r); err != nil {
			bad, why = append(bad, i), errors.Join(why, err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if had, ok := m.byID[b.ID]; ok {
		return same(b, had)
	}
	if bad != nil {
		if !m.Name {
			bad = nil
		}
		return &sink.Rejected{Rows: bad, Err: why}
	}
	rows := make([]sink.Row, len(b.Rows))
	for i, r := range b.Rows {
		r.Key, r.Value, r.Headers = slices.Clone(r.Key), slices.Clone(r.Value), maps.Clone(r.Headers)
		rows[i] = r
	}
	if m.byID == nil {
		m.byID = map[string][]sink.Row{}
	}
	m.byID[b.ID] = rows
	m.order = append(m.order, b.ID)
	return nil
}

// same looks that a batch whose ID is known is the one that it was.
func same(b sink.Batch, had []sink.Row) error {
	if len(b.Rows) != len(had) {
		return fmt.Errorf("sinktest: batch %s had %d rows, and now has %d", b.ID, len(had), len(b.Rows))
	}
	for i, r := range b.Rows {
		if h := had[i]; h.Offset != r.Offset || !h.Time.Equal(r.Time) || string(h.Key) != string(r.Key) ||
			string(h.Value) != string(r.Value) || !maps.Equal(h.Headers, r.Headers) {
			return fmt.Errorf("sinktest: row %d of batch %s is another one than it was", i, b.ID)
		}
	}
	return nil
}

// Rows returns all rows that were written, batches in the order in which they came.
func (m *Memory) Rows() []sink.Row {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []sink.Row
	for _, id := range m.order {
		all = append(all, m.byID[id]...)
	}
	return all
}

// Batches returns the batches that were written, in the order in which they came.
func (m *Memory) Batches() []sink.Batch {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []sink.Batch
	for _, id := range m.order {
		all = append(all, sink.Batch{ID: id, Rows: m.byID[id]})
	}
	return all
}

// Writes returns how often it was called.
func (m *Memory) Writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}
