package main

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
)

// postgresUser returns whom the server runs as: it refuses to be root. ok is false
// where it may be who we are.
func postgresUser() (uid, gid int, ok bool, err error) {
	if os.Geteuid() != 0 {
		return 0, 0, false, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, lookErr := user.Lookup(name)
		if lookErr != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		return uid, gid, true, errors.Join(uidErr, gidErr)
	}
	return 0, 0, false, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody")
}

func checkPostgresUser() error {
	_, _, _, err := postgresUser()
	return err
}

func giveToPostgres(path string) error {
	uid, gid, ok, err := postgresUser()
	if err != nil || !ok {
		return err
	}
	return os.Chown(path, uid, gid)
}

// asPostgres has a command run as the server's user, and end when this process
// does, however that comes.
func asPostgres() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if uid, gid, ok, err := postgresUser(); err == nil && ok {
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return attr
}

// runUntilEnd starts a command, and tells how it ended. The thread that starts a
// command must live as long: the command is told when the thread dies.
func runUntilEnd(cmd *exec.Cmd, ended chan<- error) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return <-started
}
