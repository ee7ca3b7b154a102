package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// peersPackage is the command that has the other engines. It is a module of its
// own, so that nobody who installs this command builds five databases.
const peersPackage = "github.com/forebaydb/forebay/peers/cmd/forebay-peers"

func peersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "peers [flags of forebay-peers crash]",
		Short: "Put other engines through the same damage, and compare",
		Long: `Build and run forebay-peers, which has Pebble, Badger, goleveldb, bbolt and SQLite
beside Forebay, and print one table of what each makes of damaged files. It needs
the go command; the first run compiles the engines, which takes a minute or two.
All flags go to forebay-peers crash: see forebay crash peers --help-peers.`,
		Example: `  forebay crash peers
  forebay crash peers --json
  forebay crash peers --engines forebay,pebble --quick`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, a := range args {
				switch a {
				case "-h", "--help":
					return cmd.Help()
				case "--help-peers":
					args[i] = "--help"
				}
			}
			return runPeers(cmd, args)
		},
	}
}

func runPeers(cmd *cobra.Command, args []string) error {
	name, dir := peersPackage, sourceTree()
	if dir == "" {
		version := "latest"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
			version = info.Main.Version
		}
		name += "@" + version
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("crash peers builds %s, and there is no go command: %w", peersPackage, err)
	}
	c := exec.CommandContext(cmd.Context(), goTool, append([]string{"run", name, "crash"}, args...)...)
	c.Dir, c.Stdout, c.Stderr = dir, cmd.OutOrStdout(), cmd.ErrOrStderr()
	if dir != "" {
		c.Env = append(os.Environ(), "GOWORK="+filepath.Join(dir, "..", "go.work"))
	}
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("forebay-peers failed: %w", err)
	}
	return err
}

// sourceTree returns the directory of the module of the peers, if the working
// directory is inside of Forebay's sources; else "".
func sourceTree() string {
	dir, err := os.Getwd()
	for err == nil {
		peers := filepath.Join(dir, "peers")
		if _, err := os.Stat(filepath.Join(peers, "cmd", "forebay-peers", "main.go")); err == nil {
			return peers
		}
		if filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}
