// Package compaction merges segments: which ones, how, and how fast.
//
// # Which
//
// Pick is a pure function of the list of live segments. Level 0 holds what
// checkpoints made, newest first, and its segments may overlap; those of every
// other level do not. The last level holds nearly everything, and each level
// above it a tenth of the one below. Level 0 is merged into the base level, the
// lowest that is not more than six times as large as what level 0 brings at a
// time; a small store has no other level than the last. (A level in between costs
// about 1 + 10/2 writes of everything. With six times as much a direct merge
// costs no more.) It waits there until it brings as much as what it is merged
// with, or has 24 segments, or 16 memtables' worth. So what is overwritten or
// deleted takes about a fifth of the space at most; in a store of less than 24
// memtables' worth, which has only one level below level 0, up to half of it.
//
// Before anything is merged, what costs nothing is done: segments that a range
// delete hides as a whole are dropped unread, and segments of level 0 that
// overlap nothing move to the base level as they are. Tombstones are brought
// down early where they are many beside what they may hide.
//
// # How
//
// Run merges the inputs of a plan into new segments (Output), each ending
// between two user keys, with range deletes cut to it. An input of the output
// level into which nothing is merged stays: a queue's head and tail are
// compacted without what lies between. Run applies nothing: the caller puts the
// edit into the manifest, and only then removes inputs.
//
// # How fast
//
// A Pacer slows writers smoothly when compactions cannot follow, by the rate at
// which they do, and lets compactions rest when little waits for them.
package compaction
