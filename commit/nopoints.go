//go:build forebay_nopoints

package commit

const (
	looksAtPoints  = false
	looksAtRanges  = true
	looksAtOverlay = true
)
