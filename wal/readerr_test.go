package wal_test

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// grown is a log that has everything that a reader meets: files that a pin
// retains, one of them with an index, copies, records longer than a reader's
// window, an end that nothing proves. It was killed.
func grown(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	o := testOptions(mem)
	l, _ := openAll(t, o)
	put(t, l, wal.Durable, longRecord(1))
	put(t, l, wal.Written, longRecord(2))
	mem = mem.Snapshot() // killed: record 2 is copied by the next open
	require.NoError(t, l.Close())
	o = testOptions(mem)
	l, _ = openAll(t, o)
	require.NoError(t, l.Pin("pin", 1))
	for n := 3; n < 120; n++ {
		put(t, l, wal.Durable, longRecord(n))
	}
	require.NoError(t, l.TruncateFront(100))
	put(t, l, wal.Durable, string(make([]byte, 600<<10)))
	for range 3 {
		put(t, l, wal.Written, longRecord(1))
	}
	killed := mem.Snapshot()
	require.NoError(t, l.Close())
	return killed
}

// copied is a log whose last file begins with copies, and that was killed.
func copied(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	l, _ := openAll(t, testOptions(mem))
	put(t, l, wal.Durable, longRecord(1))
	put(t, l, wal.Written, longRecord(2))
	put(t, l, wal.Written, string(make([]byte, 600<<10)))
	killed := mem.Snapshot()
	require.NoError(t, l.Close())
	l, _ = openAll(t, testOptions(killed))
	put(t, l, wal.Durable, longRecord(4))
	mem = killed.Snapshot()
	require.NoError(t, l.Close())
	return mem
}

// readsOf are the calls by which a log is read.
var readsOf = []vfs.Call{vfs.CallOpen, vfs.CallSize, vfs.CallRead, vfs.CallList}

// TestEveryReadFails makes each call by which a log is read fail once: an open
// and Inspect say so, and take it for no damage; the next open has everything.
func TestEveryReadFails(t *testing.T) {
	for name, mem := range map[string]*vfs.Mem{"grown": grown(t), "copied": copied(t)} {
		t.Run(name, func(t *testing.T) { everyReadFails(t, mem) })
	}
}

func everyReadFails(t *testing.T, mem *vfs.Mem) {
	l, want := openAll(t, testOptions(mem.Snapshot()))
	require.NoError(t, l.Close())
	tries := 0
	for _, call := range readsOf {
		for k := 1; ; k++ {
			disk := mem.Snapshot()
			before := snapshotFiles(t, disk)
			in := vfs.NewInjector(disk)
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
			_, err := wal.Inspect("db", testOptions(in))
			require.Equal(t, before, snapshotFiles(t, disk))
			if rule.Hits() == 0 {
				require.NoError(t, err)
				break
			}
			tries++
			require.ErrorIs(t, err, syscall.EIO, "%s %d", call, k)
			var c *wal.CorruptionError
			require.False(t, errors.As(err, &c), "%s %d: %v", call, k, err)

			in = vfs.NewInjector(disk)
			in.Add(vfs.Rule{Call: call, K: k + 1, Err: syscall.EIO}) // hasCatalog asks once more
			if l, err := wal.Open("db", testOptions(in)); err != nil {
				require.ErrorIs(t, err, syscall.EIO, "%s %d", call, k)
				require.False(t, errors.As(err, &c), "%s %d: %v", call, k, err)
			} else {
				require.NoError(t, l.Close())
			}
			l, again := openAll(t, testOptions(disk))
			require.Equal(t, want, again, "%s %d", call, k)
			require.NoError(t, l.Close())
		}
	}
	t.Logf("%d failing reads", tries)
	require.Greater(t, tries, 12)
}

