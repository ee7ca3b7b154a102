package forebay_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// wallTime are the methods and functions that make of a time.Time what the clock
// on the wall shows. Without them times can only be compared and subtracted, which
// Go does by a clock that does not jump.
var wallTime = []string{"Unix", "UnixNano", "UnixMilli", "UnixMicro", "AppendFormat", "YearDay", "ISOWeek", "Round", "Truncate", "UTC", "Local", "ModTime"}

// onTop are the systems on top of the store, which keep times for their users.
var onTop = []string{"topic", "queue", "idem", "sink", "buffer", "eventstore"}

// TestNothingIsOrderedByWallTime looks that no code of the engine asks what time
// it is: for an order, a file, a wait. A duration is all it knows.
func TestNothingIsOrderedByWallTime(t *testing.T) {
	for _, r := range rooms {
		if strings.HasPrefix(r.dir, "fuzz") || strings.HasPrefix(r.dir, "sabotage") || strings.HasPrefix(r.dir, "examples") || slices.Contains(onTop, strings.Split(r.dir, "/")[0]) {
			continue // not the engine; an age that survives a restart is of the clock on the wall
		}
		names, err := filepath.Glob(filepath.Join(r.dir, "*.go"))
		require.NoError(t, err)
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			set := token.NewFileSet()
			src, err := os.ReadFile(name)
			require.NoError(t, err)
			file, err := parser.ParseFile(set, name, src, parser.SkipObjectResolution)
			require.NoError(t, err)
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				on, _ := sel.X.(*ast.Ident)
				if slices.Contains(wallTime, sel.Sel.Name) || on != nil && on.Name == "time" && slices.Contains([]string{"Date", "Parse", "ParseInLocation"}, sel.Sel.Name) {
					t.Errorf("%s: %s is wall time", set.Position(sel.Pos()), sel.Sel.Name)
				}
				return true
			})
		}
	}
}

// sameBytes is a source of ids and salts that gives them to whoever asks first, in
// the background or not.
type sameBytes byte

func (s sameBytes) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s)
	}
	return len(p), nil
}

// TestClockJumps plays lives of one store at times that are not in order: each
// begins in the year 2000, goes on for years, and the next begins in 2000 again.
// The last write of a key wins, whenever it was; and one that is played again at
// another time leaves the same bytes.
func TestClockJumps(t *testing.T) {
	play := func(years int) *vfs.Mem {
		mem := vfs.NewMem()
		for life := range 5 {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Duration(years*(5-life)) * 365 * 24 * time.Hour)
				o := &forebay.Options{FS: mem, MarkDelay: -1, LogFileSize: 16 << 10, MemtableSize: 8 << 10, Rand: sameBytes(life + 1)}
				db, err := forebay.Open("db", o)
				require.NoError(t, err)
				for i := range 12 {
					require.NoError(t, db.Put(fmt.Appendf(nil, "key %d", i%3), fmt.Appendf(nil, "life %d write %d %0800d", life, i, i)))
					synctest.Wait()
					time.Sleep(time.Duration(years) * time.Hour)
				}
				require.NoError(t, db.Update(func(tx *forebay.Tx) error {
					v, err := tx.Get([]byte("key 2"))
					require.NoError(t, err)
					require.Contains(t, string(v), fmt.Sprintf("life %d write 11", life))
					return tx.Put([]byte("lives"), fmt.Appendf(nil, "%d", life))
				}))
				require.NoError(t, db.Checkpoint(t.Context()))
				require.NoError(t, db.Compact(t.Context()))
				require.NoError(t, db.Close())
			})
		}
		db, err := forebay.Open("db", &forebay.Options{FS: mem.Snapshot(), MarkDelay: -1}) // and now it is today
		require.NoError(t, err)
		for i := range 3 {
			v, err := db.Get(fmt.Appendf(nil, "key %d", i))
			require.NoError(t, err)
			require.Contains(t, string(v), fmt.Sprintf("life 4 write %d ", 9+i))
		}
		require.Equal(t, uint64(5*13), db.LastLSN())
		require.NoError(t, db.Close())
		return mem
	}
	// What is done in the background may fall differently, by chance: then they
	// play again.
	image := func(mem *vfs.Mem) string {
		names, err := mem.List("db")
		require.NoError(t, err)
		all := ""
		for _, name := range names {
			all += fmt.Sprintf("%s %q\n", name, mem.Bytes("db/"+name))
		}
		return all
	}
	before, after := map[string]bool{}, map[string]bool{}
	for range 50 {
		early, late := image(play(0)), image(play(7))
		before[early], after[late] = true, true
		if before[late] || after[early] {
			return
		}
	}
	t.Error("the files know what time it was")
}
