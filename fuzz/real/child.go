package real

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// order is what a child is told to do; one field is set.
type order struct {
	Load  *loadOrder
	Power *PowerConfig
	Model *ModelConfig
}

// loadOrder orders one life of a store, which goes on until the child is killed.
type loadOrder struct {
	Settings settings
	Life     int
	Dir      string
	Scratch  string
	// Faults, when it is not 0, says that calls of the system will fail, and ends the
	// life after so long.
	Faults time.Duration
}

// Child is the child's side of Kill, Power and Model. The program that calls one
// of them calls Child when it is started with the arguments of Config.Child: in is
// its standard input and out its standard output. It returns when the order is
// done, or what went wrong.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	switch {
	case o.Load != nil:
		return o.Load.run(ctx, out)
	case o.Power != nil:
		return o.Power.child(ctx, out)
	case o.Model != nil:
		return o.Model.child(ctx, out)
	}
	return errors.New("the order is empty")
}

// run is a child of Kill. What a store says of a disk that fails is no error.
func (o *loadOrder) run(ctx context.Context, out io.Writer) error {
	if o.Faults > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Faults)
		defer cancel()
	}
	err := o.live(ctx, tellPipe(out))
	if o.Faults > 0 && legal(err) {
		return nil
	}
	return err
}

func (o *loadOrder) live(ctx context.Context, tell teller) error {
	ph := &phases{FS: vfs.OS(), tell: tell}
	opts := o.Settings.options(ph)
	opts.OnEvent = ph.event
	tell(report{kind: sayOpening})
	db, err := forebay.Open(o.Dir, opts)
	if err != nil {
		return err
	}
	l := &load{settings: o.Settings, life: o.Life, db: db, tell: tell, phases: ph, scratch: o.Scratch}
	tell(report{kind: sayOpened, lsn: db.LastLSN()})
	if err := l.start(); err != nil {
		return errors.Join(err, db.Close())
	}
	return errors.Join(l.run(ctx), db.Close())
}

// command returns a command that runs this program as a child, under another one
// if there are arguments for that. It dies with ctx.
func command(ctx context.Context, under, args []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argv := slices.Concat(under, []string{self}, args)
	return exec.CommandContext(ctx, argv[0], argv[1:]...), nil
}
