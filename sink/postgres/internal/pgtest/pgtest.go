// Package pgtest runs a PostgreSQL server of its own for tests: a cluster in a temporary
// directory, reached by a socket in it and by nothing else.
//
// A server does not run as root; where the tests do, it runs as the user postgres, or
// nobody. It ends with Close, and on Linux also when the tests are killed.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// Options of a cluster.
type Options struct {
	// Fsync makes commits durable, as benchmarks need it; tests do not.
	Fsync bool
	// Settings for postgresql.conf, by name.
	Settings map[string]string
}

// Cluster is a server and its data. Its methods are for one goroutine at a time.
type Cluster struct {
	bin, dir string
	server   *exec.Cmd
	exited   chan struct{}
}

// programs returns the directory of the newest initdb.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		version := func(path string) int {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
			return n
		}
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("PostgreSQL is not installed: no initdb in /usr/lib/postgresql or PATH")
	}
	return filepath.Dir(path), nil
}

// Require skips a test where PostgreSQL is missing. In the run that must be complete
// (FOREBAY_REQUIRE=1) that is a failure.
func Require(t testing.TB) {
	t.Helper()
	_, err := programs()
	switch {
	case err == nil:
	case os.Getenv("FOREBAY_REQUIRE") == "1":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// New makes a cluster and starts its server.
func New(o Options) (c *Cluster, err error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	// Short: the path of a socket has about a hundred bytes.
	dir, err := os.MkdirTemp("/tmp", "pgtest")
	if err != nil {
		return nil, err
	}
	c = &Cluster{bin: bin, dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if err := give(dir); err != nil {
		return nil, err
	}
	initdb := c.command("initdb", "-D", c.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	settings := map[string]string{
		"listen_addresses": "''", "unix_socket_directories": "'" + dir + "'", "fsync": "off",
		"max_connections": "50", "autovacuum": "off", "log_min_messages": "warning",
	}
	if o.Fsync {
		settings["fsync"] = "on"
	}
	maps.Copy(settings, o.Settings)
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(f, "%s = %s\n", k, settings[k])
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return c, c.Start()
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = process()
	return cmd
}

// DSN is where the server listens.
func (c *Cluster) DSN() string {
	return "host=" + c.dir + " user=postgres dbname=postgres sslmode=disable"
}

// Start starts the server, and returns when it answers.
func (c *Cluster) Start() error {
	if c.server != nil {
		return errors.New("pgtest: it runs")
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	server := c.command("postgres", "-D", c.data())
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = server.Wait()
		close(exited)
	}()
	c.server, c.exited = server, exited
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := pgconn.Connect(ctx, c.DSN())
		if err == nil {
			err = conn.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			c.server = nil
			return fmt.Errorf("the server ended: %w: %s", err, c.Log())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not answer: %w: %s", err, c.Log())
		}
	}
}

// Log is what the server has said.
func (c *Cluster) Log() string {
	b, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return string(b)
}

// Stop stops the server: connections are cut, what was committed is there again after
// Start.
func (c *Cluster) Stop() error { return c.end(os.Interrupt) }

// Crash stops it at once, without a checkpoint: Start recovers.
func (c *Cluster) Crash() error { return c.end(immediate) }

func (c *Cluster) end(how os.Signal) error {
	if c.server == nil {
		return nil
	}
	if err := c.server.Process.Signal(how); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.exited:
		c.server = nil
		return nil
	case <-time.After(30 * time.Second):
		_ = c.server.Process.Kill()
		<-c.exited
		c.server = nil
		return errors.New("the server did not stop and was killed")
	}
}

// Close stops the server and removes the cluster.
func (c *Cluster) Close() error { return errors.Join(c.Crash(), os.RemoveAll(c.dir)) }

// Shared is a cluster for all tests of a package.
type Shared struct {
	Options Options

	once sync.Once
	c    *Cluster
	err  error
}

// Get starts the cluster for the first test that asks, and skips the test as Require does.
func (s *Shared) Get(t testing.TB) *Cluster {
	t.Helper()
	Require(t)
	_, err := s.DSN()
	require.NoError(t, err)
	return s.c
}

// DSN starts the cluster for the first who asks, and says where it listens; for examples.
func (s *Shared) DSN() (string, error) {
	s.once.Do(func() { s.c, s.err = New(s.Options) })
	if s.err != nil {
		return "", s.err
	}
	return s.c.DSN(), nil
}

// Close is for TestMain.
func (s *Shared) Close() {
	s.once.Do(func() { s.err = errors.New("pgtest: closed") })
	if s.c != nil {
		_ = s.c.Close()
	}
}

// Pool connects to a schema of its own that goes with the test. Names without a schema
// are of it.
func (c *Cluster) Pool(t testing.TB, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	config, err := pgxpool.ParseConfig(c.DSN())
	require.NoError(t, err)
	schema := fmt.Sprintf("test_%d", time.Now().UnixNano())
	admin, err := pgconn.Connect(t.Context(), c.DSN())
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), `CREATE SCHEMA `+schema).ReadAll()
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))
	config.ConnConfig.RuntimeParams["search_path"] = schema
	config.MaxConns = 8
	for _, f := range change {
		f(config)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() {
		pool.Close()
		ctx := context.Background()
		admin, err := pgconn.Connect(ctx, c.DSN())
		if err != nil {
			return // the test stopped it
		}
		defer admin.Close(ctx)
		_, err = admin.Exec(ctx, `SET client_min_messages = warning; DROP SCHEMA `+schema+` CASCADE`).ReadAll()
		require.NoError(t, err)
	})
	return pool
}
