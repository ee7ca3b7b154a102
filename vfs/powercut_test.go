package vfs

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests of this file are stories: some calls, then what a power cut may
// take (units), and what the disk holds for a fate of each (cut).

func lines(s ...string) string { return strings.Join(s, "\n") }

// units describes what is not durable, a line each.
func units(m *Mem) string {
	var out []string
	for _, u := range m.Unsynced() {
		s := ""
		switch u.Kind {
		case EntryUnit:
			s = fmt.Sprintf("%s %s", u.Call, u.Name)
			if u.From != "" {
				s = fmt.Sprintf("rename %s to %s", u.From, u.Name)
			}
		case SizeUnit:
			s = "size of " + u.Name
		case SectorUnit:
			s = fmt.Sprintf("%s sector %d", u.Name, u.Sector)
			if u.Zeros {
				s = fmt.Sprintf("%s zeros %d+%d", u.Name, u.Sector, u.Sectors)
			}
		}
		if u.Versions > 1 {
			s += fmt.Sprintf(" in %d versions", u.Versions)
		}
		if u.Fresh {
			s += ", fresh"
		}
		if u.Failed {
			s += ", failed"
		}
		out = append(out, s)
	}
	return lines(out...)
}

// cut cuts the power with these fates in order, the last for all further units,
// and describes the files: name, size, and the first byte of each sector.
func cut(m *Mem, fates ...Fate) string {
	return dump(m.PowerCut(func(i int, _ Unit) Fate { return fates[min(i, len(fates)-1)] }))
}

func dump(m *Mem) string {
	var out []string
	for _, d := range m.names {
		if m.inodes[d.ino].dir {
			out = append(out, d.path+"/")
			continue
		}
		b, s := m.Bytes(d.path), ""
		for i := 0; i < len(b); i += SectorSize {
			if c := b[i]; c == 0 {
				s += "."
			} else if c > ' ' && c < 127 {
				s += string(c)
			} else {
				s += "?"
			}
		}
		out = append(out, fmt.Sprintf("%s %d %s", d.path, len(b), s))
	}
	return lines(out...)
}

// sec is n sectors of a letter.
func sec(c string, n int) string { return strings.Repeat(c, n*SectorSize) }

// synced returns a Mem with the durable file a.
func synced(t testing.TB, content string) (*Mem, File) {
	m := NewMem()
	f := create(t, m, "a", ReadWrite)
	write(t, f, content, 0)
	require.NoError(t, f.Sync())
	require.NoError(t, m.SyncDir("/"))
	require.Empty(t, m.Unsynced())
	return m, f
}

func TestCreateWithoutSyncDir(t *testing.T) {
	m := NewMem()
	f := create(t, m, "/a", ReadWrite)
	write(t, f, sec("x", 1), 0)
	require.NoError(t, f.Sync())
	require.Equal(t, "create a", units(m))
	require.Equal(t, "", cut(m, Lost), "a synced file without an entry is gone")
	require.Equal(t, "a 512 x", cut(m, Kept))
	require.NoError(t, m.SyncDir("/"))
	require.Equal(t, "a 512 x", cut(m, Lost))
}

func TestDirectoryEntryLost(t *testing.T) {
	m := NewMem()
	require.NoError(t, m.MkdirAll("/d/e"))
	require.NoError(t, create(t, m, "/d/e/a", ReadWrite).Close())
	require.NoError(t, m.SyncDir("/d/e"))
	require.NoError(t, m.SyncDir("/d"))
	require.Equal(t, "mkdir d", units(m), "the directory itself is an entry of the root")
	require.Equal(t, "", cut(m, Lost))
	require.NoError(t, m.SyncDir("/"))
	require.Equal(t, lines("d/", "d/e/", "d/e/a 0 "), cut(m, Lost))
}

func TestRenameWithoutSyncDir(t *testing.T) {
	m, _ := synced(t, sec("o", 1))
	f := create(t, m, "tmp", ReadWrite)
	write(t, f, sec("n", 1), 0)
	require.NoError(t, f.Sync())
	require.NoError(t, m.Rename("tmp", "a"))
	require.Equal(t, lines("create tmp", "rename tmp to a"), units(m))
	require.Equal(t, "a 512 o", cut(m, Lost))
	require.Equal(t, lines("a 512 o", "tmp 512 n"), cut(m, Kept, Lost))
	require.Equal(t, "a 512 n", cut(m, Kept))
	require.Equal(t, "a 512 o", cut(m, Lost, Kept), "a rename of what is not there has not happened")
	require.NoError(t, m.SyncDir("/"))
	require.Equal(t, "a 512 n", cut(m, Lost))
}

