package real

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// injections are what strace does to one call, and when: to the nth of a thread,
// or to that and all behind it.
var injections = []string{
	"fdatasync:error=EIO", "fsync:error=EIO", "pwrite64:error=EIO", "pwrite64:error=ENOSPC", "fdatasync:error=ENOSPC",
	"fdatasync:delay_exit=20000", "fsync:delay_enter=20000", "renameat:error=EIO", "unlinkat:error=EIO", "openat:error=EMFILE",
}

// TestInjectedFaults lets calls of the system fail, or hang, under a process that
// writes. After the first failed sync nothing more is acknowledged, and an open
// finds all that was.
func TestInjectedFaults(t *testing.T) {
	strace := lookStrace(t)
	n := 0
	rep, err := Kill(context.Background(), KillConfig{Dir: t.TempDir(), Kills: *faulty, Seed: campaignSeed(t), faults: func(r *rand.Rand) []string {
		inject := injections[n%len(injections)]
		n++
		call, _, _ := strings.Cut(inject, ":")
		inject += fmt.Sprintf(":when=%d", 1+r.IntN(40))
		if r.IntN(2) == 0 {
			inject += "+"
		}
		return []string{strace, "-f", "-qq", "--seccomp-bpf", "-o", os.DevNull, "-e", "trace=" + call, "-e", "inject=" + inject}
	}})
	require.NoError(t, err)
	tell(t, rep)
	require.Empty(t, rep.Problem)
	require.Zero(t, rep.Lost)
	require.Positive(t, rep.Promised)
}

// lookStrace returns the strace that may trace here.
func lookStrace(t *testing.T) string {
	strace, err := exec.LookPath("strace")
	if err == nil {
		err = exec.Command(strace, "-qq", "-o", os.DevNull, "true").Run()
	}
	if err != nil {
		if os.Getenv("FOREBAY_REQUIRE") == "1" {
			t.Fatal("strace is required: ", err)
		}
		t.Skip("strace is not there, or may not trace: ", err)
	}
	return strace
}

// smallDisk mounts a file system of so many bytes. Where nobody may mount one, it
// is one in memory.
func smallDisk(t *testing.T, size int64) (vfs.FS, string) {
	dir := filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Mkdir(dir, 0o700))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Logf("in memory: mounting a small file system needs root: %v", err)
		mem := vfs.NewMem()
		require.NoError(t, mem.MkdirAll(dir))
		mem.SetCapacity(size)
		return mem, dir
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return vfs.OS(), dir
}

// TestDiskFull lets a disk become full, and have room again, while checkpoints,
// compactions and backups run. Nothing acknowledged is lost, and when there is
// room again writes go on, without a reopen unless one has failed midway.
func TestDiskFull(t *testing.T) {
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { t.Parallel(); fillDisk(t) })
	}
}

func fillDisk(t *testing.T) {
	r := rand.New(rand.NewPCG(campaignSeed(t), 0))
	fsys, dir := smallDisk(t, 8<<20)
	s := newSettings(r, []forebay.Mechanism{forebay.Fdatasync})
	s.FileSize, s.TableSize = min(s.FileSize, 64<<10), min(s.TableSize, 32<<10)
	at, ln, full, reopens := filepath.Join(dir, "store"), newLine(s.Seed), 0, 0
	for n := 1; n <= 4; n++ {
		l := newLife(n)
		notes := make(chan report, 1<<16)
		ph := &phases{FS: fsys, tell: func(r report) { notes <- r }}
		db, err := forebay.Open(at, s.options(ph))
		require.NoError(t, err)
		require.Equal(t, ln.base, db.LastLSN())
		w := &load{settings: s, life: n, db: db, tell: ph.tell, phases: ph, scratch: filepath.Join(dir, "copy"), patient: true}
		require.NoError(t, w.start())
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { done <- w.run(ctx) }()
		for range 4 {
			time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
			if fill(fsys, filepath.Join(dir, "ballast")) {
				full++
			}
			time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
			require.NoError(t, fsys.Remove(filepath.Join(dir, "ballast")))
		}
		drain(l, notes)
		before := len(l.acks)
		if db.DurableLSN() > 0 { // there is room: writes go on
			require.Eventually(t, func() bool { drain(l, notes); return len(l.acks) > before || len(done) > 0 }, 10*time.Second, time.Millisecond)
		}
		cancel()
		err = <-done
		require.True(t, legal(err), "%v", err)
		if errors.Is(err, forebay.ErrPoisoned) || errors.Is(err, forebay.ErrUnknown) {
			reopens++
		}
		require.True(t, legal(db.Close()))
		drain(l, notes)
		opts := s.options(fsys)
		opts.ReadOnly = true
		db, err = forebay.Open(at, opts)
		require.NoError(t, err)
		v, err := ln.judge(l, processCrash, db)
		require.NoError(t, err)
		require.Empty(t, v.problem)
		require.Zero(t, v.lost)
		require.Positive(t, v.promised)
		require.NoError(t, db.Close())
		t.Logf("life %d: %d acknowledged, all there; full %d times so far, %d lives needed a reopen", n, v.promised, full, reopens)
	}
	require.Positive(t, full)
}

// fill takes all the room that there is, and says whether there was an end.
func fill(fsys vfs.FS, name string) bool {
	f, err := fsys.Create(name, vfs.ReadWrite)
	if err != nil {
		return false
	}
	defer f.Close()
	for off := int64(0); ; off += 4096 {
		if err := f.Zero(off, 4096); err != nil {
			return errors.Is(err, syscall.ENOSPC)
		}
	}
}

// drain notes what was told.
func drain(l *life, notes chan report) {
	for len(notes) > 0 {
		l.note(<-notes)
	}
}