// TestATailGoesOnBehindAFailedRead: each call of a tail fails once; the same tail
// then goes on where it was.
func TestATailGoesOnBehindAFailedRead(t *testing.T) {
	mem := grown(t)
	tries := 0
	for _, call := range readsOf {
		for k := 1; ; k++ {
			in := vfs.NewInjector(mem.Snapshot())
			l, _ := openAll(t, testOptions(in))
			tail, err := l.NewTail(wal.Position{})
			require.NoError(t, err)
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
			failed := 0
			for want := wal.LSN(1); want <= l.DurableLSN(); {
				pos, rec, ok, err := tail.TryNext()
				if err != nil {
					require.ErrorIs(t, err, syscall.EIO, "%s %d", call, k)
					failed++
					continue
				}
				require.True(t, ok)
				require.Equal(t, want, pos.LSN)
				if want < 120 {
					require.Equal(t, longRecord(int(want)), string(rec))
				}
				want++
			}
			hits := rule.Hits()
			rule.Remove()
			require.Equal(t, min(hits, 1), failed)
			// What comes now lies behind what was read of the file.
			more := in.Add(vfs.Rule{Call: call, Err: syscall.EIO})
			last := put(t, l, wal.Durable, longRecord(1))
			pos, rec, ok, err := tail.TryNext()
			for range more.Hits() {
				require.ErrorIs(t, err, syscall.EIO)
				pos, rec, ok, err = tail.TryNext()
			}
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, last, pos.LSN)
			require.Equal(t, longRecord(1), string(rec))
			more.Remove()
			require.NoError(t, tail.Close())
			require.NoError(t, l.Close())
			if hits == 0 {
				break
			}
			tries++
		}
	}
	t.Logf("%d failing reads", tries)
	require.Greater(t, tries, 10)
}

// TestATailBeginsInTheMiddle: the index leads to the place; where it cannot be
// read, the next try begins anew.
func TestATailBeginsInTheMiddle(t *testing.T) {
	mem := grown(t)
	in := vfs.NewInjector(mem)
	l, _ := openAll(t, testOptions(in))
	for lsn := wal.LSN(1); lsn < l.DurableLSN(); lsn += 3 {
		for _, k := range []int{2, 3, 4} {
			tail, err := l.NewTail(wal.Position{LSN: lsn, Epoch: l.EpochAt(lsn)})
			require.NoError(t, err)
			rule := in.Add(vfs.Rule{Call: vfs.CallRead, K: k, Err: syscall.EIO})
			pos, _, ok, err := tail.TryNext()
			if rule.Hits() > 0 {
				require.ErrorIs(t, err, syscall.EIO)
				pos, _, ok, err = tail.TryNext()
			}
			rule.Remove()
			require.NoError(t, err, "record %d, read %d", lsn+1, k)
			require.True(t, ok)
			require.Equal(t, lsn+1, pos.LSN)
			require.NoError(t, tail.Close())
		}
	}
	require.Zero(t, l.EpochAt(l.LastLSN()+1), "a record that is not there is of no epoch")
	require.NoError(t, l.Close())
}

// TestAFileIsReplacedUnderATail: the file that a tail opens is another, or none,
// by then.
func TestAFileIsReplacedUnderATail(t *testing.T) {
	for want, change := range map[string]func(b []byte){
		"header does not verify": func(b []byte) { b[40] ^= 1 },
		"header is of another file": func(b []byte) {
			copy(b, (&frame.FileHeader{Kind: frame.FileLog, Align: frame.FrameAlign, Number: 1, Salt: 5}).Encode())
		},
	} {
		mem := grown(t)
		l, _ := openAll(t, testOptions(mem))
		require.NoError(t, mem.Corrupt(path(1), 0, frame.HeaderSize, change))
		tail, err := l.NewTail(wal.Position{})
		require.NoError(t, err)
		_, _, _, err = tail.TryNext()
		var c *wal.CorruptionError
		require.ErrorAs(t, err, &c)
		require.Equal(t, path(1), c.File)
		require.Equal(t, int64(0), c.Offset)
		require.ErrorContains(t, err, want)
		require.NoError(t, tail.Close())
		require.NoError(t, l.Close())
	}
}