func TestNamesKeepTheirOrder(t *testing.T) {
	m, _ := synced(t, sec("1", 1))
	require.NoError(t, m.Rename("a", "b"))
	f := create(t, m, "a", ReadWrite)
	write(t, f, sec("2", 1), 0)
	require.NoError(t, f.Sync())
	require.Equal(t, lines("rename a to b", "create a"), units(m))
	require.Equal(t, "a 512 1", cut(m, Lost, Kept), "the new a cannot be there before the old one moved")
	require.Equal(t, "b 512 1", cut(m, Kept, Lost))
	require.Equal(t, lines("a 512 2", "b 512 1"), cut(m, Kept))
}

func TestUnlinkedFileComesBack(t *testing.T) {
	m, f := synced(t, sec("x", 2))
	write(t, f, sec("y", 1), 0)
	require.NoError(t, m.Remove("a"))
	require.NoError(t, f.Close())
	require.Zero(t, m.Used())
	require.Equal(t, lines("remove a", "a sector 0"), units(m))
	require.Equal(t, "", cut(m, Kept))
	require.Equal(t, "a 1024 xx", cut(m, Lost))
	require.Equal(t, "a 1024 yx", cut(m, Lost, Kept))
	require.NoError(t, m.SyncDir("/"))
	require.Equal(t, "", units(m))
	require.Equal(t, "", cut(m, Lost))
}

func TestSizeWithoutDataAndDataWithoutSize(t *testing.T) {
	m, f := synced(t, sec("x", 1))
	write(t, f, sec("y", 1), 512)
	write(t, f, sec("z", 1), 1024)
	require.Equal(t, lines("size of a in 2 versions", "a sector 1, fresh", "a sector 2, fresh"), units(m))
	require.Equal(t, "a 512 x", cut(m, Lost))
	require.Equal(t, "a 512 x", cut(m, Lost, Kept), "data behind the end is not seen")
	require.Equal(t, "a 1536 x..", cut(m, Kept, Lost))
	require.Equal(t, "a 1536 x.z", cut(m, Kept, Lost, Kept), "a hole")
	require.Equal(t, "a 1024 xy", cut(m, Older(1), Kept))

	short := m.PowerCut(func(_ int, u Unit) Fate {
		if u.Kind == SizeUnit {
			return Lost
		}
		return Kept
	})
	g, err := short.Open("a", ReadWrite)
	require.NoError(t, err)
	write(t, g, "!", 1535)
	require.Equal(t, "a 1536 x..", dump(short), "what lay behind the end does not come back")
}

// A disk gets a long write in pieces, and the size with them: ext4 and xfs were
// seen with a size that the file had only come through.
func TestSizePartway(t *testing.T) {
	m, f := synced(t, sec("x", 7))
	write(t, f, sec("y", 1), 7*512)
	require.False(t, m.Unsynced()[0].Partway, "it has come to no multiple of 4096, but the newest size")
	require.Equal(t, []Fate{Kept, Lost}, LegalFates(m.Unsynced()[0], SectorAtomic))
	require.NoError(t, f.Sync())

	write(t, f, sec("z", 12), 8*512)
	u := m.Unsynced()[0]
	require.True(t, u.Partway)
	require.Equal(t, []Fate{Kept, Lost, Torn}, LegalFates(u, SectorAtomic))
	require.Equal(t, []Fate{Kept, Lost, Torn}, LegalFates(u, NothingAssumed))
	require.Equal(t, []Fate{Kept, Lost}, LegalFates(u, Ordered), "a call is there or not")
	require.Equal(t, "a 8192 xxxxxxxyzzzzzzzz", cut(m, Torn, Kept))
	require.Equal(t, "a 8192 xxxxxxxy........", cut(m, Torn, Lost))
	write(t, f, sec("z", 100), 20*512)
	seen := map[string]bool{}
	for range 20 {
		write(t, f, sec("z", 1), int64(len(m.Bytes("a"))))
		seen[strings.Fields(cut(m, Torn, Lost))[1]] = true
	}
	require.Greater(t, len(seen), 5, "of many writes it stops here and there")
}

