package wal

import (
	"errors"
	"fmt"

	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// Replay gives each record from lsn from on to each, in LSN order, once more after
// Options.OnRecord. It is for the time behind an open, while nobody commits; what
// each was given, TruncateFront may let go meanwhile. rec is valid during the call;
// an error ends the replay.
func (l *Log) Replay(from LSN, each func(lsn LSN, rec []byte) error) error {
	l.histMu.Lock()
	var spans []span
	for _, sp := range l.hist {
		if sp.live && sp.first <= sp.last && sp.last >= from {
			spans = append(spans, *sp)
		}
	}
	l.histMu.Unlock()
	var r frame.Reader
	defer r.Release()
	for i := range spans {
		if err := l.replay(&r, &spans[i], from, each); err != nil {
			return err
		}
	}
	return nil
}

// replay gives the records of one file.
func (l *Log) replay(r *frame.Reader, sp *span, from LSN, each func(lsn LSN, rec []byte) error) error {
	path := join(l.dir, FileName(sp.meta.Number))
	f, err := l.fsys.Open(path, vfs.ReadOnly)
	if err != nil {
		return err
	}
	defer f.Close()
	head, size, err := editlog.ReadHeader(f, path)
	if errors.Is(err, frame.ErrNoHeader) {
		return &CorruptionError{File: path, Offset: 0, Reason: "file header, which verified, does not any more"}
	}
	if err != nil {
		return err
	}
	r.Reset(f, size, head)
	for at := sp.first - 1; at < sp.last; {
		fr, end, err := r.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if end != nil {
			return &CorruptionError{File: path, Offset: end.Offset, Reason: fmt.Sprintf("record %d, which verified, does not any more: %s", at+1, end.Reason)}
		}
		if fr.Kind != frame.KindData {
			continue
		}
		at = fr.Next() - 1
		err = fr.EachRecord(func(lsn LSN, _ uint64, rec []byte) error {
			if lsn < from || lsn > sp.last {
				return nil
			}
			return each(lsn, rec)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
