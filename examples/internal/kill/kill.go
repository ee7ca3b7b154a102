// Package kill kills a program at random moments, again and again, and then lets it come
// to its end.
//
//	func TestMain(m *testing.M) { kill.Main(m, main) }
//
//	out := kill.Run(t, kill.Victim{Args: func(life int) []string { … }, Lines: 20})
//
// The program is the test binary itself: as a child of Run it calls main and no tests. A
// moment is counted in lines that it has printed, and a little time behind the last one:
// so there is one to be had on a slow machine as on a fast one.
package kill

import (
	"bufio"
	"bytes"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"
)

var (
	flagTimes = flag.Int("kill.times", 8, "how often a program is killed")
	flagSeed  = flag.Uint64("kill.seed", 0, "seed of the moments; 0: one of the clock's")
)

// child is the variable of the environment that makes a test binary the program.
const child = "FOREBAY_EXAMPLE_CHILD"

// Main is for TestMain. It does not return.
func Main(m *testing.M, program func()) {
	if os.Getenv(child) != "" {
		go func() { // who has started it is gone when this ends
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(3)
		}()
		program()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// endless is how long no life is that goes well, however slow the machine.
const endless = 3 * time.Minute

// Victim is a program that can be killed.
type Victim struct {
	// Args of the program in a life, from 0 on. It is to have something left to do in
	// each life.
	Args func(life int) []string
	// Lines: it is killed behind one of the first so many lines that it prints.
	Lines int
	// Later is up to how much time behind that line; 0: 3 ms.
	Later time.Duration
}

// Run starts the program until it was killed -kill.times times, half of that when tests
// are short, then once more, and returns what it prints in its last life. A program that
// ends by itself before its moment has come has lived well; one that fails fails the test.
func Run(t testing.TB, v Victim) string {
	t.Helper()
	seed := *flagSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-kill.seed=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	times := *flagTimes
	if testing.Short() {
		times = (times + 1) / 2
	}
	later := v.Later
	if later == 0 {
		later = 3 * time.Millisecond
	}
	life, killed := 0, 0
	for ; killed < times && life < 4*times; life++ {
		if _, died := live(t, v.Args(life), 1+r.IntN(v.Lines), time.Duration(r.Int64N(int64(later)))); died {
			killed++
		}
	}
	if killed == 0 && times > 0 {
		t.Fatalf("in %d lives it was never killed", life)
	}
	t.Logf("killed %d times in %d lives", killed, life)
	out, _ := live(t, v.Args(life), 0, 0)
	return out
}

// live is one life: until the program has printed some lines, 0: until it ends by itself.
func live(t testing.TB, args []string, lines int, later time.Duration) (out string, killed bool) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), child+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	limit := time.AfterFunc(endless, func() { _ = cmd.Process.Kill() })
	var text bytes.Buffer
	in := bufio.NewReader(stdout)
	asked := false
	for n := 0; ; {
		line, err := in.ReadString('\n')
		text.WriteString(line)
		if err != nil {
			break // it has ended
		}
		if n++; n == lines {
			time.Sleep(later)
			asked = cmd.Process.Kill() == nil // else it has ended meanwhile
			_, _ = io.Copy(&text, in)
			break
		}
	}
	err = cmd.Wait()
	if !limit.Stop() {
		t.Fatalf("%v: no end in %v; it begins with\n%.4000s", args, endless, text.Bytes())
	}
	// A program that fails by itself says why; who is killed says nothing.
	if err != nil && !asked || stderr.Len() > 0 {
		t.Fatalf("%v: %v\n%s%s", args, err, text.Bytes(), stderr.Bytes())
	}
	return text.String(), err != nil
}
