package forebay_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/forebaydb/forebay"

// room is a row of the import table: a package of the root module, what of the
// root module it imports, and what of other modules.
type room struct {
	dir     string
	imports []string
	outside []string
	// adapter begins the names of the only files that may import rooms other than vfs;
	// "": all.
	adapter string
	// system: it reaches the operating system by itself.
	system bool
}

// rooms is the import table. A row names exactly what its package imports, and
// only packages of rows below its own: the arrows point down. Tests, too, import
// nothing from above, but for those of the root. A new package gets a row here,
// and a line in the map of README.md.
var rooms = []room{
	{dir: "examples/account", imports: []string{".", "eventstore", "idem"}, system: true},
	{dir: "examples/audit", imports: []string{".", "topic"}, system: true},
	{dir: "examples/notifications", imports: []string{".", "queue"}, system: true},
	{dir: "examples/orders", imports: []string{".", "idem", "queue"}, system: true},
	{dir: "examples/internal/kill", system: true},
	{dir: "sabotage", system: true},
	{dir: "sabotage/hunt", imports: []string{".", "fuzz", "internal/base", "manifest", "segment", "vfs", "wal", "wal/frame"}, outside: []string{modXXHash, modCompress}, system: true},
	{dir: "fuzz/adversary"}, // tests alone
	{dir: "fuzz/damage", imports: []string{".", "vfs"}, adapter: "forebay"},
	{dir: "fuzz/scenarios"}, // tests alone
	{dir: "fuzz/real", imports: []string{".", "vfs"}, outside: []string{"golang.org/x/sys"}, system: true},
	{dir: "fuzz/systems", imports: []string{".", "buffer", "eventstore", "fuzz", "queue", "sink", "vfs"}},
	{dir: "fuzz", imports: []string{".", "vfs"}, outside: []string{modXXHash}, adapter: "forebay"},
	{dir: "queue", imports: []string{".", "topic"}},
	{dir: "idem", imports: []string{"."}},
	{dir: "buffer", imports: []string{".", "sink", "topic"}},
	{dir: "eventstore", imports: []string{".", "topic"}},
	{dir: "topic", imports: []string{"."}},
	{dir: "sink/filesink", imports: []string{"sink", "vfs"}},
	{dir: "sink/httpsink", imports: []string{"sink"}},
	{dir: "sink/sinktest", imports: []string{"sink"}, outside: []string{modTestify}},
	{dir: "sink"},
	{dir: ".", imports: []string{"checkpoint", "commit", "compaction", "internal/base", "internal/batch", "internal/keyspace", "internal/merge", "internal/publish", "internal/rangedel", "manifest", "memtable", "recovery", "segment", "vfs", "wal"}},
	{dir: "check", imports: []string{"compaction", "internal/base", "internal/batch", "internal/editlog", "internal/keyspace", "internal/merge", "internal/rangedel", "manifest", "memtable", "segment", "vfs", "wal", "wal/frame"}},
	{dir: "commit", imports: []string{"internal/base", "internal/batch", "internal/publish", "wal"}},
	{dir: "recovery", imports: []string{"compaction", "internal/base", "manifest", "segment", "vfs", "wal"}},
	{dir: "checkpoint", imports: []string{"compaction", "internal/base", "internal/merge", "internal/radix", "internal/rangedel", "manifest", "segment", "vfs"}},
	{dir: "compaction", imports: []string{"internal/base", "internal/merge", "internal/rangedel", "manifest", "segment", "vfs"}},
	{dir: "manifest", imports: []string{"internal/base", "internal/editlog", "vfs", "wal/frame"}},
	{dir: "segment", imports: []string{"internal/base", "internal/cache", "internal/prefetch", "internal/rangedel", "vfs"}, outside: []string{modXXHash, modCompress}},
	{dir: "memtable", imports: []string{"internal/base", "internal/huge", "internal/prefetch", "internal/publish", "internal/radix", "internal/rangedel"}},
	{dir: "wal", imports: []string{"internal/base", "internal/editlog", "internal/publish", "vfs", "wal/frame"}},
	{dir: "internal/editlog", imports: []string{"internal/base", "vfs", "wal/frame"}},
	{dir: "wal/frame", imports: []string{"internal/base", "internal/prefetch"}, outside: []string{modXXHash, modCompress}},
	{dir: "internal/merge", imports: []string{"internal/base", "internal/rangedel"}},
	{dir: "internal/rangedel", imports: []string{"internal/base"}},
	{dir: "internal/batch", imports: []string{"internal/base"}},
	{dir: "internal/cache", imports: []string{"internal/huge"}},
	{dir: "internal/huge", outside: []string{"golang.org/x/sys"}, system: true},
	{dir: "internal/prefetch"},
	{dir: "internal/publish"},
	{dir: "internal/radix"},
	{dir: "internal/base"},
	{dir: "internal/keyspace"},
	{dir: "vfs", outside: []string{"golang.org/x/sys"}, system: true},
}

const (
	modXXHash   = "github.com/cespare/xxhash/v2"
	modCompress = "github.com/klauspost/compress"
	modTestify  = "github.com/stretchr/testify"
)

// source is what one Go file of the root module imports.
type source struct {
	file, dir string
	test      bool
	imports   []string
}

