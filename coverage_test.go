package forebay_test

import (
	"bufio"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var coverProfile = flag.String("coverage.profile", "", "compare this cover profile with docs/coverage.md (bash .ci/coverage makes one)")

// readers are the files of which every line is covered by tests, but for the rows
// of docs/coverage.md: those that read what others may have written.
var readers = []string{
	"recovery/*.go", "manifest/*.go", "internal/editlog/*.go", "internal/base/logstate.go",
	"wal/scan.go", "wal/catalog.go", "wal/tail.go", "wal/replay.go",
	"wal/frame/codec.go", "wal/frame/find.go", "wal/frame/frame.go", "wal/frame/header.go", "wal/frame/reader.go", "wal/frame/layout.go", "wal/frame/layoutframe.go",
}

// uncoveredRow is a row of docs/coverage.md: the first line of a block that no test
// reaches, and why.
type uncoveredRow struct{ file, fn, line, reason string }

func coverageRows(t *testing.T) (rows []uncoveredRow) {
	b, err := os.ReadFile("docs/coverage.md")
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) == 4 && strings.HasPrefix(cells[0], "| `") {
			tick := func(s string) string { return strings.Trim(strings.TrimPrefix(s, "| "), "`") }
			rows = append(rows, uncoveredRow{tick(cells[0]), tick(cells[1]), tick(cells[2]), strings.TrimSuffix(cells[3], " |")})
		}
	}
	return rows
}

// readerFiles are the files that readers names.
func readerFiles(t *testing.T) (out []string) {
	for _, pattern := range readers {
		names, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, names, pattern)
		for _, name := range names {
			if !strings.HasSuffix(name, "_test.go") {
				out = append(out, filepath.ToSlash(name))
			}
		}
	}
	return out
}

// functionAt returns the name of the function that holds a line of a file.
func functionAt(t *testing.T, file string, line int) string {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, nil, 0)
	require.NoError(t, err)
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fset.Position(fn.Pos()).Line <= line && line <= fset.Position(fn.End()).Line {
			return fn.Name.Name
		}
	}
	return ""
}

// TestCoverage: each row of docs/coverage.md names a line that is there; and, where
// a cover profile is given, no other line of the readers is without a test.
func TestCoverage(t *testing.T) {
	rows := coverageRows(t)
	files := readerFiles(t)
	for _, r := range rows {
		require.Contains(t, files, r.file)
		b, err := os.ReadFile(r.file)
		require.NoError(t, err)
		require.Contains(t, string(b), r.line, "a row of docs/coverage.md: %s", r.file)
		require.NotEmpty(t, r.reason)
	}
	if *coverProfile == "" {
		return
	}
	type block struct {
		file       string
		line, stop int
	}
	statements, hits := map[block]int{}, map[block]int{}
	f, err := os.Open(*coverProfile)
	require.NoError(t, err)
	defer f.Close()
	form := regexp.MustCompile(`^(.*):(\d+)\.(\d+),\d+\.\d+ (\d+) (\d+)$`)
	for in := bufio.NewScanner(f); in.Scan(); {
		m := form.FindStringSubmatch(in.Text())
		if m == nil {
			continue
		}
		var b block
		var n, hit int
		b.file = strings.TrimPrefix(m[1], modulePath+"/")
		fmt.Sscan(m[2], &b.line)
		fmt.Sscan(m[3], &b.stop)
		fmt.Sscan(m[4], &n)
		fmt.Sscan(m[5], &hit)
		statements[b] = n
		hits[b] += hit
	}
	all, covered, excused := map[string]int{}, map[string]int{}, 0
	used := map[uncoveredRow]bool{}
	for b, n := range statements {
		if !slices.Contains(files, b.file) {
			continue
		}
		all[b.file] += n
		if hits[b] > 0 {
			covered[b.file] += n
			continue
		}
		source, err := os.ReadFile(b.file)
		require.NoError(t, err)
		line, fn := strings.TrimSpace(strings.Split(string(source), "\n")[b.line-1]), functionAt(t, b.file, b.line)
		i := slices.IndexFunc(rows, func(r uncoveredRow) bool { return r.file == b.file && r.fn == fn && r.line == line })
		if i < 0 {
			t.Errorf("%s:%d, %s: no test reaches what is behind %q", b.file, b.line, fn, line)
			continue
		}
		used[rows[i]] = true
		excused += n
	}
	total, reached := 0, 0
	for _, file := range files {
		require.Positive(t, all[file], "%s is not in the profile", file)
		t.Logf("%-32s %4d of %4d statements", file, covered[file], all[file])
		total, reached = total+all[file], reached+covered[file]
	}
	for _, r := range rows {
		if !used[r] {
			t.Logf("reached after all: %s, %s: %s", r.file, r.fn, r.line)
		}
	}
	t.Logf("%d of %d statements (%.2f %%), %d excused in %d rows of docs/coverage.md", reached, total, 100*float64(reached)/float64(total), excused, len(rows))
}
