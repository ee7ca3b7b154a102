package walbench

import (
	"context"
	"errors"

	"github.com/forebaydb/forebay/wal"
)

var forebayLog = &library{
	name: "forebay", module: "github.com/forebaydb/forebay",
	unsynced: "level Buffered: survives nothing", buffered: true,
	note: "package wal alone",
	open: func(dir string, sync bool) (log, error) { return openForebay(dir, wal.Buffered, sync) },
	load: loadForebay,
	replay: func(dir string, each func([]byte) error) error {
		// An open reads everything anyway: OnRecord sees it on the way.
		l, err := wal.Open(dir, &wal.Options{OnRecord: func(_ wal.LSN, _ uint64, rec []byte) error { return each(rec) }})
		if err != nil {
			return err
		}
		return l.Close()
	},
}

// forebayWritten is the same log at the level Written.
var forebayWritten = &library{
	name: "forebay", module: forebayLog.module,
	unsynced: "level Written: survives a crash of the process",
	note:     forebayLog.note,
	open:     func(dir string, sync bool) (log, error) { return openForebay(dir, wal.Written, sync) },
}

type forebayOpen struct {
	l     *wal.Log
	level wal.Level
}

func openForebay(dir string, level wal.Level, sync bool) (log, error) {
	var o wal.Options
	if !sync {
		o.Policy = wal.SyncNever
	}
	l, err := wal.Open(dir, &o)
	if err != nil {
		return nil, err
	}
	return &forebayOpen{l, level}, nil
}

func (f *forebayOpen) append(rec []byte) error {
	_, err := f.l.AppendAt(f.level, rec)
	return err
}

func (f *forebayOpen) durable(rec []byte) error {
	_, err := f.l.Append(rec)
	return err
}

func (f *forebayOpen) flush() error { return f.l.Commit(&wal.Request{Level: wal.Written}) }

func (f *forebayOpen) close() error { return f.l.Close() }

func loadForebay(dir string, n int, rec func(i int) []byte) error {
	l, err := wal.Open(dir, nil)
	if err != nil {
		return err
	}
	for i := range n {
		if err := l.Commit(&wal.Request{Records: []wal.Record{{Data: rec(i)}}, Level: wal.Buffered}); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	return errors.Join(l.Sync(context.Background()), l.Close())
}