// sources reads every Go file of the root module, for all platforms.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	require.NoError(t, filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != "." && (base == "testdata" || base[0] == '.' || base[0] == '_') {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != "." {
				return filepath.SkipDir // a nested module
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		s := source{file: name, dir: filepath.ToSlash(filepath.Dir(name)), test: strings.HasSuffix(name, "_test.go")}
		for _, i := range f.Imports {
			s.imports = append(s.imports, importPath(t, i))
		}
		out = append(out, s)
		return nil
	}))
	return out
}

func importPath(t *testing.T, i *ast.ImportSpec) string {
	t.Helper()
	p, err := strconv.Unquote(i.Path.Value)
	require.NoError(t, err)
	return p
}

// within returns the room that p names, "." for the root, and whether p is of
// this module.
func within(p string) (dir string, ok bool) {
	if p == modulePath {
		return ".", true
	}
	return strings.CutPrefix(p, modulePath+"/")
}

func standard(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".")
}

func TestImportTable(t *testing.T) {
	rank := map[string]int{}
	for i, r := range rooms {
		rank[r.dir] = i
	}
	used := map[string]map[string]bool{}
	for _, s := range sources(t) {
		i, ok := rank[s.dir]
		if !ok {
			t.Errorf("%s: package %s has no row in the import table of deps_test.go", s.file, s.dir)
			continue
		}
		if used[s.dir] == nil {
			used[s.dir] = map[string]bool{}
		}
		for _, p := range s.imports {
			dir, ours := within(p)
			switch {
			case ours:
				j, known := rank[dir]
				switch {
				case dir == s.dir && s.test: // an external test of its own package
				case s.dir == "." && s.test && known:
				case !known || j <= i:
					t.Errorf("%s imports %s: the arrow does not point down", s.file, p)
				case s.test:
				case !slices.Contains(rooms[i].imports, dir):
					t.Errorf("%s imports %s: not in the import table of deps_test.go", s.file, p)
				case rooms[i].adapter != "" && dir != "vfs" && !strings.HasPrefix(filepath.Base(s.file), rooms[i].adapter):
					t.Errorf("%s imports %s; only %s*.go do", s.file, p, rooms[i].adapter)
				default:
					used[s.dir][dir] = true
				}
			case s.test && (p == modTestify || strings.HasPrefix(p, modTestify+"/")):
			case !standard(p):
				m := slices.IndexFunc(rooms[i].outside, func(m string) bool { return p == m || strings.HasPrefix(p, m+"/") })
				switch {
				case m >= 0:
					used[s.dir][rooms[i].outside[m]] = true
				case s.test && (p == modXXHash || strings.HasPrefix(p, modCompress+"/")):
				default:
					t.Errorf("%s imports %s: not in the import table of deps_test.go", s.file, p)
				}
			}
		}
	}
	for i, r := range rooms {
		if used[r.dir] == nil {
			t.Errorf("the import table has a row for %s, which is no package", r.dir)
			continue
		}
		for _, dir := range r.imports {
			if rank[dir] <= i {
				t.Errorf("row %s names %s, which is not below it", r.dir, dir)
			}
		}
		for _, p := range slices.Concat(r.imports, r.outside) {
			if !used[r.dir][p] {
				t.Errorf("row %s names %s, which it does not import", r.dir, p)
			}
		}
	}
}

// TestOnlyVFSTouchesTheSystem: faults can be injected and power cut in tests
// only where every file is reached through package vfs. (internal/huge knows memory
// alone; fuzz/real, which no room
// imports, kills processes and mounts file systems.)
func TestOnlyVFSTouchesTheSystem(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || slices.ContainsFunc(rooms, func(r room) bool { return r.dir == s.dir && r.system }) {
			continue
		}
		for _, p := range s.imports {
			if p == "os" || strings.HasPrefix(p, "os/") || p == "io/ioutil" || strings.HasPrefix(p, "golang.org/x/sys") {
				t.Errorf("%s imports %s; only package vfs does", s.file, p)
			}
		}
	}
}

// TestMapOfRooms: README.md has a line for each package of the import table.
func TestMapOfRooms(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	for _, r := range rooms {
		if r.dir != "." {
			require.Contains(t, string(readme), "`"+r.dir+"`", "the map of rooms in README.md")
		}
	}
}

// TestRequirements: who uses the library takes in these modules and no others.
func TestRequirements(t *testing.T) {
	b, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	direct, indirect := []string{}, []string{}
	block := false
	for _, line := range strings.Split(string(b), "\n") {
		line, comment, _ := strings.Cut(line, "//")
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
			continue
		case block && words[0] == ")":
			block = false
			continue
		case words[0] == "require" && words[len(words)-1] == "(":
			block = true
			continue
		case words[0] == "require":
			words = words[1:]
		case !block:
			require.Contains(t, []string{"module", "go", "toolchain"}, words[0], "go.mod: %s", line)
			continue
		}
		require.Len(t, words, 2, "go.mod: %s", line)
		if strings.TrimSpace(comment) == "indirect" {
			indirect = append(indirect, words[0])
		} else {
			direct = append(direct, words[0])
		}
	}
	require.ElementsMatch(t, []string{modXXHash, modCompress, modTestify, "golang.org/x/sys"}, direct)
	require.Equal(t, []string{"go.yaml.in/yaml/v3"}, indirect, "what testify brings")
}
