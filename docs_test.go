package forebay_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

var update = flag.Bool("update", false, "write the generated parts of the documents anew")

// generated compares the part of a document between two marker lines with want,
// or writes it.
func generated(t *testing.T, file, name, want string) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	doc := strings.ReplaceAll(string(b), "\r\n", "\n")
	begin, end := "<!-- generated: "+name+" -->\n", "<!-- end of "+name+" -->"
	i, j := strings.Index(doc, begin), strings.Index(doc, end)
	require.True(t, i >= 0 && j > i, "%s has no part %q", file, name)
	i += len(begin)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(doc[:i]+want+doc[j:]), 0o644))
		return
	}
	require.Equal(t, want, doc[i:j], "%s, part %q; after a change that is meant: go test -run %s -update .", file, name, t.Name())
}

// TestQuickStart: the quick start of README.md is the body of Example, but for
// its first line and its output.
func TestQuickStart(t *testing.T) {
	b, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	_, body, ok := strings.Cut(strings.ReplaceAll(string(b), "\r\n", "\n"), "\tdefer inTemporaryDirectory()()\n")
	require.True(t, ok)
	body, _, ok = strings.Cut(body, "\t// Output:\n")
	require.True(t, ok)
	body = strings.TrimPrefix(strings.ReplaceAll(body, "\n\t", "\n"), "\t")
	generated(t, "README.md", "quick start", "```go\n"+body+"```\n")
}

var (
	linkRE    = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
	headingRE = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notWordRE = regexp.MustCompile(`[^a-z0-9 -]`)
)

// TestLinks: what a document links to is there.
func TestLinks(t *testing.T) {
	docs, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for _, dir := range []string{"docs/*.md", "docs/*/*.md"} {
		more, err := filepath.Glob(dir)
		require.NoError(t, err)
		docs = append(docs, more...)
	}
	require.Greater(t, len(docs), 10)
	for _, doc := range docs {
		b, err := os.ReadFile(doc)
		require.NoError(t, err)
		for _, m := range linkRE.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target := doc
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(doc), m[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", doc, m[1])
				continue
			}
			if m[2] == "" {
				continue
			}
			b, err := os.ReadFile(target)
			require.NoError(t, err)
			found := false
			for _, h := range headingRE.FindAllStringSubmatch(string(b), -1) {
				anchor := strings.ReplaceAll(notWordRE.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
				found = found || "#"+anchor == m[2]
			}
			if !found {
				t.Errorf("%s links to %s%s, and there is no such heading", doc, m[1], m[2])
			}
		}
	}
}

// layout walks over the bytes of one file by the tables of docs/format.md. It
// shares no code with the packages that write them.
type layout struct {
	t    *testing.T
	b    []byte
	off  int
	out  strings.Builder
	bind []byte // hash of the binding, of a framed file
	tag  []byte
	prev uint64 // closing hash
}

var le = binary.LittleEndian

// field takes the next n bytes and writes their lines.
func (l *layout) field(n int, format string, args ...any) []byte {
	l.t.Helper()
	b := l.b[l.off : l.off+n]
	line := func(off int, hex, what string) {
		fmt.Fprintln(&l.out, strings.TrimRight(fmt.Sprintf("%05x  %-47s  %s", l.off+off, hex, what), " "))
	}
	what := fmt.Sprintf(format, args...)
	if n > 16 && bytes.Equal(b, make([]byte, n)) {
		line(0, fmt.Sprintf("00 × %d", n), what)
	} else {
		for i := 0; i < n; i += 16 {
			line(i, fmt.Sprintf("% x", b[i:min(i+16, n)]), what)
			what = ""
		}
	}
	l.off += n
	return b
}

// zero takes n bytes that must be zero.
func (l *layout) zero(n int, what string) {
	l.t.Helper()
	require.Equal(l.t, make([]byte, n), l.field(n, "%s", what))
}

