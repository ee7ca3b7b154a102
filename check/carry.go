package check

import (
	"slices"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
)

// carrySize is about how many bytes the records have with which items are appended anew.
const carrySize = 1 << 20

// carrier carries the items of sequences into a log of the new store. It is given the
// entries of the indexes in the order of keys: so items come sequence by sequence and in
// order, and with records as large as carrySize. The log has its catalog in memory. What
// that says at the end goes into the manifest, without which the files are no log.
type carrier struct {
	v    *salvager
	seqs sequences
	recs *records
	lost loser

	log *wal.Log // nil until there is an item
	cat *catalog

	// The sequence under way: its id, the offset behind what came, and the LSN of the
	// last entry of items.
	id   uint64
	end  uint64
	last base.LSN
	// none is items in a row that are not there: they get one entry, for the first offset
	// of a sequence is behind the first entry if that is one of nothing.
	none indexEntry

	// The record under way: the items from first to next, of the sequence with key.
	b           batch.Batch
	key         []byte
	first, next uint64
}

// begin finds out which sequences there are.
func (c *carrier) begin(rep *replay) error {
	it := c.v.reader(rep)
	defer it.Close()
	var err error
	if c.seqs, err = listSequences(it); err != nil {
		return err
	}
	c.cat = &catalog{store: c.v.files.Store, state: c.v.newLog()}
	c.recs = newRecords(c.v.source, c.v.hist)
	c.lost.tell = func(l *lostItems) {
		key := func(offset uint64) []byte { return batch.IndexKey(nil, c.key, offset) }
		c.v.out.LostItems += l.end - l.first
		c.v.lose(Loss{File: l.by.file.path, Offset: l.by.offset, Length: l.by.length, What: "items", Reason: l.text(), Err: l.by.err,
			Lo: key(l.first), Hi: key(l.end - 1), FirstLSN: l.from, LastLSN: l.until, Effect: effectItems})
	}
	return nil
}

// take takes an entry of the index of a sequence; taken says that it was one. It is
// left out where its items are carried: the replay of their records makes it anew. In
// place of items that are lost add is given an entry of nothing.
func (c *carrier) take(key, value []byte, lsn base.LSN, add adder) (taken bool, err error) {
	e, is, ok := c.seqs.entry(key, value, lsn)
	if !is || e.id != c.id {
		if err := c.settle(add); err != nil {
			return is, err
		}
	}
	if !is {
		return false, nil
	}
	if e.id != c.id {
		if err := c.flush(); err != nil {
			return true, err
		}
		c.lost.flush()
		c.id, c.end, c.last, c.key = e.id, 0, 0, slices.Clone(e.prefix)
	}
	by := c.v.odd(&e, ok, c.last)
	if ok && e.size == 0 && e.end() <= c.end {
		return true, nil // Items that had been trimmed are back.
	}
	if ok && e.offset < c.end {
		by, ok = &hole{file: &logFile{path: c.v.cfg.Dir}, offset: -1, reason: "another entry of the index has their offsets"}, false
	}
	if !ok {
		c.lose(&e, by)
		return true, nil
	}
	if gone := e.offset - c.end; gone > 0 && c.end > 0 {
		at := indexEntry{id: e.id, prefix: e.prefix, offset: c.end, count: gone, lsn: lsn}
		c.lose(&at, &hole{file: &logFile{path: c.v.cfg.Dir}, offset: -1, reason: "no entry of the index says where they are"})
		if err := c.nothing(&at, add); err != nil {
			return true, err
		}
	}
	c.end = e.end()
	if e.size == 0 {
		return true, c.nothing(&e, add)
	}
	c.last = max(c.last, e.lsn)
	items := e.settled
	if by == nil && items == nil {
		if items, by, err = c.recs.appended(&e); err != nil {
			return true, err
		}
	}
	if by != nil {
		c.lose(&e, by)
		return true, c.nothing(&e, add)
	}
	return true, c.carry(&e, items)
}

