package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A site is one place of the engine that can be sabotaged: a switch.
type site struct {
	// N is the number of its switch.
	N int
	// Kind is one of the kinds below.
	Kind string
	File string
	Line int
	// Func is the function that holds it; Text the line of code, or the rule's
	// words.
	Func, Text string

	edits []edit
}

// Kinds of sites.
const (
	kindSync     = "sync"     // a file is not synced
	kindDirSync  = "dirsync"  // a directory is not synced
	kindChecksum = "checksum" // a comparison with a checksum says that all is well
	kindBound    = "bound"    // a check of a reader or a decoder says that all is well
	kindPoison   = "poison"   // a log, or an edit log, goes on after an error
	kindOrder    = "order"    // a rule of rules.go is broken
)

var kinds = []string{kindSync, kindDirSync, kindChecksum, kindBound, kindPoison, kindOrder}

// name tells sites apart, from one enumeration to the next: file, function and
// text, and which of those that are alike.
func (s *site) name() string { return fmt.Sprintf("%s %s: %s", s.File, s.Func, s.Text) }

// edit replaces the bytes from from to to of a file by text, in which # stands
// for the number of the switch.
type edit struct {
	from, to int
	text     string
}

// rooms are the directories whose files are searched; where files are named,
// these alone.
var rooms = []struct {
	dir   string
	files []string
}{
	{dir: "."}, {dir: "wal"}, {dir: "wal/frame"}, {dir: "commit"}, {dir: "checkpoint"}, {dir: "compaction"},
	{dir: "recovery"}, {dir: "manifest"}, {dir: "segment"}, {dir: "internal/editlog"}, {dir: "internal/batch"}, {dir: "internal/base"},
	// The rest of vfs is the systems themselves, and what stands in for them.
	{dir: "vfs", files: []string{"dirsync.go", "mkdir.go", "copy.go"}},
}

// skipped are files of rooms in which nothing is searched, with the reason.
var skipped = map[string]string{
	"wal/frame/layout.go":      "names the bytes of a log for who looks at it; the engine does not call it",
	"wal/frame/layoutframe.go": "names the bytes of a log for who looks at it; the engine does not call it",
	"wal/frame/find.go":        "for salvage alone",
	"segment/survey.go":        "for salvage alone",
	"segment/walk.go":          "for salvage alone",
	"internal/batch/batch.go":  "encodes; its limits are those of callers",
	"internal/batch/spans.go":  "encodes; its limits are those of callers",
	"internal/batch/single.go": "encodes; its limits are those of callers",
}

// encoders are files whose checks are of what a caller gives, not of what a disk
// holds: no bound is searched there.
var encoders = map[string]bool{"segment/writer.go": true, "wal/options.go": true, "wal/files.go": true}

// source is one file, parsed.
type source struct {
	name string // with slashes, from the root of the module
	text []byte
	fset *token.FileSet
	file *ast.File

	fn     *ast.FuncDecl
	sites  []site
	parent []ast.Node // of the node being visited
}

func parse(name string, text []byte) (*source, error) {
	s := &source{name: name, text: text, fset: token.NewFileSet()}
	var err error
	s.file, err = parser.ParseFile(s.fset, name, text, parser.SkipObjectResolution)
	return s, err
}

func (s *source) at(p token.Pos) int { return s.fset.Position(p).Offset }

func (s *source) src(n ast.Node) string { return string(s.text[s.at(n.Pos()):s.at(n.End())]) }

// line returns the line of code at a place, without its indentation.
func (s *source) line(p token.Pos) string {
	at := s.at(p)
	from := strings.LastIndexByte(string(s.text[:at]), '\n') + 1
	to := at + strings.IndexByte(string(s.text[at:])+"\n", '\n')
	return strings.TrimSpace(string(s.text[from:to]))
}

func (s *source) add(kind string, n ast.Node, edits ...edit) {
	s.sites = append(s.sites, site{Kind: kind, File: s.name, Line: s.fset.Position(n.Pos()).Line, Func: funcName(s.fn), Text: s.line(n.Pos()), edits: edits})
}

func funcName(f *ast.FuncDecl) string {
	if f == nil {
		return ""
	}
	if f.Recv == nil {
		return f.Name.Name
	}
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}

// around puts text before and behind a node.
func (s *source) around(n ast.Node, before, behind string) []edit {
	return []edit{{s.at(n.Pos()), s.at(n.Pos()), before}, {s.at(n.End()), s.at(n.End()), behind}}
}

