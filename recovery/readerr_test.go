package recovery

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
)

// ways are the three ways in which a store is read.
var ways = map[string]func(cfg *Config) error{
	"Open": func(cfg *Config) error {
		s, err := Open(cfg)
		if err == nil {
			err = errors.Join(s.Log.Close(), s.Close())
		}
		return err
	},
	"OpenReadOnly": func(cfg *Config) error {
		s, err := OpenReadOnly(cfg)
		if err == nil {
			err = s.Close()
		}
		return err
	},
	"Explain": func(cfg *Config) error { _, err := Explain(cfg); return err },
}

// TestEveryReadFails makes each call by which a store is read fail once, in every
// way to read one: the error is that of the call, is no damage, and what was there
// is there afterwards.
func TestEveryReadFails(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	write(t, s, "a", "b", "c")
	g := settle(t, mem, s, 2)
	killed := mem.Snapshot()
	closeAll(t, s)
	// A segment that nobody lists, and that is whole; and one that is not.
	require.NoError(t, killed.SetBytes("db/"+segmentName(g.Number+5), killed.Bytes("db/"+segmentName(g.Number))))
	require.NoError(t, killed.SetBytes("db/"+segmentName(g.Number+6), []byte("half a segment")))
	lost := killed.Snapshot() // of which the manifest is gone
	names, err := lost.List("db")
	require.NoError(t, err)
	for _, name := range names {
		_, isManifest := manifest.ParseFileName(name)
		_, isSegment := parseSegment(name)
		if isManifest || isSegment {
			require.NoError(t, lost.Remove("db/"+name))
		}
	}
	tries := 0
	for _, state := range []*vfs.Mem{killed, lost, made(t)} {
		for way, read := range ways {
			for _, call := range []vfs.Call{vfs.CallList, vfs.CallOpen, vfs.CallSize, vfs.CallRead} {
				for k := 1; ; k++ {
					disk := state.Snapshot()
					var got []string
					plain := read(config(disk.Snapshot(), &got))
					in := vfs.NewInjector(disk)
					rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
					err := read(config(in, &got))
					if rule.Hits() == 0 {
						break
					}
					tries++
					require.ErrorIs(t, err, syscall.EIO, "%s, %s %d", way, call, k)
					var c *base.CorruptionError
					require.False(t, errors.As(err, &c), "%s, %s %d: %v", way, call, k, err)
					again := read(config(disk, &got))
					if plain == nil {
						require.NoError(t, again, "%s, %s %d", way, call, k)
					} else {
						require.EqualError(t, again, plain.Error(), "%s, %s %d", way, call, k)
					}
				}
			}
		}
	}
	t.Logf("%d failing reads", tries)
	require.Greater(t, tries, 60)
}

// TestSegmentsWithoutAManifest: a segment in a directory that has no manifest is
// corruption, in every way to read it.
func TestSegmentsWithoutAManifest(t *testing.T) {
	mem := made(t)
	require.NoError(t, mem.SetBytes("db/000003.seg", []byte("what a segment holds")))
	before := contents(t, mem)
	for way, read := range ways {
		var got []string
		err := read(config(mem, &got))
		var c *base.CorruptionError
		require.ErrorAs(t, err, &c, way)
		require.Equal(t, "db/000003.seg", c.File)
		require.ErrorContains(t, err, "no intact manifest")
		require.NotErrorIs(t, err, fs.ErrNotExist)
	}
	require.Equal(t, before, contents(t, mem))
}

// TestSegmentAccusesAnEmptyLog: the manifest is put back to what it was before there
// was any log file, and the log files are gone: what a segment that nothing lists
// proves is missing, and no log file is to blame.
func TestSegmentAccusesAnEmptyLog(t *testing.T) {
	mem := made(t)
	var got []string
	s, err := Open(config(mem, &got))
	require.NoError(t, err)
	old := contents(t, mem)
	write(t, s, "a", "b")
	g := settle(t, mem, s, 2)
	closeAll(t, s)
	for name := range contents(t, mem) {
		if _, isSegment := parseSegment(name); !isSegment {
			require.NoError(t, mem.Remove("db/"+name))
		}
	}
	for name, b := range old {
		require.NoError(t, mem.SetBytes("db/"+name, []byte(b)))
	}
	before := contents(t, mem)
	for way, read := range ways {
		var c *base.CorruptionError
		require.ErrorAs(t, read(config(mem, &got)), &c, way)
		require.Equal(t, "db/"+segmentName(g.Number), c.File)
		require.Contains(t, c.Reason, "older manifest")
	}
	require.Equal(t, before, contents(t, mem))
}
