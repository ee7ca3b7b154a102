//go:build forebay_novalidate

package commit

const (
	looksAtPoints  = false
	looksAtRanges  = false
	looksAtOverlay = false
)
