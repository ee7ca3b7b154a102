package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/manifest"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// missing returns the keys of want that got has not, or has otherwise.
func missing(want, got map[string]string) (out []string) {
	for k, v := range want {
		if got[k] != v {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// within says that a harmful loss tells of a key.
func within(losses []Loss, key string) bool {
	return slices.ContainsFunc(losses, func(l Loss) bool {
		return !l.Harmless && (l.Lo == nil || string(l.Lo) <= key) && (l.Hi == nil || key <= string(l.Hi))
	})
}

func TestSalvageOfAWholeStore(t *testing.T) {
	st := full(t)
	st.close()
	var done, total int64
	cfg := st.cfg()
	cfg.Progress = func(d, n int64) { done, total = d, n }
	out, got := st.salvage(cfg)
	require.Empty(t, out.Losses)
	require.Equal(t, st.last(), got)
	require.Equal(t, uint64(len(st.states)-1), uint64(out.LastLSN))
	require.Equal(t, uint64(301), out.Commits)
	require.Empty(t, out.Kept)
	require.Empty(t, out.Ignored)
	require.False(t, out.Rebuilt)
	require.Equal(t, total, done)
}

// TestSalvageOfOneDamage: one damaged place, and what is then missing, in a store
// whose log no longer has what is in segments.
func TestSalvageOfOneDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(st *store, path string, g manifest.Segment)
		few    int // at most that many keys are gone
	}{
		{"data block", func(st *store, p string, _ manifest.Segment) { st.flip(p, 300) }, 20},
		{"index", func(st *store, p string, g manifest.Segment) { st.flip(p, int64(g.Size)-128-16-100-20) }, 0},
		{"properties", func(st *store, p string, g manifest.Segment) { st.flip(p, int64(g.Size)-128-30) }, 0},
		{"footer", func(st *store, p string, g manifest.Segment) { st.flip(p, int64(g.Size)-20) }, 0},
		{"cut short", func(st *store, p string, g manifest.Segment) { st.truncate(p, int64(g.Size)/2) }, 60},
		{"zeros", func(st *store, p string, g manifest.Segment) { st.zero(p, 512, 512) }, 30},
		{"missing", func(st *store, p string, _ manifest.Segment) { require.NoError(st.t, st.mem.Remove(p)) }, 100},
		{"all zeros", func(st *store, p string, g manifest.Segment) { st.zero(p, 0, int64(g.Size)) }, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t)
			st.puts("a", 100)
			g := st.settle(false)
			st.puts("b", 100)
			st.settle(false)
			st.forgetLog()
			st.puts("c", 100)
			st.close()
			c.damage(st, st.segPath(g.Number), g)
			out, got := st.salvage(st.cfg())
			require.NotEmpty(t, out.Losses)
			require.False(t, out.Rebuilt)
			gone := missing(st.last(), got)
			require.LessOrEqual(t, len(gone), c.few)
			if c.few > 0 {
				require.NotEmpty(t, gone)
			} else {
				require.Empty(t, out.harm())
			}
			for _, k := range gone {
				require.True(t, within(out.Losses, k), "%s is gone: %v", k, out.Losses)
				require.Equal(t, "a", k[:1])
			}
			for _, l := range out.Losses {
				require.Equal(t, st.segPath(g.Number), l.File)
				require.NotEmpty(t, l.Effect)
				require.Contains(t, l.String(), l.Effect)
			}
			if c.name != "missing" {
				require.Len(t, out.Kept, 1)
			}
		})
	}
}

// TestSalvageHealsFromTheLog: what the log still has of a damaged segment is used.
func TestSalvageHealsFromTheLog(t *testing.T) {
	st := newStore(t)
	st.puts("a", 50)
	st.commit(del("a0010"))
	st.commit(dels("a0020", "a0030"))
	g := st.settle(true)
	st.puts("b", 10)
	st.close()
	st.zero(st.segPath(g.Number), 0, int64(g.Size))
	out, got := st.salvage(st.cfg())
	require.Equal(t, st.last(), got)
	require.Empty(t, out.harm())
	require.NotEmpty(t, out.Losses)
	require.Equal(t, effectHealed, out.Losses[0].Effect)
}

func TestSalvageTellsOfRangeDeletesThatAreGone(t *testing.T) {
	st := newStore(t)
	st.puts("a", 50)
	st.settle(false)
	st.commit(dels("a0020", "a0030"))
	g := st.settle(false)
	st.forgetLog()
	st.close()
	st.flip(st.segPath(g.Number), 3)
	out, got := st.salvage(st.cfg())
	require.Len(t, got, 51, "they are back")
	require.Len(t, out.harm(), 1)
	l := out.harm()[0]
	require.Equal(t, effectDels, l.Effect)
	require.Equal(t, "a0020", string(l.Lo))
	require.Equal(t, "a0030", string(l.Hi))
}

