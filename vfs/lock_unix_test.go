//go:build linux || darwin

package vfs

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestRegressLockOfAForkedProcess: a process that another goroutine is starting has
// the lock's file open until its exec, and a store that was closed could not be
// opened meanwhile.
func TestRegressLockOfAForkedProcess(t *testing.T) {
	name := filepath.Join(t.TempDir(), "LOCK")
	l, err := OS().Lock(name)
	require.NoError(t, err)
	forked := -1
	require.NoError(t, control("dup", l.(*osLock).f, func(fd int) (err error) {
		forked, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(forked)
	_, err = OS().Lock(name)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, l.Close())
	l, err = OS().Lock(name)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}
