package check

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/segment"
)

// Loss is one damaged place of a store, and what a reader may miss because of it.
type Loss struct {
	// File is where; Offset and Length say which bytes, Offset -1 that it is the
	// whole file.
	File           string
	Offset, Length int64
	// What was there: "data", "index", "filter", "properties", "footer", "range
	// deletes" or "unknown" of a segment; "segment"; "log"; "record"; "manifest";
	// "items" of a sequence.
	What   string
	Reason string
	Err    error
	// Lo and Hi bound the keys that it may have held, both inclusive; nil is no
	// bound.
	Lo, Hi []byte
	// FirstLSN and LastLSN are the commits that it held, or was made of; 0: not
	// known, or none.
	FirstLSN, LastLSN base.LSN
	// Harmless says that the new store lacks nothing because of it, or nothing that
	// an open after a crash would not drop.
	Harmless bool
	// Effect says in words what a reader of the new store may see.
	Effect string
}

// String returns the loss in one line.
func (l Loss) String() string {
	s := l.File
	if l.Offset >= 0 {
		s += fmt.Sprintf(" at offset %d", l.Offset)
	}
	if l.Length > 0 {
		s += fmt.Sprintf(", %d bytes", l.Length)
	}
	s += ": " + l.What + ": " + l.Reason
	if l.Err != nil {
		s += ": " + l.Err.Error()
	}
	if l.Lo != nil || l.Hi != nil {
		s += fmt.Sprintf("; keys %s to %s", bound(l.Lo, "the first"), bound(l.Hi, "the last"))
	}
	if l.LastLSN > 0 {
		s += fmt.Sprintf("; commits %d to %d", l.FirstLSN, l.LastLSN)
	}
	return s + "; " + l.Effect
}

func bound(key []byte, none string) string {
	if key == nil {
		return none
	}
	return fmt.Sprintf("%q", brief(key))
}

// What a reader of the new store may see.
const (
	effectNone        = "nothing is lost: it was needed for speed alone"
	effectHealed      = "nothing is lost: the log still had these commits"
	effectPuts        = "keys in this range may be missing or show older values"
	effectData        = "keys in this range may be missing or show older values, and keys that were deleted may be back"
	effectDels        = "keys in this range that a range delete had removed may be back"
	effectLog         = "these commits are gone: what they wrote is missing or shows older values, and what they deleted is back"
	effectUnproven    = "nothing proves that it was ever durable: after a crash an open cuts the log there"
	effectUnknown     = "commits behind the last one that was found may be gone; how many, nothing tells"
	effectSettled     = "these commits were settled into segments, or they are gone"
	effectVoid        = "nothing is lost: no commit that counts was there"
	effectOther       = "what it holds was used, but what the listed one held may be missing"
	effectUnlisted    = "it was used, since a listed one is not there: if a compaction had replaced it, keys of it that were deleted are back"
	effectBelow       = "no commit that counts was there but for items of sequences, and of these each that is lost is told"
	effectItems       = "these items are gone, and nothing else has their offsets"
	effectName        = "its items are there, and the name is another one"
	effectHealedItems = "nothing is lost, but items that were trimmed may be back"
	effectManifest    = "what was found was merged by LSN: if a segment that a compaction had replaced was still there, keys that were deleted may be back"
)

// tell makes the list of losses. The commits of the log have been applied by now.
func (v *salvager) tell() {
	records := v.out.Losses // of applied stretches
	v.out.Losses = nil
	if v.man == nil {
		p := problemOf(cmp.Or(v.manFile, v.cfg.Dir), v.manErr)
		if v.manFile == "" {
			p.File, p.Reason, p.Err = v.cfg.Dir, "there is no manifest", nil
		}
		v.out.Losses = append(v.out.Losses, Loss{File: cmp.Or(p.File, v.manFile), Offset: p.Offset, What: "manifest", Reason: p.Reason, Err: p.Err, Effect: effectManifest})
	}
	for _, g := range v.segs {
		if slices.Contains(v.out.Unlisted, g.path) {
			v.lose(Loss{File: g.path, Offset: -1, What: "segment", Reason: "segment that nobody lists", Lo: g.lo, Hi: g.hi, Effect: effectUnlisted})
		}
		if g.err != nil {
			v.tellSegment(g)
		}
	}
	v.tellLog()
	v.out.Losses = append(v.out.Losses, records...)
	v.ignoredLogs()
}

