package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// eachFS runs a test over every implementation, with an empty directory.
func eachFS(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	for _, below := range []string{"OS", "Mem"} {
		for _, wrap := range []string{"", "Injector", "Recorder"} {
			t.Run(below+wrap, func(t *testing.T) {
				fsys, dir := OS(), ""
				if below == "Mem" {
					fsys, dir = NewMem(), "/data"
					require.NoError(t, fsys.MkdirAll(dir))
				} else {
					dir = t.TempDir()
				}
				switch wrap {
				case "Injector":
					fsys = NewInjector(fsys)
				case "Recorder":
					fsys = NewRecorder(fsys)
				}
				test(t, fsys, dir)
			})
		}
	}
}

func create(t testing.TB, fsys FS, name string, mode Mode) File {
	f, err := fsys.Create(name, mode)
	require.NoError(t, err)
	return f
}

func write(t testing.TB, f File, s string, off int64) {
	n, err := f.WriteAt([]byte(s), off)
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

func TestReadAndWrite(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "a")
		f := create(t, fsys, name, ReadOnly) // Create always writes
		write(t, f, "hello", 3)
		size, err := f.Size()
		require.NoError(t, err)
		require.EqualValues(t, 8, size)

		b := make([]byte, 8)
		n, err := f.ReadAt(b, 0)
		require.NoError(t, err)
		require.Equal(t, "\x00\x00\x00hello", string(b[:n]))
		n, err = f.ReadAt(b, 5)
		require.Equal(t, io.EOF, err)
		require.Equal(t, "llo", string(b[:n]))
		for _, off := range []int64{8, 9, 1 << 40} {
			n, err = f.ReadAt(b, off)
			require.Equal(t, io.EOF, err)
			require.Zero(t, n)
		}
		n, err = f.ReadAt(nil, 100)
		require.NoError(t, err)
		require.Zero(t, n)
		_, err = f.ReadAt(b, -1)
		require.Error(t, err)
		require.NotErrorIs(t, err, io.EOF)
		_, err = f.WriteAt(b, -1)
		require.Error(t, err)
		require.Error(t, f.Zero(-1, 2))
		require.Error(t, f.Zero(1, -2))

		big := bytes.Repeat([]byte("0123456789"), 1000)
		write(t, f, string(big), 4090)
		require.NoError(t, f.Sync())
		require.NoError(t, f.SyncData())
		require.NoError(t, f.Close())

		got, err := ReadFile(fsys, name, 1<<20)
		require.NoError(t, err)
		require.Len(t, got, 14090)
		require.Equal(t, string(big), string(got[4090:]))
		_, err = ReadFile(fsys, name, 14089)
		require.ErrorContains(t, err, "larger")
	})
}

func TestZero(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "z")
		f := create(t, fsys, name, ReadWrite)
		defer f.Close()
		data := bytes.Repeat([]byte{7}, 10000)
		write(t, f, string(data), 0)
		require.NoError(t, f.Zero(100, 8000))
		require.NoError(t, f.Zero(5000, 3<<20))
		require.NoError(t, f.Zero(0, 0))
		clear(data[100:])
		want := append(data, make([]byte, 5000+3<<20-len(data))...)
		want = want[:5000+3<<20]
		got, err := ReadFile(fsys, name, 1<<30)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	})
}