func TestSectorInSeveralVersions(t *testing.T) {
	m, f := synced(t, sec("0", 1))
	for _, c := range []string{"1", "2", "3", "4"} {
		write(t, f, sec(c, 1), 0)
	}
	require.Equal(t, "a sector 0 in 4 versions", units(m))
	u := m.Unsynced()[0]
	require.Equal(t, [MaxVersions]uint64{8, 7, 6, 5}, u.Seqs)
	require.Equal(t, "a 512 4", cut(m, Kept))
	require.Equal(t, "a 512 3", cut(m, Older(1)))
	require.Equal(t, "a 512 1", cut(m, Older(3)))
	require.Equal(t, "a 512 0", cut(m, Lost))
	write(t, f, sec("5", 1), 0)
	require.Equal(t, "a 512 2", cut(m, Older(3)), "of more than four the oldest is forgotten")
	require.Equal(t, "a 512 0", cut(m, Lost))
	first, _ := m.OrderedCuts()
	require.EqualValues(t, 6, first, "and no ordered cut wants it")
}

func TestFailedSyncThenGoodSync(t *testing.T) {
	m := NewMem()
	in := NewInjector(NewRecorder(m)) // found through the wrapper
	f := create(t, in, "a", ReadWrite)
	write(t, f, sec("x", 2), 0)
	require.NoError(t, f.Sync())
	require.NoError(t, in.SyncDir("/"))

	write(t, f, sec("y", 3), 0)
	in.Add(Rule{Call: CallSyncData, Err: syscall.EIO})
	require.ErrorIs(t, f.SyncData(), syscall.EIO)
	require.NoError(t, f.SyncData(), "the second one lies")
	require.Equal(t, "a 1536 yyy", dump(m))
	require.Equal(t, lines("size of a, failed", "a sector 0, failed", "a sector 1, failed",
		"a sector 2, fresh, failed"), units(m))
	require.Equal(t, "a 1024 xx", cut(m, Lost))

	write(t, f, sec("z", 1), 512)
	require.NoError(t, f.SyncData())
	require.Equal(t, lines("size of a, failed", "a sector 0, failed", "a sector 2, fresh, failed"), units(m))
	require.Equal(t, "a 1024 xz", cut(m, Lost), "only what was written again is durable")

	write(t, f, sec("z", 3), 0)
	require.NoError(t, f.SyncData())
	require.Equal(t, "a 1536 zzz", cut(m, Lost))
}

func TestFailedSyncDir(t *testing.T) {
	m := NewMem()
	in := NewInjector(m)
	require.NoError(t, create(t, in, "a", ReadWrite).Close())
	in.Add(Rule{Call: CallSyncDir, Err: syscall.EIO})
	require.ErrorIs(t, in.SyncDir("/"), syscall.EIO)
	require.NoError(t, create(t, in, "b", ReadWrite).Close())
	require.NoError(t, in.SyncDir("/"))
	require.Equal(t, "create a, failed", units(m))
	require.Equal(t, "b 0 ", cut(m, Lost))
	require.NoError(t, in.Rename("a", "c"))
	require.NoError(t, in.SyncDir("/"))
	require.Equal(t, lines("b 0 ", "c 0 "), cut(m, Lost), "what a durable change builds upon is durable")
}

func TestDSyncCoversItsOwnRangeOnly(t *testing.T) {
	m, f := synced(t, sec("x", 4))
	write(t, f, sec("y", 6), 0)
	d, err := m.Open("a", ReadWrite|DSync)
	require.NoError(t, err)
	write(t, d, sec("d", 1), 1024)
	require.Equal(t, lines("size of a", "a sector 0", "a sector 1", "a sector 3",
		"a sector 4, fresh", "a sector 5, fresh"), units(m))
	require.Equal(t, "a 2048 xxdx", cut(m, Lost))
	write(t, d, sec("e", 1), 2560)
	require.Equal(t, "a 3072 xxdx.e", cut(m, Lost), "the size is durable with the data")
}

func TestFailedDSyncWrite(t *testing.T) {
	m, _ := synced(t, sec("x", 2))
	in := NewInjector(m)
	d, err := in.Open("a", ReadWrite|DSync)
	require.NoError(t, err)
	in.Add(Rule{Call: CallWrite, Err: syscall.EIO, Part: 512})
	n, err := d.WriteAt([]byte(sec("y", 2)), 0)
	require.ErrorIs(t, err, syscall.EIO)
	require.Equal(t, 512, n)
	require.NoError(t, d.Sync())
	require.Equal(t, "a 1024 yx", dump(m))
	require.Equal(t, "a 1024 xx", cut(m, Lost))
}

// cached is the same file without DSync.
func (f *memFile) cached() *memFile {
	return &memFile{m: f.m, ino: f.ino, mode: ReadWrite, name: f.name}
}