func (v *salvager) lose(l Loss) { v.out.Losses = append(v.out.Losses, l) }

// tellSegment tells what is lost of a damaged segment.
func (v *salvager) tellSegment(g *segFile) {
	p := problemOf(g.path, g.err)
	first, last := g.known()
	whole := Loss{File: g.path, Offset: -1, What: "segment", Reason: p.Reason, Err: p.Err, FirstLSN: first, LastLSN: last, Effect: effectData}
	healed := last > 0 && v.last > 0 && v.first <= first && last <= v.last
	if g.listed != nil {
		whole.Lo, whole.Hi = g.listed.Lo, g.listed.Hi
		if g.listed.Tombstones+g.listed.RangeDeletes == 0 {
			whole.Effect = effectPuts
		}
	}
	switch {
	case healed:
		whole.Harmless, whole.Effect = true, effectHealed
	case g.remains != nil && len(g.remains.Lost) == 0:
		whole.Effect = effectOther
	}
	if g.remains == nil || len(g.remains.Lost) == 0 {
		whole.Length = v.sizes[g.path]
		v.lose(whole)
		return
	}
	for i := range g.remains.Lost {
		v.lose(g.tellPart(&g.remains.Lost[i], whole))
	}
}

// tellPart tells of a part of a segment that is as a whole lost like whole.
func (g *segFile) tellPart(p *segment.Part, whole Loss) Loss {
	l := whole
	l.Offset, l.Length, l.What, l.Reason, l.Err = p.Offset, p.Length, p.What, p.Reason, p.Err
	switch p.What {
	case "data", "unknown":
		if p.Lo != nil && (l.Lo == nil || bytes.Compare(l.Lo, p.Lo) < 0) {
			l.Lo = p.Lo
		}
		if p.Hi != nil && (l.Hi == nil || bytes.Compare(l.Hi, p.Hi) > 0) {
			l.Hi = p.Hi
		}
		if p.What == "unknown" && g.listed == nil && !l.Harmless {
			// Range deletes may have been there, and they reach over all keys.
			l.Lo, l.Hi = nil, nil
		}
	case "range deletes":
		if !l.Harmless {
			l.Effect = effectDels
		}
		if g.listed != nil && g.listed.RangeDeletes == 0 {
			l = l.harmless(effectNone)
		}
	default:
		l = l.harmless(effectNone)
	}
	return l
}

// harmless makes it a loss by which nothing is lost.
func (l Loss) harmless(effect string) Loss {
	l.Harmless, l.Effect, l.Lo, l.Hi, l.FirstLSN, l.LastLSN = true, effect, nil, nil, 0, 0
	return l
}

// tellLog tells of the damaged places of the log, and of commits that are gone.
func (v *salvager) tellLog() {
	for _, d := range v.hist.explain(v.hist.gaps(v.from), v.cfg.LogDir) {
		if d.file.foreign && d.file.listed == nil {
			continue
		}
		l := Loss{File: d.file.path, Offset: d.offset, Length: d.length, What: "log", Reason: d.reason, Err: d.err, FirstLSN: d.first, LastLSN: d.last, Effect: effectLog}
		switch {
		case d.last == 0 && d.file.err != nil && v.hist.isEnd(&d):
			l.Effect = effectUnknown
		case d.last == 0 && !d.void && v.hist.isEnd(&d):
			l = l.harmless(effectUnproven)
		case d.last == 0 && !d.void && (v.man == nil || d.file.listed != nil && d.file.listed.Retained):
			l = l.harmless(effectBelow)
		case d.last == 0:
			l = l.harmless(effectVoid)
		case d.first > v.hist.durable:
			l.Effect, l.Harmless = effectUnproven, !v.beyond
		case !v.exact && v.last > 0 && d.last < v.first:
			l.Effect = effectSettled
		}
		v.lose(l)
	}
	if v.out.Skipped == 0 {
		return
	}
	for _, st := range v.hist.stretches {
		first := max(st.first, v.from, v.last+1)
		if st.last < first {
			continue
		}
		l := Loss{File: st.pieces[0].file.path, Offset: st.pieces[0].off, What: "log", FirstLSN: first, LastLSN: st.last,
			Reason: "intact commits behind a hole were left out", Effect: effectLog}
		if first > v.hist.durable {
			l.Effect, l.Harmless = effectUnproven, true
		}
		v.lose(l)
	}
}