func (l *layout) u64(format string, args ...any) uint64 {
	l.t.Helper()
	v := le.Uint64(l.b[l.off:])
	l.field(8, format+" %d", append(args, v)...)
	return v
}

// hash takes a hash that must be that of parts.
func (l *layout) hash(name string, parts ...[]byte) []byte {
	l.t.Helper()
	b := l.field(8, "%s", name)
	require.Equal(l.t, xxhash.Sum64(bytes.Join(parts, nil)), le.Uint64(b), "%s at %x", name, l.off-8)
	return b
}

func (l *layout) title(s string) { fmt.Fprintf(&l.out, "\n%s\n\n", s) }

func (l *layout) text(n int, what string) { l.field(n, "%s", what) }

// number takes a uvarint.
func (l *layout) number(format string, args ...any) uint64 {
	l.t.Helper()
	v, n := binary.Uvarint(l.b[l.off:])
	require.Positive(l.t, n)
	l.field(n, format+" %d", append(args, v)...)
	return v
}

func u64(v uint64) []byte { return le.AppendUint64(nil, v) }

// fileHeader walks over section 1.1 of docs/format.md.
func (l *layout) fileHeader(align int) {
	l.title("file header")
	l.text(8, "magic")
	l.field(2, "format version 1")
	kind := l.field(1, "file kind")[0]
	l.field(1, "log2 of the alignment of groups")
	l.field(4, "required features")
	l.field(4, "compatible features")
	id := l.field(16, "store id")
	number := l.field(8, "file number")
	salt := l.field(8, "salt")
	epoch := l.field(8, "epoch")
	l.field(4, "key id")
	l.field(16, "key check tag")
	l.zero(424, "zero")
	l.hash("hash of bytes 0–503", l.b[:504])
	l.zero(align-512, "zero, to the block's end")
	sum := u64(xxhash.Sum64(bytes.Join([][]byte{id, number, salt, epoch}, nil)))
	l.bind = sum
	l.tag = le.AppendUint32(nil, uint32(xxhash.Sum64(append(bytes.Clone(sum), "tag"...)))|1)
	l.prev = 0
	require.NotZero(l.t, kind)
}

// frame walks over one frame, section 1.2; payload walks over its payload.
func (l *layout) frame(title string, align int, payload func(count uint32)) {
	l.t.Helper()
	start := l.off
	l.title(title)
	require.Equal(l.t, l.tag, l.field(4, "tag"))
	l.field(1, "kind %d", l.b[l.off])
	flags := l.field(1, "flags %#x", l.b[l.off])[0]
	l.zero(2, "zero")
	n := int(le.Uint32(l.field(4, "payload, as stored: %d bytes", le.Uint32(l.b[l.off:]))))
	l.field(4, "payload, decompressed: %d bytes", le.Uint32(l.b[l.off:]))
	count := le.Uint32(l.field(4, "records: %d", le.Uint32(l.b[l.off:])))
	l.zero(4, "zero")
	l.u64("first LSN")
	l.u64("durable LSN")
	require.Equal(l.t, u64(l.prev), l.field(8, "closing hash of the frame before"))
	head := l.hash("header hash", l.b[start:start+48], l.bind, u64(uint64(start)))
	from := l.off
	if payload != nil {
		payload(count)
	}
	require.Equal(l.t, from+n, l.off)
	l.prev = le.Uint64(l.hash("closing hash", u64(xxhash.Sum64(l.b[from:from+n])), head))
	if flags&8 == 0 {
		align = 8
	}
	l.zero((l.off+align-1)/align*align-l.off, "padding")
}

// batch walks over one record: a batch, section 4.
func (l *layout) batch() {
	n := l.number("record of bytes:")
	l.number("keep-count")
	end := l.off + int(n)
	l.field(2, "batch: version, flags")
	for range l.number("operations:") {
		switch l.field(1, "%s", [...]string{"", "put", "delete", "range delete"}[l.b[l.off]])[0] {
		case 1:
			l.storedKey(int(l.number("key length")))
			l.text(int(l.number("value length")), "value")
		case 2:
			l.storedKey(int(l.number("key length")))
		default:
			l.storedKey(int(l.number("lo length")))
			l.storedKey(int(l.number("hi length")))
		}
	}
	require.Equal(l.t, end, l.off)
}

