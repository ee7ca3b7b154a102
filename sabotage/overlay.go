package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// hook is the package that the overlay adds to the module. Each switch calls it
// with its number; the environment says which one is on. The first time that it
// matters, it says so.
const hook = `// Package sabotaged is made by the command sabotage; no build but its own has it.
package sabotaged

import (
	"os"
	"strconv"
	"sync"
)

var on, _ = strconv.Atoi(os.Getenv("` + switchVariable + `"))

var told sync.Once

func tell() { told.Do(func() { os.Stderr.WriteString("` + reachedWord + `\n") }) }

// On says whether switch n is on.
func On(n int) bool {
	if n != on {
		return false
	}
	tell()
	return true
}

// Check is cond, and false while switch n is on.
func Check(n int, cond bool) bool { return cond && !On(n) }

// Pick is a, and b while switch n is on.
func Pick[T any](n int, a, b T) T {
	if On(n) {
		return b
	}
	return a
}

// Err is what a call returns; while switch n is on it is instead's, nil without.
func Err(n int, call, instead func() error) error {
	switch {
	case !On(n):
		return call()
	case instead != nil:
		return instead()
	}
	return nil
}

// Func is f, and a function that does nothing while switch n is on.
func Func(n int, f func() error) func() error {
	return Pick(n, f, func() error { return nil })
}
`

const (
	hookDir        = "internal/sabotaged"
	hookPath       = "github.com/forebaydb/forebay/" + hookDir
	switchVariable = "FOREBAY_SABOTAGE"
	reachedWord    = "sabotage: reached"
)

// overlay is the engine with all its switches.
type overlay struct {
	sites []site // ordered by kind, file and line
	files map[string]string
}

// rewrite finds all sites of the module at root, and makes the text with their
// switches of each file that has any.
func rewrite(root string) (*overlay, error) {
	names, err := files(root)
	if err != nil {
		return nil, err
	}
	o := &overlay{files: map[string]string{}}
	n := 0
	number := func() int { n++; return n }
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return nil, err
		}
		text, sites, err := rewriteFile(name, b, number)
		if err != nil {
			return nil, err
		}
		if len(sites) > 0 {
			o.files[name] = text
			o.sites = append(o.sites, sites...)
		}
	}
	for i := range rules {
		if _, ok := o.files[rules[i].file]; !ok {
			return nil, fmt.Errorf("rule %q is of %s, which is not searched", rules[i].text, rules[i].file)
		}
	}
	slices.SortStableFunc(o.sites, func(a, b site) int { return slices.Index(kinds, a.Kind) - slices.Index(kinds, b.Kind) })
	alike := map[string]int{}
	for i := range o.sites {
		s := &o.sites[i]
		if alike[s.name()]++; alike[s.name()] > 1 {
			s.Text = fmt.Sprintf("%s (%d)", s.Text, alike[s.name()])
		}
	}
	return o, nil
}

func rewriteFile(name string, b []byte, number func() int) (string, []site, error) {
	plain, err := parse(name, b)
	if err != nil {
		return "", nil, err
	}
	text, sites, err := fit(name, string(b), number)
	if err != nil {
		return "", nil, err
	}
	ruled, err := parse(name, []byte(text))
	if err != nil {
		return "", nil, err
	}
	want, got := plain.enumerate(), ruled.enumerate()
	if len(want) != len(got) {
		return "", nil, fmt.Errorf("%s: %d sites, and %d with the rules", name, len(want), len(got))
	}
	var edits []edit
	for i := range got {
		s := want[i] // the text without rules is the one to be shown
		s.N = number()
		for _, e := range got[i].edits {
			e.text = strings.ReplaceAll(e.text, "#", fmt.Sprint(s.N))
			edits = append(edits, e)
		}
		s.edits = nil
		sites = append(sites, s)
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.from - b.from })
	var out strings.Builder
	at := 0
	for _, e := range edits {
		if e.from < at {
			return "", nil, fmt.Errorf("%s: two switches in one place, at byte %d: %s", name, e.from, e.text)
		}
		out.WriteString(text[at:e.from] + e.text)
		at = e.to
	}
	out.WriteString(text[at:])
	head := "package " + ruled.file.Name.Name
	whole := out.String()
	i := strings.Index(whole, "\n"+head+"\n")
	if strings.HasPrefix(whole, head+"\n") {
		i = -1
	} else if i < 0 {
		return "", nil, fmt.Errorf("%s: no package clause", name)
	}
	i += 1 + len(head)
	return whole[:i] + `; import "` + hookPath + `"` + whole[i:], sites, nil
}

// write writes the files of the overlay below dir, and its description, whose
// name it returns.
func (o *overlay) write(root, dir string) (string, error) {
	replace := map[string]string{}
	put := func(name, text string) error {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		replace[filepath.Join(root, filepath.FromSlash(name))] = path
		return os.WriteFile(path, []byte(text), 0o600)
	}
	for name, text := range o.files {
		if err := put(name, text); err != nil {
			return "", err
		}
	}
	if err := put(hookDir+"/sabotaged.go", hook); err != nil {
		return "", err
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, b, 0o600)
}

// build builds the hunter with all switches, into dir, and returns its name.
func (o *overlay) build(root, dir string) (string, error) {
	list, err := o.write(root, filepath.Join(dir, "overlay"))
	if err != nil {
		return "", err
	}
	exe := filepath.Join(dir, "hunter.exe")
	cmd := exec.Command("go", "build", "-overlay", list, "-o", exe, "./sabotage/hunt")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of the overlay: %w\n%s", err, out)
	}
	return exe, nil
}
