package check

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/wal/frame"
)

// A file that could not be read, or was empty, kept one behind it from coming before the
// spare that it had overtaken: then the spare's records, the newest, did not count.
func TestOrderOfFilesBesideOneThatIsUnknown(t *testing.T) {
	file := func(number, epoch, behind uint64) *logFile {
		l := &logFile{number: number}
		l.head.Epoch = epoch
		l.link = &frame.Link{Kept: behind}
		return l
	}
	damaged := &logFile{number: 6, err: errors.New("no header")}
	empty := &logFile{number: 7}
	files := []*logFile{file(3, 1, 0), file(4, 1, 900), file(5, 2, 100), damaged, empty, file(8, 2, 50), file(9, 2, 150)}
	inOrder(files)
	var numbers []uint64
	for i, l := range files {
		require.Equal(t, i, l.order)
		numbers = append(numbers, l.number)
	}
	require.Equal(t, []uint64{3, 4, 8, 6, 7, 5, 9}, numbers)
}
