package forebay_test

import (
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var sabotage = flag.Bool("sabotage", false, "take each rule of the named sequences out of a copy of the code and look that its test fails")

// mutation takes one rule out: in a copy of the module the text old of a file
// becomes new, and then the test must fail.
type mutation struct {
	rule, file, old, new, test string
}

var mutations = []mutation{
	{"proof is a number: a later frame alone proves nothing", "wal/scan.go",
		"s.rep.Dropped += dropped(s.cur, s.end, p)\n", "s.rep.Dropped += dropped(s.cur, s.end, p)\n\t\tif p.Any {\n\t\t\ts.durable = s.pos.LSN + 1\n\t\t}\n",
		"TestSequence1LaterGroupKept"},
	{"proof is a number: a successor file alone proves nothing", "wal/scan.go",
		"if s.broken() {\n\t\t\tbreak", "if s.broken() {\n\t\t\tif next, _ := s.successor(); next != nil {\n\t\t\t\ts.durable = s.pos.LSN + 1\n\t\t\t}\n\t\t\tbreak",
		"TestSequence1LaterFileKept"},
	{"a cut ends a file: nothing is appended behind it", "wal/log.go",
		"\tl.assigned.Store(s.rep.Last)\n\tl.written", `	if s.cur != nil && l.cur == nil {
		f, err := l.fsys.Open(s.cur.path, vfs.ReadWrite)
		if err != nil {
			return err
		}
		l.cur = &logFile{meta: s.cur.meta, head: s.cur.head, path: s.cur.path, f: f, size: s.cur.size}
		l.b.Reset(&l.cur.head, l.opts.Compression, s.end.Offset, s.pos.Hash)
	}
	l.assigned.Store(s.rep.Last)
	l.written`,
		"TestSequence2StaleGroupAfterIdenticalRetry"},
	{"a truncation is durable by itself: the cut is in the catalog", "wal/retain.go",
		"e.Put = append(e.Put, m)\n\t}\n\tif err := l.cat.EditLog(&e); err != nil {\n\t\tl.poison", "_ = m\n\t}\n\tif err := l.cat.EditLog(&e); err != nil {\n\t\tl.poison",
		"TestSequence3TruncateBackThenTornWrite"},
	{"open makes durable what it shows, by copies", "wal/log.go",
		"if s.rep.Proven < s.rep.Last {", "if false {",
		"TestSequence4SyncErrorReopenPowerCut"},
	{"a sync error poisons", "wal/lead.go",
		"\t\tl.poisonWith(err)\n\t\treturn fmt.Errorf(\"%w: %w\", ErrUnknown, err)\n\t}\n\tif a != nil {", "\t\treturn fmt.Errorf(\"%w: %w\", ErrUnknown, err)\n\t}\n\tif a != nil {",
		"TestSequence4SyncErrorReopenPowerCut"},
	{"a checkpoint first syncs the log", "checkpoint/checkpoint.go",
		"if err := cfg.Sync(ctx, high); err != nil {", "if err := error(nil); err != nil {",
		"TestSequence5CheckpointOfUnsyncedCommits"},
	{"a manifest edit is proven before it is acted on", "internal/editlog/editlog.go",
		"w.b.Mark(w.next, w.next-1, 0)\n\treturn w.flush()", "return nil",
		"TestSequence6ManifestEditDamagedAfterRecycling"},
	{"an open that makes a file begins an epoch", "wal/log.go",
		"l.epoch = max(s.state.Epoch, s.state.Floor.Epoch) + 1", "l.epoch = max(1, s.state.Epoch)",
		"TestSequence7TailerOfALostFuture"},
	{"after a bad frame all that follows is searched for a proof", "wal/scan.go",
		"p, err := frame.Search(s.cur.f, s.cur.size, &s.cur.head, s.end.Offset, buf)", "p, err := frame.Proof{}, error(nil)\n\t\t_ = buf",
		"TestSequence8FlippedBitBelowAMark"},
	{"padding is verified", "wal/frame/reader.go",
		"if !allZero(rest[8:]) {", "if false {",
		"TestSequence8FlippedBitBelowAMark"},
	{"a frame counts whole or not at all", "wal/frame/reader.go",
		"if hash != closingHash(payload, sum) {", "if false && hash != closingHash(payload, sum) {",
		"TestSequence8LastFrameCutAtEveryByte"},
	{"a listed file must be there", "wal/scan.go",
		"return bad(-1, \"listed log file is missing\")", "continue",
		"TestSequence8UnusedSpareAndMissingFile"},
	{"a link that names copies counts when all of them verify", "wal/scan.go",
		"if l.link == nil || l.link.Copies == l.link.Kept {", "if true {",
		"TestSequence9CrashInsideOpen"},
	{"copies are synced before the mark that proves them", "wal/log.go",
		"if err := l.writeOut(true); err != nil {\n\t\treturn err\n\t}\n\tl.unused", "if err := l.writeOut(false); err != nil {\n\t\treturn err\n\t}\n\tl.unused",
		"TestSequence9CrashInsideOpen"},
}

// TestMutationsFit: the text of each rule is where the table says.
func TestMutationsFit(t *testing.T) {
	for _, m := range mutations {
		b, err := os.ReadFile(m.file)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(b), m.old), "%s: %s", m.file, m.rule)
	}
}

// TestSabotage shows that each named sequence fails when its rule is taken out.
func TestSabotage(t *testing.T) {
	if !*sabotage {
		t.Skip("runs with -sabotage alone: it builds the module once for each rule")
	}
	root, err := os.Getwd()
	require.NoError(t, err)
	for _, m := range mutations {
		t.Run(m.rule, func(t *testing.T) {
			dir := t.TempDir()
			copyModule(t, root, dir)
			path := filepath.Join(dir, m.file)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, 1, strings.Count(string(b), m.old), "the text of the rule must be in %s once", m.file)
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(b), m.old, m.new, 1)), 0o600))
			cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-run", "^"+m.test+"$", ".")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOWORK=off")
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "%s passes without the rule", m.test)
			require.True(t, strings.Contains(string(out), "--- FAIL: "+m.test) || strings.Contains(string(out), "panic:"), "it did not fail but break:\n%s", out)
			t.Logf("%s fails", m.test)
		})
	}
}

// copyModule copies the Go files of the root module.
func copyModule(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(from, path)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || rel == "cmd" || rel == "fuzz" || rel == "docs" || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		if !strings.HasSuffix(rel, ".go") && rel != "go.mod" && rel != "go.sum" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	}))
}
