package shell

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/peterh/liner"

	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// errAbort says that the line was given up with Ctrl-C.
var errAbort = errors.New("aborted")

// editor reads lines from the terminal.
type editor struct {
	l    *liner.State
	file string // of the history; "": none
}

func newEditor(s *shell, history bool) *editor {
	e := &editor{l: liner.NewLiner()}
	e.l.SetCtrlCAborts(true)
	e.l.SetTabCompletionStyle(liner.TabPrints)
	e.l.SetWordCompleter(s.complete)
	if !history {
		return e
	}
	// Without a place for it there is no history, which is no reason to refuse.
	dir, err := os.UserConfigDir()
	if err != nil {
		return e
	}
	e.file = filepath.Join(dir, "forebay", "history")
	if f, err := os.Open(e.file); err == nil {
		e.l.ReadHistory(f) // what can be read of it
		f.Close()
	}
	return e
}

func (e *editor) line(prompt string) (string, error) {
	line, err := e.l.Prompt(prompt)
	if errors.Is(err, liner.ErrPromptAborted) {
		return "", errAbort
	}
	if err == nil && strings.TrimSpace(line) != "" {
		e.l.AppendHistory(line)
	}
	return line, err
}

// close gives the terminal back and writes the history, which only its owner may
// read: there are values in it.
func (e *editor) close() {
	e.l.Close()
	if e.file == "" || os.MkdirAll(filepath.Dir(e.file), 0o700) != nil {
		return
	}
	f, err := os.OpenFile(e.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return
	}
	e.l.WriteHistory(f) // a history that cannot be written is missed by nobody but the user's fingers
	f.Close()
}

// maxCompletions is how many keys Tab offers.
const maxCompletions = 50

// complete offers what can stand in place of the word before pos.
func (s *shell) complete(line string, pos int) (head string, offers []string, tail string) {
	runes := []rune(line)
	before, tail := string(runes[:pos]), string(runes[pos:])
	at := strings.LastIndexFunc(before, unicode.IsSpace) + 1
	head, part := before[:at], before[at:]
	args := strings.Fields(head)
	var from []string
	switch {
	case len(args) == 0:
		for _, c := range table {
			from = append(from, c.name)
		}
	case args[0] == "help" && len(args) == 1:
		for _, c := range table {
			from = append(from, c.name)
		}
	case args[0] == "level" && len(args) == 1:
		from = []string{"durable", "written", "buffered"}
	case args[0] == "keyspace" && len(args) == 1:
		from = []string{"list", "use", "create", "drop"}
	case args[0] == "use" && len(args) == 1, args[0] == "keyspace" && len(args) == 2 && (args[1] == "use" || args[1] == "drop"):
		from = s.spaceNames()
	case args[0] == "scan" && strings.HasPrefix(part, "-"):
		from = []string{"--prefix", "--lo", "--hi", "--reverse", "--limit", "--keys-only"}
	case args[0] == "del", args[0] == "delrange", args[0] == "scan" && len(args) == 1, (args[0] == "get" || args[0] == "put") && len(args) == 1:
		from = s.keys(part)
	}
	for _, offer := range from {
		if strings.HasPrefix(offer, part) {
			offers = append(offers, offer)
		}
	}
	slices.Sort(offers)
	if len(offers) == 1 && tail == "" {
		offers[0] += " "
	}
	return head, offers, tail
}

func (s *shell) spaceNames() (out []string) {
	names, err := s.db.Keyspaces()
	if err != nil {
		return nil
	}
	for _, name := range names {
		out = append(out, quoted(name))
	}
	return out
}

// keys returns keys that begin with part and need no quotes.
func (s *shell) keys(part string) (out []string) {
	// A completion that fails offers nothing.
	s.reading(func(r cli.Reader) error {
		for e, err := range r.Prefix([]byte(part)) {
			if err != nil || len(out) == maxCompletions {
				return err
			}
			if key := string(e.Key); quoted(key) == key {
				out = append(out, key)
			}
		}
		return nil
	})
	return out
}
