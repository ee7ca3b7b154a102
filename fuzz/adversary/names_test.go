package adversary

import (
	"bufio"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/segment"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// onDisk puts files into a directory of the operating system.
func onDisk(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.Mkdir(dir, 0o700))
	for name, b := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	return dir
}

func unixAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs symbolic links and permissions as Unix has them")
	}
}

// tree is every file below a directory, with its mode.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += string(b)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += to
		}
		out[path] = what
		return nil
	}))
	return out
}

// TestLinksAreNotFollowed: a symbolic link in the place of any file of a store,
// though it leads to what the file was, is refused, and nothing behind it changes.
func TestLinksAreNotFollowed(t *testing.T) {
	unixAlone(t)
	for _, seed := range []int{3, 0, 1, 4} {
		if testing.Short() && seed != 3 {
			continue
		}
		files := seeds()[seed]
		for _, name := range slices.Sorted(maps.Keys(files)) {
			dir := onDisk(t, files)
			outside := filepath.Join(t.TempDir(), "outside")
			require.NoError(t, os.Rename(filepath.Join(dir, name), outside))
			require.NoError(t, os.Symlink(outside, filepath.Join(dir, name)))
			before, target := tree(t, dir), tree(t, outside)
			for _, readOnly := range []bool{true, false} {
				o := options(vfs.OS(), readOnly)
				db, err := forebay.Open(dir, o)
				require.ErrorIs(t, err, vfs.ErrNotRegular, "%s of seed %d", name, seed)
				require.Nil(t, db)
				require.Equal(t, before, tree(t, dir))
			}
			_, err := forebay.Explain(dir, options(vfs.OS(), false))
			if name != "LOCK" { // of which it takes no notice
				require.ErrorIs(t, err, vfs.ErrNotRegular)
				rep, err := check.Verify(ctx, &check.Config{FS: vfs.OS(), Dir: dir})
				if err == nil {
					err = rep.Err()
				}
				require.Error(t, err, "%s of seed %d", name, seed)
			}
			out := filepath.Join(t.TempDir(), "out")
			if _, err := check.Salvage(ctx, &check.Config{FS: vfs.OS(), Dir: dir}, out); err == nil {
				for path, what := range tree(t, out) {
					require.False(t, strings.HasPrefix(what, "L"), "%s is a link", path)
				}
			}
			require.Equal(t, before, tree(t, dir))
			require.Equal(t, target, tree(t, outside))
		}
	}
}

// TestStrayLinks: links, directories and dangling links under names that a store
// might use and does not. What they lead to stays as it is, whether Open refuses
// or takes the name away.
func TestStrayLinks(t *testing.T) {
	unixAlone(t)
	for _, name := range []string{"000099.log", "000099.seg", "MANIFEST-000099", "000001.log~", "x"} {
		for _, kind := range []string{"link to a file", "link to the lock", "link to nothing", "directory"} {
			dir := onDisk(t, seeds()[0])
			outside := filepath.Join(t.TempDir(), "outside")
			require.NoError(t, os.WriteFile(outside, []byte("precious"), 0o600))
			path := filepath.Join(dir, name)
			switch kind {
			case "link to a file":
				require.NoError(t, os.Symlink(outside, path))
			case "link to the lock":
				require.NoError(t, os.Symlink("LOCK", path))
			case "link to nothing":
				require.NoError(t, os.Symlink(filepath.Join(outside, "nothing"), path))
			case "directory":
				require.NoError(t, os.Mkdir(path, 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(path, "in it"), []byte("precious"), 0o600))
			}
			before := tree(t, dir)
			db, err := forebay.Open(dir, options(vfs.OS(), false))
			if err != nil {
				require.Equal(t, before, tree(t, dir), "%s, %s", name, kind)
			} else {
				require.NoError(t, db.Put([]byte("k"), nil))
				require.NoError(t, db.Close())
			}
			b, err := os.ReadFile(outside)
			require.NoError(t, err)
			require.Equal(t, "precious", string(b))
			if kind == "directory" {
				b, err := os.ReadFile(filepath.Join(path, "in it"))
				require.NoError(t, err)
				require.Equal(t, "precious", string(b))
			}
		}
	}
}