func TestNames(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		at := func(s string) string { return filepath.Join(dir, filepath.FromSlash(s)) }
		_, err := fsys.Open(at("a"), ReadOnly)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.Create(at("no/a"), ReadWrite)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.Stat(at("a"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.List(at("no"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.ErrorIs(t, fsys.Remove(at("a")), fs.ErrNotExist)
		require.ErrorIs(t, fsys.Rename(at("a"), at("b")), fs.ErrNotExist)
		require.ErrorIs(t, fsys.SyncDir(at("no")), fs.ErrNotExist)

		f := create(t, fsys, at("a"), ReadWrite)
		write(t, f, "one", 0)
		require.NoError(t, f.Close())
		_, err = fsys.Create(at("a"), ReadWrite)
		require.ErrorIs(t, err, fs.ErrExist)
		_, err = fsys.Create(at("a/b"), ReadWrite)
		require.Error(t, err)
		require.Error(t, fsys.MkdirAll(at("a")))
		_, err = fsys.List(at("a"))
		require.Error(t, err)

		require.NoError(t, fsys.MkdirAll(at("d/e/f")))
		require.NoError(t, fsys.MkdirAll(at("d/e/f")))
		require.NoError(t, create(t, fsys, at("d-"), ReadWrite).Close())
		require.NoError(t, create(t, fsys, at("d/e/x"), ReadWrite).Close())
		names, err := fsys.List(dir)
		require.NoError(t, err)
		require.Equal(t, []string{"a", "d", "d-"}, names)
		names, err = fsys.List(at("d/e"))
		require.NoError(t, err)
		require.Equal(t, []string{"f", "x"}, names)
		info, err := fsys.Stat(at("d"))
		require.NoError(t, err)
		require.Equal(t, Info{Dir: true}, info)
		info, err = fsys.Stat(at("a"))
		require.NoError(t, err)
		require.Equal(t, Info{Size: 3, Regular: true}, info)
		for _, mode := range []Mode{ReadOnly, ReadWrite} {
			_, err = fsys.Open(at("d"), mode)
			require.ErrorIs(t, err, ErrNotRegular)
		}
		_, err = fsys.Lock(at("d"))
		require.ErrorIs(t, err, ErrNotRegular)
		_, err = fsys.LockShared(at("d"))
		require.ErrorIs(t, err, ErrNotRegular)

		require.Error(t, fsys.Remove(at("d/e")), "not empty")
		require.NoError(t, fsys.Remove(at("d/e/f")))
		require.NoError(t, fsys.Remove(at("d/e/x")))
		require.NoError(t, fsys.Remove(at("d/e")))
		require.NoError(t, fsys.SyncDir(at("d")))
		require.NoError(t, fsys.SyncDir(dir))

		f = create(t, fsys, at("b"), ReadWrite)
		write(t, f, "two", 0)
		require.NoError(t, f.Close())
		require.NoError(t, fsys.Rename(at("b"), at("a")))
		require.NoError(t, fsys.Rename(at("a"), at("a")))
		b, err := ReadFile(fsys, at("a"), 9)
		require.NoError(t, err)
		require.Equal(t, "two", string(b))
		_, err = fsys.Stat(at("b"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.Error(t, fsys.Rename(at("a"), at("d")))
		require.ErrorIs(t, fsys.Rename(at("a"), at("no/a")), fs.ErrNotExist)
	})
}

func TestHandles(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "a")
		f := create(t, fsys, name, ReadWrite)
		write(t, f, "abc", 0)

		ro, err := fsys.Open(name, ReadOnly)
		require.NoError(t, err)
		n, err := ro.WriteAt([]byte("x"), 0)
		require.Error(t, err)
		require.Zero(t, n)
		require.Error(t, ro.Zero(0, 1))
		require.NoError(t, ro.Sync())

		if runtime.GOOS != "windows" {
			require.NoError(t, fsys.Remove(name))
			write(t, f, "d", 3) // an open file outlives its name
			b := make([]byte, 4)
			_, err = ro.ReadAt(b, 0)
			require.NoError(t, err)
			require.Equal(t, "abcd", string(b))
		}
		require.NoError(t, ro.Close())
		require.NoError(t, f.Close())
		_, err = f.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, fs.ErrClosed)
		_, err = f.WriteAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, fs.ErrClosed)
		_, err = f.Size()
		require.ErrorIs(t, err, fs.ErrClosed)
		require.ErrorIs(t, f.Zero(0, 1), fs.ErrClosed)
		require.ErrorIs(t, f.Sync(), fs.ErrClosed)
		require.ErrorIs(t, f.SyncData(), fs.ErrClosed)
		require.ErrorIs(t, f.Close(), fs.ErrClosed)
	})
}

func TestLock(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		l, err := fsys.Lock(name)
		require.NoError(t, err)
		_, err = fsys.Lock(name)
		require.ErrorIs(t, err, ErrLocked)
		info, err := fsys.Stat(name)
		require.NoError(t, err)
		require.True(t, info.Regular)
		require.NoError(t, l.Close())
		require.Error(t, l.Close())
		l, err = fsys.Lock(name)
		require.NoError(t, err)
		require.NoError(t, l.Close())
		_, err = fsys.Lock(filepath.Join(dir, "no", "LOCK"))
		require.ErrorIs(t, err, fs.ErrNotExist)
	})
}

func TestLockShared(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		_, err := fsys.LockShared(name)
		require.ErrorIs(t, err, fs.ErrNotExist)
		_, err = fsys.Stat(name)
		require.ErrorIs(t, err, fs.ErrNotExist, "nothing is made")
		_, err = fsys.LockShared(filepath.Join(dir, "no", "LOCK"))
		require.ErrorIs(t, err, fs.ErrNotExist)

		x, err := fsys.Lock(name)
		require.NoError(t, err)
		_, err = fsys.LockShared(name)
		require.ErrorIs(t, err, ErrLocked)
		require.NoError(t, x.Close())

		a, err := fsys.LockShared(name)
		require.NoError(t, err)
		b, err := fsys.LockShared(name)
		require.NoError(t, err)
		_, err = fsys.Lock(name)
		require.ErrorIs(t, err, ErrLocked)
		require.NoError(t, a.Close())
		require.Error(t, a.Close(), "given back twice")
		_, err = fsys.Lock(name)
		require.ErrorIs(t, err, ErrLocked, "one is still held")
		require.NoError(t, b.Close())
		x, err = fsys.Lock(name)
		require.NoError(t, err)
		require.NoError(t, x.Close())
	})
}

