package workload

import (
	"path/filepath"
	"slices"
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
		Command: "forebay bench " + strings.Join(placeless(args), " "),
		Engines: map[string]string{}, Info: machine.Describe(dir),
	}
	// Which disk it is matters, where on it the directory lies does not.
	m.Info.Dir = filepath.Base(dir)
	for _, e := range list {
		m.Engines[e.Name] = e.Version()
	}
	return m
}

// placeless returns arguments with the last name of each path alone: where a directory was
// says nothing to others.
func placeless(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if filepath.IsAbs(a) {
			out[i] = filepath.Base(a)
		}
	}
	return out
}