// TestNamesAreNeverPaths: what a user names (keyspaces, pins, keys) is no part of a
// path, and file names come from numbers alone.
func TestNamesAreNeverPaths(t *testing.T) {
	m := &meter{Mem: disk(seeds()[0])}
	db, err := forebay.Open("db", options(m, false))
	require.NoError(t, err)
	for _, name := range []string{"../../keyspace", "/etc/passwd", "..", "a/b", "LOCK", "000001.log", "a\x00"} {
		ks, err := db.Keyspace(name)
		require.NoError(t, err)
		require.NoError(t, ks.Put([]byte("../"+name), []byte(name)))
		require.NoError(t, db.Pin(name, db.LastLSN()))
	}
	require.NoError(t, db.Checkpoint(ctx))
	require.NoError(t, db.Compact(ctx))
	_, err = db.Backup(ctx, "out")
	require.NoError(t, err)
	require.NoError(t, db.DropKeyspace("../../keyspace"))
	require.NoError(t, db.Close())
	require.Empty(t, m.stray)
	require.NotEmpty(t, contents(m.Mem, "out"))
	// The meter does see what is none of a store's.
	m.see("db/../x")
	m.see("elsewhere/000001.log")
	require.Len(t, m.stray, 2)
}

// TestPermissions: everything is made for its owner alone, whatever the mask, and
// an open for reading changes nothing in a directory that may not be written.
func TestPermissions(t *testing.T) {
	unixAlone(t)
	dir := filepath.Join(t.TempDir(), "a", "db")
	db, err := forebay.Open(dir, options(vfs.OS(), false))
	require.NoError(t, err)
	require.NoError(t, db.Put([]byte("k"), []byte("v")))
	require.NoError(t, db.Checkpoint(ctx))
	_, err = db.Backup(ctx, filepath.Join(dir, "..", "copy"))
	require.NoError(t, err)
	require.NoError(t, db.Close())
	files := 0
	require.NoError(t, filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, path)
		files++
		return nil
	}))
	require.Greater(t, files, 6)

	// Wider permissions stay as somebody has made them, narrower ones too.
	require.NoError(t, os.Chmod(filepath.Join(dir, "LOCK"), 0o440))
	before := tree(t, dir)
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	before[dir] = tree(t, dir)[dir]
	db, err = forebay.Open(dir, options(vfs.OS(), true))
	require.NoError(t, err)
	v, err := db.Get([]byte("k"))
	require.NoError(t, err)
	require.Equal(t, "v", string(v))
	require.ErrorIs(t, db.Put([]byte("k"), nil), forebay.ErrReadOnly)
	require.NoError(t, db.Close())
	require.Equal(t, before, tree(t, dir))
}