func TestPreallocatedZeros(t *testing.T) {
	m, f := synced(t, "")
	require.NoError(t, f.Zero(0, 1<<30))
	require.Equal(t, lines("size of a", "a zeros 0+2097152, fresh"), units(m))
	require.NoError(t, f.Zero(0, 1<<30))
	require.Equal(t, lines("size of a", "a zeros 0+2097152, fresh"), units(m), "again changes nothing")

	d, err := m.Snapshot().Open("a", ReadWrite|DSync)
	require.NoError(t, err)
	write(t, d, sec("d", 1), 1<<20)
	write(t, d.(*memFile).cached(), sec("x", 1), 0)
	require.Equal(t, lines("size of a", "a zeros 1+2047, fresh", "a zeros 2049+2095103, fresh",
		"a sector 0, fresh"), units(d.(*memFile).m), "below a durable size, but never durable")

	write(t, f, sec("x", 2), 512)
	require.Equal(t, lines("size of a", "a zeros 0+1, fresh", "a zeros 3+2097149, fresh",
		"a sector 1, fresh", "a sector 2, fresh"), units(m))
	require.NoError(t, f.Sync())
	require.Empty(t, units(m))
	require.Less(t, len(m.inodes[1].slots), 10, "zeros take no memory")
	write(t, f, sec("y", 1), 0)
	require.Equal(t, "a sector 0", units(m), "within the synced zeros nothing is fresh, and the size stands")
}

func TestFatesOfNothingAssumed(t *testing.T) {
	m, f := synced(t, sec("x", 2))
	old := create(t, m, "old", ReadWrite)
	write(t, old, sec("s", 4), 0)
	require.NoError(t, old.Close())
	require.NoError(t, m.Remove("old"))
	require.NoError(t, m.SyncDir("/"))
	write(t, f, "y", 0) // one byte of a synced sector
	write(t, f, sec("z", 1), 1024)
	us := m.Unsynced()
	require.Equal(t, []Fate{Kept, Lost}, LegalFates(us[1], SectorAtomic))
	require.Equal(t, []Fate{Kept, Lost, Stale}, LegalFates(us[2], SectorAtomic))
	require.Equal(t, []Fate{Kept, Lost, Garbage, Torn, Zeroed}, LegalFates(us[1], NothingAssumed))
	require.Equal(t, "a 1536 .xs", cut(m, Kept, Zeroed, Stale), "stale bytes are those of a file that is gone")

	torn := m.PowerCut(func(_ int, u Unit) Fate {
		if u.Sector == 2 {
			return Torn
		}
		return Kept
	}).Bytes("a")[1024:]
	require.Positive(t, bytes.Count(torn, []byte("z")))
	require.Positive(t, bytes.Count(torn, []byte{0}))
	g := func(int, Unit) Fate { return Garbage }
	require.Equal(t, m.PowerCut(g).Bytes("a"), m.PowerCut(g).Bytes("a"))
	require.Equal(t, "x", string(m.PowerCut(g).Bytes("a")[512:513]), "what nobody wrote to is safe")
}

func TestOrderedCutsArePrefixes(t *testing.T) {
	m, f := synced(t, sec("x", 1))
	write(t, f, sec("1", 1), 0)
	g := create(t, m, "b", ReadWrite)
	write(t, g, sec("2", 1), 0)
	write(t, f, sec("3", 1), 0)
	first, last := m.OrderedCuts()
	var got []string
	for seq := first; seq <= last; seq++ {
		got = append(got, strings.ReplaceAll(dump(m.PowerCut(KeepThrough(seq))), "\n", ", "))
	}
	require.Equal(t, []string{"a 512 x", "a 512 1", "a 512 1, b 0 ", "a 512 1, b 512 2", "a 512 3, b 512 2"}, got)
	require.NoError(t, g.Sync())
	first, last = m.OrderedCuts()
	require.Equal(t, first, last, "a sync takes along all that came before")
}

func TestSnapshotsAreApart(t *testing.T) {
	m, f := synced(t, sec("x", 9))
	write(t, f, sec("u", 1), 0)
	s := m.Snapshot()
	require.Equal(t, units(m), units(s), "what is unsynced is copied too")

	// The original goes on.
	write(t, f, sec("m", 9), 0)
	require.NoError(t, m.Rename("a", "b"))
	require.Equal(t, "a 4608 uxxxxxxxx", dump(s))
	require.Equal(t, "a 4608 xxxxxxxxx", cut(s, Lost))

	// The copy goes on.
	g, err := s.Open("a", ReadWrite)
	require.NoError(t, err)
	write(t, g, sec("s", 1), 512)
	require.NoError(t, g.Zero(4096, 512))
	require.NoError(t, g.Sync())
	require.Equal(t, "a 4608 usxxxxxx.", cut(s, Lost))
	require.Equal(t, "b 4608 mmmmmmmmm", dump(m))
	require.NoError(t, f.Sync())
	require.Equal(t, "a 4608 mmmmmmmmm", cut(m, Lost))

	// The disk after a cut goes on, too.
	c := m.PowerCut(func(int, Unit) Fate { return Lost })
	require.NoError(t, c.Corrupt("a", 0, 1, func(b []byte) { b[0] = '!' }))
	require.NoError(t, c.SetBytes("new", []byte("n")))
	require.Equal(t, lines("a 4608 !mmmmmmmm", "new 1 n"), cut(c, Lost))
	require.Equal(t, "b 4608 mmmmmmmmm", dump(m))
}

