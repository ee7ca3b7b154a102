package vfs_test

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/forebaydb/forebay/vfs"
)

// A file is written and synced, but nobody synced its directory.
func ExampleMem_PowerCut() {
	m := vfs.NewMem()
	f, _ := m.Create("log", vfs.ReadWrite)
	f.WriteAt([]byte("hello"), 0)
	f.Sync()
	for _, u := range m.Unsynced() {
		fmt.Println(u.Call, u.Name)
	}
	for _, fate := range []vfs.Fate{vfs.Kept, vfs.Lost} {
		disk := m.PowerCut(func(int, vfs.Unit) vfs.Fate { return fate })
		names, _ := disk.List("/")
		fmt.Println(names)
	}
	// Output:
	// create log
	// [log]
	// []
}

// Every single unit is lost in turn, at every change that the program makes.
func ExampleMem_OnIO() {
	m := vfs.NewMem()
	disks := 0
	m.OnIO(func(vfs.Op) {
		at := m.Snapshot()
		for lost := range at.Unsynced() {
			at.PowerCut(func(i int, _ vfs.Unit) vfs.Fate {
				if i == lost {
					return vfs.Lost
				}
				return vfs.Kept
			})
			disks++ // open it, and see what is there
		}
	})
	f, _ := m.Create("log", vfs.ReadWrite)
	f.WriteAt(make([]byte, 1000), 0)
	f.Sync()
	fmt.Println(disks, "disks")
	// Output:
	// 6 disks
}

func ExampleInjector() {
	m := vfs.NewMem()
	in := vfs.NewInjector(m)
	in.Add(vfs.Rule{Call: vfs.CallSync, Name: "*.log", Err: syscall.EIO})
	f, _ := in.Create("1.log", vfs.ReadWrite)
	f.WriteAt([]byte("hello"), 0)
	fmt.Println(errors.Is(f.Sync(), syscall.EIO), f.Sync())
	for _, u := range m.Unsynced()[1:] {
		fmt.Println(u.Name, "is not durable, failed:", u.Failed)
	}
	// Output:
	// true <nil>
	// 1.log is not durable, failed: true
	// 1.log is not durable, failed: true
}
