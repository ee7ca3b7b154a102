package vfs_test

import (
	"hash/maphash"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// TestSum: what reads show decides the sum, whichever way it came about.
func TestSum(t *testing.T) {
	seed := maphash.MakeSeed()
	make := func(size int64, content string, at int64, name string) *vfs.Mem {
		m := vfs.NewMem()
		f, err := m.Create(name, vfs.ReadWrite)
		require.NoError(t, err)
		_, err = f.WriteAt([]byte(content), at)
		require.NoError(t, err)
		require.NoError(t, f.Zero(at+int64(len(content)), size-at-int64(len(content))))
		require.NoError(t, f.Close())
		return m
	}
	base := make(9000, "abc", 4200, "a").Sum(seed)
	require.Equal(t, base, make(9000, "abc", 4200, "a").Sum(seed))
	require.NotEqual(t, base, make(9001, "abc", 4200, "a").Sum(seed), "size")
	require.NotEqual(t, base, make(9000, "abd", 4200, "a").Sum(seed), "byte")
	require.NotEqual(t, base, make(9000, "abc", 4201, "a").Sum(seed), "place")
	require.NotEqual(t, base, make(9000, "abc", 8300, "a").Sum(seed), "page")
	require.NotEqual(t, base, make(9000, "abc", 4200, "b").Sum(seed), "name")
	m := make(9000, "abc", 4200, "a")
	kept := m.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
	// The entry of the file was never synced.
	require.Equal(t, base, kept.Sum(seed))
	require.Equal(t, vfs.NewMem().Sum(seed), m.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost }).Sum(seed))
}

// TestSumTellsDirectories: a directory is no empty file.
func TestSumTellsDirectories(t *testing.T) {
	seed := maphash.MakeSeed()
	a, b := vfs.NewMem(), vfs.NewMem()
	require.NoError(t, a.MkdirAll("x"))
	f, err := b.Create("x", 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NotEqual(t, a.Sum(seed), b.Sum(seed))
}
