package wal

import (
	"sync/atomic"
	"time"
)

// counters are the figures of a log; they are read while it runs.
type counters struct {
	records, groups, writes, syncs, slowSyncs, bytes, zeroed, syncTime, archiveErrors atomic.Int64
}

// Stats are figures since Open.
type Stats struct {
	// Records and Groups committed; Writes and Syncs that it took.
	Records, Groups, Writes, Syncs int64
	// Bytes written as frames, and Zeroed ahead of small syncs.
	Bytes, Zeroed int64
	// SyncTime is the time spent in syncs.
	SyncTime time.Duration
	// SlowSyncs counts those that took Options.SlowSync or longer; one that still
	// runs is not among them.
	SlowSyncs int64
	// ArchiveErrors counts failed calls of the archive hook.
	ArchiveErrors int64
	// Files and FileBytes count the files of the history.
	Files     int
	FileBytes int64
	// Retained counts those of them that lie below the floor, and are held for
	// somebody.
	Retained int
	// SpareBytes is the size of the files beside those: made ahead, or kept to be
	// used again. MaxBytes bounds FileBytes and SpareBytes together, but
	// for what is held for keep-counts.
	SpareBytes int64
}

// Stats returns figures since Open.
func (l *Log) Stats() Stats {
	c := &l.stats
	s := Stats{Records: c.records.Load(), Groups: c.groups.Load(), Writes: c.writes.Load(), Syncs: c.syncs.Load(), Bytes: c.bytes.Load(),
		Zeroed: c.zeroed.Load(), SyncTime: time.Duration(c.syncTime.Load()), SlowSyncs: c.slowSyncs.Load(), ArchiveErrors: c.archiveErrors.Load()}
	l.mu.Lock()
	s.Records, s.Groups = s.Records+l.quicks, s.Groups+l.quicks
	l.mu.Unlock()
	l.histMu.Lock()
	defer l.histMu.Unlock()
	s.SpareBytes = l.unused.Load()
	for _, sp := range l.hist {
		s.Files++
		s.FileBytes += sp.size
		if !sp.live {
			s.Retained++
		}
	}
	return s
}
