package main

import (
	"fmt"
	"slices"
	"strings"
)

// exceptions are the switches that nothing need find, by file, function and text,
// with the reason in one line: what stands behind the check, or why no state that
// a hunt can make needs it. One that is caught all the same is no exception.
var exceptions = map[string]string{
	// Syncs.
	"wal/log.go Log.copyForward: return l.putMark(0, true)":                      "without it a crash loses nothing: the copies were synced before, and the next open makes them again; the records stand in both files, so that one damage takes neither",
	"backup.go DB.backup: if err := fsys.SyncDir(dir); err != nil {":             "manifest.Create syncs the same directory before the manifest says anything; this one does not rest on how it is written",
	"internal/editlog/editlog.go Writer.removeOld: return w.fsys.SyncDir(w.dir)": "an old file that is back is passed over, as the newer is complete; were that damaged, files that the old one does not know are corruption",

	// Checksums.
	"wal/frame/frame.go decodeHeader: if le.Uint64(b[48:]) != sum {": "the closing hash takes in the header as it is, and fails as well; in a search damage is then taken for a proof, which is an error, too",

	// Poisonings of the log for an error of the manifest or the table.
	"commit/commit.go Pipeline.fail: p.log.Poison(err)":                            "no batch that a caller can make is refused by the memtable",
	"compact.go DB.compactOne: db.log.Poison(err)":                                 "the manifest refuses by itself from then on: nothing is settled or let go, and what the log takes is safe; this tells writers at once",
	"settle.go DB.stuck: db.log.Poison(err)":                                       "as the others for an error of the manifest: whose edit failed poisons as well, a moment later",
	"settle.go DB.settleOne: db.log.Poison(merr)":                                  "the manifest refuses by itself from then on: nothing is settled or let go, and what the log takes is safe; this tells writers at once",
	"settle.go DB.settleOne: db.log.Poison(err)":                                   "StickyDirSync fails each later sync of the directory: nothing is listed that is not durable; this tells writers at once",
	"wal/log.go Log.Poison: func (l *Log) Poison(err error) { l.poisonWith(err) }": "as the calls of it, which are the four above",
	"internal/editlog/editlog.go Writer.Rotate: return w.poison(err)":              "who calls Rotate is an open, or a backup: it fails, and the writer is not used again",

	"internal/editlog/editlog.go Writer.Append: return w.poison(err)": "a rotation that failed is begun anew by the next edit, with another file: nothing is written behind what failed",

	"wal/files.go Log.dropSpare: l.poisonWith(err)": "a file is made next, and makeFile finds the catalog's error and poisons",

	// Orders.
	"compaction/output.go Output.open: a segment that is on disk already is not written over":                   "numbers that are on disk are passed over by the open (SkipSegments): the file is never there",
	"recovery/recovery.go Store.removeUnnamed: segment numbers that are on disk are not used again":             "the file is removed first; were it back after a crash, Create would find it and take the next number",
	"internal/editlog/editlog.go Writer.rotate: a snapshot is written only when the file has its name for good": "the directory is synced before the old file goes and before the first edit, and until then both files say the same",
	"internal/editlog/editlog.go Writer.rotate: salt changed at each use of a manifest file":                    "store and number are in every hash as well, and a number is used twice only when nothing was written under it",
	"view.go DB.closeSegments: a segment that the manifest names is not removed":                                "a segment leaves the last view only when it is gone, or when the store is shut, and then nothing is removed",
	"wal/files.go Log.makeFile: void files go only when what supersedes them is durable":                        "what is void holds nothing that counts",
	"wal/retain.go Log.discard: a file in which a reader stands is not used again":                              "the bytes of another use do not verify (salt), and the reader then finds that its file is gone",
	"wal/scan.go scan.searchVoid: a file of an earlier epoch proves nothing":                                    "a listed file of an earlier epoch proves only what is below its successor: a cut takes all others off the catalog",
	"wal/scan.go scan.frame: every frame's mark is a proof":                                                     "what is walked proves only what was walked; without it an open copies more than it must",
	"wal/tail.go Tail.take: a follower takes of a frame only what is durable":                                   "frames are written and synced whole, and one is read only when a record of it is durable; a cut lowers both numbers",
	"wal/log.go Log.dropVoid: an open takes void files off only when it has written what supersedes them":       "what is void holds nothing that counts; it saves an edit in opens that write nothing",

	// Bounds behind which another stands.
	"internal/batch/decode.go Decode: if len(rec) > base.MaxRecordSize {":                                       "frame.EachRecord refuses such a record before",
	"internal/batch/decode.go Decode: case reason != \"\":":                                                     "the next operation is at 0 then, and the record does not end there",
	"internal/batch/decode.go Decode: if reason != \"\" {":                                                      "where the count is none the offset is 0, and the record does not end there",
	"segment/compress.go decompress: if !h.HasFCS || h.FrameContentSize != uint64(rawLen) {":                    "DecodeAll stops at the capacity, and its length is compared",
	"segment/dels.go decodeDels: if len(payload) < delsFixed+minDel {":                                          "the footer's check of the part's length has refused it",
	"segment/dels.go decodeDels: case r.p < 0:":                                                                 "what did not fit has LSN 0, which the next case refuses",
	"segment/datablock.go blockIter.search: if h, ok = b.restartHead(r + 1); !ok {":                             "findRestart has decoded the restart point behind the one that it names",
	"segment/directory.go layOut: if len(payload) > directoryMax || !b.init(payload) {":                         "it refuses no bytes, and where the block stays bad that is asked behind its entries",
	"segment/directory.go layOut: if size > 2*len(payload)+directoryMore*n {":                                   "it refuses no bytes: it bounds memory, and a block without a directory is searched",
	"segment/index.go decodeIndex: if len(payload) < 4 {":                                                       "the footer's check of the part's length has refused it",
	"wal/frame/frame.go DecodeLink: if len(b) != LinkSize {":                                                    "the header's check has refused a link of another length, which is never packed; others may call it, too",
	"segment/format.go checkBlock: if n < 0 {":                                                                  "footer and index have compared each block's length with the least there may be",
	"segment/verify.go verifier.data: if reason := v.version(i, &b); reason != \"\" {":                          "what is refused is not counted, and so the properties are not those of the content",
	"segment/verify.go verifier.data: if !b.init(payload) {":                                                    "the block stays bad, and that is asked behind its versions",
	"wal/frame/frame.go Header.check: case h.First == 0 || h.First > base.MaxLSN-LSN(h.Count):":                 "the reader compares with the LSN that is due, and the scan with the link",
	"wal/frame/reader.go Reader.Next: if payload, err = c.decompress(r.raw, payload, int(h.Raw)); err != nil {": "a payload that is none does not hold the records that are counted",
	"wal/scan.go scan.open: if err != nil || link.Kept+1 != fr.First {":                                         "a link with another number leads to a record whose hash is not the link's",
	"wal/scan.go scan.judge: if l := s.proofIn; l != nil && s.rep.Reason == \"\" {":                             "it says it better: the error below it is of the same damage",
	"segment/format.go footer.checkDels: case f.delsLen > maxDels+trailerSize:":                                 "range deletes of more than 1 GiB are in a file of that size, which no hunt makes",
	"segment/format.go footer.check: if f.indexLen > maxIndex+trailerSize {":                                    "an index of more than 1 GiB is in a file of that size, which no hunt makes",
}

// fitExceptions checks that each exception still is of a site.
func fitExceptions(sites []site) error {
	var stray []string
	for name := range exceptions {
		if !slices.ContainsFunc(sites, func(s site) bool { return s.name() == name }) {
			stray = append(stray, name)
		}
	}
	if len(stray) > 0 {
		slices.Sort(stray)
		return fmt.Errorf("exceptions of what is not in the code any more:\n  %s", strings.Join(stray, "\n  "))
	}
	return nil
}
