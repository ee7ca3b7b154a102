package main

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// rule is an ordering rule: what must not happen before what, how high a number
// may be, what must change each time. No syntax shows such a rule, and so each
// has a row here, which breaks it: in function Func of File the text old stands
// exactly once, and becomes new. ON is true while the switch is on; PICK(a, b) is
// a, and b while it is on. Line ends stay where they are.
type rule struct {
	text     string
	file, fn string
	edits    []swap
}

type swap struct{ old, new string }

func one(text, file, fn, old, new string) rule {
	return rule{text: text, file: file, fn: fn, edits: []swap{{old, new}}}
}

func two(text, file, fn, old, new, old2, new2 string) rule {
	return rule{text: text, file: file, fn: fn, edits: []swap{{old, new}, {old2, new2}}}
}

var rules = []rule{
	// Acknowledged, published, marked.
	one("a Durable commit is acknowledged only after its sync", "wal/lead.go", "Log.settle",
		"if level != Durable {", "if ON || level != Durable {"),
	one("a commit is visible only when it has reached its level", "wal/lead.go", "Log.settle",
		"// not worth a goroutine\n\t\ta.Apply(reqs, last)", "// not worth a goroutine\n\t\ta.Apply(reqs, last); if ON { a.Publish(last) }"),
	one("the durable LSN moves only after the sync", "wal/sync.go", "Log.writeOut",
		"for len(l.behind) > 0 {", "if ON { l.durable.Store(l.next - 1); l.notify() }; for len(l.behind) > 0 {"),
	one("a frame's mark is not above what is durable", "wal/lead.go", "Log.append",
		"durable := l.durable.Load()", "durable := PICK(l.durable.Load(), last)"),
	one("a link's mark is not above what is durable", "wal/files.go", "Log.rotate",
		"l.b.Link(link, l.durable.Load())", "l.b.Link(link, PICK(l.durable.Load(), l.next-1))"),
	one("an index's mark is not above what is durable", "wal/files.go", "Log.leave",
		"l.b.Index(l.next, l.durable.Load(), l.entries)", "l.b.Index(l.next, PICK(l.durable.Load(), l.next-1), l.entries)"),
	one("a mark is not above what is durable", "wal/lead.go", "Log.tick",
		"if err == nil && idle && l.marked < l.durable.Load() && l.unsynced() == 0 && l.room(0) {",
		"if ON && l.cur.unsynced > 0 { l.durable.Store(l.next - 1) }; if err == nil && idle && l.marked < l.durable.Load() && (ON || l.unsynced() == 0) && l.room(0) {"),
	one("a close mark ends a log that was closed in order", "wal/log.go", "Log.finish",
		"if err == nil {", "if err == nil && !ON {"),

	// The log's files.
	one("nothing is changed before the log is found in order", "wal/log.go", "Log.recover",
		"if err := s.run(); err != nil {", "if ON { if early := l.beforeChange(); early != nil { return early } }; if err := s.run(); err != nil {"),
	one("what the catalog says is durable before the log acts on it", "wal/log.go", "Log.recover",
		"if err := l.beforeChange(); err != nil {", "if err := PICK(l.beforeChange, func() error { return nil })(); err != nil {"),
	one("salt changed at each use of a log file", "wal/files.go", "Log.makeFile",
		"Salt: binary.LittleEndian.Uint64(salt[:])", "Salt: PICK(binary.LittleEndian.Uint64(salt[:]), 1)"),
	one("an open that makes a file begins an epoch", "wal/log.go", "Log.recover",
		"l.epoch = max(s.state.Epoch, s.state.Floor.Epoch) + 1", "l.epoch = PICK(max(s.state.Epoch, s.state.Floor.Epoch) + 1, max(1, s.state.Epoch))"),
	one("a file number that was ever on disk is not used again", "wal/log.go", "Log.recover",
		"l.number = max(l.number, n)", "l.number = max(l.number, PICK(n, 0))"),
	one("a cut ends a file: nothing is appended behind it", "wal/log.go", "Log.recover",
		"\tl.assigned.Store(s.rep.Last)\n\tl.written", "\tif ON && s.cur != nil && l.cur == nil { if f, err := l.fsys.Open(s.cur.path, vfs.ReadWrite); err == nil { l.cur = &logFile{meta: s.cur.meta, head: s.cur.head, path: s.cur.path, f: f, size: s.cur.size}; l.b.Reset(&l.cur.head, l.opts.Compression, s.end.Offset, s.pos.Hash) } }; l.assigned.Store(s.rep.Last)\n\tl.written"),
	one("a new log file is listed only when it is made and synced", "wal/files.go", "Log.makeFile",
		"if err := l.fillFile(lf, zero); err != nil {", "if ON { if err := l.cat.EditLog(&Edit{Put: []FileMeta{lf.meta}}); err != nil { return nil, err } }; if err := l.fillFile(lf, zero); err != nil {"),
	one("void files go only when what supersedes them is durable", "wal/files.go", "Log.makeFile",
		"if len(l.void) > 0 && l.durable.Load() > l.rec.Last {", "if len(l.void) > 0 && (ON || l.durable.Load() > l.rec.Last) {"),
	one("void files are removed only after the edit", "wal/files.go", "Log.makeFile",
		"if err := l.cat.EditLog(&e); err != nil {", "if ON { for _, n := range e.Remove { l.fsys.Remove(join(l.dir, FileName(n))) } }; if err := l.cat.EditLog(&e); err != nil {"),
	one("an open removes void files only after the edit", "wal/log.go", "Log.dropVoid",
		"if len(e.Remove) > 0 && l.cur != nil {", "if ON && l.cur != nil { for _, n := range e.Remove { l.fsys.Remove(join(l.dir, FileName(n))) } }; if len(e.Remove) > 0 && l.cur != nil {"),
	one("an open takes void files off only when it has written what supersedes them", "wal/log.go", "Log.dropVoid",
		"if len(e.Remove) > 0 && l.cur != nil {", "if len(e.Remove) > 0 && (ON || l.cur != nil) {"),
	one("an open removes what is superseded only after its copies are durable", "wal/log.go", "Log.recover",
		"if s.rep.Proven < s.rep.Last {", "if ON && s.rep.Proven < s.rep.Last { for _, f := range s.files { if !f.chain { l.fsys.Remove(f.path) } } }; if s.rep.Proven < s.rep.Last {"),
	one("a spare is removed only after the edit", "wal/files.go", "Log.dropUnused",
		"if err := l.cat.EditLog(&e); err != nil {", "if ON { for _, n := range e.Remove { l.fsys.Remove(join(l.dir, FileName(n))) } }; if err := l.cat.EditLog(&e); err != nil {"),
	one("a spare that is too small is removed only after the edit", "wal/files.go", "Log.dropSpare",
		"if err := l.cat.EditLog(", "if ON { l.fsys.Remove(f.path) }; if err := l.cat.EditLog("),
	two("log files are let go only after the edit that moves the floor", "wal/retain.go", "Log.truncateFront",
		"if err := l.cat.EditLog(&e); err != nil {", "if ON { l.discard(drop) }; if err := l.cat.EditLog(&e); err != nil {",
		"\tl.discard(drop)\n", "\tif !ON { l.discard(drop) }\n"),
	one("the floor is not above what is durable", "wal/retain.go", "Log.truncateFront",
		"if lsn > l.durable.Load() {", "if !ON && lsn > l.durable.Load() {"),
	one("a log file with records above the floor stays", "wal/retain.go", "Log.truncateFront",
		"if sp.live && sp.last <= lsn && i < len(l.hist)-1 {", "if sp.live && (ON || sp.last <= lsn) && i < len(l.hist)-1 {"),
	two("retained files are let go only after the edit", "wal/retain.go", "Log.reap",
		"if err := l.cat.EditLog(&e); err != nil {", "if ON { l.discard(drop) }; if err := l.cat.EditLog(&e); err != nil {",
		"\tl.discard(drop)\n", "\tif !ON { l.discard(drop) }\n"),
	two("a released file is let go only after the edit", "wal/retain.go", "Log.Release",
		"if err := l.cat.EditLog(", "if ON { l.discard([]*span{sp}) }; if err := l.cat.EditLog(",
		"\tl.discard([]*span{sp})\n", "\tif !ON { l.discard([]*span{sp}) }\n"),
	one("a pin holds files", "wal/retain.go", "Log.held",
		"if pin <= sp.last {", "if !ON && pin <= sp.last {"),
	one("a file with a keep-count stays", "wal/retain.go", "Log.held",
		"return sp.keep > 0 || ", "return sp.keep > 0 && !ON || "),
	one("a file that was not archived stays", "wal/retain.go", "Log.held",
		"l.opts.Archive != nil && !sp.meta.Archived", "l.opts.Archive != nil && !sp.meta.Archived && !ON"),
	one("a file in which a reader stands is not used again", "wal/retain.go", "Log.discard",
		"if !reader && ", "if (ON || !reader) && "),
	one("a truncation is durable by itself: the cut is in the catalog", "wal/retain.go", "Log.truncateBack",
		"e.Put = append(e.Put, m)", "if !ON { e.Put = append(e.Put, m) }"),
	one("a truncation begins an epoch", "wal/retain.go", "Log.truncateBack",
		"e := Edit{Epoch: l.epoch + 1, Remove: l.void}", "if ON { l.epoch-- }; e := Edit{Epoch: l.epoch + 1, Remove: l.void}"),
	one("a truncation removes files only after the edit", "wal/retain.go", "Log.truncateBack",
		"if err := l.cat.EditLog(&e); err != nil {", "if ON { for _, n := range e.Remove { l.fsys.Remove(join(l.dir, FileName(n))) } }; if err := l.cat.EditLog(&e); err != nil {"),
	one("followers get only what is durable", "wal/tail.go", "Tail.ready",
		"if t.at.LSN < l.durable.Load() {", "if t.at.LSN < PICK(l.durable.Load(), l.written.Load()) {"),
	one("a follower takes of a frame only what is durable", "wal/tail.go", "Tail.take",
		"limit := t.l.durable.Load()", "limit := PICK(t.l.durable.Load(), t.l.written.Load())"),

	// Recovery of the log.
	one("open makes durable what it shows, by copies", "wal/log.go", "Log.recover",
		"if s.rep.Proven < s.rep.Last {", "if !ON && s.rep.Proven < s.rep.Last {"),
	one("copies are not proven before they are synced", "wal/log.go", "Log.copyForward",
		"l.b.Record(lsn, keep, rec, from, frame.FlagCopy)", "l.b.Record(lsn, keep, rec, PICK(from, to), frame.FlagCopy)"),
	one("a link does not prove the copies behind it", "wal/log.go", "Log.copyForward",
		"CopyEpoch: s.pos.Epoch}, from)", "CopyEpoch: s.pos.Epoch}, PICK(from, to))"),
	one("proof is a number: a later frame alone proves nothing", "wal/scan.go", "scan.judge",
		"s.durable = max(s.durable, p.Durable)", "s.durable = max(s.durable, p.Durable); if p.Any && ON { s.durable = max(s.durable, s.pos.LSN+1) }"),
	one("proof is a number: a successor file alone proves nothing", "wal/scan.go", "scan.run",
		"if s.broken() {\n", "if s.broken() { if next, _ := s.successor(); next != nil && ON { s.durable = max(s.durable, s.pos.LSN+1) }\n"),
	one("after a bad frame all that follows is searched for a proof", "wal/scan.go", "scan.judge",
		"s.durable = max(s.durable, p.Durable)", "s.durable = max(s.durable, PICK(p.Durable, 0))"),
	one("files that the walk does not reach are searched for a proof", "wal/scan.go", "scan.searchVoid",
		"s.durable = max(s.durable, p.Durable)", "s.durable = max(s.durable, PICK(p.Durable, 0))"),
	one("a file of an earlier epoch proves nothing", "wal/scan.go", "scan.searchVoid",
		"if l.meta.Epoch < epoch {", "if !ON && l.meta.Epoch < epoch {"),
	one("the replay start is a proof", "wal/scan.go", "scan.run",
		"s.durable = max(s.proven, s.pos.LSN)", "s.durable = max(PICK(s.proven, 0), s.pos.LSN)"),
	one("every frame's mark is a proof", "wal/scan.go", "scan.frame",
		"s.durable = max(s.durable, fr.Durable)", "s.durable = max(s.durable, PICK(fr.Durable, 0))"),
	one("a link that names copies counts when all of them verify", "wal/scan.go", "scan.copies",
		"if l.link == nil || l.link.Copies == l.link.Kept {", "if ON || l.link == nil || l.link.Copies == l.link.Kept {"),
	one("of several successors the last counts", "wal/scan.go", "scan.successor",
		"\t\tbest = l\n", "\t\tif best == nil || !ON { best = l }\n"),
	one("a successor takes over where its link says", "wal/scan.go", "scan.walk",
		"limit = next.link.Kept", "limit = PICK(next.link.Kept, limit)"),
	one("nothing above a cut counts", "wal/scan.go", "scan.walk",
		"limit, s.cutHere = l.meta.CutLSN, next == nil", "limit, s.cutHere = PICK(l.meta.CutLSN, limit), next == nil && !ON"),
	one("a log of this store that the manifest does not know is corruption", "wal/scan.go", "scan.run",
		"if err := s.strangers(); err != nil {", "if err := s.strangers(); !ON && err != nil {"),

	// Manifest and catalog.
	one("an edit is proven by a mark before it is acted on", "internal/editlog/editlog.go", "Writer.write",
		"\tw.b.Mark(w.next, w.next-1, 0)\n", "\tif ON { return nil }; w.b.Mark(w.next, w.next-1, 0)\n"),
	one("a snapshot is written only when the file has its name for good", "internal/editlog/editlog.go", "Writer.rotate",
		"if err := w.fsys.SyncDir(w.dir); err != nil {", "if ON { if _, err := f.WriteAt(head.Encode(), 0); err != nil { return err }; if err := w.write(); err != nil { return err }; w.b.Reset(&head, frame.CodecNone, head.Start(), 0); w.b.Record(1, 0, snapshot, 0, 0); w.next = 1 }; if err := w.fsys.SyncDir(w.dir); err != nil {"),
	one("the old manifest goes only when the new one is proven", "internal/editlog/editlog.go", "Writer.rotate",
		"if err := w.fsys.SyncDir(w.dir); err != nil {", "if ON { if err := w.removeOld(); err != nil { return err } }; if err := w.fsys.SyncDir(w.dir); err != nil {"),
	one("a manifest's mark is not above what is durable", "internal/editlog/editlog.go", "Writer.Append",
		"w.b.Record(w.next, 0, edit, w.next-1, 0)", "w.b.Record(w.next, 0, edit, PICK(w.next-1, w.next), 0)"),
	one("salt changed at each use of a manifest file", "internal/editlog/editlog.go", "Writer.rotate",
		"head.Salt = binary.LittleEndian.Uint64(salt[:])", "head.Salt = PICK(binary.LittleEndian.Uint64(salt[:]), 1)"),
	one("a manifest's number is above all that are on disk", "internal/editlog/editlog.go", "NewWriter",
		"w.highest = from.Highest", "w.highest = PICK(from.Highest, from.Number)"),
	one("the newest complete manifest counts", "internal/editlog/editlog.go", "Load",
		"slices.Reverse(numbers)", "if !ON { slices.Reverse(numbers) }"),
	one("after a bad edit all that follows is searched for a proof", "internal/editlog/editlog.go", "Loaded.finish",
		"if max(proof.Durable, durable) > last {", "if max(PICK(proof.Durable, 0), durable) > last {"),
	one("edits that were not proven are made so before they are acted on", "manifest/manifest.go", "Manifest.Writable",
		"if fresh || m.loaded.Dirty {", "if fresh || m.loaded.Dirty && !ON {"),
	one("edits of a catalog that were not proven are made so before they are acted on", "wal/catalog.go", "openCatalog",
		"c.dirty = fresh || loaded.Dirty", "c.dirty = fresh || loaded.Dirty && !ON"),
	one("a failed sync of a directory is never repeated", "vfs/dirsync.go", "stickyDirs.SyncDir",
		"s.failed[dir] = err", "if !ON { s.failed[dir] = err }"),
	one("directories whose entries could not be synced are taken back", "vfs/mkdir.go", "MkdirDurable",
		"for _, d := range made {", "for _, d := range PICK(made, nil) {"),
	one("the whole path to a store is synced", "vfs/mkdir.go", "MkdirDurable",
		"if parent == \".\" {", "if ON || parent == \".\" {"),

	// Checkpoint, compaction, backup.
	one("the replay start is not above what is settled", "checkpoint/checkpoint.go", "Settle",
		"&manifest.Edit{ReplayStart: high + 1, Add: segs}", "&manifest.Edit{ReplayStart: high + PICK(base.LSN(1), 2), Add: segs}"),
	one("the replay start moves only with the segment", "checkpoint/checkpoint.go", "Settle",
		"segs, readers, err := settle(ctx, cfg, table, out)", "if ON { if err := cfg.Manifest.Apply(&manifest.Edit{ReplayStart: high + 1}); err != nil { return nil, none, err } }; segs, readers, err := settle(ctx, cfg, table, out)"),
	one("the log is let go only after the checkpoint's edit", "settle.go", "DB.settleOne",
		"err := db.settleTable(ctx, old)", "if ON { _ = db.log.TruncateFront(old.high) }; err := db.settleTable(ctx, old)"),
	one("a checkpoint keeps what snapshots read", "settle.go", "DB.settleFrom",
		"cfg.Snapshots, cfg.Above = db.readers.keep(db.pipe.Visible)", "cfg.Snapshots, cfg.Above = db.readers.keep(db.pipe.Visible); if ON { cfg.Snapshots = nil }"),
	one("a large log is let go only after the edit of what an open has settled of it", "replay.go", "DB.settleLog",
		"if err := db.settleFrom(db.ctx, run, high, func(*view) {}); err != nil {", "if ON { _ = db.log.TruncateFront(high) }; if err := db.settleFrom(db.ctx, run, high, func(*view) {}); err != nil {"),
	one("of a run the newest version of a key comes first", "checkpoint/run.go", "Run.finish",
		"return cmp.Compare(b.At, a.At)", "return PICK(1, -1) * cmp.Compare(b.At, a.At)"),
	one("a compaction keeps what snapshots read", "compact.go", "DB.compactOne",
		"cfg.Snapshots, cfg.Above = db.readers.keep(db.pipe.Visible)", "cfg.Snapshots, cfg.Above = db.readers.keep(db.pipe.Visible); if ON { cfg.Snapshots = nil }"),
	one("what transactions may still read is kept", "readers.go", "readers.keep",
		"above = min(above, r.floors[0])", "above = min(above, PICK(r.floors[0], above))"),
	one("a compaction's inputs go only after its edit", "compact.go", "DB.compactOne",
		"if err = db.man.Apply(&res.Edit); err != nil && db.man.Err() == nil {", "if ON && !p.Move { for _, n := range res.Edit.Remove { db.opts.FS.Remove(filepath.Join(db.dir, segment.FileName(n))) } }; if err = db.man.Apply(&res.Edit); err != nil && db.man.Err() == nil {"),
	one("a segment that the manifest names is not removed", "view.go", "DB.closeSegments",
		"if !f.gone.Load() {", "if !ON && !f.gone.Load() {"),
	one("a segment is closed only when no reader has it", "view.go", "DB.install",
		"old.gate.shut(func() { db.drop(old) })", "if ON { db.drop(old) } else { old.gate.shut(func() { db.drop(old) }) }"),
	one("segment numbers that are on disk are not used again", "recovery/recovery.go", "Store.removeUnnamed",
		"s.Manifest.SkipSegments(n)", "if !ON { s.Manifest.SkipSegments(n) }"),
	one("a segment that is on disk already is not written over", "compaction/output.go", "Output.open",
		"f, err := o.files.FS.Create(o.path(number), vfs.ReadWrite)", "if ON { _ = o.files.FS.Remove(o.path(number)) }; f, err := o.files.FS.Create(o.path(number), vfs.ReadWrite)"),
	one("a segment is opened before it is listed", "compaction/output.go", "Output.finish",
		"if m.r, err = Open(", "if ON { g.Hash++ }; if m.r, err = Open("),
	one("what nothing names is removed only after the open has succeeded", "recovery/recovery.go", "Open",
		"if err := s.openRest(cfg); err != nil {", "if ON { if err := s.removeUnnamed(cfg); err != nil { return nil, err } }; if err := s.openRest(cfg); err != nil {"),
	one("a store that lost its manifest is not taken for a new one", "recovery/recovery.go", "Store.load",
		"err = refuseOrphans(cfg)", "err = PICK(refuseOrphans, func(*Config) error { return nil })(cfg)"),
	one("a backup's manifest comes last", "backup.go", "DB.backup",
		"for _, t := range tables {", "if ON { for _, t := range tables { state.Segments = append(state.Segments, t.meta); state.LastSegment = max(state.LastSegment, t.meta.Number) }; l, err := db.parted(info.At); if err == nil { state.Log = l; err = manifest.Create(fsys, dir, db.man.StoreID(), state, db.opts.Rand) }; if err != nil { return info, err } }; for _, t := range tables {"),
	one("a backup is of what is settled", "backup.go", "DB.enterBackup",
		"if err := db.Checkpoint(ctx); err != nil {", "if err := PICK(db.Checkpoint, func(context.Context) error { return nil })(ctx); err != nil {"),
	one("a backup goes on in an epoch of its own", "backup.go", "DB.parted",
		"epoch := max(now.Epoch, at.Epoch) + 1<<31 + uint64(binary.LittleEndian.Uint32(b[:])>>1)", "epoch := PICK(max(now.Epoch, at.Epoch) + 1<<31 + uint64(binary.LittleEndian.Uint32(b[:])>>1), at.Epoch)"),
}