// enumerate finds the sites that syntax shows.
func (s *source) enumerate() []site {
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		s.fn, s.parent = f, nil
		ast.Inspect(f.Body, func(n ast.Node) bool {
			if n == nil {
				s.parent = s.parent[:len(s.parent)-1]
				return true
			}
			s.visit(n)
			s.parent = append(s.parent, n)
			return true
		})
	}
	slices.SortStableFunc(s.sites, func(a, b site) int { return a.Line - b.Line })
	return s.sites
}

func (s *source) visit(n ast.Node) {
	switch n := n.(type) {
	case *ast.CallExpr:
		s.call(n)
	case *ast.SelectorExpr:
		s.value(n)
	case *ast.ExprStmt:
		if c, ok := n.X.(*ast.CallExpr); ok && poisons[called(c)] {
			s.add(kindPoison, n, s.around(n, "if !sabotaged.On(#) { ", " }")...)
		}
	case *ast.IfStmt:
		s.check(n.Cond, n.Body.List)
	case *ast.SwitchStmt:
		s.cases(n)
	}
}

// called returns the name of the function or method that a call calls.
func called(c *ast.CallExpr) string {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		return f.Sel.Name
	case *ast.Ident:
		return f.Name
	}
	return ""
}

// poisons make a log refuse all that comes.
var poisons = map[string]bool{"poisonWith": true, "Poison": true, "poison": true}

// syncs are calls that make something durable, with the kind of each.
var syncs = map[string]string{
	"Sync": kindSync, "SyncData": kindSync, "SyncDir": kindDirSync, "MkdirDurable": kindDirSync,
	// What syncs on behalf of others.
	"syncFile": kindSync, "syncThrough": kindSync,
}

// when are calls whose last argument, where it is true, asks for a sync.
var when = map[string]bool{"writeOut": true, "putMark": true}

func (s *source) call(c *ast.CallExpr) {
	name := called(c)
	if name == s.fn.Name.Name && name != "Sync" && name != "SyncDir" {
		return
	}
	switch kind := syncs[name]; {
	case name == "MkdirDurable":
		s.add(kind, c, s.around(c, "sabotaged.Err(#, func() error { return ", " }, func() error { return "+s.src(c.Args[0])+".MkdirAll("+s.src(c.Args[1])+") })")...)
	case kind != "":
		s.add(kind, c, s.around(c, "sabotaged.Err(#, func() error { return ", " }, nil)")...)
	case when[name] && len(c.Args) > 0:
		switch a := c.Args[len(c.Args)-1].(type) {
		case *ast.Ident:
			if a.Name == "true" {
				s.add(kindSync, a, edit{s.at(a.Pos()), s.at(a.End()), "!sabotaged.On(#)"})
			}
		case *ast.BinaryExpr:
			s.add(kindSync, a, s.around(a, "(", ") && !sabotaged.On(#)")...)
		}
	case name == "poison":
		if _, ok := s.parent[len(s.parent)-1].(*ast.ReturnStmt); ok && len(c.Args) == 1 {
			s.add(kindPoison, c, edit{s.at(c.Pos()), s.at(c.Lparen), "sabotaged.Pick(#, " + s.src(c.Fun) + ", func(err error) error { return err })"})
		}
	}
}

// value finds syncs that are given away as functions, and files that are opened
// so that each write is synced.
func (s *source) value(e *ast.SelectorExpr) {
	if c, ok := s.parent[len(s.parent)-1].(*ast.CallExpr); ok && c.Fun == e {
		return
	}
	switch name := e.Sel.Name; {
	case s.src(e) == "vfs.DSync":
		s.add(kindSync, e, edit{s.at(e.Pos()), s.at(e.End()), "sabotaged.Pick(#, vfs.DSync, 0)"})
	case name == "SyncData":
		s.add(kindSync, e, s.around(e, "sabotaged.Func(#, ", ")")...)
	}
}

// check is one condition with what is done where it holds.
func (s *source) check(cond ast.Expr, body []ast.Stmt) {
	kind := s.judge([]ast.Expr{cond}, body)
	if kind != "" {
		s.add(kind, cond, s.around(cond, "sabotaged.Check(#, ", ")")...)
	}
}