func TestSalvageWithoutAManifest(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(st *store, p string)
	}{
		{"missing", func(st *store, p string) { require.NoError(st.t, st.mem.Remove(p)) }},
		{"an edit", func(st *store, p string) { st.flip(p, 4096+100) }},
		{"header", func(st *store, p string) { st.flip(p, 20) }},
		{"empty", func(st *store, p string) { st.truncate(p, 0) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := full(t)
			st.close()
			p := st.manifestPath()
			c.damage(st, p)
			out, got := st.salvage(st.cfg())
			require.True(t, out.Rebuilt)
			require.Equal(t, st.last(), got)
			require.Equal(t, "manifest", out.Losses[0].What)
			require.Len(t, out.harm(), 1, "%v", out.Losses)
			if c.name != "missing" {
				require.Equal(t, []string{"new/damaged/" + p[3:]}, out.Kept)
			}
		})
	}
}

// TestSalvageWithoutAManifestOfCompactedInputs: superseded inputs that were not
// removed yet are harmless, but for tombstones that were dropped.
func TestSalvageWithoutAManifestOfCompactedInputs(t *testing.T) {
	st := newStore(t)
	st.puts("a", 10)
	st.settle(false)
	st.commit(put("a0001", "newer"), del("a0002"))
	st.settle(false)
	st.forgetLog()
	st.compact(true)
	st.close()
	require.NoError(t, st.mem.Remove(st.manifestPath()))
	out, got := st.salvage(st.cfg())
	require.Equal(t, st.last(), got, "the tombstone is in an input, which is there too")
	names, err := st.mem.List("db")
	require.NoError(t, err)
	require.Contains(t, names, "000001.seg", "an input is still there")
	require.Equal(t, effectManifest, out.Losses[0].Effect)
}

func TestSalvageAfterAnOlderManifestWasPutBack(t *testing.T) {
	st := newStore(t)
	st.puts("a", 100)
	st.settle(false)
	old := st.manifestPath()
	was := st.mem.Bytes(old)
	st.puts("b", 300)
	st.settle(false)
	st.puts("c", 300)
	st.commit(del("a0001"))
	st.close()
	require.NoError(t, st.mem.Remove(st.manifestPath()))
	require.NoError(t, st.mem.SetBytes(old, was))
	out, got := st.salvage(st.cfg())
	require.True(t, out.Rebuilt)
	require.Equal(t, st.last(), got)
}

func TestSalvageOfAStoreWithTheManifestOfAnother(t *testing.T) {
	other := full(t)
	other.close()
	st := full(t)
	st.close()
	require.NoError(t, st.mem.SetBytes(st.manifestPath(), other.mem.Bytes(other.manifestPath())))
	out, got := st.salvage(st.cfg())
	require.True(t, out.Rebuilt)
	require.Equal(t, st.last(), got)
}

// TestSalvageOfALogWithAHole: the result is a prefix, and with BeyondHoles what is
// behind is there as well.
func TestSalvageOfALogWithAHole(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(st *store, logs []string)
	}{
		{"a flipped bit", func(st *store, logs []string) { st.flip(logs[1], 3000) }},
		{"zeros", func(st *store, logs []string) { st.zero(logs[1], 4096, 4096) }},
		{"a file is missing", func(st *store, logs []string) { require.NoError(st.t, st.mem.Remove(logs[1])) }},
		{"a file is empty", func(st *store, logs []string) { st.truncate(logs[1], 0) }},
		{"two holes", func(st *store, logs []string) { st.flip(logs[1], 3000); st.flip(logs[2], 3000) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := newStore(t)
			st.puts("s", 20)
			st.settle(false)
			st.puts("a", 400)
			st.close()
			logs := st.logs()
			require.GreaterOrEqual(t, len(logs), 3)
			c.damage(st, logs)
			out, got := st.salvage(st.cfg())
			require.Contains(t, st.states, got, "not a prefix")
			n := slices.IndexFunc(st.states, func(m map[string]string) bool { return fmt.Sprint(m) == fmt.Sprint(got) })
			require.Greater(t, n, 20)
			require.NotZero(t, out.Skipped)
			require.NotEmpty(t, out.harm())
			lost := uint64(0)
			for _, l := range out.harm() {
				if l.Reason != "intact commits behind a hole were left out" {
					lost += l.LastLSN - l.FirstLSN + 1
				}
			}
			require.Equal(t, uint64(420-n), lost+out.Skipped, "%v", out.Losses)

			cfg := st.cfg()
			cfg.BeyondHoles = true
			st.clear("new")
			out, got = st.salvage(cfg)
			require.Zero(t, out.Skipped)
			require.Equal(t, 420-int(lost), len(got))
			require.Equal(t, uint64(420), uint64(out.LastLSN))
		})
	}
}

