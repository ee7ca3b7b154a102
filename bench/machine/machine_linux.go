package machine

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func (m *Info) system() {
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	m.CPU = field("/proc/cpuinfo", "model name")
	if kb, _, _ := strings.Cut(field("/proc/meminfo", "MemTotal"), " "); kb != "" {
		n, _ := strconv.ParseInt(kb, 10, 64)
		m.Memory = n << 10
	}
}

// field returns the value of the first line of a file of the kernel that begins
// with name and a colon.
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		k, v, ok := strings.Cut(s.Text(), ":")
		if ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (m *Info) disk(dir string) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	mnt, ok := findMount(string(b), abs)
	if !ok {
		return
	}
	m.FileSystem, m.MountPoint, m.MountOptions, m.Device = mnt.fs, mnt.point, mnt.options, mnt.source
	m.queue(mnt.dev)
}

// mount is a line of mountinfo.
type mount struct{ dev, point, options, fs, source string }

// findMount returns the mount that holds a path: of those that are a prefix of
// it the longest, and of those the last, which hides the others.
func findMount(info, path string) (best mount, ok bool) {
	for line := range strings.Lines(info) {
		left, right, found := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !found || len(l) < 6 || len(r) < 2 {
			continue
		}
		p := unescape(l[4])
		if p != "/" && path != p && !strings.HasPrefix(path, p+"/") {
			continue
		}
		if len(p) < len(best.point) {
			continue
		}
		best, ok = mount{dev: l[2], point: p, options: l[5], fs: r[0], source: unescape(r[1])}, true
		if len(r) > 2 {
			best.options = join(best.options, r[2])
		}
	}
	return best, ok
}

// join adds the options of the file system to those of the mount point.
func join(point, super string) string {
	have := strings.Split(point, ",")
	for o := range strings.SplitSeq(super, ",") {
		seen := o == "rw" || o == "ro"
		for _, h := range have {
			seen = seen || h == o
		}
		if !seen {
			have = append(have, o)
		}
	}
	return strings.Join(have, ",")
}

// unescape turns the octal escapes of mountinfo back.
func unescape(s string) string {
	for _, c := range []struct{ esc, is string }{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, c.esc, c.is)
	}
	return s
}

// queue describes the block device of a number; a file system without one
// (btrfs, tmpfs, a network) leaves it empty.
func (m *Info) queue(dev string) {
	dir, err := filepath.EvalSymlinks("/sys/dev/block/" + dev)
	if err != nil {
		return
	}
	if _, err := os.Stat(filepath.Join(dir, "queue")); err != nil {
		dir = filepath.Dir(dir) // a partition
	}
	m.Model = strings.Join(strings.Fields(read(dir, "device/vendor")+" "+read(dir, "device/model")), " ")
	if strings.HasPrefix(m.Model, "0x") { // a number of the bus, not a name
		m.Model = ""
		if strings.HasPrefix(filepath.Base(dir), "vd") {
			m.Model = "virtio disk"
		}
	}
	var parts []string
	if c := read(dir, "queue/write_cache"); c != "" {
		fua := ""
		if read(dir, "queue/fua") == "1" {
			fua = " with FUA"
		}
		parts = append(parts, "cache "+c+fua)
	}
	if read(dir, "queue/rotational") == "1" {
		parts = append(parts, "says that it turns")
	}
	if s := read(dir, "queue/scheduler"); strings.Contains(s, "[") {
		_, s, _ = strings.Cut(s, "[")
		s, _, _ = strings.Cut(s, "]")
		parts = append(parts, "scheduler "+s)
	}
	if l, p := read(dir, "queue/logical_block_size"), read(dir, "queue/physical_block_size"); l != "" {
		parts = append(parts, fmt.Sprintf("blocks %s/%s B", l, p))
	}
	m.Queue = strings.Join(parts, ", ")
}

func read(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
