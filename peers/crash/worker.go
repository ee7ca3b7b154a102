package crash

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/forebaydb/forebay/fuzz/damage"
	"github.com/forebaydb/forebay/peers/engine"
)

// An engine that meets damage may end its process, or not come back. So each is
// judged in a process of its own, which reads damages, one a line, and writes a
// result for each. When it dies, the damage under way is to blame, and another
// process goes on behind it.

// patience is how long one damage may take.
const patience = 20 * time.Second

// Worker is what such a process does: args are the id of an engine, the file with its
// stores, and a directory for real files.
func Worker(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 3 {
		return errors.New("crash: a worker takes an engine, a file and a directory")
	}
	sub, err := find(args[0], args[2])
	if err != nil {
		return err
	}
	stores, err := load(args[1])
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	enc := json.NewEncoder(out)
	for lines.Scan() {
		name, line, _ := strings.Cut(lines.Text(), "/")
		f, err := damage.ParseFault(line)
		if err != nil {
			return err
		}
		if stores[name] == nil {
			return fmt.Errorf("crash: no store %q", name)
		}
		res, _ := damage.Judge(sub, stores[name], f)
		if err := enc.Encode(res); err != nil {
			return err
		}
	}
	return lines.Err()
}

func find(id, tmp string) (*subject, error) {
	for _, e := range engine.All() {
		if e.ID() == id {
			return &subject{e, tmp}, nil
		}
	}
	return nil, fmt.Errorf("crash: no engine %q", id)
}

func save(name string, stores []*damage.Store) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(stores); err != nil {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o600)
}

func load(name string) (map[string]*damage.Store, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var stores []*damage.Store
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&stores); err != nil {
		return nil, err
	}
	out := map[string]*damage.Store{}
	for _, s := range stores {
		for _, im := range []damage.Image{s.Image, s.Older} {
			for name, b := range im {
				if b == nil {
					im[name] = []byte{} // gob does not tell them apart
				}
			}
		}
		out[s.Name] = s
	}
	return out, nil
}

// job is one damage of one column, as a line for a worker.
type job struct {
	column int
	line   string
}

// judgeAll gives the jobs to Config.Workers processes, and calls each, one call at a
// time, with what came.
func judgeAll(cfg *Config, id, file string, jobs []job, each func(job, damage.Result)) error {
	var mu sync.Mutex
	next := 0
	take := func() (job, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(jobs) {
			return job{}, false
		}
		next++
		return jobs[next-1], true
	}
	done := func(j job, res damage.Result) {
		mu.Lock()
		defer mu.Unlock()
		each(j, res)
	}
	var wg sync.WaitGroup
	errs := make([]error, cfg.Workers)
	for i := range cfg.Workers {
		wg.Go(func() {
			tmp := filepath.Join(filepath.Dir(file), fmt.Sprintf("w%d", i))
			for more := true; more && errs[i] == nil; {
				if errs[i] = os.MkdirAll(tmp, 0o700); errs[i] == nil {
					more, errs[i] = life(cfg.Worker(id, file, tmp), take, done)
				}
				os.RemoveAll(tmp) // what a process that died has left
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// life is that of one process; more says that it died of a damage.
func life(cmd *exec.Cmd, take func() (job, bool), done func(job, damage.Result)) (more bool, err error) {
	var stderr tailBuffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return false, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	answers := bufio.NewReader(out)
	for {
		j, ok := take()
		if !ok {
			in.Close()
			if err := cmd.Wait(); err != nil {
				return false, fmt.Errorf("crash: a worker ended with %w: %s", err, stderr.String())
			}
			return false, nil
		}
		var hung atomic.Bool
		watch := time.AfterFunc(patience, func() { hung.Store(true); cmd.Process.Kill() })
		_, werr := fmt.Fprintln(in, j.line)
		line, rerr := answers.ReadBytes('\n')
		watch.Stop()
		var res damage.Result
		if werr == nil && rerr == nil && json.Unmarshal(line, &res) == nil {
			done(j, res)
			continue
		}
		in.Close()
		werr = cmd.Wait()
		res = damage.Result{Fault: j.line, Verdict: damage.Panicked, How: fmt.Sprintf("the process ended: %v: %s", werr, stderr.String())}
		if strings.Contains(stderr.String(), engine.Ends) {
			// It found the damage in the background, and ended itself.
			res.Verdict = damage.NoFile
			if _, f, _ := strings.Cut(j.line, ":"); strings.Contains(stderr.String(), strings.Split(f, ":")[0]) {
				res.Verdict = damage.Detected
			}
		}
		if hung.Load() {
			res.How = fmt.Sprintf("no end in %v", patience)
		}
		done(j, res)
		return true, nil
	}
}

// tailBuffer keeps the first line that is written to it, and no more than that.
type tailBuffer struct{ b []byte }

func (t *tailBuffer) Write(p []byte) (int, error) {
	if !bytes.Contains(t.b, []byte("\n")) && len(t.b) < 1<<10 {
		t.b = append(t.b, p...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	line, _, _ := strings.Cut(string(t.b), "\n")
	return line
}
