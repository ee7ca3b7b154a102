package forebay

import (
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/wal"
)

// counters are figures since Open.
type counters struct {
	user, checkpoints, settled atomic.Int64
	stalls, stallTime          atomic.Int64
	conflicts, turns, alone    atomic.Int64
	corruptions, slowSyncs     atomic.Int64
}

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
	// Segments is their number, SegmentBytes their size on disk, and SegmentMemory
	// what their indexes take of the memory.
	Segments                    int
	SegmentBytes, SegmentMemory int64
	// Levels has the segments of each level, level 0 first, up to the last that
	// has some.
	Levels []LevelStats
	// Checkpoints settled since Open, and the bytes of the segments they made.
	Checkpoints, SettledBytes int64
	// Compactions since Open, and the bytes of segments that they read and wrote;
	// Compacting is how many run now.
	Compactions, CompactionRead, CompactionWritten int64
	Compacting                                     int
	// UserBytes is the length of all batches committed since Open.
	UserBytes int64
	// CacheBytes is what the block cache holds now;
	// CacheHits and CacheMisses count its blocks.
	CacheBytes             int64
	CacheHits, CacheMisses uint64
	// WriteRate is how many bytes a second writers are slowed to, 0 when they are
	// not; Stalls and StallTime are how often and how long they have waited.
	WriteRate, Stalls int64
	StallTime         time.Duration
	// Snapshots is how many are open, OldestSnapshot the LSN of the oldest.
	Snapshots      int
	OldestSnapshot uint64
	// Conflicts of transactions, and how many took turns with others, and ran alone,
	// because of them.
	Conflicts, Turns, Alone int64
	// Corruptions met by calls; SlowSyncs of the log.
	Corruptions, SlowSyncs int64
}

// LevelStats are figures of one level.
type LevelStats struct {
	Segments int
	Bytes    int64
	// Versions in the segments, Tombstones among them; RangeDeletes beside them.
	Versions, Tombstones, RangeDeletes uint64
}

// WriteAmplification returns how many bytes were written to the disk for each byte
// that was committed since Open: log, checkpoints and compactions. It is 0 before
// the first commit.
func (s *Stats) WriteAmplification() float64 {
	if s.UserBytes == 0 {
		return 0
	}
	return float64(s.Log.Bytes+s.SettledBytes+s.CompactionWritten) / float64(s.UserBytes)
}

// SpaceAmplification returns how many bytes the segments have for each byte of the
// last level, which is about what they would have if nothing in them were
// overwritten or deleted. It is 0 without segments.
func (s *Stats) SpaceAmplification() float64 {
	if len(s.Levels) == 0 {
		return 0
	}
	return float64(s.SegmentBytes) / float64(max(s.Levels[len(s.Levels)-1].Bytes, 1))
}

// Stats returns figures of the store. It takes no lock that a commit holds for
// long, and its parts are read one after the other; it costs a few microseconds,
// and about 10 ns for each segment.
func (db *DB) Stats() Stats {
	c := &db.count
	s := Stats{
		LastLSN: db.LastLSN(), VisibleLSN: db.pipe.Visible(), DurableLSN: db.DurableLSN(),
		Checkpoints: c.checkpoints.Load(), SettledBytes: c.settled.Load(), UserBytes: c.user.Load(),
		Compactions: db.compact.count.Load(), CompactionRead: db.compact.read.Load(), CompactionWritten: db.compact.written.Load(),
		WriteRate: db.pacer.Rate(), Stalls: c.stalls.Load(), StallTime: time.Duration(c.stallTime.Load()),
		Conflicts: c.conflicts.Load(), Turns: c.turns.Load(), Alone: c.alone.Load(), Corruptions: c.corruptions.Load(), SlowSyncs: c.slowSyncs.Load(),
	}
	if !db.readOnly {
		s.Log = db.log.Stats()
	}
	s.Snapshots, s.OldestSnapshot = db.readers.oldest()
	db.compact.mu.Lock()
	s.Compacting = len(db.compact.running)
	db.compact.mu.Unlock()
	k := db.cache.Stats()
	s.CacheBytes, s.CacheHits, s.CacheMisses = k.Bytes, k.Hits, k.Misses
	s.tables(db.view.Load())
	return s
}

func (s *Stats) tables(v *view) {
	s.MemtableBytes, s.MemtableEntries, s.Frozen = v.active.Bytes(), v.active.Len(), len(v.frozen)
	for _, f := range v.frozen {
		s.MemtableBytes += f.table.Bytes()
		s.MemtableEntries += f.table.Len()
	}
	v.tables(func(t *table) {
		for len(s.Levels) <= t.meta.Level {
			s.Levels = append(s.Levels, LevelStats{})
		}
		l := &s.Levels[t.meta.Level]
		l.Segments++
		l.Bytes += int64(t.meta.Size)
		l.Versions += t.meta.Count
		l.Tombstones += t.meta.Tombstones
		l.RangeDeletes += t.meta.RangeDeletes
		s.Segments++
		s.SegmentBytes += int64(t.meta.Size)
		s.SegmentMemory += t.file.r.Memory()
	})
}
