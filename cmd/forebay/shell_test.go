package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// shellCmd runs lines through the shell, on a new store.
func shellCmd(t *testing.T, lines string, flags ...string) (code int, stdout, stderr string) {
	t.Helper()
	return forebayCmd(lines, append([]string{"shell", filepath.Join(t.TempDir(), "s"), "--create"}, flags...)...)
}

func TestShellPipe(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"keys", "put a 1\nput 'b c' \"2\\n\\x00\"\n\n# no command\nget a\nget 'b c'\nscan\ndel a\nscan --keys-only", "1\n2\\n\\x00\na\t1\nb c\t2\\n\\x00\nb c\n"},
		{"ranges", "put a 1\nput b 2\nput bb 3\nput c 4\nscan b\nscan --lo b --hi c --reverse --keys-only\nscan --limit 1\ndelrange b c\nscan --keys-only\ndelrange '' ''\nscan", "b\t2\nbb\t3\nbb\nb\na\t1\na\nc\n"},
		{"batch", "batch\nput a 1\nput b 2\ndel a\nscan\napply\nscan\nbatch\nput z 1\ndiscard\nscan", "b\t2\nb\t2\n"},
		{"transaction", "put a 1\nbegin\nput a 2\nput b 3\nget a\nscan\nrollback\nscan\nbegin\nget a\nput a 4\ncommit\nget a", "2\na\t2\nb\t3\na\t1\n1\n4\n"},
		{"keyspaces", "keyspace create users\nuse users\nput a 1\nbegin\nput b 2\nscan\ncommit\nuse\nscan\nput a default\nkeyspace list\nkeyspace drop users\nkeyspace list",
			"a\t1\nb\t2\n         keys        bytes  name\n            1          8 B  (the default one)\n            2          4 B  users\n         keys        bytes  name\n            1          8 B  (the default one)\n"},
		{"levels", "level\nlevel buffered\nput a 1\nlevel\nsync\nget a\nquit\nnever", "durable\nbuffered\n1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := shellCmd(t, tt.in, "-e")
			require.Equal(t, 0, code, errs)
			require.Equal(t, tt.want, out)
			require.Empty(t, errs)
		})
	}
	code, out, errs := shellCmd(t, "put a 1\ncheckpoint\nput a 2\ncheckpoint\ncompact\nstats\nhelp\nhelp put", "-e")
	require.Equal(t, 0, code, errs)
	require.Regexp(t, `segments +2 → 1`, out)
	require.Regexp(t, `write amplification +\d`, out)
	require.Regexp(t, `log syncs +\d`, out)
	require.Contains(t, out, "delrange")
	require.Contains(t, out, "put KEY VALUE\n")
}

func TestShellErrors(t *testing.T) {
	for in, want := range map[string]string{
		"get a":                     "not found",
		"frob":                      `unknown command "frob"`,
		"put a":                     "usage: put KEY VALUE",
		"put a b c":                 "usage: put",
		"put '' b":                  "key",
		`put "a b`:                  "not closed",
		`put 'a'b c`:                "a space behind it",
		"scan --limit x":            "usage: scan",
		"apply":                     "no batch is open",
		"commit":                    "no transaction is open",
		"batch\nbegin":              "not inside of a batch",
		"begin\nbatch":              "not inside of a transaction",
		"begin\nkeyspace create x":  "not inside of a transaction",
		"use nobody":                "keyspace create",
		"keyspace frob":             "usage: keyspace",
		"keyspace drop nobody":      "no such keyspace",
		"level sturdy":              "durable, written or buffered",
		"help frob":                 "unknown command",
		"begin\nput a 1":            "a transaction was not committed",
		"batch\nput a 1\nput b 1":   "a batch of 2 operations was not applied",
		"put a 1\nget b\nput c 1\n": "line 2: ",
	} {
		code, _, errs := shellCmd(t, in, "-e")
		require.Equal(t, 1, code, in)
		require.Contains(t, errs, want, in)
	}
	// Without -e it goes on.
	code, out, errs := shellCmd(t, "get a\nput a 1\nget b\nget a\n")
	require.Equal(t, 1, code)
	require.Equal(t, "1\n", out)
	require.Contains(t, errs, "line 1: ")
	require.Contains(t, errs, "line 3: ")
	require.Contains(t, errs, "2 commands failed")
	// With -e what follows is not done.
	dir := filepath.Join(t.TempDir(), "s")
	code, _, _ = forebayCmd("put a 1\nfrob\nput b 1\n", "shell", dir, "--create", "-e")
	require.Equal(t, 1, code)
	require.Equal(t, "a\t1\n", fine(t, "scan", dir))
	// Read only.
	code, out, errs = forebayCmd("get a\nput b 1\nbegin\n", "shell", dir, "--read-only")
	require.Equal(t, 1, code)
	require.Equal(t, "1\n", out)
	require.Equal(t, 2, strings.Count(errs, "for reading only"), errs)
	code, _, _ = forebayCmd("", "shell", dir+"nowhere")
	require.Equal(t, 1, code)
	require.NoDirExists(t, dir+"nowhere")
}

