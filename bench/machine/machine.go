// Package machine says on what a benchmark ran: the processor, the kernel, the
// file system and the device under a directory, and what was measured. Figures
// of a sync mean nothing without it.
package machine

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"
)

// Info describes the machine and the disk under one directory. What could not
// be found out is empty or 0. Its JSON form is the header of all results.
type Info struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory_bytes"`
	OS     string `json:"os"`
	Arch   string `json:"arch"`
	Kernel string `json:"kernel"`
	// Go is the version of the compiler; Commit is Forebay's, with "+changes"
	// where the tree had some.
	Go     string `json:"go"`
	Commit string `json:"commit"`

	// Dir is the directory that was asked for, as it was named.
	Dir          string `json:"dir"`
	FileSystem   string `json:"file_system"`
	MountPoint   string `json:"mount_point"`
	MountOptions string `json:"mount_options"`
	// Device is the source of the mount, and Model what the device calls itself.
	Device string `json:"device"`
	Model  string `json:"model,omitempty"`
	// Queue says what the kernel knows of the device: its write cache, whether it
	// turns, the scheduler, the block sizes.
	Queue string `json:"queue,omitempty"`
	// NotADisk says why a sync in Dir proves nothing; empty: it is on a disk.
	NotADisk string `json:"not_a_disk,omitempty"`
}

// Describe returns what is known of the machine and of the disk under dir, which
// must exist.
func Describe(dir string) Info {
	m := Info{
		Cores: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Go: runtime.Version(), Commit: commit(), Dir: dir,
	}
	m.system()
	m.disk(dir)
	m.NotADisk = notADisk(m.FileSystem)
	return m
}

// notADisk returns why a sync of that file system proves nothing, or "".
func notADisk(fs string) string {
	switch fs {
	case "tmpfs", "ramfs", "devtmpfs", "hugetlbfs":
		return fs + " is memory: a sync does nothing, and a power cut takes all"
	case "overlay", "overlayfs", "aufs", "fuse-overlayfs":
		return fs + " is a layer over another file system: what is measured is the layer, and what a sync reaches is not known"
	}
	return ""
}

// Disk says in one line where the files were.
func (m *Info) Disk() string {
	var parts []string
	for _, s := range []string{m.FileSystem, m.Device, m.Model, m.Queue} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if len(parts) == 0 {
		return "unknown"
	}
	return strings.Join(parts, ", ")
}

// Write prints the header of a text.
func (m *Info) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	machine := fmt.Sprintf("%s, %d cores", m.CPU, m.Cores)
	if m.Memory > 0 {
		machine += fmt.Sprintf(", %.0f GiB", float64(m.Memory)/(1<<30))
	}
	row("machine", strings.TrimPrefix(machine, ", "))
	row("kernel", strings.TrimSpace(fmt.Sprintf("%s %s %s", m.OS, m.Kernel, m.Arch)))
	row("directory", m.Dir)
	row("file system", strings.TrimSuffix(fmt.Sprintf("%s on %s (%s)", m.FileSystem, m.MountPoint, m.MountOptions), " ()"))
	device := m.Device
	for _, s := range []string{m.Model, m.Queue} {
		if s != "" {
			device += ", " + s
		}
	}
	row("device", device)
	row("go", m.Go)
	row("forebay", m.Commit)
	if m.NotADisk != "" {
		row("NOT A DISK", m.NotADisk)
	}
	return t.Flush()
}

// commit returns Forebay's commit: what the build recorded, or what git says of
// the working directory (`go run` records nothing).
func commit() string {
	rev, modified := "", false
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				rev = s.Value
			case "vcs.modified":
				modified = s.Value == "true"
			}
		}
	}
	if rev == "" {
		top := git("rev-parse", "--show-toplevel")
		if mod, _ := os.ReadFile(filepath.Join(top, "go.mod")); top == "" || !bytes.HasPrefix(mod, []byte("module github.com/forebaydb/forebay\n")) {
			return "unknown"
		}
		rev = git("rev-parse", "HEAD")
		modified = git("status", "--porcelain", "--untracked-files=no") != ""
	}
	rev = rev[:min(12, len(rev))]
	if modified {
		rev += "+changes"
	}
	return rev
}

func git(args ...string) string {
	out, err := exec.Command("git", args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
