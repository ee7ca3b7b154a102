package wal

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// countFS counts the stores of a log's files into mapped memory.
type countFS struct {
	vfs.FS
	maps, stores *int
	fail         error // of each store
}

type countFile struct {
	vfs.File
	fs *countFS
}

func (c *countFS) Create(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := c.FS.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return &countFile{f, c}, nil
}

func (c *countFS) Open(name string, mode vfs.Mode) (vfs.File, error) {
	f, err := c.FS.Open(name, mode)
	if err != nil {
		return nil, err
	}
	return &countFile{f, c}, nil
}

func (f *countFile) Map(off, n int64) (vfs.Mapping, error) {
	m, err := vfs.Map(f.File, off, n)
	if err == nil {
		*f.fs.maps++
		m = &countMapping{m, f.fs}
	}
	return m, err
}

type countMapping struct {
	vfs.Mapping
	fs *countFS
}

func (m *countMapping) WriteAt(p []byte, off int64) (int, error) {
	*m.fs.stores++
	if m.fs.fail != nil {
		n, _ := m.Mapping.WriteAt(p[:len(p)/2], off)
		return n, m.fs.fail
	}
	return m.Mapping.WriteAt(p, off)
}

func counting(fsys vfs.FS) *countFS { return &countFS{FS: fsys, maps: new(int), stores: new(int)} }

func windowRecord(i int) []byte {
	b := make([]byte, 100+i%50)
	binary.LittleEndian.PutUint64(b, uint64(i))
	b[len(b)-1] = byte(i)
	return b
}

// readAll returns how many of the records 1, 2, … a log holds.
func readAll(t *testing.T, fsys vfs.FS, dir string) int {
	n := 0
	rep, err := Inspect(dir, &Options{FS: fsys, OnRecord: func(lsn LSN, _ uint64, rec []byte) error {
		n++
		require.Equal(t, LSN(n), lsn)
		require.Equal(t, windowRecord(n), rec)
		return nil
	}})
	require.NoError(t, err)
	require.Equal(t, LSN(n), rep.Last)
	return n
}

// TestWindow: Written records go into mapped memory, across windows, files and
// syncs, and are all there when the process dies.
func TestWindow(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"os": vfs.OS(), "mem": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			if name == "os" && runtime.GOOS != "linux" {
				t.Skip("files cannot be mapped here")
			}
			dir := t.TempDir()
			c := counting(fsys)
			l, err := Open(dir, &Options{FS: c, FirstFileSize: 512 << 10, FileSize: 3 << 20, MapFrom: 4096})
			require.NoError(t, err)
			const records = 60_000
			for i := 1; i <= records; i++ {
				r := &Request{Records: []Record{{Data: windowRecord(i)}}, Level: Written}
				if i%7000 == 0 {
					r.Level = Durable
				}
				require.NoError(t, l.Commit(r))
				if i == 3000 { // too long for a window
					big := &Request{Level: Written}
					for range 300 {
						i++
						big.Records = append(big.Records, Record{Data: windowRecord(i)})
					}
					require.NoError(t, l.Commit(big))
				}
			}
			require.Greater(t, *c.stores, records*9/10)
			require.Greater(t, *c.maps, 5)
			require.Equal(t, LSN(records), l.WrittenLSN())
			require.Equal(t, records, readAll(t, fsys, dir))
			require.NoError(t, l.Close())
			require.Equal(t, records, readAll(t, fsys, dir))
		})
	}
}

// TestWindowOfThoseThatHaveNone: with what rules it out nothing is mapped.
func TestWindowOfThoseThatHaveNone(t *testing.T) {
	for name, o := range map[string]Options{
		"never":   {MapFrom: -1},
		"aligned": {MapFrom: 1, Align: 4096},
		"grows":   {MapFrom: 1, NoZeros: true},
		"fsync":   {MapFrom: 1, Mechanism: Fsync},
		"dsync":   {MapFrom: 1, Mechanism: DSync},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			c := counting(mem)
			o.FS, o.FirstFileSize = c, 256<<10
			l, err := Open("d", &o)
			require.NoError(t, err)
			for i := 1; i <= 500; i++ {
				require.NoError(t, l.Commit(&Request{Records: []Record{{Data: windowRecord(i)}}, Level: Written}))
			}
			require.Zero(t, *c.maps)
			require.Equal(t, 500, readAll(t, mem, "d"))
			require.NoError(t, l.Close())
		})
	}
}

// TestWindowFails: a store that fails is a write that fails.
func TestWindowFails(t *testing.T) {
	mem := vfs.NewMem()
	c := counting(mem)
	l, err := Open("d", &Options{FS: c, FirstFileSize: 256 << 10, MapFrom: 1})
	require.NoError(t, err)
	commit := func(i int) error {
		return l.Commit(&Request{Records: []Record{{Data: windowRecord(i)}}, Level: Written})
	}
	for i := 1; i <= 10; i++ {
		require.NoError(t, commit(i))
	}
	require.NotZero(t, *c.stores)
	c.fail = syscall.EIO
	err = commit(11)
	require.ErrorIs(t, err, ErrUnknown)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, commit(12), ErrPoisoned)
	require.ErrorIs(t, l.Close(), syscall.EIO)
	require.Equal(t, 10, readAll(t, mem, "d"))
}

// TestWindowSurvivesAKill kills a process that commits Written records, and finds
// each that it had acknowledged.
func TestWindowSurvivesAKill(t *testing.T) {
	if dir := os.Getenv("WAL_WINDOW_DIR"); dir != "" {
		writeUntilKilled(dir)
		return
	}
	kills := 4
	if testing.Short() {
		kills = 1
	}
	for k := range kills {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "^TestWindowSurvivesAKill$")
		cmd.Env = append(os.Environ(), "WAL_WINDOW_DIR="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		acked, stop := 0, 5000+k*7777
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, err := fmt.Sscanf(lines.Text(), "acked %d", &acked); err == nil && acked >= stop {
				break
			}
		}
		require.GreaterOrEqual(t, acked, stop)
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()
		require.GreaterOrEqual(t, readAll(t, vfs.OS(), dir), acked)
	}
}

func writeUntilKilled(dir string) {
	l, err := Open(dir, &Options{FirstFileSize: 512 << 10, FileSize: 2 << 20, MapFrom: 4096})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := 1; ; i++ {
		if err := l.Commit(&Request{Records: []Record{{Data: windowRecord(i)}}, Level: Written}); err != nil {
			fmt.Println(err)
			return
		}
		if i%10 == 0 {
			os.Stdout.WriteString(strings.Repeat(" ", i%3) + fmt.Sprintf("acked %d\n", i))
		}
	}
}

// TestSpareIsAskedForOnce: where there is one, commits do not look for it again.
func TestSpareIsAskedForOnce(t *testing.T) {
	l, err := Open("d", &Options{FS: vfs.NewMem(), FirstFileSize: 256 << 10, FileSize: 256 << 10, MarkDelay: -1})
	require.NoError(t, err)
	rec := Record{Data: make([]byte, 1000)}
	commit := func() { require.NoError(t, l.Commit(&Request{Records: []Record{rec}, Level: Written})) }
	for commit(); l.b.Offset() < l.cur.size/2; {
		commit()
	}
	l.background.Wait()
	l.fileMu.Lock() // who makes a spare waits here
	require.NotNil(t, l.spare)
	commit()
	looks := l.preparing.Load()
	l.fileMu.Unlock()
	require.False(t, looks)
	require.NoError(t, l.Close())
}