// storedKey walks over a stored key, section 4.1.
func (l *layout) storedKey(n int) {
	require.Less(l.t, l.b[l.off], byte(240), "the example has no longer prefix")
	what := "key"
	if l.field(1, "keyspace %d", l.b[l.off])[0] == 0 {
		what = "key, in the list of keyspaces"
	}
	l.text(n-1, what)
}

// logEdit walks over an edit of the log, section 2.
func (l *layout) logEdit(end int) {
	for l.off < end {
		tag := l.number("log edit: tag")
		n := int(l.number("length"))
		stop := l.off + n
		names := map[uint64][]string{
			1: {"file number", "salt", "epoch", "flags", "first LSN", "last LSN", "hash", "index", "keep", "cut LSN", "cut hash"},
			2: {"removed file number"}, 3: {"floor: file", "floor: LSN", "floor: hash", "floor: epoch"}, 4: {"highest epoch"}, 5: {"highest number"},
		}[tag]
		require.NotEmpty(l.t, names)
		for _, name := range names {
			l.number("%s", name)
		}
		require.Equal(l.t, stop, l.off)
	}
}

// manifestEdit walks over an edit of the manifest, section 3.
func (l *layout) manifestEdit(uint32) {
	n := int(l.number("record of bytes:"))
	l.number("keep-count")
	end := l.off + n
	for l.off < end {
		tag := l.number("manifest edit: tag")
		n := int(l.number("length"))
		stop := l.off + n
		switch tag {
		case 1:
			l.logEdit(stop)
		case 2:
			for _, name := range []string{"segment number", "level", "size", "versions", "tombstones", "range deletes", "lowest LSN", "highest LSN", "hash"} {
				l.number("%s", name)
			}
			l.text(int(l.number("key length")), "lower bound")
			l.text(int(l.number("key length")), "upper bound")
		case 4:
			l.number("replay start")
		case 5:
			l.number("highest segment number")
		default:
			l.t.Fatalf("tag %d", tag)
		}
		require.Equal(l.t, stop, l.off)
	}
}

// segmentBlock walks over a block of a segment, section 5.
func (l *layout) segmentBlock(title string, id []byte, start, n int, payload func()) uint64 {
	l.title(title)
	require.Equal(l.t, start, l.off)
	payload()
	require.Equal(l.t, start+n-16, l.off)
	kind := l.field(1, "kind %d", l.b[l.off])[0]
	l.field(1, "compression %d", l.b[l.off])
	l.zero(2, "zero")
	l.field(4, "payload, decompressed: %d bytes", le.Uint32(l.b[l.off:]))
	return l.segmentSum("checksum", id, start, kind)
}

func (l *layout) segmentSum(name string, id []byte, start int, kind byte) uint64 {
	body := xxhash.Sum64(l.b[start:l.off])
	got := le.Uint64(l.field(8, "%s", name))
	bind := xxhash.Sum64(bytes.Join([][]byte{id, u64(uint64(start)), u64(uint64(kind))}, nil))
	require.Equal(l.t, body^bind, got, name)
	return got
}

