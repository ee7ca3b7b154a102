package wal

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/forebaydb/forebay/vfs"
)

// Kept are the files of a log that hold records with keep-counts through an LSN, open:
// they can be read until Close though the log lets them go.
type Kept struct {
	l       *Log
	through LSN
	files   []keptFile
}

type keptFile struct {
	sp *span
	as span // what it was
	f  vfs.File
}

// OpenKept opens the files that hold records at or below an LSN whose keep-counts are
// not given back. The LSN is durable.
func (l *Log) OpenKept(through LSN) (*Kept, error) {
	l.fileMu.Lock() // nobody lets a file go meanwhile
	defer l.fileMu.Unlock()
	k := &Kept{l: l, through: through}
	if through > l.durable.Load() {
		return nil, fmt.Errorf("%w: copy through %d, durable is %d", ErrRange, through, l.durable.Load())
	}
	l.histMu.Lock()
	for i, sp := range l.hist {
		// What the file that is written holds, its leader alone knows.
		if sp.first <= through && (l.growing(i) || sp.first <= sp.last && sp.keep > 0) {
			sp.refs++
			k.files = append(k.files, keptFile{sp: sp, as: *sp})
			if l.growing(i) {
				k.files[len(k.files)-1].as.last = 1<<64 - 1
			}
		}
	}
	l.histMu.Unlock()
	for i := range k.files {
		var err error
		if k.files[i].f, err = l.fsys.Open(join(l.dir, FileName(k.files[i].as.meta.Number)), vfs.ReadOnly); err != nil {
			k.Close()
			return nil, err
		}
	}
	return k, nil
}

// Close lets go of the files.
func (k *Kept) Close() {
	k.l.histMu.Lock()
	for i := range k.files {
		k.files[i].sp.refs--
	}
	k.l.histMu.Unlock()
	for i := range k.files {
		if k.files[i].f != nil {
			k.files[i].f.Close()
		}
	}
	k.files = nil
}

// CopyTo copies the files into a directory, under their names, makes them durable (not
// their names), verifies what was copied, and returns what a catalog lists of it:
// retained files, for a log whose floor is the LSN. It returns how many bytes it has
// written. What does not verify is a *CorruptionError; when ctx ends it returns its
// error. What was copied then stays.
func (k *Kept) CopyTo(ctx context.Context, dir string) (files []FileMeta, bytes int64, err error) {
	for i := range k.files {
		m, n, err := k.copy(ctx, &k.files[i], dir)
		if err != nil {
			return nil, bytes, err
		}
		if n > 0 {
			files, bytes = append(files, m), bytes+n
		}
	}
	return files, bytes, nil
}

// copy copies one file; no bytes if nothing is kept in it.
func (k *Kept) copy(ctx context.Context, kf *keptFile, dir string) (m FileMeta, n int64, err error) {
	name := FileName(kf.as.meta.Number)
	from := join(k.l.dir, name)
	last, size := min(kf.as.last, k.through), kf.as.size
	source, err := measure(kf.f, from, last)
	switch {
	case err != nil:
		return m, 0, err
	case source.keep == 0:
		return m, 0, nil
	case last < kf.as.last:
		size = source.end
	case source.hash != kf.as.hash:
		return m, 0, &CorruptionError{File: from, Offset: source.end, Reason: fmt.Sprintf("record %d is not the one with which the file ended", last)}
	}
	to := join(dir, name)
	out, err := k.l.fsys.Create(to, vfs.ReadWrite)
	if err != nil {
		return m, 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	at, err := vfs.Copy(ctx, out, kf.f, size)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = &CorruptionError{File: from, Offset: at, Reason: "file ends too early"}
	}
	if err != nil {
		return m, 0, err
	}
	if err := out.Sync(); err != nil {
		return m, 0, err
	}
	copied, err := measure(out, to, last)
	if err != nil {
		return m, 0, err
	}
	if copied != source {
		return m, 0, &CorruptionError{File: to, Offset: source.end, Reason: "the copy is not what was copied"}
	}
	m = kf.as.retained()
	if m.Last, m.Hash, m.Keep = last, source.hash, source.keep; last < kf.as.last {
		m.Index = 0
	}
	return m, size, nil
}
