package forebay_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// shown are what the sources of all modules have that can show something: tests,
// benchmarks, examples and fuzz targets, and commands.
type shown struct {
	tests    map[string][]string // packages by name
	mains    map[string]bool     // directories of programs
	commands map[string]bool     // first words of commands of cobra
}

func whatIsShown(t *testing.T) shown {
	t.Helper()
	s := shown{map[string][]string{}, map[string]bool{}, map[string]bool{}}
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		b, err := os.ReadFile(name)
		dir := filepath.ToSlash(filepath.Dir(name))
		if strings.HasSuffix(name, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)\w*)\(`).FindAllSubmatch(b, -1) {
				s.tests[string(m[1])] = append(s.tests[string(m[1])], dir)
			}
			return err
		}
		if regexp.MustCompile(`(?m)^package main$`).Match(b) {
			s.mains[dir] = true
		}
		for _, m := range regexp.MustCompile(`Use:\s*"([\w-]+)`).FindAllSubmatch(b, -1) {
			s.commands[string(m[1])] = true
		}
		return err
	}))
	return s
}

// run looks that `go run DIR [command] [flags]` is there: the program, its command, and its
// flags, in the sources of that command.
func (s shown) run(t *testing.T, row, command string) {
	t.Helper()
	words := strings.Fields(command)
	require.Equal(t, []string{"go", "run"}, words[:2], "row %s: %s", row, command)
	dir := strings.TrimPrefix(words[2], "./")
	require.True(t, s.mains[dir], "row %s: %s is no program", row, dir)
	for i, w := range words[3:] {
		if i == 0 && !strings.HasPrefix(w, "-") {
			require.True(t, s.commands[w], "row %s: there is no command %s", row, w)
		}
		if flag, ok := strings.CutPrefix(w, "--"); ok {
			require.True(t, mentions(t, filepath.Dir(filepath.FromSlash(dir)), `"`+flag+`"`), "row %s: there is no flag %s", row, w)
		}
	}
}

// mentions says whether a Go file below a directory has a text.
func mentions(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		b, err := os.ReadFile(name)
		found = found || strings.Contains(string(b), text)
		return err
	}))
	return found
}

// TestMissionIsShown: every row of docs/mission.md names tests, benchmarks, examples or
// commands, and each of them exists, in the package that the row says.
func TestMissionIsShown(t *testing.T) {
	s := whatIsShown(t)
	b, err := os.ReadFile("docs/mission.md")
	require.NoError(t, err)
	doc := strings.ReplaceAll(string(b), "\r\n", "\n")
	page, err := os.ReadFile("docs/write-offloading.md")
	require.NoError(t, err)
	for _, text := range []string{doc, string(page)} {
		require.Empty(t, regexp.MustCompile(`FIG\w*|TBD|TODO`).FindAllString(text, -1), "gaps")
		for _, name := range regexp.MustCompile(`\b(?:Test|Benchmark|Example|Fuzz)[A-Z_]\w*`).FindAllString(text, -1) {
			require.NotEmpty(t, s.tests[name], name)
		}
	}
	var rows []string
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \|.*\|$`).FindAllStringSubmatch(doc, -1) {
		row, cells := m[1], strings.Split(m[0], "|")
		rows = append(rows, row)
		require.Len(t, cells, 7, "row %s", row)
		for _, part := range strings.Split(cells[4], ";") {
			packages := []string{"."}
			if _, in, ok := strings.Cut(part, "("); ok {
				packages = strings.Split(strings.TrimSuffix(strings.TrimSpace(in), ")"), ", ")
			}
			names := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(part, -1)
			require.NotEmpty(t, names, "row %s: %q names nothing that shows it", row, part)
			for _, name := range names {
				if strings.Contains(name[1], " ") {
					s.run(t, row, name[1])
					continue
				}
				for _, p := range packages {
					require.True(t, slices.Contains(s.tests[name[1]], p), "row %s: %s is not in package %s, but in %v", row, name[1], p, s.tests[name[1]])
				}
			}
		}
	}
	require.Equal(t, strings.Fields("1 2 3 4 5 6 7 8 9 10 11 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 29 30 32 33 34 35 36 37 38 41 43 44 45 46 47 48"), rows)
}
