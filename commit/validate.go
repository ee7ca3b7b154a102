//go:build !forebay_novalidate && !forebay_nopoints && !forebay_noranges && !forebay_nooverlay

package commit

// What the leader validates. It is all of it, but in tests of tests: with one of
// the build tags above a part is left out, and the serializability lab must
// notice. They are constants, so that a build without tags pays nothing for them.
const (
	looksAtPoints  = true // keys that were read
	looksAtRanges  = true // ranges that were read
	looksAtOverlay = true // commits in the lane that were read from, and then refused
)
