package fuzz

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/forebaydb/forebay/vfs"
)

// ParseWorkload makes a workload of its text. The words of the first part may
// come in any order and be left out; then they are those of "sector-atomic
// sequential file=16384 table=65536 mark=-1ns". After the first bar come the
// steps of the first life, after the next those of the second, and so on:
//
//	d{k1=20 -k2}    a batch, durable: 20 bytes as k1, and k2 deleted
//	w{...} b{...}   the same, written or buffered
//	d*{...} d&{...} the same by Submit, and by Update
//	d{-[k1,k3)}     a range deleted; either bound may be missing
//	d{s2/k1=20}     a key of keyspace 2
//	d{+s2/} d{-s2/} keyspace 2 is made, or dropped
//	sync checkpoint compact reopen backup idle
//	pipeline[...]   commits submitted together
//	burst[...][...] writers at once; burst+compact[...] beside a Compact
//
// A life may end with "; at=0.5 kill=false seed=1 redo=false": the crash after
// which of its I/Os (a fraction), of the process or of the power with fates by
// seed, begins the next, and whether that first does again what was lost.
// The last life ends with a Close.
func ParseWorkload(text string) (*Workload, error) {
	parts := strings.Split(text, "|")
	w := &Workload{Settings: Settings{FileSize: 16 << 10, TableSize: 64 << 10, MarkDelay: -1}}
	for _, word := range strings.Fields(parts[0]) {
		if err := w.parseSetting(word); err != nil {
			return nil, fmt.Errorf("fuzz: workload: %w", err)
		}
	}
	for _, part := range parts[1:] {
		l, err := parseLife(part)
		if err != nil {
			return nil, fmt.Errorf("fuzz: workload: %w", err)
		}
		w.lives = append(w.lives, l)
	}
	if len(w.lives) == 0 {
		return nil, fmt.Errorf("fuzz: workload %q has no life: a bar begins one", text)
	}
	w.fill()
	return w, nil
}

func (w *Workload) parseSetting(word string) (err error) {
	s := &w.Settings
	if i := slices.Index(modelNames[:], word); i >= 0 {
		w.Model = vfs.Model(i)
		return nil
	}
	name, value, _ := strings.Cut(word, "=")
	index := func(names []string) uint8 {
		i := slices.Index(names, value)
		if i < 0 {
			err = fmt.Errorf("%q: the values are %s", word, strings.Join(names, ", "))
		}
		return uint8(max(i, 0))
	}
	size := func() (n int64) {
		n, err = strconv.ParseInt(value, 10, 32)
		return n
	}
	switch name {
	case "sequential":
	case "concurrent":
		w.Concurrent = true
	case "seed":
		w.Seed, err = strconv.ParseUint(value, 16, 64)
	case "align":
		s.Align = size()
	case "file":
		s.FileSize = size()
	case "table":
		s.TableSize = size()
	case "mark":
		s.MarkDelay, err = time.ParseDuration(value)
	case "policy":
		s.Policy = Policy(index(policyNames[:]))
	case "compression":
		s.Compression = index(compressionNames[:])
	case "mechanism":
		s.Mechanism = index(mechanismNames[:])
	case "logdir":
		s.LogDir = value == "true"
	case "level":
		s.Level = Level(index(levelNames[:]))
	default:
		return fmt.Errorf("%q is no setting", word)
	}
	return err
}

func parseLife(text string) (l life, err error) {
	text, end, _ := strings.Cut(text, ";")
	for _, word := range strings.Fields(end) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "at":
			l.at, err = strconv.ParseFloat(value, 64)
		case "kill":
			l.kill = value == "true"
		case "seed":
			l.seed, err = strconv.ParseUint(value, 16, 64)
		case "redo":
			l.redo = value == "true"
		default:
			err = fmt.Errorf("%q is no word for the end of a life", word)
		}
		if err != nil {
			return l, err
		}
	}
	if !(l.at >= 0 && l.at < 1) { // NaN, too
		return l, fmt.Errorf("at=%v is not from 0 to below 1", l.at)
	}
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		var s step
		if s, text, err = parseStep(text); err != nil {
			return l, err
		}
		l.steps = append(l.steps, s)
	}
	return l, nil
}