func (s *source) cases(sw *ast.SwitchStmt) {
	for _, st := range sw.Body.List {
		c := st.(*ast.CaseClause)
		if len(c.Body) == 0 {
			continue
		}
		var conds []ast.Expr
		if sw.Tag == nil {
			conds = c.List
		}
		kind := s.judge(conds, c.Body)
		if kind == "" {
			continue
		}
		if len(conds) == 0 { // default, or a case of values: its body is left out
			first, last := c.Body[0], c.Body[len(c.Body)-1]
			s.add(kind, c, edit{s.at(first.Pos()), s.at(first.Pos()), "if !sabotaged.On(#) { "}, edit{s.at(last.End()), s.at(last.End()), " }"})
			continue
		}
		var edits []edit
		for _, e := range conds {
			edits = append(edits, s.around(e, "sabotaged.Check(#, ", ")")...)
		}
		s.add(kind, conds[0], edits...)
	}
}

var sums = regexp.MustCompile(`(?i)(hash|checksum|\bsum\b|\.sum\b|sum64)`)

// judge returns the kind of a check, "" for one that refuses nothing.
func (s *source) judge(conds []ast.Expr, body []ast.Stmt) string {
	if encoders[s.name] || s.fn.Name.Name == "String" || !s.refuses(body) {
		return ""
	}
	for _, c := range conds {
		found := false
		ast.Inspect(c, func(n ast.Node) bool {
			if b, ok := n.(*ast.BinaryExpr); ok && (b.Op == token.NEQ || b.Op == token.EQL) {
				found = found || sums.MatchString(s.src(b.X)) || sums.MatchString(s.src(b.Y))
			}
			return !found
		})
		if found {
			return kindChecksum
		}
	}
	return kindBound
}

// refusals are what an error that refuses bytes is made of.
var refusals = regexp.MustCompile(`\b(CorruptionError|UnsupportedError|DecodeError|corrupt|corruptBlock|bad|errEdit|errRecords|errDecompress|errRawLen|ErrNoHeader|ErrUnsupported|ErrDiverged|CompactedError|ErrVersion)\b|\.fail\(\)|fmt\.Errorf\("(link|index) `)

// silent are functions that refuse by false, or by a number that is none.
var silent = map[string]bool{"blockIter.init": true, "blockIter.restartHead": true, "decodeHead": true, "layOut": true, "decodeProps": true, "uvarintLong": true,
	"Loaded.read": true, "Loaded.finish": true}

// marks are assignments that refuse.
var marks = regexp.MustCompile(`^(\*?ok(, \*b)? = false|d\.p = -1|s?\*?l?\.?link, l\.why = nil|l\.why = &frame\.End|l\.link, l\.why = nil)`)

// refuses says whether a body refuses what the disk holds.
func (s *source) refuses(body []ast.Stmt) bool {
	for _, st := range body {
		switch st := st.(type) {
		case *ast.ReturnStmt:
			for _, r := range st.Results {
				text := s.src(r)
				switch {
				case refusals.MatchString(text):
					return true
				case s.reasons() && (strings.HasPrefix(text, `"`) && text != `""` || strings.HasPrefix(text, `fmt.Sprintf("`) || strings.HasPrefix(text, `end("`) || strings.HasPrefix(text, "end(fmt") || strings.HasPrefix(text, "end(err")):
					return true
				}
			}
			if n := len(st.Results); n > 0 && silent[funcName(s.fn)] {
				last, first := s.src(st.Results[n-1]), s.src(st.Results[0])
				if last == "false" || last == "-1" || first == "false" && last == "nil" {
					return true
				}
			}
		case *ast.AssignStmt:
			if text := s.src(st); marks.MatchString(text) || strings.Contains(text, "&CorruptionError{") {
				return true
			}
		}
	}
	return false
}

// reasons says whether the function returns a reason in words, or an end.
func (s *source) reasons() bool {
	if s.fn.Type.Results == nil {
		return false
	}
	for _, f := range s.fn.Type.Results.List {
		if t := s.src(f.Type); t == "string" || t == "*End" {
			return true
		}
	}
	return false
}

// files lists the files in which sites are searched, from the root of the
// module.
func files(root string) ([]string, error) {
	var out []string
	for _, r := range rooms {
		names, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(r.dir), "*.go"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			base := filepath.Base(name)
			if strings.HasSuffix(base, "_test.go") || len(r.files) > 0 && !slices.Contains(r.files, base) {
				continue
			}
			rel, err := filepath.Rel(root, name)
			if err != nil {
				return nil, err
			}
			if rel = filepath.ToSlash(rel); skipped[rel] == "" {
				out = append(out, rel)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}