// TestDoubleOpen: a store that is open is refused at once, to this process, to
// another, and by another name of its lock.
func TestDoubleOpen(t *testing.T) {
	if dir := os.Getenv("ADVERSARY_OPEN"); dir != "" { // the other process
		db, err := forebay.Open(dir, options(vfs.OS(), false))
		if errors.Is(err, forebay.ErrLocked) {
			os.Stdout.WriteString("locked\n")
			return
		}
		require.NoError(t, err)
		os.Stdout.WriteString("open\n")
		bufio.NewReader(os.Stdin).ReadByte() // until the end of it
		db.Close()
		return
	}
	dir := onDisk(t, seeds()[0])
	other := func() (*exec.Cmd, string) {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestDoubleOpen$")
		cmd.Env = append(os.Environ(), "ADVERSARY_OPEN="+dir)
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		return cmd, strings.TrimSpace(line)
	}
	db, err := forebay.Open(dir, options(vfs.OS(), false))
	require.NoError(t, err)
	for _, readOnly := range []bool{true, false} {
		_, err = forebay.Open(dir, options(vfs.OS(), readOnly))
		require.ErrorIs(t, err, forebay.ErrLocked)
	}
	_, said := other()
	require.Equal(t, "locked", said)
	if runtime.GOOS != "windows" { // the same lock under another name
		twin := filepath.Join(filepath.Dir(dir), "twin")
		require.NoError(t, os.Mkdir(twin, 0o700))
		for name := range seeds()[0] {
			require.NoError(t, os.Link(filepath.Join(dir, name), filepath.Join(twin, name)))
		}
		_, err = forebay.Open(twin, options(vfs.OS(), false))
		require.ErrorIs(t, err, forebay.ErrLocked)
	}
	require.NoError(t, db.Close())

	child, said := other()
	require.Equal(t, "open", said)
	for _, readOnly := range []bool{true, false} {
		_, err = forebay.Open(dir, options(vfs.OS(), readOnly))
		require.ErrorIs(t, err, forebay.ErrLocked)
	}
	require.NoError(t, child.Process.Kill()) // the lock dies with it
	child.Wait()
	db, err = forebay.Open(dir, options(vfs.OS(), false))
	require.NoError(t, err)
	require.NoError(t, db.Close())
}

// TestNewerFormat: a file of a newer format, by its version or by a feature that
// this program does not know, is refused before any write, and is no damage.
func TestNewerFormat(t *testing.T) {
	tries := 0
	for seed := range storeSeeds {
		names := slices.Sorted(maps.Keys(takeApart(seeds()[seed]).put()))
		for _, name := range names {
			for _, at := range []int{8, 12} { // version, required features
				st := takeApart(seeds()[seed])
				_, isSegment := segment.ParseFileName(name)
				f := st.framed[name]
				switch {
				case isSegment:
					b := st.segs[name]
					b[len(b)-footer+at] += 4
				case f != nil:
					f.head[at] += 4
				default:
					continue
				}
				st.mend()
				tries++
				files := st.put()
				ways := map[string]func(fsys vfs.FS) error{
					"Explain": func(fsys vfs.FS) error { _, err := forebay.Explain("db", options(fsys, false)); return err },
					"Open":    func(fsys vfs.FS) error { _, err := forebay.Open("db", options(fsys, false)); return err },
					"Open, reading": func(fsys vfs.FS) error {
						_, err := forebay.Open("db", options(fsys, true))
						return err
					},
					"Verify": func(fsys vfs.FS) error {
						_, err := check.Verify(ctx, &check.Config{FS: fsys, Dir: "db"})
						return err
					},
					"Salvage": func(fsys vfs.FS) error {
						_, err := check.Salvage(ctx, &check.Config{FS: fsys, Dir: "db"}, "out")
						return err
					},
				}
				for way, fn := range ways {
					mem := disk(files)
					err := fn(mem)
					var newer *segment.UnsupportedError
					require.True(t, errors.Is(err, frame.ErrUnsupported) || errors.As(err, &newer), "%s of %s, byte %d: %v", way, name, at, err)
					var c *forebay.CorruptionError
					require.False(t, errors.As(err, &c), "%s of %s: %v", way, name, err)
					require.True(t, same(contents(disk(files), "db"), contents(mem, "db")), "%s of %s changed a file", way, name)
					require.Empty(t, contents(mem, "out"))
				}
			}
		}
	}
	// A log that is used alone.
	for seed := storeSeeds; seed < len(seeds()); seed++ {
		for name := range takeApart(seeds()[seed]).framed {
			st := takeApart(seeds()[seed])
			st.framed[name].head[8]++
			mem := disk(st.put())
			_, err := wal.Open("db", &wal.Options{FS: mem})
			require.ErrorIs(t, err, frame.ErrUnsupported, name)
			require.True(t, same(st.put(), contentsWithLock(mem)))
			tries++
		}
	}
	t.Logf("%d files", tries)
}

func contentsWithLock(mem *vfs.Mem) map[string][]byte { return withLock(contents(mem, "db")) }
