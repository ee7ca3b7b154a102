package cli

import (
	"fmt"
	"strconv"
	"time"
)

// Count writes a number with thousands apart.
func Count[T ~int | ~int64 | ~uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	neg := s[0] == '-'
	if neg {
		s = s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		return "-" + s
	}
	return s
}

// Bytes writes a size with a decimal unit.
func Bytes[T ~int | ~int64 | ~uint64](n T) string {
	f := float64(n)
	switch {
	case f < 1e3:
		return fmt.Sprintf("%.0f B", f)
	case f < 1e6:
		return fmt.Sprintf("%.1f kB", f/1e3)
	case f < 1e9:
		return fmt.Sprintf("%.1f MB", f/1e6)
	}
	return fmt.Sprintf("%.2f GB", f/1e9)
}

// Duration writes a time in three digits.
func Duration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// Rate returns n a second, 0 when there was no time.
func Rate[T ~int | ~int64 | ~uint64](n T, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// Plural writes a number of things.
func Plural[T ~int | ~int64 | ~uint64](n T, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return Count(n) + " " + thing
}