// start makes the command a process of its own.
func start(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "FOREBAY_TEST_AS_COMMAND=1", "TERM=xterm")
	return cmd
}

// screen collects what comes from a terminal.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// waitFor waits for text, and forgets what came up to it.
func (s *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		at := strings.Index(s.b.String(), text)
		if at >= 0 {
			s.b.Next(at + len(text))
		}
		return at >= 0
	}, 10*time.Second, 5*time.Millisecond, text)
}

// TestShellTerminal types at a terminal: editing, completion, history, Ctrl-C.
func TestShellTerminal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no pty")
	}
	dir, config := fill(t, map[string]string{"apple": "green", "apricot": "orange"}), t.TempDir()
	session := func(fn func(tty *os.File, s *screen), flags ...string) {
		t.Helper()
		cmd := start(append([]string{"shell", dir}, flags...)...)
		cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+config, "HOME="+config)
		tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
		if err != nil {
			t.Skip("no pty:", err)
		}
		defer tty.Close()
		s := &screen{}
		go io.Copy(s, tty)
		s.waitFor(t, "forebay> ")
		fn(tty, s)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(10 * time.Second):
			cmd.Process.Kill()
			t.Fatal("the shell did not end")
		}
	}
	session(func(tty *os.File, s *screen) {
		io.WriteString(tty, "ge\tapp\t\r") // get apple
		s.waitFor(t, "green\r\n")
		s.waitFor(t, "forebay> ")
		io.WriteString(tty, "get nothing\x03") // given up
		s.waitFor(t, "forebay> ")
		io.WriteString(tty, "put new valye\x02\x02\x04u\r") // back, back, delete, insert
		s.waitFor(t, "forebay> ")
		io.WriteString(tty, "get new\r")
		s.waitFor(t, "value\r\n")
		io.WriteString(tty, "begin\r")
		s.waitFor(t, "(transaction)> ")
		io.WriteString(tty, "\x04") // Ctrl-D
		s.waitFor(t, "not committed")
	})
	session(func(tty *os.File, s *screen) {
		io.WriteString(tty, "\x10\x10\r") // up, up: get new
		s.waitFor(t, "value\r\n")
		io.WriteString(tty, "quit\r")
	})
	history := filepath.Join(config, "forebay", "history")
	content, err := os.ReadFile(history)
	if runtime.GOOS == "linux" {
		require.NoError(t, err)
		require.Contains(t, string(content), "get apple")
		require.NotContains(t, string(content), "nothing")
		require.NoError(t, os.Remove(history))
		session(func(tty *os.File, s *screen) { io.WriteString(tty, "quit\r") }, "--no-history")
		require.NoFileExists(t, history)
	}
}

// TestChangesFollowsAProcess: one process writes, is killed and begins again,
// another follows, and misses nothing.
func TestChangesFollowsAProcess(t *testing.T) {
	dir := fill(t, map[string]string{"a": "1"})
	follower := start("changes", dir, "--follow", "--from", "end")
	out, err := follower.StdoutPipe()
	require.NoError(t, err)
	lines := make(chan string, 100)
	require.NoError(t, follower.Start())
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			lines <- scan.Text()
		}
		close(lines)
	}()
	next := func() string {
		select {
		case line := <-lines:
			return line
		case <-time.After(10 * time.Second):
			follower.Process.Kill()
			t.Fatal("nothing was printed")
			return ""
		}
	}
	time.Sleep(300 * time.Millisecond) // it has begun, at the end
	writer := start("shell", dir)
	in, err := writer.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, writer.Start())
	io.WriteString(in, "put b 2\nkeyspace create users\nuse users\nput c 3\n")
	require.Equal(t, `2:2  put "b" "2"`, next())
	require.Equal(t, `2:3  create keyspace "users"`, next())
	require.Equal(t, `2:4  put [users] "c" "3"`, next())
	require.NoError(t, writer.Process.Kill())
	writer.Wait()
	fine(t, "del", dir, "--range", "a", "c", "--keyspace", "users")
	fine(t, "put", dir, "d", "4")
	require.Regexp(t, `:5  delete range \[users\] "a" … "c"$`, next())
	require.Regexp(t, `:6  put "d" "4"$`, next())
	require.NoError(t, follower.Process.Signal(syscall.SIGINT))
	require.NoError(t, follower.Wait(), "an interrupt is how following ends")
}
