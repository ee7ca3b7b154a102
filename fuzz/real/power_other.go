//go:build !linux

package real

import (
	"context"
	"io"
	"os/exec"
)

func available([]string) error { return ErrUnavailable }

func apart(*exec.Cmd) {}

func (*PowerConfig) child(context.Context, io.Writer) error { return ErrUnavailable }

func (*ModelConfig) child(context.Context, io.Writer) error { return ErrUnavailable }