// A reader needs no right to write, neither to the file nor to its directory.
func TestOSLockSharedReadOnly(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "LOCK")
	require.NoError(t, os.WriteFile(name, nil, 0o400))
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	l, err := OS().LockShared(name)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestModes(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		f, err := fsys.Create(filepath.Join(dir, "s"), DSync)
		if !errors.Is(err, ErrUnsupported) {
			require.NoError(t, err)
			write(t, f, "abc", 0)
			require.NoError(t, f.Zero(100, 10))
			require.NoError(t, f.Close())
		}

		name := filepath.Join(dir, "d")
		f, err = fsys.Create(name, ReadWrite|Direct)
		if errors.Is(err, ErrUnsupported) {
			_, err = fsys.Stat(name)
			require.ErrorIs(t, err, fs.ErrNotExist)
			return
		}
		require.NoError(t, err)
		b := AlignedBuf(2 * DirectAlign)
		copy(b, "direct")
		_, err = f.WriteAt(b, 0)
		require.NoError(t, err)
		require.NoError(t, f.Zero(0, 0))
		require.NoError(t, f.Zero(DirectAlign, 2<<20))
		_, err = f.WriteAt(b[:512], 0)
		require.Error(t, err)
		_, err = f.WriteAt(b[8:8+DirectAlign], 0)
		require.Error(t, err)
		_, err = f.WriteAt(b, 512)
		require.Error(t, err)
		_, err = f.ReadAt(b[:100], 0)
		require.Error(t, err)
		require.Error(t, f.Zero(0, 100))
		clear(b)
		_, err = f.ReadAt(b, 0)
		require.NoError(t, err)
		require.Equal(t, "direct", string(b[:6]))
		require.NoError(t, f.Close())

		// The end of a file need not be aligned.
		name = filepath.Join(dir, "e")
		f = create(t, fsys, name, ReadWrite)
		write(t, f, string(make([]byte, DirectAlign+5)), 0)
		require.NoError(t, f.Close())
		f, err = fsys.Open(name, Direct)
		require.NoError(t, err)
		n, err := f.ReadAt(b, 0)
		require.Equal(t, io.EOF, err)
		require.Equal(t, DirectAlign+5, n)
		require.NoError(t, f.Close())
	})
}

func TestConcurrent(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		f := create(t, fsys, filepath.Join(dir, "a"), ReadWrite)
		defer f.Close()
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				b := bytes.Repeat([]byte{byte(g + 1)}, 1000)
				got := make([]byte, len(b))
				for i := range 10 {
					off := int64(4*i+g) * 1000
					_, err := f.WriteAt(b, off)
					_, rerr := f.ReadAt(got, off)
					if err != nil || rerr != nil || !bytes.Equal(b, got) {
						t.Error(err, rerr)
					}
				}
				if err := f.SyncData(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// What only an operating system has: links, permissions, pipes.
func TestOSRefusesLinks(t *testing.T) {
	if runtime.GOOS == "windows" || runtime.GOOS == "js" {
		t.Skip("needs symbolic links")
	}
	dir := t.TempDir()
	at := func(s string) string { return filepath.Join(dir, s) }
	fsys := OS()
	f := create(t, fsys, at("a"), ReadWrite)
	require.NoError(t, f.Close())
	st, err := os.Stat(at("a"))
	require.NoError(t, err)
	require.Zero(t, st.Mode().Perm()&0o077)
	require.NoError(t, fsys.MkdirAll(at("sub/dir")))
	st, err = os.Stat(at("sub"))
	require.NoError(t, err)
	require.Zero(t, st.Mode().Perm()&0o077)

	require.NoError(t, os.Symlink("a", at("link")))
	require.NoError(t, os.Symlink("missing", at("dangling")))
	for _, mode := range []Mode{ReadOnly, ReadWrite} {
		_, err = fsys.Open(at("link"), mode)
		require.ErrorIs(t, err, ErrNotRegular)
	}
	for _, name := range []string{"link", "dangling"} {
		_, err = fsys.Create(at(name), ReadWrite)
		require.ErrorIs(t, err, fs.ErrExist)
		_, err = fsys.Lock(at(name))
		require.ErrorIs(t, err, ErrNotRegular)
		_, err = fsys.LockShared(at(name))
		require.ErrorIs(t, err, ErrNotRegular)
		info, err := fsys.Stat(at(name))
		require.NoError(t, err)
		require.False(t, info.Regular || info.Dir)
	}
	_, err = os.Stat(at("missing"))
	require.ErrorIs(t, err, fs.ErrNotExist)

	l, err := fsys.Lock(at("a"))
	require.NoError(t, err)
	require.NoError(t, os.Link(at("a"), at("hard")))
	_, err = fsys.Lock(at("hard"))
	require.ErrorIs(t, err, ErrLocked)
	_, err = fsys.LockShared(at("hard"))
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, l.Close())
}