// segment walks over a segment whose versions have the stored keys.
func (l *layout) segment(keys ...string) {
	foot := len(l.b) - 128
	id := l.b[foot+24 : foot+48]
	at := func(off int) int { return int(le.Uint64(l.b[foot+off:])) }
	data, filter, index, props, dels := at(56), at(64), at(72), at(80), at(104)
	var sums []byte
	sum := func(v uint64) { sums = le.AppendUint64(sums, v) }
	sum(l.segmentBlock("data block", id, 0, data, func() { l.dataPayload(data - 16) }))
	sum(l.segmentBlock("filter page", id, data, filter, func() {
		line := l.field(filter-16, "one line of 512 bits: all keys are in it")
		want := make([]byte, 64)
		for _, key := range keys {
			g := xxhash.Sum64String(key) * 0x9E3779B97F4A7C15
			for i := range 6 {
				bit := g >> (10 + 9*i) & 511
				want[bit/8] |= 1 << (bit % 8)
			}
		}
		require.Equal(l.t, want, line)
	}))
	sum(l.segmentBlock("index", id, data+filter, index, func() {
		l.field(4, "data blocks")
		l.number("length of the block")
		k := l.number("key length")
		l.number("highest LSN - the separator's LSN:")
		l.field(int(k), "key")
	}))
	if dels > 0 {
		sum(l.segmentBlock("range deletes", id, data+filter+index, dels, l.delsPayload))
	}
	sum(l.segmentBlock("properties", id, data+filter+index+dels, props, func() {
		for _, name := range []string{"versions", "tombstones", "distinct keys", "lowest LSN", "highest LSN", "bytes of keys", "bytes of values", "bytes of payloads"} {
			l.u64("%s", name)
		}
		lengths := []int{l.u32("length of the smallest key"), l.u32("length of the largest key")}
		names := []string{"smallest key", "largest key", "lowest lower bound", "highest upper bound"}
		if dels > 0 {
			for _, name := range []string{"range deletes", "lowest LSN of one", "highest LSN of one"} {
				l.u64("%s", name)
			}
			lengths = append(lengths, l.u32("length of the lowest lower bound"), l.u32("length of the highest upper bound"))
		}
		for i, n := range lengths {
			l.text(n, names[i])
		}
	}))
	l.title("footer")
	require.Equal(l.t, foot, l.off)
	l.text(8, "magic")
	for _, name := range []string{"format version", "required features", "compatible features", "length of the footer"} {
		l.field(4, "%s", name)
	}
	l.field(16, "store id")
	for _, name := range []string{"segment number", "length of the file", "length of data blocks", "of filter pages", "of the index", "of the properties"} {
		l.u64("%s", name)
	}
	l.hash("content hash", sums)
	l.field(4, "length of a filter page")
	l.field(1, "filter")
	l.field(1, "compression asked for")
	l.zero(2, "zero")
	l.u64("length of the range deletes")
	l.u64("highest LSN of a version")
	l.segmentSum("checksum", id, foot, 5)
	require.Equal(l.t, len(l.b), l.off)
}

func (l *layout) u32(format string, args ...any) int {
	l.t.Helper()
	v := le.Uint32(l.b[l.off:])
	l.field(4, format+" %d", append(args, v)...)
	return int(v)
}

// dataPayload walks over the payload of a data block, which ends at end.
func (l *layout) dataPayload(end int) {
	base := l.u64("base LSN")
	restarts := int(le.Uint32(l.b[end-4:]))
	for l.off < end-4-4*restarts {
		l.number("shared")
		unshared := l.number("unshared")
		tag := l.number("tag")
		z, n := binary.Uvarint(l.b[l.off:])
		l.field(n, "LSN %d", base+(z>>1^-(z&1)))
		l.text(int(unshared), "the rest of the key")
		l.text(int(tag>>3), "value")
	}
	for range restarts {
		l.u32("restart at")
	}
	l.u32("restarts:")
}

// delsPayload walks over the payload of a block of range deletes.
func (l *layout) delsPayload() {
	for range l.u32("range deletes:") {
		if lower := l.number("lower:"); lower >= 2 {
			l.text(int(lower-2), "lower bound")
		}
		l.text(int(l.number("length of the upper bound")), "upper bound")
		l.number("LSN")
	}
}

