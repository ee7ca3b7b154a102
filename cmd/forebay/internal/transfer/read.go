package transfer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/cmd/forebay/internal/cli"
)

// maxLine is the longest line of JSON: a value of the longest kind with every
// byte escaped.
const maxLine = 6*(forebay.MaxValueSize+forebay.MaxKeySize) + 1024

func (im *importer) readLines(ctx context.Context, r *bufio.Reader) error {
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 0, 64<<10), maxLine)
	n := 0
	for scan.Scan() {
		n++
		line := scan.Bytes()
		if n == 1 {
			line = bytes.TrimPrefix(line, bom)
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		key, value, err := cli.ParseRecord(line)
		if err == nil {
			err = im.put(ctx, key, value)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return ctx.Err()
}

func (im *importer) readCSV(ctx context.Context, r *bufio.Reader) error {
	c := newCSVReader(r, 2*forebay.MaxValueSize+2)
	for first := true; ; first = false {
		key, value, line, err := c.next()
		if err == io.EOF {
			return ctx.Err()
		}
		if err == nil && first && im.header {
			continue
		}
		if err == nil && im.hex {
			if key, err = hex.DecodeString(string(key)); err == nil {
				value, err = hex.DecodeString(string(value))
			}
		}
		if err == nil {
			err = im.put(ctx, key, value)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
}

// treeReaders is how many files are read at once.
const treeReaders = 8

type file struct {
	key   string
	value []byte
}

// readTree reads the files of a directory through root, out of which no link
// leads.
func (im *importer) readTree(ctx context.Context, dir string, root *os.Root) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	paths, files := make(chan string), make(chan file)
	var readers, walker sync.WaitGroup
	walker.Go(func() {
		defer close(paths)
		if err := im.walk(ctx, dir, paths); err != nil {
			cancel(err)
		}
	})
	for range treeReaders {
		readers.Go(func() {
			for path := range paths {
				value, err := readFile(root, path)
				if err != nil {
					cancel(err)
					return
				}
				select {
				case files <- file{filepath.ToSlash(path), value}:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() {
		readers.Wait()
		close(files)
	}()
	for f := range files {
		if ctx.Err() != nil {
			continue // the readers end, and close files
		}
		if err := im.put(ctx, []byte(f.key), f.value); err != nil {
			cancel(fmt.Errorf("%s: %w", f.key, err))
		}
	}
	walker.Wait()
	return context.Cause(ctx)
}

// walk sends the paths of plain files.
func (im *importer) walk(ctx context.Context, dir string, paths chan<- string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			im.skipped++
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		select {
		case paths <- rel:
			return nil
		case <-ctx.Done():
			return filepath.SkipAll
		}
	})
}

// readFile reads one file, and of a file that is too long for a value only
// enough to tell.
func readFile(root *os.Root, path string) ([]byte, error) {
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > forebay.MaxValueSize {
		return nil, fmt.Errorf("%s has %s: %w", path, cli.Bytes(st.Size()), &forebay.LimitError{What: "value", Size: int(st.Size()), Limit: forebay.MaxValueSize})
	}
	buf := bytes.NewBuffer(make([]byte, 0, st.Size()+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(f, forebay.MaxValueSize+1)); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s", path), err)
	}
	return buf.Bytes(), nil
}
