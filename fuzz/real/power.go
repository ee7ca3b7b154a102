package real

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrUnavailable says that a campaign cannot run here, and what it needs.
var ErrUnavailable = errors.New("real power cuts need Linux, root, and mkfs.ext4 or mkfs.xfs")

// PowerConfig configures Power.
type PowerConfig struct {
	// Child are the arguments with which this program runs Child.
	Child []string
	// Dir is where the image files are made, which have up to 300 MiB and lose their
	// names at once; "": in memory, where there is a place for that. What the file
	// systems in them lose does not depend on it.
	Dir string
	// Cuts is how often the power is cut, all file systems together.
	Cuts int
	// Seed decides about settings, commits and moments, but not about how far a
	// store has come at its moment.
	Seed uint64
	// Systems are the file systems, of "ext4" and "xfs"; nil: both.
	Systems []string
	// Progress is called now and then, if it is not nil, on Power's goroutine.
	Progress func(*PowerReport) `json:"-"`

	// Boast makes the load lie about levels, which shows that a loss is seen.
	Boast bool
}

// PowerReport is what Power found.
type PowerReport struct {
	Seed uint64 `json:"seed"`
	Cuts int    `json:"cuts"`
	// Volumes says how many cuts each file system had, by its kind and options.
	Volumes map[string]int `json:"volumes"`
	// Phases says in which phase of the store's work how many cuts fell.
	Phases map[string]int `json:"phases"`
	Result
}

// Power cuts the power of file systems under a store that is written to, and
// judges the store after each cut. It ends at the first problem, with a nil error;
// with it nothing is left of the store. An error says that it could not go on:
// ErrUnavailable, wrapped, that it cannot run here.
func Power(ctx context.Context, cfg PowerConfig) (*PowerReport, error) {
	if len(cfg.Systems) == 0 {
		cfg.Systems = []string{"ext4", "xfs"}
	}
	if err := available(cfg.Systems); err != nil {
		return nil, err
	}
	place, err := makePlace(cfg.Dir, "forebay-power-")
	if err != nil {
		return nil, err
	}
	cfg.Dir = place
	var rep *PowerReport
	err = follow(ctx, cfg.Child, order{Power: &cfg}, func(line []byte) error {
		rep = &PowerReport{}
		if err := json.Unmarshal(line, rep); err != nil {
			return err
		}
		if cfg.Progress != nil {
			cfg.Progress(rep)
		}
		return nil
	})
	return rep, errors.Join(err, os.RemoveAll(place))
}

// makePlace makes a directory in dir, or, when that is "", in memory, where there
// is a place for that, or else in the directory for temporary files.
func makePlace(dir, pattern string) (string, error) {
	const memory = "/dev/shm"
	if dir != "" {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return "", err
		}
	} else if st, err := os.Stat(memory); err == nil && st.IsDir() {
		dir = memory
	}
	return os.MkdirTemp(dir, pattern)
}

// follow runs a child in a place of its own, where what it mounts goes with it,
// and gives each line that it says to each.
func follow(ctx context.Context, args []string, o order, each func(line []byte) error) error {
	cmd, err := command(ctx, nil, args)
	if err != nil {
		return err
	}
	apart(cmd)
	told, err := json.Marshal(o)
	if err != nil {
		return err
	}
	var complaint bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(told), &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a child: %w", err)
	}
	var failed error
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for failed == nil && lines.Scan() {
		failed = each(lines.Bytes())
	}
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("the child failed: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return errors.Join(failed, lines.Err())
}