// exampleStore makes the store of the worked example and returns its files.
func exampleStore(t *testing.T) map[string][]byte {
	t.Helper()
	disk := vfs.NewMem()
	seed := rand.NewChaCha8([32]byte([]byte("the worked example of format.md.")))
	db, err := forebay.Open("db", &forebay.Options{FS: disk, Rand: seed, MarkDelay: -1, LogFileSize: 16 << 10, Compression: forebay.NoCompression})
	require.NoError(t, err)
	require.NoError(t, db.Put([]byte("a"), []byte("1")))
	s, err := db.Snapshot() // so that the checkpoint keeps what is deleted below
	require.NoError(t, err)
	b := db.NewBatch()
	require.NoError(t, b.Put([]byte("bc"), []byte("23")))
	require.NoError(t, b.Delete([]byte("a")))
	require.NoError(t, b.DeleteRange([]byte("x"), nil))
	require.NoError(t, db.Apply(b, forebay.Durable))
	_, err = db.Keyspace("ks")
	require.NoError(t, err)
	require.NoError(t, db.Checkpoint(context.Background()))
	require.NoError(t, db.Close())
	require.NoError(t, s.Close())
	files := map[string][]byte{}
	names, err := disk.List("db")
	require.NoError(t, err)
	for _, name := range names {
		b, err := vfs.ReadFile(disk, filepath.Join("db", name), 1<<20)
		require.NoError(t, err)
		files[name] = b
	}
	return files
}

// TestWorkedExample: the bytes in docs/format.md are the ones that are written,
// and its tables and hashes describe them.
func TestWorkedExample(t *testing.T) {
	files := exampleStore(t)
	names := []string{}
	for name := range files {
		names = append(names, name)
	}
	require.ElementsMatch(t, []string{"LOCK", "MANIFEST-000001", "000001.log", "000001.seg"}, names)
	block := func(l *layout) string { return "```text\n" + strings.TrimPrefix(l.out.String(), "\n") + "```\n" }

	log := &layout{t: t, b: files["000001.log"]}
	log.fileHeader(512)
	log.frame("link frame, the first of the file", 8, func(uint32) {
		log.u64("predecessor's number")
		log.u64("kept")
		log.u64("closing hash of the frame that holds kept:")
		log.u64("copies")
		log.u64("copy epoch")
		log.u64("offset of the predecessor's index frame")
	})
	for range 3 {
		log.frame("data frame", 8, func(count uint32) {
			for range count {
				log.batch()
			}
		})
	}
	log.frame("mark, written by Close", 8, nil)
	log.out.WriteByte('\n')
	log.zero(len(log.b)-log.off, "preallocated")
	generated(t, "docs/format.md", "log file", block(log))

	man := &layout{t: t, b: files["MANIFEST-000001"]}
	man.fileHeader(4096)
	for _, what := range []string{"snapshot of an empty store", "edit: a log file", "edit: a segment"} {
		man.frame(what, 4096, man.manifestEdit)
		man.frame("mark", 4096, nil)
	}
	require.Equal(t, len(man.b), man.off)
	generated(t, "docs/format.md", "manifest", block(man))

	seg := &layout{t: t, b: files["000001.seg"]}
	seg.segment("\x00i\x02", "\x00nks", "\x00x", "\x01a", "\x01bc")
	generated(t, "docs/format.md", "segment", block(seg))

	var v strings.Builder
	row := func(what string, in []byte) uint64 {
		h := xxhash.Sum64(in)
		fmt.Fprintf(&v, "| %s | %s | `%016x` |\n", what, strings.ReplaceAll(fmt.Sprintf("`%x`", in), "``", "none"), h)
		return h
	}
	v.WriteString("| what | bytes | hash |\n|---|---|---|\n")
	row("nothing", nil)
	row("the batch of commit 1", log.find("01000101020161"+"0131"))
	head := files["000001.log"]
	bind := u64(row("bind: store id, number, salt, epoch", head[20:60]))
	tag := row("tag: bind, \"tag\"", append(bytes.Clone(bind), "tag"...))
	hdr := u64(row("link: header, bind, offset", bytes.Join([][]byte{head[512:560], bind, u64(512)}, nil)))
	payload := u64(row("link: payload", head[568:616]))
	row("link: closing hash of payload hash, header hash", append(payload, hdr...))
	foot := files["000001.seg"][len(files["000001.seg"])-128:]
	row("binding of the segment's data block", bytes.Join([][]byte{foot[24:48], u64(0), u64(1)}, nil))
	fmt.Fprintf(&v, "\nThe tag is `%08x`: the low 32 bits, with the lowest bit set. Hashes are written here as numbers; in a file their lowest byte comes first.\n", uint32(tag)|1)
	generated(t, "docs/format.md", "test vectors", v.String())
}

