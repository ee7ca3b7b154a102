// Command sabotage watches the watchers: it takes out of the engine, one at a
// time, each sync, each sync of a directory, each comparison with a checksum, each
// bound check of a reader or decoder, each poisoning and each ordering rule, and
// looks that what the project has to find faults finds that one within a minute.
//
//	go run ./sabotage              all of them, with the list
//	go run ./sabotage -kind sync   those of a kind
//	go run ./sabotage -only 17     one, with what the hunter says
//	go run ./sabotage -list        the list alone
//	go run ./sabotage -json        the result as one object
//	go run ./sabotage -doc         all, and docs/sabotage.md written
//
// The places are found in the sources (sites.go), but for ordering rules, which no
// syntax shows: those have a table (rules.go) that fits the sources or is an
// error. All are rewritten into one overlay (overlay.go), where each asks a switch,
// so that one build has all the faulty engines. Nothing of that is in any other
// build. The hunter is the directory hunt.
//
// It ends with status 1 when a fault is found by nothing and is not among the
// exceptions (exceptions.go), each of which says why.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

type config struct {
	only, kind      string
	budget          time.Duration
	workers         int
	list, json, doc bool
	keep            string
}

func main() {
	var c config
	flag.StringVar(&c.only, "only", "", "numbers of switches, with commas")
	flag.StringVar(&c.kind, "kind", "", "kinds, with commas: "+strings.Join(kinds, ", "))
	flag.DurationVar(&c.budget, "budget", time.Minute, "how long each is hunted, in time of one processor: two at once take that on two that have nothing else to do")
	flag.IntVar(&c.workers, "workers", 2, "how many are hunted at once")
	flag.BoolVar(&c.list, "list", false, "list the switches and end")
	flag.BoolVar(&c.json, "json", false, "print one JSON object")
	flag.BoolVar(&c.doc, "doc", false, "write docs/sabotage.md")
	flag.StringVar(&c.keep, "dir", "", "directory for the build, kept and used again; empty: a temporary one")
	flag.Parse()
	if err := run(c); err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		os.Exit(1)
	}
}

// moduleRoot is the directory of the root module, at or above the present one.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		b, rerr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if rerr == nil && strings.HasPrefix(string(b), "module github.com/forebaydb/forebay\n") {
			return dir, nil
		}
		if up := filepath.Dir(dir); up != dir {
			dir = up
			continue
		}
		err = errors.New("not within the module github.com/forebaydb/forebay")
	}
	return "", err
}

func run(c config) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	o, err := rewrite(root)
	if err != nil {
		return err
	}
	if err := fitExceptions(o.sites); err != nil {
		return err
	}
	sites, err := choose(o.sites, c)
	if err != nil {
		return err
	}
	if c.list {
		for i := range sites {
			fmt.Println(sites[i].String())
		}
		fmt.Println(count(sites))
		return nil
	}
	dir := c.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "forebay-sabotage"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	h, err := newHunter(o, root, dir, c.budget)
	if err != nil {
		return err
	}
	out := os.Stdout
	if c.json {
		out = os.Stderr
	}
	start := time.Now()
	results := h.all(sites, c.workers, out)
	rep := summary(results, time.Since(start))
	fmt.Fprintln(out, rep.String())
	if c.json {
		if err := json.NewEncoder(os.Stdout).Encode(rep); err != nil {
			return err
		}
	}
	if c.doc {
		if err := writeDoc(filepath.Join(root, "docs", "sabotage.md"), rep); err != nil {
			return err
		}
	}
	if rep.Blind > 0 {
		return fmt.Errorf("%d of %d faults are found by nothing and are no exceptions", rep.Blind, rep.Switches)
	}
	return nil
}

// choose returns the sites that the flags name.
func choose(all []site, c config) ([]site, error) {
	only := map[int]bool{}
	for _, w := range strings.FieldsFunc(c.only, func(r rune) bool { return r == ',' || r == ' ' }) {
		from, to, isRange := strings.Cut(w, "-")
		a, err := strconv.Atoi(from)
		b := a
		if err == nil && isRange {
			b, err = strconv.Atoi(to)
		}
		if err != nil {
			return nil, fmt.Errorf("-only %q: %w", w, err)
		}
		for ; a <= b; a++ {
			only[a] = true
		}
	}
	chosen := strings.FieldsFunc(c.kind, func(r rune) bool { return r == ',' })
	for _, k := range chosen {
		if !slices.Contains(kinds, k) {
			return nil, fmt.Errorf("-kind %q; there are %s", k, strings.Join(kinds, ", "))
		}
	}
	out := slices.DeleteFunc(slices.Clone(all), func(s site) bool {
		return len(only) > 0 && !only[s.N] || len(chosen) > 0 && !slices.Contains(chosen, s.Kind)
	})
	if len(out) == 0 {
		return nil, errors.New("no switch is of that name")
	}
	return out, nil
}

// String is the site in one line.
func (s *site) String() string {
	return fmt.Sprintf("%3d %-8s %s:%d %s: %s", s.N, s.Kind, s.File, s.Line, s.Func, s.Text)
}

// count says how many sites there are of each kind.
func count(sites []site) string {
	n := map[string]int{}
	for _, s := range sites {
		n[s.Kind]++
	}
	words := []string{fmt.Sprintf("%d switches", len(sites))}
	for _, k := range kinds {
		if n[k] > 0 {
			words = append(words, fmt.Sprintf("%d %s", n[k], k))
		}
	}
	return strings.Join(words, ", ")
}