// TestLostCatalog: log files with frames and no catalog are no new log, and a
// read that fails there is no empty directory.
func TestLostCatalog(t *testing.T) {
	mem := grown(t)
	names, err := mem.List("db")
	require.NoError(t, err)
	for _, name := range names {
		if _, isLog := wal.ParseFileName(name); !isLog && name != "LOCK" {
			require.NoError(t, mem.Remove("db/"+name))
		}
	}
	before := snapshotFiles(t, mem)
	var c *wal.CorruptionError
	_, err = wal.Inspect("db", testOptions(mem))
	require.ErrorAs(t, err, &c)
	require.Equal(t, path(1), c.File)
	_, err = wal.Open("db", testOptions(mem))
	require.ErrorAs(t, err, &c)
	for _, call := range readsOf {
		for k := 1; k < 5; k++ {
			in := vfs.NewInjector(mem)
			rule := in.Add(vfs.Rule{Call: call, K: k, Err: syscall.EIO})
			_, err := wal.Open("db", testOptions(in))
			require.Error(t, err)
			if rule.Hits() > 0 && (call != vfs.CallList || k > 1) { // the first List only asks what it need not make
				require.ErrorIs(t, err, syscall.EIO, "%s %d", call, k)
			}
		}
	}
	require.Equal(t, before, snapshotFiles(t, mem))
}

// TestNoRandomness: without random bytes there is no store id, and so no log.
func TestNoRandomness(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	o.Rand = failing{}
	_, err := wal.Open("db", o)
	require.ErrorIs(t, err, syscall.EIO)
	names, err := mem.List("db")
	require.NoError(t, err)
	require.Equal(t, []string{"LOCK"}, names)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, syscall.EIO }

var _ io.Reader = failing{}

// TestLinkToBehindACut: a file that follows a record which a truncation has taken
// is no part of the history.
func TestLinkToBehindACut(t *testing.T) {
	b := newBench(t, 0)
	b.open().put(wal.Durable, 8)
	link := b.last(1)
	require.NoError(t, b.l.TruncateBack(4))
	b.kill()
	b.forge(2, 1, link, 2) // epoch 1: of before the cut
	rec, err := wal.Inspect("db", b.options())
	require.NoError(t, err)
	require.Equal(t, wal.LSN(4), rec.Last)
	require.Equal(t, []string{wal.FileName(2)}, rec.Void)
	require.Equal(t, wal.LSN(4), rec.Proven)
	b.open()
	require.Equal(t, 4, b.n)
	b.put(wal.Durable, 1).close()
}

// TestLinkThatContradictsItself: a link frame whose own LSN does not follow what it
// keeps does not count, and what its file proves is missing.
func TestLinkThatContradictsItself(t *testing.T) {
	b := newBench(t, 0)
	b.open().put(wal.Durable, 3).kill()
	link := b.last(1)
	head := frame.FileHeader{Kind: frame.FileLog, Align: frame.FrameAlign, Store: b.cat.StoreID(), Number: 2, Salt: 9, Epoch: 2}
	var fb frame.Builder
	fb.Reset(&head, frame.CodecNone, head.Start(), 0)
	fb.Link(link, 0)
	file := append(head.Encode(), fb.Bytes()...)
	at := head.Start()
	// The frame again, with first LSN one higher.
	var other frame.Builder
	other.Reset(&head, frame.CodecNone, head.Start(), 0)
	moved := link
	moved.Kept++
	moved.Copies++
	other.Link(moved, 0)
	forged := append(head.Encode(), other.Bytes()...)
	require.NotEqual(t, file[at:], forged[at:])
	require.NoError(t, b.mem.SetBytes(path(2), forged))
	require.NoError(t, b.cat.EditLog(&wal.Edit{Put: []wal.FileMeta{{Number: 2, Salt: 9, Epoch: 2}}}))
	rec, err := wal.Inspect("db", b.options())
	require.NoError(t, err)
	require.Equal(t, wal.LSN(3), rec.Last, "the link names a record that was never there")
	require.Equal(t, wal.Torn, rec.Verdict)
	require.Equal(t, "torn", rec.Verdict.String())
}
