package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// source is the tree that is imported, as it was when the demonstration began.
type source struct {
	dir   string
	files []sourceFile
	bytes int64
	large int // files that are too large for a value
}

type sourceFile struct {
	path string // with the system's separator, below dir
	size int64
	time time.Time
}

// findSource returns the source tree of the installed Go toolchain.
func findSource(ctx context.Context) (string, error) {
	var roots []string
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		roots = append(roots, strings.TrimSpace(string(out)))
	}
	roots = append(roots, os.Getenv("GOROOT"), "/usr/local/go", "/usr/lib/go")
	for _, root := range roots {
		if root == "" {
			continue
		}
		src := filepath.Join(root, "src")
		if st, err := os.Stat(filepath.Join(src, "runtime")); err == nil && st.IsDir() {
			return src, nil
		}
	}
	return "", cli.Usagef("no Go toolchain found whose source could be imported; name a directory with --from DIR")
}

// readSource lists the plain files of a tree that fit into a value.
func readSource(ctx context.Context, dir string) (*source, error) {
	s := &source{dir: dir}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if info.Size() > forebay.MaxValueSize {
			s.large++
			return nil
		}
		s.files = append(s.files, sourceFile{rel, info.Size(), info.ModTime()})
		s.bytes += info.Size()
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cli.Usagef("--from: %w", err)
	}
	if err == nil && len(s.files) == 0 {
		err = cli.Usagef("--from: there are no files in %s", dir)
	}
	return s, err
}

// errChanged says that the tree is not what it was, so that nothing can be said
// of the store.
var errChanged = errors.New("the source tree changed while the demonstration ran; begin again, with a tree at rest (--from DIR)")

// equal says whether value is the content of a file. Where it is not, the file
// must be the one that was listed.
func (s *source) equal(n int, value []byte) (bool, error) {
	f := s.files[n]
	name := filepath.Join(s.dir, f.path)
	content, err := os.ReadFile(name)
	if err != nil {
		return false, fmt.Errorf("%w: %w", errChanged, err)
	}
	if bytes.Equal(content, value) {
		return true, nil
	}
	st, err := os.Stat(name)
	if err != nil || st.Size() != f.size || !st.ModTime().Equal(f.time) {
		return false, fmt.Errorf("%w: %s", errChanged, name)
	}
	return false, nil
}
