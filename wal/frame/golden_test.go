package frame

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

// story is what a reader finds in a file, one line a frame and a record.
func story(t *testing.T, b []byte) string {
	t.Helper()
	h, err := DecodeFileHeader(b)
	require.NoError(t, err)
	var s strings.Builder
	fmt.Fprintf(&s, "%s file %d of store %q, salt %#x, epoch %d, align %d, compat %#x\n", h.Kind, h.Number, bytes.TrimRight(h.Store[:], "\x00"), h.Salt, h.Epoch, h.Align, h.Compat)
	frames, end := read(t, h, b)
	for _, f := range frames {
		fmt.Fprintf(&s, "%6d %s", f.offset, f.Kind)
		if c := f.Flags.Codec(); c != CodecNone {
			fmt.Fprintf(&s, " %s", c)
		}
		for _, x := range []struct {
			f    Flags
			word string
		}{{FlagCopy, "copy"}, {FlagGroupEnd, "group-end"}, {FlagClose, "close"}} {
			if f.Flags&x.f != 0 {
				fmt.Fprintf(&s, " %s", x.word)
			}
		}
		fmt.Fprintf(&s, ", first %d, durable %d", f.First, f.Durable)
		switch f.Kind {
		case KindLink:
			l, err := DecodeLink([]byte(f.payload))
			require.NoError(t, err)
			fmt.Fprintf(&s, ": %+v", l)
		case KindIndex:
			e, err := DecodeIndex([]byte(f.payload))
			require.NoError(t, err)
			fmt.Fprintf(&s, ": %+v", e)
		}
		s.WriteByte('\n')
		for _, r := range f.records {
			fmt.Fprintf(&s, "       %d keep %d: %q\n", r.lsn, r.keep, r.data)
		}
	}
	fmt.Fprintf(&s, "%6d end %s\n", end.Offset, end.Reason)
	return s.String()
}

// TestGolden reads files that were written when the format was fixed. They must
// read the same for ever; -update is for a new format version alone. That the
// builder still makes the same bytes is asked where no compressor's choices are
// among them.
func TestGolden(t *testing.T) {
	variants(t, func(t *testing.T, align int64, codec Codec) {
		name := filepath.Join("testdata", fmt.Sprintf("v1-align%d-%s", align, codec))
		made := smallImage(align, codec).bytes
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o700))
			require.NoError(t, os.WriteFile(name+".log", made, 0o600))
			require.NoError(t, os.WriteFile(name+".txt", []byte(story(t, made)), 0o600))
		}
		b, err := os.ReadFile(name + ".log")
		require.NoError(t, err)
		want, err := os.ReadFile(name + ".txt")
		require.NoError(t, err)
		require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), story(t, b))
		if codec == CodecNone {
			require.True(t, bytes.Equal(b, made), "the builder makes other bytes than it did")
		}
	})
}
