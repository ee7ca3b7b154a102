package workload

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/forebaydb/forebay/bench/engines"
	"github.com/forebaydb/forebay/bench/machine"
)

// ThisMachine describes the machine, the disk under dir, and what runs: args are
// those of the command.
func ThisMachine(s Scale, dir string, list []*engines.Engine, args []string) Machine {
	m := Machine{
		Time: time.Now().UTC().Format(time.RFC3339), Quick: s.Quick,
		Command: "forebay bench " + strings.Join(args, " "),
		Engines: map[string]string{}, Info: machine.Describe(dir),
	}
	// Which disk it is matters, where on it the directory lies does not.
	m.Info.Dir = filepath.Base(dir)
	for _, e := range list {
		m.Engines[e.Name] = e.Version()
	}
	return m
}
