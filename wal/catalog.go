package wal

import (
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// Types of the Catalog interface; see package base for their fields.
type (
	// State is what a catalog knows of a log.
	State = base.LogState
	// Edit changes a State.
	Edit = base.LogEdit
	// FileMeta is what a catalog says of one file.
	FileMeta = base.LogFile
	// Floor is the place behind which the log is contiguous.
	Floor = base.LogFloor
)

// Catalog says which log files exist. In the engine it is the manifest; a log
// that is used alone keeps one of its own (CATALOG-NNNNNN).
type Catalog interface {
	// StoreID is random and names the store.
	StoreID() [16]byte
	// LogState returns a copy of the state.
	LogState() State
	// EditLog makes an edit durable. When it returns nil the edit is durable
	// and proven, so that it may be acted on. After an error the outcome is
	// unknown until the catalog is opened again; but if Err is nil then, the edit
	// was refused, for want of room on the disk, and nothing has changed.
	EditLog(e *Edit) error
	// Err returns the error after which no edit is accepted any more, or nil.
	Err() error
}

var randReader io.Reader = crand.Reader

var catalogKind = editlog.Kind{Prefix: "CATALOG", File: frame.FileCatalog}

// fileCatalog is the catalog of a log that is used alone.
type fileCatalog struct {
	mu    sync.Mutex // guards state
	state State
	store [16]byte
	w     *editlog.Writer
	dirty bool // until ready has been called
}

func loadCatalog(fsys vfs.FS, dir string) (*fileCatalog, *editlog.Loaded, error) {
	var all base.LogLoad
	loaded, err := editlog.Load(fsys, dir, catalogKind, func(_ uint64, b []byte) error {
		e, err := base.DecodeLogEdit(b)
		if err == nil {
			all.Apply(e)
		}
		return err
	})
	if err != nil && !errors.Is(err, editlog.ErrNone) {
		return nil, nil, err
	}
	return &fileCatalog{store: loaded.Store, state: all.State()}, loaded, err
}

// openCatalog loads the catalog in dir, or thinks of a new one, and writes
// nothing: that is for ready.
func openCatalog(fsys vfs.FS, dir string, rand io.Reader) (*fileCatalog, error) {
	c, loaded, err := loadCatalog(fsys, dir)
	fresh := errors.Is(err, editlog.ErrNone)
	switch {
	case fresh:
		if err := refuseOrphans(fsys, dir); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(rand, c.store[:]); err != nil {
			return nil, fmt.Errorf("wal: %w", err)
		}
	case err != nil:
		return nil, err
	}
	c.w = editlog.NewWriter(fsys, dir, catalogKind, c.store, loaded, rand)
	c.dirty = fresh || loaded.Dirty
	return c, nil
}

// ready makes durable what was loaded: an edit that is not proven must not be
// acted on.
func (c *fileCatalog) ready() error {
	if !c.dirty {
		return nil
	}
	c.dirty = false
	return c.w.Rotate(c.state.Snapshot().Append(nil))
}

// hasCatalog says whether dir holds a file named as a catalog is: then the path
// to dir is durable, since a catalog is made after that.
func hasCatalog(fsys vfs.FS, dir string) bool {
	names, _ := fsys.List(dir)
	return slices.ContainsFunc(names, func(name string) bool { _, ok := catalogKind.Parse(name); return ok })
}

// refuseOrphans fails when a directory without a catalog holds log frames: the
// catalog was lost. Files without frames are an unfinished create.
func refuseOrphans(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, ok := ParseFileName(name); !ok {
			continue
		}
		path := filepath.Join(dir, name)
		used, err := HasFrames(fsys, path)
		if err != nil {
			return err
		}
		if used {
			return &CorruptionError{File: path, Offset: -1, Reason: "log file with frames, but no catalog or manifest lists it"}
		}
	}
	return nil
}

// HasFrames says whether a log file holds an intact header and at least one
// intact frame header.
func HasFrames(fsys vfs.FS, path string) (bool, error) {
	head, used, err := peek(fsys, path)
	return used && head.Kind == frame.FileLog, err
}

// peek returns a log file's header, nil when there is no intact one, and whether
// a frame header follows it anywhere.
func peek(fsys vfs.FS, path string) (*frame.FileHeader, bool, error) {
	f, err := fsys.Open(path, vfs.ReadOnly)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	head, size, err := editlog.ReadHeader(f, path)
	if errors.Is(err, frame.ErrNoHeader) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	p, err := frame.Search(f, size, &head, head.Start(), nil)
	return &head, p.Any, err
}

func (c *fileCatalog) StoreID() [16]byte { return c.store }

func (c *fileCatalog) LogState() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Clone()
}

func (c *fileCatalog) EditLog(e *Edit) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.w.Append(e.Append(nil), func() []byte { return c.state.Snapshot().Append(nil) }); err != nil {
		return err
	}
	c.state.Apply(e)
	return nil
}

func (c *fileCatalog) Err() error { return c.w.Err() }

func (c *fileCatalog) close() error { return c.w.Close() }
