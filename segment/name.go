package segment

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/forebaydb/forebay/internal/base"
)

// FileName returns the name of the file of segment n.
func FileName(n uint64) string { return fmt.Sprintf("%06d.seg", n) }

// ParseFileName returns the number in a segment's file name.
func ParseFileName(name string) (uint64, bool) {
	rest, ok := strings.CutSuffix(name, ".seg")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	return n, err == nil && n > 0 && n <= base.MaxFileNumber && FileName(n) == name
}
