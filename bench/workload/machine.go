package workload

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/forebaydb/forebay/bench/engines"
)

// ThisMachine describes the machine, and the file system under dir.
func ThisMachine(s Scale, dir string, list []*engines.Engine) Machine {
	m := Machine{
		Time: time.Now().UTC().Format(time.RFC3339), Quick: s.Quick,
		Command: "forebay-bench " + strings.Join(os.Args[1:], " "),
		Go:      runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(),
		Memory:  procFields("/proc/meminfo")["MemTotal"] << 10,
		Engines: map[string]string{},
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	m.FileSystem, m.Device = fileSystem(dir)
	for _, e := range list {
		m.Engines[e.Name] = e.Version()
	}
	return m
}