// TestDecisionTable: the table in docs/recovery.md has the rows of the one in
// package wal, which are tests.
func TestDecisionTable(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "wal/decision_test.go", nil, parser.ParseComments)
	require.NoError(t, err)
	var table *ast.CompositeLit
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && v.Names[0].Name == "decisionTable" {
			table = v.Values[0].(*ast.CompositeLit)
		}
		return true
	})
	require.NotNil(t, table)
	var out strings.Builder
	out.WriteString("| row | what is on the disk | verdict |\n|---|---|---|\n")
	from := table.Lbrace
	for _, e := range table.Elts {
		for _, c := range f.Comments {
			if c.Pos() > from && c.End() < e.Pos() { // a heading between rows
				fmt.Fprintf(&out, "| | **%s** | |\n", strings.TrimSuffix(strings.Join(strings.Fields(c.Text()), " "), "."))
			}
		}
		from = e.End()
		var cells []string
		for _, cell := range e.(*ast.CompositeLit).Elts[:3] {
			text, err := strconv.Unquote(cell.(*ast.BasicLit).Value)
			require.NoError(t, err)
			cells = append(cells, strings.ReplaceAll(text, "|", "\\|"))
		}
		if cells[2] == "corruption" {
			cells[2] = "**corruption**"
		}
		fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | "))
	}
	generated(t, "docs/recovery.md", "decision table", out.String())
}

// find returns bytes that are in the file.
func (l *layout) find(hex string) []byte {
	var b []byte
	_, err := fmt.Sscanf(hex, "%x", &b)
	require.NoError(l.t, err)
	require.True(l.t, bytes.Contains(l.b, b))
	return b
}

var stepRE = regexp.MustCompile(`\b([a-z]+)\.(\w+)(?:\.(\w+))?|\bDB\.(\w+)`)

// TestThreePaths: every function that doc.go names as a step is there, in the
// package and with the receiver that it says.
func TestThreePaths(t *testing.T) {
	fset := token.NewFileSet()
	doc, err := parser.ParseFile(fset, "doc.go", nil, parser.ParseComments)
	require.NoError(t, err)
	_, paths, ok := strings.Cut(doc.Doc.Text(), "# Three paths")
	require.True(t, ok)
	declared := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		f, err := parser.ParseFile(fset, s.file, nil, 0)
		require.NoError(t, err)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := fn.Name.Name
			if fn.Recv != nil {
				recv, _, _ := strings.Cut(strings.TrimPrefix(types.ExprString(fn.Recv.List[0].Type), "*"), "[")
				name = recv + "." + name
			}
			if s.dir != "." {
				name = f.Name.Name + "." + name
			}
			declared[name] = true
		}
	}
	steps := stepRE.FindAllString(strings.Join(strings.Fields(paths), " "), -1)
	require.Greater(t, len(steps), 20)
	for _, step := range steps {
		require.True(t, declared[step], "doc.go names %s, which is not there", step)
	}
}

// TestStatsAreExplained: docs/operations.md says of every figure what is normal.
func TestStatsAreExplained(t *testing.T) {
	b, err := os.ReadFile("docs/operations.md")
	require.NoError(t, err)
	for _, figures := range []any{forebay.Stats{}, forebay.Stats{}.Log} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(figures)) {
			require.Regexp(t, `[`+"`"+` .]`+f.Name+"\\b", string(b), "%T.%s", figures, f.Name)
		}
	}
}
