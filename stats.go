package forebay

import "github.com/forebaydb/forebay/wal"

// Stats are figures of an open store. Counters count since Open.
type Stats struct {
	// Log has the figures of the log.
	Log wal.Stats
	// LastLSN was the last assigned, VisibleLSN and DurableLSN are the marks of
	// reads and of durability.
	LastLSN, VisibleLSN, DurableLSN uint64
	// MemtableBytes and MemtableEntries of the active and the frozen memtables.
	MemtableBytes   int64
	MemtableEntries int
	Frozen          int
	// Segments is their number, SegmentBytes their size on disk.
	Segments     int
	SegmentBytes int64
	// Checkpoints settled since Open, and the bytes of the segments they made.
	Checkpoints, SettledBytes int64
	// CacheBytes in the block cache; CacheHits and CacheMisses of it.
	CacheBytes             int64
	CacheHits, CacheMisses uint64
}

// Stats returns figures of the store. It is cheap, and its parts are read one
// after the other.
func (db *DB) Stats() Stats {
	v := db.view.Load()
	s := Stats{
		Log: db.log.Stats(), LastLSN: db.log.LastLSN(), VisibleLSN: db.pipe.Visible(), DurableLSN: db.log.DurableLSN(),
		MemtableBytes: v.active.Bytes(), MemtableEntries: v.active.Len(), Frozen: len(v.frozen), Segments: len(v.segs),
		Checkpoints: db.checkpoints.Load(), SettledBytes: db.settledBytes.Load(),
	}
	for _, f := range v.frozen {
		s.MemtableBytes += f.table.Bytes()
		s.MemtableEntries += f.table.Len()
	}
	for _, r := range v.segs {
		s.SegmentBytes += int64(r.Size())
	}
	c := db.cache.Stats()
	s.CacheBytes, s.CacheHits, s.CacheMisses = c.Bytes, c.Hits, c.Misses
	return s
}
