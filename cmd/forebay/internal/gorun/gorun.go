// Package gorun runs the commands of Forebay's other modules by `go run`. Those
// modules need much that nobody who installs this command should have to build.
package gorun

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"
)

const root = "github.com/forebaydb/forebay"

// Run runs the command name of the nested module with args, in the context and with
// the streams of cmd. Where the working directory is inside of Forebay's sources it
// is their version that runs, else the one that belongs to this command. It
// needs the go command, and the command that runs keeps the working directory.
func Run(cmd *cobra.Command, module, name string, args ...string) error {
	pkg := root + "/" + module + "/cmd/" + name
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("%s builds %s, and there is no go command: %w", cmd.CommandPath(), pkg, err)
	}
	tree := sourceTree(module, name)
	if tree == "" {
		pkg += "@" + version()
	}
	c := exec.CommandContext(cmd.Context(), goTool, append([]string{"run", pkg}, args...)...)
	c.Stdin, c.Stdout, c.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	if tree != "" {
		c.Env = append(os.Environ(), "GOWORK="+filepath.Join(tree, "go.work"))
	}
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s failed: %w", name, err)
	}
	return err
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "latest"
}

// sourceTree returns the directory of Forebay's sources with the command in them,
// if the working directory is inside of it; else "".
func sourceTree(module, name string) string {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, module, "cmd", name, "main.go")); err == nil {
			return dir
		}
		if filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}
