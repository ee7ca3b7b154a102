package main

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// TestKillPostgres is TestKill with a server of PostgreSQL, which goes on while the program
// is killed. In the run that must be complete (FOREBAY_REQUIRE=1) there has to be one.
func TestKillPostgres(t *testing.T) {
	bin, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	require.NoError(t, err)
	if len(bin) == 0 {
		if os.Getenv("FOREBAY_REQUIRE") == "1" {
			t.Fatal("PostgreSQL is not installed")
		}
		t.Skip("PostgreSQL is not installed")
	}
	dsn := cluster(t, slices.Max(bin))
	killAndCount(t, t.TempDir(), dsn, func() (*warehouse, error) { return openPostgres(t.Context(), dsn) })
}

// cluster makes a server for a test, in a temporary directory and with a socket there. It
// ends with the test, also when that is killed.
func cluster(t *testing.T, bin string) (dsn string) {
	dir, err := os.MkdirTemp("/tmp", "analytics") // short: the path of a socket has about a hundred bytes
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	as := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	if os.Getuid() == 0 { // it does not run as root
		u, err := user.Lookup("postgres")
		require.NoError(t, err)
		uid, err := strconv.Atoi(u.Uid)
		require.NoError(t, err)
		gid, err := strconv.Atoi(u.Gid)
		require.NoError(t, err)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		require.NoError(t, os.Chown(dir, uid, gid))
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, as
	out, err := initdb.CombinedOutput()
	require.NoError(t, err, "%s", out)
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories="+dir, "-c", "fsync=off")
	server.Dir, server.SysProcAttr = dir, as
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	defer log.Close()
	server.Stdout, server.Stderr = log, log
	require.NoError(t, server.Start())
	exited := make(chan struct{})
	go func() {
		_ = server.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		<-exited
	})
	dsn = "host=" + dir + " user=postgres dbname=postgres sslmode=disable"
	for {
		conn, err := pgconn.Connect(t.Context(), dsn)
		if err == nil {
			require.NoError(t, conn.Close(context.Background()))
			return dsn
		}
		select {
		case <-exited:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("the server ended: %v: %s", err, text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
