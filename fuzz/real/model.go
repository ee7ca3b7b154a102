package real

import (
	"context"
	"encoding/json"
	"errors"
	"os"
)

// ModelConfig configures Model.
type ModelConfig struct {
	// Child, Dir, Seed and Systems are as in PowerConfig.
	Child   []string
	Dir     string
	Seed    uint64
	Systems []string
	// Cuts is how many scripts run, each of which ends in a cut.
	Cuts int
	// Progress is called now and then, if it is not nil, on Model's goroutine.
	Progress func(*ModelReport) `json:"-"`

	// Boast keeps the syncs of files from the real file systems, which shows that a
	// model that promises too much is seen.
	Boast bool
}

// ModelReport is what Model found.
type ModelReport struct {
	Seed uint64 `json:"seed"`
	Cuts int    `json:"cuts"`
	// Volumes says how many cuts each file system had, by its kind and options.
	Volumes map[string]int `json:"volumes"`
	// Stores of the cuts were under a store that was written to; the others under a
	// script of random calls.
	Stores int `json:"stores"`
	// Units that were not durable at the cuts; Lossy is how many cuts left another
	// state than reads had shown, and Partial how many of them neither that nor the
	// durable one.
	Units   int `json:"units"`
	Lossy   int `json:"lossy"`
	Partial int `json:"partial"`
	// Outside is how many left a state that the model does not contain; the
	// campaign ends with the first, and Problem describes it.
	Outside int     `json:"outside"`
	Problem string  `json:"problem,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Model runs the same calls on a vfs.Mem and on real file systems, cuts the power
// of both, and looks that what the real one then holds is a state that the model
// contains. Errors are as for Power.
func Model(ctx context.Context, cfg ModelConfig) (*ModelReport, error) {
	if len(cfg.Systems) == 0 {
		cfg.Systems = []string{"ext4", "xfs"}
	}
	if err := available(cfg.Systems); err != nil {
		return nil, err
	}
	place, err := makePlace(cfg.Dir, "forebay-model-")
	if err != nil {
		return nil, err
	}
	cfg.Dir = place
	var rep *ModelReport
	err = follow(ctx, cfg.Child, order{Model: &cfg}, func(line []byte) error {
		rep = &ModelReport{}
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