// adder takes what goes into the segments.
type adder func(key, value []byte, lsn base.LSN) error

// nothing notes that the items of an entry are not there.
func (c *carrier) nothing(e *indexEntry, add adder) error {
	if n := &c.none; n.count > 0 && n.end() == e.offset {
		n.count, n.lsn = n.count+e.count, max(n.lsn, e.lsn)
		return nil
	}
	err := c.settle(add)
	c.none = indexEntry{offset: e.offset, count: e.count, lsn: e.lsn}
	return err
}

// settle adds the entry of nothing that is due before any key behind it.
func (c *carrier) settle(add adder) error {
	n := c.none
	c.none = indexEntry{}
	if n.count == 0 {
		return nil
	}
	return add(batch.IndexKey(nil, c.key, n.offset), batch.EntryOfLost(n.count), n.lsn)
}

func (c *carrier) lose(e *indexEntry, by *hole) { c.lost.lose(c.seqs[e.id].name, e, by) }

// carry adds the items of an append to the record under way.
func (c *carrier) carry(e *indexEntry, value []byte) error {
	if c.b.Len() > 0 && (c.next != e.offset || c.b.Size()+len(value) > carrySize) {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if c.b.Len() == 0 {
		c.first = e.offset
	}
	for i := batch.ItemsOf(value); i.Next(); {
		if err := c.b.AppendItem(c.key, i.Item()); err != nil {
			return err
		}
	}
	c.next = e.end()
	c.v.out.Items += e.count
	return nil
}

// flush writes the record under way.
func (c *carrier) flush() error {
	if c.b.Len() == 0 {
		return nil
	}
	if err := c.v.ctx.Err(); err != nil {
		return err
	}
	if c.log == nil {
		var err error
		c.log, err = wal.Open(c.v.dst, &wal.Options{FS: vfs.StickyDirSync(c.v.cfg.FS), Catalog: c.cat, Rand: c.v.cfg.Rand,
			Proven: c.cat.state.Floor.LSN, NoSpares: true, NoZeros: true, MarkDelay: -1})
		if err != nil {
			return err
		}
	}
	rec := c.b.Bytes()
	batch.Place(rec, func([]byte, int) uint64 { return c.first })
	err := c.log.Commit(&wal.Request{Records: []wal.Record{{Data: rec, Keep: batch.AppendedBytes(rec)}}, Level: wal.Written})
	c.b.Reset()
	return err
}

// finish makes durable what was carried, and returns what the manifest is to say of it.
func (c *carrier) finish() (base.LogState, error) {
	c.lost.flush()
	if err := c.flush(); err != nil {
		return base.LogState{}, err
	}
	c.v.out.LastLSN = c.cat.state.Floor.LSN
	if l := c.log; l != nil {
		c.v.out.LastLSN = l.LastLSN()
		if err := l.Sync(c.v.ctx); err != nil {
			return base.LogState{}, err
		}
		c.log = nil
		if err := l.Close(); err != nil {
			return base.LogState{}, err
		}
	}
	return c.cat.LogState(), nil
}

// close gives back what is open, also when finish was not called.
func (c *carrier) close() {
	if c.log != nil {
		_ = c.log.Close() // all of it goes
	}
	if c.recs != nil {
		c.recs.close()
	}
}

// catalog is the catalog of a log that is put together: it lasts as long as the
// salvage, and nothing of it counts before the manifest says so.
type catalog struct {
	store [16]byte
	mu    sync.Mutex // guards state
	state base.LogState
}

// StoreID is for wal.Catalog.
func (c *catalog) StoreID() [16]byte { return c.store }

// LogState is for wal.Catalog.
func (c *catalog) LogState() base.LogState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Clone()
}

// EditLog is for wal.Catalog.
func (c *catalog) EditLog(e *base.LogEdit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Apply(e)
	return nil
}

// Err is for wal.Catalog.
func (c *catalog) Err() error { return nil }
