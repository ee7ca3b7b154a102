//go:build forebay_nooverlay

package commit

const (
	looksAtPoints  = true
	looksAtRanges  = true
	looksAtOverlay = false
)