func TestSnapshotKeepsNoHandles(t *testing.T) {
	m := NewMem()
	l, err := m.Lock("LOCK")
	require.NoError(t, err)
	defer l.Close()
	f := create(t, m, "a", ReadWrite)
	write(t, f, "abc", 0)
	require.NoError(t, m.Remove("a"))
	require.NoError(t, m.SyncDir("/"))
	require.EqualValues(t, 3, m.Used())
	for _, c := range []*Mem{m.Snapshot(), m.PowerCut(func(int, Unit) Fate { return Kept })} {
		require.Zero(t, c.Used())
		l, err := c.Lock("LOCK")
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}

func TestOnIO(t *testing.T) {
	m := NewMem()
	var story []string
	var copies []*Mem
	m.OnIO(func(op Op) {
		story = append(story, fmt.Sprintf("%d %s %s%s %d+%d", op.Seq, op.Call, op.Name, op.To, op.Off, op.Len))
		copies = append(copies, m.Snapshot())
		m.PowerCutSeed(1, SectorAtomic)
	})
	f := create(t, m, "a", ReadWrite)
	write(t, f, "abc", 7)
	_, err := m.Create("a", ReadWrite)
	require.Error(t, err)
	require.NoError(t, f.SyncData())
	require.NoError(t, m.Rename("a", "b"))
	require.NoError(t, m.SyncDir("/"))
	m.OnIO(nil)
	require.NoError(t, m.Remove("b"))
	require.Equal(t, lines("1 create a 0+0", "2 write a 7+3", "3 syncdata a 0+0", "4 rename ab 0+0",
		"5 syncdir / 0+0"), lines(story...))
	require.Equal(t, "a 0 ", dump(copies[0]))
	require.Equal(t, "", cut(copies[3], Lost))
	require.Equal(t, "b 10 .", cut(copies[4], Lost))
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(1000)
	f := create(t, m, "a", ReadWrite)
	write(t, f, sec("x", 1), 0)
	n, err := f.WriteAt([]byte(sec("y", 1)), 512)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 488, n)
	require.ErrorIs(t, f.Zero(900, 200), syscall.ENOSPC)
	write(t, f, sec("z", 1), 0) // within the file there is room
	_, err = m.Create("b", ReadWrite)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, m.Remove("a"))
	require.NoError(t, f.Close())
	require.NoError(t, create(t, m, "b", ReadWrite).Close())
}

// Snapshots and cuts are taken, and read and written, while the original goes
// on. The race detector judges.
func TestSnapshotsWhileWriting(t *testing.T) {
	for _, hooked := range []bool{false, true} {
		m, _ := synced(t, sec("x", 40))
		copies := make(chan *Mem, 1000)
		if hooked {
			m.OnIO(func(Op) { copies <- m.Snapshot() })
		}
		var writers, readers sync.WaitGroup
		for g := range 2 {
			writers.Go(func() {
				f, err := m.Open("a", ReadWrite)
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 50 {
					write(t, f, sec("y", 2), int64((i*7+g)%40*SectorSize))
					if i%9 == 0 {
						_ = f.Sync()
					}
					if !hooked {
						copies <- m.Snapshot()
					}
				}
			})
		}
		for range 2 {
			readers.Go(func() {
				for c := range copies {
					before := string(c.Bytes("a"))
					f, err := c.Open("a", ReadWrite)
					if err != nil {
						t.Error(err)
						return
					}
					cut := c.PowerCutSeed(c.seq, NothingAssumed)
					_, _ = f.WriteAt([]byte("!"), 777)
					_ = cut.Bytes("a")
					if got := string(c.Bytes("a")); got[:777] != before[:777] || got[778:] != before[778:] {
						t.Error("a copy changed")
					}
				}
			})
		}
		writers.Wait()
		close(copies)
		readers.Wait()
	}
}
