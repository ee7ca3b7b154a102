package compaction

import (
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/manifest"
)

// MaxLevels bounds Options.Levels: levels have the numbers 0 to Levels-1.
const MaxLevels = manifest.MaxLevels

// Options shapes the levels. The zero value is the default; Pick and PlanRange
// read nothing else but the list of segments and what is running.
type Options struct {
	// Levels is how many there are, level 0 among them; default 7.
	Levels int
	// Ratio is how many times larger a level is than the one above; default 10.
	Ratio int
	// MemtableSize is about how large a level-0 segment is, in bytes; default
	// 64 MiB.
	MemtableSize int64
	// Trigger is how many level-0 segments make a compaction worth while;
	// default 4.
	Trigger int
	// MinSegment and MaxSegment bound the size that segments aim at, a 512th of
	// the whole, in bytes; defaults 16 MiB and 1 GiB.
	MinSegment, MaxSegment int64
	// MaxInput bounds, in bytes, what one compaction below level 0 reads, where it
	// has the choice; default 24 segments of the size aimed at.
	MaxInput int64
	// FewTombstones is how many tombstones a segment, or level 0, may hold
	// without being compacted for their sake; default 4096.
	FewTombstones uint64
	// FrontTombstones is how many tombstones level 0 may hold before it is
	// compacted for their sake, however few they are beside what lies below: a
	// scan may have to pass all of them before it finds its first key. Default
	// a million.
	FrontTombstones uint64

	// Keep says which readers there are: at each of Snapshots, which ascend, and
	// at Above and higher. It decides what range deletes hide whole segments and
	// when tombstones of the last level can go.
	Snapshots []base.LSN
	Above     base.LSN
	// RangeDeletes returns the range deletes of a segment that has some, nil
	// when they are not at hand: then no segment is dropped unread because of
	// them. It may be nil.
	RangeDeletes func(number uint64) *rangedel.Set
}

func (o Options) withDefaults() Options {
	def := func(p *int64, v int64) {
		if *p <= 0 {
			*p = v
		}
	}
	if o.Levels < 2 || o.Levels > MaxLevels {
		o.Levels = 7
	}
	if o.Ratio < 2 {
		o.Ratio = 10
	}
	if o.Trigger < 2 {
		o.Trigger = 4
	}
	if o.FewTombstones == 0 {
		o.FewTombstones = 4096
	}
	if o.FrontTombstones == 0 {
		o.FrontTombstones = 1 << 20
	}
	def(&o.MemtableSize, 64<<20)
	def(&o.MinSegment, 16<<20)
	def(&o.MaxSegment, 1<<30)
	return o
}

func (o *Options) last() int { return o.Levels - 1 }

// oldest returns the lowest LSN at which there is a reader.
func (o *Options) oldest() base.LSN {
	if len(o.Snapshots) > 0 {
		return min(o.Snapshots[0], o.Above)
	}
	return o.Above
}

// segmentSize is what a segment aims at when all together have total bytes.
func (o *Options) segmentSize(total int64) int64 {
	return min(max(total/512, o.MinSegment), o.MaxSegment)
}
