//go:build forebay_noranges

package commit

const (
	looksAtPoints  = true
	looksAtRanges  = false
	looksAtOverlay = true
)
