package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgresConns is max_connections.
const postgresConns = 120

// postgres is a server on a cluster of its own, which is there for one cell.
type postgres struct {
	cmd    *exec.Cmd
	socket string // its directory
	log    *os.File
	ended  chan error
}

// findPostgres returns the directory of the server's programs.
func findPostgres() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), checkPostgresUser()
	}
	// Debian keeps them out of the path.
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.Join(errors.New("PostgreSQL is not installed"), err)
	}
	slices.SortFunc(found, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b) // 9 before 17
		}
		return strings.Compare(a, b)
	})
	return filepath.Dir(found[len(found)-1]), checkPostgresUser()
}

// postgresVersion says which server there is.
func postgresVersion() string {
	bin, err := findPostgres()
	if err != nil {
		return "no PostgreSQL"
	}
	text, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "PostgreSQL of an unknown version"
	}
	return strings.TrimSpace(strings.Replace(string(text), "postgres (PostgreSQL)", "PostgreSQL", 1))
}

// startPostgres makes a cluster in dir, and starts its server.
func startPostgres(ctx context.Context, dir string) (_ *postgres, err error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	s := &postgres{socket: filepath.Join(dir, "socket"), ended: make(chan error, 1)}
	data := filepath.Join(dir, "data")
	for _, d := range []string{data, s.socket} {
		if err := errors.Join(os.Mkdir(d, 0o700), giveToPostgres(d)); err != nil {
			return nil, err
		}
	}
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
	initdb.Dir = data
	initdb.SysProcAttr = asPostgres()
	if text, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, text)
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	args := []string{"-D", data, "-k", s.socket, "-h", "", "-p", "5432"}
	for _, set := range []string{
		"fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=256MB", "max_wal_size=4GB",
		fmt.Sprintf("max_connections=%d", postgresConns),
	} {
		args = append(args, "-c", set)
	}
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), args...)
	s.cmd.Dir, s.cmd.SysProcAttr = data, asPostgres()
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := runUntilEnd(s.cmd, s.ended); err != nil {
		return nil, errors.Join(err, s.log.Close())
	}
	if err := s.wait(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *postgres) url() string {
	return fmt.Sprintf("host=%s port=5432 user=postgres dbname=postgres", s.socket)
}

// wait waits until the server takes connections.
func (s *postgres) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.url())
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case ended := <-s.ended:
			s.ended <- ended
			text, _ := os.ReadFile(s.log.Name()) // it is part of an error already
			return fmt.Errorf("the server ended: %v: %s", ended, text)
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the server, at once if it does not end in time.
func (s *postgres) stop() error {
	err := s.cmd.Process.Signal(os.Interrupt) // a fast shutdown
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	select {
	case ended := <-s.ended:
		err = errors.Join(err, ended)
	case <-time.After(time.Minute):
		err = errors.Join(err, errors.New("the server did not stop"), s.cmd.Process.Kill())
	}
	return errors.Join(err, s.log.Close())
}