// TestSalvageOfALogHeader: the manifest says what was in it.
func TestSalvageOfALogHeader(t *testing.T) {
	st := full(t)
	st.close()
	st.zero(st.logs()[1], 0, 512)
	out, got := st.salvage(st.cfg())
	require.Equal(t, st.last(), got)
	require.Empty(t, out.harm(), "%v", out.harm())
	require.NotEmpty(t, out.Kept)
}

func TestSalvageOfATornLog(t *testing.T) {
	st := full(t)
	st.mem = st.mem.Snapshot()
	logs := st.logs()
	last := logs[len(logs)-1]
	b := st.mem.Bytes(last)
	end := len(b)
	for end > 0 && b[end-1] == 0 {
		end--
	}
	st.flip(last, int64(end)-4)
	out, got := st.salvage(st.cfg())
	require.Equal(t, st.states[len(st.states)-2], got)
	require.Empty(t, out.harm(), "%v", out.harm())
	require.Len(t, out.Losses, 1)
	require.Equal(t, effectUnproven, out.Losses[0].Effect)
}

// TestSalvageDoesNotBringBackACutOffPast: records that an open cut off, or that
// were copied by one, do not count twice or again.
func TestSalvageDoesNotBringBackACutOffPast(t *testing.T) {
	st := newStore(t)
	st.puts("a", 2)
	st.level = wal.Written
	st.puts("gone", 5)
	st.mem = st.mem.Snapshot() // a kill: nothing proves the last five
	log := st.logs()[0]
	st.flip(log, int64(bytes.Index(st.mem.Bytes(log), []byte("gone0001"))))
	st.open()
	n := st.s.Log.LastLSN()
	require.Equal(t, 3, int(n), "the second one is torn, and three are intact behind it")
	st.states = st.states[:n+1]
	st.level = wal.Durable
	st.puts("b", 3)
	st.close()
	for _, lose := range []bool{false, true} {
		if lose {
			require.NoError(t, st.mem.Remove(st.manifestPath()))
			st.clear("new")
		}
		out, got := st.salvage(st.cfg())
		require.Equal(t, st.last(), got)
		if !lose {
			require.Empty(t, out.harm(), "%v", out.harm())
		}
	}
}

func TestSalvageOfNothingThatCanBeRead(t *testing.T) {
	st := full(t)
	st.close()
	for name, b := range content(t, st.mem, "db") {
		st.zero("db/"+name, 0, int64(len(b)))
	}
	out, got := st.salvage(st.cfg())
	require.Empty(t, got)
	require.NotEmpty(t, out.harm())
	require.True(t, out.Rebuilt)
}

func TestSalvageSpillsWhatIsLarge(t *testing.T) {
	st := newStore(t)
	for i := range 60 {
		st.puts(string(rune('a'+i%7)), 20)
		st.commit(dels("a0003", "a0005"), del("b0001"), put("a0004", fmt.Sprint(i)))
	}
	st.close()
	cfg := st.cfg()
	cfg.MemtableSize, cfg.SegmentSize = 4<<10, 2<<10
	out, got := st.salvage(cfg)
	require.Equal(t, st.last(), got)
	require.Greater(t, out.Segments, 1)
	names, err := st.mem.List("new")
	require.NoError(t, err)
	require.Len(t, names, out.Segments+1, "spilled segments are gone")
}

