package commit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/wal"
)

// fakeLog commits requests one by one; what stands behind an unsynced Durable
// one waits for it, as in package wal. It needs no file.
type fakeLog struct {
	mu      sync.Mutex
	applier wal.Applier
	next    base.LSN
	fail    error
	poison  error
}

func (l *fakeLog) Commit(r *wal.Request) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poison != nil {
		return l.poison
	}
	r.First = l.next + 1
	l.next += base.LSN(len(r.Records))
	reqs := []*wal.Request{r}
	l.applier.Assign(reqs)
	l.applier.Apply(reqs, l.next)
	if l.fail != nil {
		l.poison = l.fail
		return fmt.Errorf("%w: %w", wal.ErrUnknown, l.fail)
	}
	l.applier.Publish(l.next)
	return nil
}

func (l *fakeLog) Submit(r *wal.Request) error                    { return l.Commit(r) }
func (l *fakeLog) Wait(ctx context.Context, r *wal.Request) error { return ctx.Err() }
func (l *fakeLog) Poison(err error)                               { l.poison = err }

// fakeTable notes what it is given.
type fakeTable struct {
	got     []string
	applied []base.LSN
	placed  []string
	refuse  error
}

func (t *fakeTable) Apply(lsn base.LSN, rec []byte) error {
	if t.refuse != nil {
		return t.refuse
	}
	t.got = append(t.got, fmt.Sprintf("%d %s", lsn, rec))
	return nil
}

func (*fakeTable) Ahead(base.LSN, []byte)  {}
func (t *fakeTable) Place(rec []byte)      { t.placed = append(t.placed, string(rec)) }
func (t *fakeTable) Applied(last base.LSN) { t.applied = append(t.applied, last) }

func newPipeline(t *fakeTable) (*Pipeline, *fakeLog) {
	p := New(t)
	l := &fakeLog{applier: Applier{p}}
	p.Start(l, 0)
	return p, l
}

func TestCommitsEnterInOrderAndBecomeVisible(t *testing.T) {
	table := &fakeTable{}
	p, _ := newPipeline(table)
	for i := 1; i <= 3; i++ {
		lsn, err := p.Apply(fmt.Append(nil, "batch ", i), wal.Durable, nil)
		require.NoError(t, err)
		require.Equal(t, base.LSN(i), lsn)
		require.Equal(t, base.LSN(i), p.Visible())
	}
	c, err := p.Submit([]byte("batch 4"), wal.Buffered)
	require.NoError(t, err)
	require.NoError(t, c.Wait(context.Background()))
	require.Equal(t, base.LSN(4), c.LSN())
	require.Equal(t, []string{"1 batch 1", "2 batch 2", "3 batch 3", "4 batch 4"}, table.got)
	require.Equal(t, []base.LSN{1, 2, 3, 4}, table.applied)
}

func TestHookStampsTheRecord(t *testing.T) {
	table := &fakeTable{}
	p, _ := newPipeline(table)
	_, err := p.Apply([]byte("at ?"), wal.Durable, func(lsn base.LSN, rec []byte) { rec[3] = '0' + byte(lsn) })
	require.NoError(t, err)
	require.Equal(t, []string{"1 at 1"}, table.got)
}

func TestFailedSyncIsNotVisible(t *testing.T) {
	p, l := newPipeline(&fakeTable{})
	_, err := p.Apply([]byte("a"), wal.Durable, nil)
	require.NoError(t, err)
	l.fail = errors.New("no sync")
	_, err = p.Apply([]byte("b"), wal.Durable, nil)
	require.ErrorIs(t, err, wal.ErrUnknown)
	require.Equal(t, base.LSN(1), p.Visible())
}

// TestRefusedByTheTable: a commit that the table does not take whole is unknown,
// never visible, and stops the log, so that nothing is settled from the table.
func TestRefusedByTheTable(t *testing.T) {
	table := &fakeTable{}
	p, l := newPipeline(table)
	table.refuse = errors.New("no room")
	_, err := p.Apply([]byte("a"), wal.Durable, nil)
	require.ErrorIs(t, err, wal.ErrUnknown)
	require.ErrorIs(t, err, table.refuse)
	require.Zero(t, p.Visible())
	require.Error(t, l.poison)
	table.refuse = nil
	_, err = p.Apply([]byte("b"), wal.Durable, nil)
	require.Error(t, err)
	require.Empty(t, table.got)
}

// TestWhatIsAppendedIsPlaced: once for each record that appends, before it is applied;
// and the log keeps what is appended.
func TestWhatIsAppendedIsPlaced(t *testing.T) {
	table := &fakeTable{}
	p, _ := newPipeline(table)
	var b batch.Batch
	require.NoError(t, b.Put([]byte("k"), nil))
	_, err := p.Apply(bytes.Clone(b.Bytes()), wal.Durable, nil)
	require.NoError(t, err)
	require.Empty(t, table.placed)
	require.NoError(t, b.AppendItem([]byte("s"), []byte("item")))
	rec := bytes.Clone(b.Bytes())
	_, err = p.Apply(rec, wal.Durable, nil)
	require.NoError(t, err)
	require.Equal(t, []string{string(rec)}, table.placed)
	var c Commit
	c.prepare(p, rec, wal.Durable, nil)
	require.Equal(t, batch.AppendedBytes(rec), c.rec[0].Keep)
	require.Positive(t, c.rec[0].Keep)
}