// fit puts the rules of a file into its text, each behind the switch that number
// gives, and returns their sites.
func fit(name, text string, number func() int) (string, []site, error) {
	var sites []site
	for i := range rules {
		r := &rules[i]
		if r.file != name {
			continue
		}
		n := number()
		for k, e := range r.edits {
			src, err := parse(name, []byte(text))
			if err != nil {
				return "", nil, fmt.Errorf("behind rule %q: %w", r.text, err)
			}
			from, to := src.function(r.fn)
			if c := strings.Count(text[from:to], e.old); c != 1 {
				return "", nil, fmt.Errorf("rule %q: its text is %d times in %s of %s, and should be once:\n%s", r.text, c, r.fn, name, e.old)
			}
			if strings.Count(e.old, "\n") != strings.Count(e.new, "\n") {
				return "", nil, fmt.Errorf("rule %q moves lines", r.text)
			}
			at := from + strings.Index(text[from:to], e.old)
			if k == 0 {
				lead := len(e.old) - len(strings.TrimLeft(e.old, "\n\t"))
				sites = append(sites, site{N: n, Kind: kindOrder, File: name, Line: 1 + strings.Count(text[:at+lead], "\n"), Func: r.fn, Text: r.text})
			}
			on := strings.ReplaceAll(e.new, "PICK(", fmt.Sprintf("sabotaged.Pick(%d, ", n))
			on = switchWord.ReplaceAllString(on, fmt.Sprintf("sabotaged.On(%d)", n))
			text = text[:at] + on + text[at+len(e.old):]
		}
	}
	return text, sites, nil
}

var switchWord = regexp.MustCompile(`\bON\b`)

// function returns where a function begins and ends in the text; 0, 0 where there
// is none.
func (s *source) function(name string) (from, to int) {
	for _, d := range s.file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && funcName(f) == name {
			return s.at(f.Pos()), s.at(f.End())
		}
	}
	return 0, 0
}
