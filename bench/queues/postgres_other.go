//go:build !linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

func checkPostgresUser() error {
	if os.Geteuid() == 0 {
		return errors.New("PostgreSQL does not run as root")
	}
	return nil
}

func giveToPostgres(string) error { return nil }

func asPostgres() *syscall.SysProcAttr { return nil }

// runUntilEnd starts a command, and tells how it ended.
func runUntilEnd(cmd *exec.Cmd, ended chan<- error) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { ended <- cmd.Wait() }()
	return nil
}
