package machine

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNotADisk(t *testing.T) {
	for _, fs := range []string{"tmpfs", "ramfs", "overlay"} {
		m := Info{CPU: "a", FileSystem: fs, NotADisk: notADisk(fs)}
		var b strings.Builder
		require.NoError(t, m.Write(&b))
		require.Contains(t, b.String(), "NOT A DISK", fs)
	}
	for _, fs := range []string{"ext4", "xfs", "btrfs", "zfs", ""} {
		require.Empty(t, notADisk(fs), fs)
	}
}