// parseStep takes one step off the text.
func parseStep(text string) (s step, rest string, err error) {
	end := strings.IndexAny(text, " [{")
	if end < 0 {
		end = len(text)
	}
	name, beside, _ := strings.Cut(text[:end], "+")
	if end < len(text) && text[end] == '{' {
		c, rest, err := parseCommit(text)
		return step{kind: stepCommit, commits: [][]commit{{c}}}, rest, err
	}
	i := slices.Index(stepNames[1:], name) + 1
	if i == 0 {
		return s, "", fmt.Errorf("%q is no step", name)
	}
	s.kind, rest = stepKind(i), text[end:]
	if s.kind == stepBurst {
		s.beside = stepBurst
		if beside != "" {
			if s.beside = stepKind(slices.Index(stepNames[:], beside)); int8(s.beside) < 0 {
				return s, "", fmt.Errorf("%q is no step", beside)
			}
		}
	}
	for strings.HasPrefix(rest, "[") {
		var cs []commit
		for rest = rest[1:]; !strings.HasPrefix(rest, "]"); {
			var c commit
			if c, rest, err = parseCommit(rest); err != nil {
				return s, "", err
			}
			cs = append(cs, c)
		}
		s.commits, rest = append(s.commits, cs), rest[1:]
	}
	if many := s.kind == stepBurst || s.kind == stepPipeline; many != (len(s.commits) > 0) {
		return s, "", fmt.Errorf("%q: a burst and a pipeline have commits in brackets, other steps have none", text[:end])
	}
	return s, rest, nil
}

func parseCommit(text string) (c commit, rest string, err error) {
	head, rest, ok := strings.Cut(strings.TrimLeft(text, " "), "{")
	body, rest, closed := strings.Cut(rest, "}")
	if !ok || !closed || head == "" {
		return c, "", fmt.Errorf("%q: a commit is like d{k1=20 -k2}", text)
	}
	level := slices.Index(levelNames[:], head[:1])
	by := slices.Index(howNames[:], head[1:])
	if level < 0 || by < 0 {
		return c, "", fmt.Errorf("%q: a commit begins with d, w or b, and *, & or nothing", head)
	}
	c.level, c.how = Level(level), how(by)
	for _, word := range strings.Fields(body) {
		op, err := parseOp(word)
		if err != nil {
			return c, "", err
		}
		c.ops = append(c.ops, op)
	}
	switch whole := func(op Op) bool { return op.Kind == Create || op.Kind == Drop }; {
	case len(c.ops) == 0:
		return c, "", fmt.Errorf("%q: a commit has an operation", text)
	case len(c.ops) > 1 && slices.ContainsFunc(c.ops, whole):
		return c, "", fmt.Errorf("%q: a commit that makes or drops a keyspace does nothing else", text)
	}
	return c, rest, nil
}

func parseOp(word string) (op Op, err error) {
	name := word
	switch {
	case strings.HasPrefix(word, "-[") && strings.HasSuffix(word, ")"):
		lo, hi, ok := strings.Cut(word[2:len(word)-1], ",")
		if !ok {
			return op, fmt.Errorf("%q: a range is like -[k1,k3)", word)
		}
		op.Kind, name = DeleteRange, lo
		if hi != "" {
			op.Value = []byte(hi)
		}
	case word[0] == '-' && strings.HasSuffix(word, "/"):
		op.Kind, name = Drop, word[1:]
	case word[0] == '+' && strings.HasSuffix(word, "/"):
		op.Kind, name = Create, word[1:]
	case word[0] == '-':
		op.Kind, name = Delete, word[1:]
	default:
		var length string
		name, length, _ = strings.Cut(word, "=")
		n, err := strconv.ParseUint(length, 10, 20)
		if err != nil {
			return op, fmt.Errorf("%q: an operation is like k1=20 or -k1", word)
		}
		op.Value = make([]byte, n)
	}
	space, key := spaceOf(name)
	if op.Space = space; key != "" {
		op.Key = []byte(key)
	}
	switch whole := op.Kind == Create || op.Kind == Drop; {
	case whole && (space == 0 || key != ""):
		return op, fmt.Errorf("%q: no keyspace, which is like s1/", word)
	case !whole && key == "" && op.Kind != DeleteRange:
		return op, fmt.Errorf("%q: no key", word)
	}
	return op, nil
}
