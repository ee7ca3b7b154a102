package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const mountinfo = `26 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
28 26 0:26 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=1k
30 26 8:1 / /data rw,noatime shared:1 - xfs /dev/sda1 rw,attr2
31 30 0:50 / /data rw - overlay overlay rw,lowerdir=/a
32 26 8:2 / /with\040space rw - btrfs /dev/sdb rw
`

func TestFindMount(t *testing.T) {
	for _, c := range []struct {
		path string
		want mount
	}{
		{"/home/x", mount{"254:0", "/", "rw,relatime,discard", "ext4", "/dev/vda"}},
		{"/dev/shm", mount{"0:26", "/dev/shm", "rw,nosuid,size=1k", "tmpfs", "tmpfs"}},
		{"/data/x", mount{"0:50", "/data", "rw,lowerdir=/a", "overlay", "overlay"}},
		{"/database", mount{"254:0", "/", "rw,relatime,discard", "ext4", "/dev/vda"}},
		{"/with space/d", mount{"8:2", "/with space", "rw", "btrfs", "/dev/sdb"}},
	} {
		got, ok := findMount(mountinfo, c.path)
		require.True(t, ok)
		require.Equal(t, c.want, got, c.path)
	}
	_, ok := findMount("", "/")
	require.False(t, ok)
}

func TestDescribe(t *testing.T) {
	m := Describe(t.TempDir())
	require.NotEmpty(t, m.Kernel)
	require.NotEmpty(t, m.FileSystem)
	require.Positive(t, m.Memory)
}