func TestSalvageRefusesAPlaceThatIsNotItsOwn(t *testing.T) {
	st := full(t)
	st.close()
	require.NoError(t, st.mem.MkdirAll("used"))
	require.NoError(t, st.mem.SetBytes("used/x", nil))
	for _, dst := range []string{"used", "db", "db/new", "db/../db/x"} {
		_, err := Salvage(context.Background(), st.cfg(), dst)
		require.ErrorIs(t, err, ErrNotEmpty)
	}
	require.NoError(t, st.mem.MkdirAll("empty"))
	_, err := Salvage(context.Background(), st.cfg(), "empty")
	require.NoError(t, err)
	_, err = Salvage(context.Background(), &Config{FS: st.mem, Dir: "nowhere"}, "x")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestSalvageThatFailsLeavesNothing: wherever it ends, by its context or a full
// disk, there is no half a store.
func TestSalvageThatFailsLeavesNothing(t *testing.T) {
	st := full(t)
	st.close()
	g := st.s.Manifest.State().Segments[0]
	st.flip(st.segPath(g.Number), 3)
	calls := 0
	cfg := st.cfg()
	cfg.MemtableSize = 8 << 10
	cfg.Progress = func(int64, int64) { calls++ }
	_, err := Salvage(context.Background(), cfg, "new")
	require.NoError(t, err)
	for n := range 25 {
		ctx, cancel := context.WithCancel(context.Background())
		left := (calls - 2) * n / 25
		cfg.Progress = func(int64, int64) {
			if left--; left < 0 {
				cancel()
			}
		}
		dst := fmt.Sprint("cancelled", n)
		_, err := Salvage(ctx, cfg, dst)
		require.ErrorIs(t, err, context.Canceled)
		_, err = st.mem.Stat(dst)
		require.ErrorIs(t, err, fs.ErrNotExist)
		cancel()
	}
	cfg.Progress = nil
	in := vfs.NewInjector(st.mem)
	cfg.FS = in
	for k := 1; ; k++ {
		rule := in.Add(vfs.Rule{Call: vfs.CallWrite, K: k, Err: syscall.ENOSPC})
		dst := fmt.Sprint("full", k)
		_, err := Salvage(context.Background(), cfg, dst)
		rule.Remove()
		if err == nil {
			require.Greater(t, k, 5)
			break
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
		_, err = st.mem.Stat(dst)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

// TestSalvageOfADiskThatCannotBeRead: what cannot be read is lost, and the rest is
// not.
func TestSalvageOfADiskThatCannotBeRead(t *testing.T) {
	st := newStore(t)
	st.puts("a", 100)
	g := st.settle(false)
	st.forgetLog()
	st.puts("b", 10)
	st.close()
	broken := errors.New("the disk says no")
	for k := 1; k < 40; k++ {
		in := vfs.NewInjector(st.mem)
		in.Add(vfs.Rule{Call: vfs.CallRead, K: k, Err: broken})
		cfg := st.cfg()
		cfg.FS = in
		dst := fmt.Sprint("new", k)
		out, err := Salvage(context.Background(), cfg, dst)
		if err != nil {
			require.ErrorIs(t, err, broken) // in the second pass
			continue
		}
		got := visible(t, st.mem, dst)
		for _, key := range missing(st.last(), got) {
			require.True(t, within(out.Losses, key), "%s is gone: %v", key, out.Losses)
		}
	}
	in := vfs.NewInjector(st.mem)
	in.Add(vfs.Rule{Call: vfs.CallRead, Name: st.segPath(g.Number), Forever: true, Err: broken})
	cfg := st.cfg()
	cfg.FS = in
	out, err := Salvage(context.Background(), cfg, "rest")
	require.NoError(t, err)
	require.Len(t, visible(t, st.mem, "rest"), 11)
	require.ErrorIs(t, out.harm()[0].Err, broken)
}

// TestSalvageUsesWhatNobodyListsOnlyWhenItMust: a segment that a compaction had
// replaced brings deleted keys back.
func TestSalvageUsesWhatNobodyListsOnlyWhenItMust(t *testing.T) {
	st := newStore(t)
	st.puts("a", 40)
	st.settle(false)
	st.commit(del("a0002"))
	g := st.settle(false)
	st.forgetLog()
	st.compact(true)
	st.close()
	require.NoError(t, st.mem.Remove(st.segPath(g.Number))) // the input with the tombstone
	live := st.s.Manifest.State().Segments
	st.flip(st.segPath(live[0].Number), 3)
	out, got := st.salvage(st.cfg())
	require.NotContains(t, got, "a0002")
	require.NotEmpty(t, missing(st.last(), got))
	require.Len(t, out.Ignored, 1)
	require.Empty(t, out.Unlisted)

	st.clear("new")
	for _, g := range live {
		require.NoError(t, st.mem.Remove(st.segPath(g.Number)))
	}
	out, got = st.salvage(st.cfg())
	require.Empty(t, missing(st.last(), got))
	require.Contains(t, got, "a0002")
	require.Len(t, out.Unlisted, 1)
	require.True(t, slices.ContainsFunc(out.harm(), func(l Loss) bool {
		return l.File == out.Unlisted[0] && l.Effect == effectUnlisted && string(l.Lo) <= "a0002" && "a0002" <= string(l.Hi)
	}))
}

// TestNewerFormatsAreRefused: a file that this program does not understand is not
// damaged, and nothing is made without it.
func TestNewerFormatsAreRefused(t *testing.T) {
	newer := func(b []byte) {
		b[8]++ // the format version
		binary.LittleEndian.PutUint64(b[504:], xxhash.Sum64(b[:504]))
	}
	for _, pick := range []func(st *store) string{
		func(st *store) string { return st.manifestPath() },
		func(st *store) string { return st.logs()[1] },
	} {
		st := full(t)
		st.close()
		require.NoError(t, st.mem.Corrupt(pick(st), 0, 512, newer))
		_, err := Verify(context.Background(), st.cfg())
		require.ErrorIs(t, err, frame.ErrUnsupported)
		_, err = Salvage(context.Background(), st.cfg(), "new")
		require.ErrorIs(t, err, frame.ErrUnsupported)
		_, err = st.mem.Stat("new")
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}
