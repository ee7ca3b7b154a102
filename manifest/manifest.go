// Package manifest is the durable list of what is live in a store: segments,
// log files and pins, the log's floor, and where replay starts.
//
// It stands on internal/editlog: an edit is durable, and proven so, before
// Apply returns, and only then may it be acted on (files removed or recycled).
// A Manifest is the Catalog of the store's log.
//
// # Format
//
// A manifest is a framed file MANIFEST-NNNNNN (wal/frame) of edits; the first
// is a snapshot, that is the edit that makes the state from nothing. An edit is
// a list of fields: uvarint tag, uvarint length, payload.
//
//	tag  payload
//	1    log edit (internal/base, LogEdit)
//	2    segment added: number, level, size, count, tombstones, range deletes,
//	     min LSN, max LSN, hash (uvarints), uvarint length and bytes of the lower
//	     bound of its keys, inclusive, the same of the upper bound, exclusive
//	3    segment removed: uvarint number
//	4    replay start: uvarint LSN; all below it is in segments
//	5    highest segment number ever used: uvarint
package manifest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal/frame"
)

// ErrNone says that a directory holds no manifest.
var ErrNone = editlog.ErrNone

// ErrClosed says that the manifest was closed. The call did nothing.
var ErrClosed = editlog.ErrClosed

var kind = editlog.Kind{Prefix: "MANIFEST", File: frame.FileManifest}

// ParseFileName returns the number in a manifest's file name.
func ParseFileName(name string) (uint64, bool) { return kind.Parse(name) }

// Segment is what the manifest says of a live segment.
type Segment struct {
	// Number names the file; it is never used twice.
	Number uint64
	// Level is 0 for what a checkpoint made.
	Level int
	// Size of the file in bytes; Count of versions, Tombstones among them;
	// RangeDeletes beside them.
	Size, Count, Tombstones, RangeDeletes uint64
	MinLSN, MaxLSN                        base.LSN
	// Hash stands for every byte of the file.
	Hash uint64
	// All its keys, and what its range deletes hide, is in [Lo, Hi).
	Lo, Hi []byte
}

// MaxLevels bounds how many levels there are: they have the numbers 0 to
// MaxLevels-1.
const MaxLevels = 16

// State is what is live.
type State struct {
	Log base.LogState
	// Segments ascend by number.
	Segments []Segment
	// ReplayStart is the first LSN that is not settled in segments.
	ReplayStart base.LSN
	// LastSegment is the highest segment number ever used.
	LastSegment uint64
}

// Edit changes a State; zero fields change nothing.
type Edit struct {
	Log         *base.LogEdit
	Add         []Segment
	Remove      []uint64
	ReplayStart base.LSN
	LastSegment uint64
}

// Apply changes the state by an edit.
func (s *State) Apply(e *Edit) {
	if e.Log != nil {
		s.Log.Apply(e.Log)
	}
	for _, g := range e.Add {
		i, found := slices.BinarySearchFunc(s.Segments, g.Number, func(a Segment, n uint64) int { return cmp.Compare(a.Number, n) })
		if found {
			s.Segments[i] = g
		} else {
			s.Segments = slices.Insert(s.Segments, i, g)
		}
		s.LastSegment = max(s.LastSegment, g.Number)
	}
	if len(e.Remove) > 0 {
		s.Segments = slices.DeleteFunc(s.Segments, func(g Segment) bool { return slices.Contains(e.Remove, g.Number) })
	}
	s.ReplayStart = max(s.ReplayStart, e.ReplayStart)
	s.LastSegment = max(s.LastSegment, e.LastSegment)
}

// Check says which rule the state breaks that every state keeps which a store has
// made. What verifies and breaks one was made by somebody else.
func (s *State) Check() error {
	if err := s.Log.Check(); err != nil {
		return err
	}
	switch {
	case s.ReplayStart > base.MaxListed:
		return fmt.Errorf("the log is replayed from LSN %d on, and the highest may be %d", s.ReplayStart, uint64(base.MaxListed))
	case s.ReplayStart <= s.Log.Floor.LSN:
		return fmt.Errorf("the log is replayed from LSN %d on, and begins with %d", s.ReplayStart, s.Log.Floor.LSN+1)
	case s.LastSegment > base.MaxFileNumber:
		return fmt.Errorf("segment number %d, and the highest may be %d", s.LastSegment, uint64(base.MaxFileNumber))
	}
	var below []*Segment // level 0
	for i := range s.Segments {
		switch g := &s.Segments[i]; {
		case g.Number == 0 || g.Level >= MaxLevels:
			return fmt.Errorf("segment %d of level %d is listed", g.Number, g.Level)
		case g.MaxLSN >= s.ReplayStart:
			return fmt.Errorf("segment %d has LSN %d, and the log is replayed from %d on", g.Number, g.MaxLSN, s.ReplayStart)
		case bytes.Compare(g.Lo, g.Hi) >= 0:
			return fmt.Errorf("segment %d has keys from %.40q to %.40q", g.Number, g.Lo, g.Hi)
		case g.Level > 0:
			below = append(below, g)
		}
	}
	slices.SortFunc(below, func(a, b *Segment) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), bytes.Compare(a.Lo, b.Lo))
	})
	for i := 1; i < len(below); i++ {
		if a, b := below[i-1], below[i]; a.Level == b.Level && bytes.Compare(a.Hi, b.Lo) > 0 {
			return fmt.Errorf("segments %d and %d of level %d overlap", a.Number, b.Number, a.Level)
		}
	}
	return nil
}

// Snapshot returns the edit that makes the state from nothing.
func (s *State) Snapshot() *Edit {
	return &Edit{Log: s.Log.Snapshot(), Add: s.Segments, ReplayStart: s.ReplayStart, LastSegment: s.LastSegment}
}

// room returns an upper bound of the length of the encoded snapshot, in bytes.
func (s *State) room() int {
	n := 1 << 10
	for i := range s.Segments {
		n += s.Segments[i].room()
	}
	for name := range s.Log.Pins {
		n += len(name) + 32
	}
	return n + 128*len(s.Log.Files)
}

func (g *Segment) room() int { return 128 + len(g.Lo) + len(g.Hi) }

// maxState is what room may return: a snapshot is one record. Edits that make a
// state smaller are taken above it, too.
var maxState = base.MaxRecordSize // tests have less

// fits refuses an edit after which the state would not go into one record, or
// that does not itself.
func (s *State) fits(e *Edit, encoded []byte) error {
	before := s.room()
	after := before
	for i := range e.Add {
		after += e.Add[i].room()
	}
	if e.Log != nil {
		after += len(encoded)
	}
	if after > maxState { // else it need not be exact
		for i := range s.Segments {
			n := s.Segments[i].Number
			if slices.Contains(e.Remove, n) || slices.ContainsFunc(e.Add, func(g Segment) bool { return g.Number == n }) {
				after -= s.Segments[i].room()
			}
		}
	}
	if after > maxState && after > before && (len(e.Add) > 0 || e.Log != nil && len(e.Log.Pin) > 0) || len(encoded) > base.MaxRecordSize {
		return fmt.Errorf("manifest: the bounds of all segments and the names of all pins have %d bytes together, and may have %d", after, maxState)
	}
	return nil
}

// Clone returns a copy; keys of segments, which never change, are shared.
func (s *State) Clone() State {
	c := *s
	c.Log = s.Log.Clone()
	c.Segments = slices.Clone(s.Segments)
	return c
}

const (
	tagLog     = 1
	tagAdd     = 2
	tagRemove  = 3
	tagReplay  = 4
	tagLastSeg = 5
)

var errEdit = errors.New("manifest edit is damaged")

// Append encodes the edit onto b.
func (e *Edit) Append(b []byte) []byte {
	field := func(tag uint64, p []byte) {
		b = binary.AppendUvarint(b, tag)
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	if e.Log != nil {
		field(tagLog, e.Log.Append(nil))
	}
	for _, g := range e.Add {
		var p []byte
		for _, v := range []uint64{g.Number, uint64(g.Level), g.Size, g.Count, g.Tombstones, g.RangeDeletes, g.MinLSN, g.MaxLSN, g.Hash} {
			p = binary.AppendUvarint(p, v)
		}
		for _, k := range [][]byte{g.Lo, g.Hi} {
			p = append(binary.AppendUvarint(p, uint64(len(k))), k...)
		}
		field(tagAdd, p)
	}
	for _, n := range e.Remove {
		field(tagRemove, binary.AppendUvarint(nil, n))
	}
	if e.ReplayStart != 0 {
		field(tagReplay, binary.AppendUvarint(nil, e.ReplayStart))
	}
	if e.LastSegment != 0 {
		field(tagLastSeg, binary.AppendUvarint(nil, e.LastSegment))
	}
	return b
}

// cutUvarint takes a number off b; ok stays false once it was.
func cutUvarint(b *[]byte, ok *bool) uint64 {
	v, n := binary.Uvarint(*b)
	if n <= 0 {
		*ok, *b = false, nil
		return 0
	}
	*b = (*b)[n:]
	return v
}

func cutBytes(b *[]byte, ok *bool) []byte {
	n := cutUvarint(b, ok)
	if n > uint64(len(*b)) {
		*ok = false
		return nil
	}
	p := (*b)[:n]
	*b = (*b)[n:]
	return p
}

// DecodeEdit decodes what Append made. It keeps no part of b and allocates no
// more than a small multiple of its length.
func DecodeEdit(b []byte) (*Edit, error) {
	e := &Edit{}
	ok := true
	for len(b) > 0 && ok {
		tag := cutUvarint(&b, &ok)
		p := cutBytes(&b, &ok)
		if !ok {
			break
		}
		switch tag {
		case tagLog:
			log, err := base.DecodeLogEdit(p)
			if err != nil {
				return nil, err
			}
			e.Log, p = log, nil
		case tagAdd:
			e.Add = append(e.Add, decodeSegment(&p, &ok))
		case tagRemove:
			e.Remove = append(e.Remove, cutUvarint(&p, &ok))
		case tagReplay:
			e.ReplayStart = cutUvarint(&p, &ok)
		case tagLastSeg:
			e.LastSegment = cutUvarint(&p, &ok)
		default:
			ok = false
		}
		ok = ok && len(p) == 0
	}
	if !ok {
		return nil, errEdit
	}
	return e, nil
}

func decodeSegment(p *[]byte, ok *bool) Segment {
	var v [9]uint64
	for i := range v {
		v[i] = cutUvarint(p, ok)
	}
	if v[1] > 64 { // what Check refuses, but for what is no int
		*ok = false
	}
	return Segment{Number: v[0], Level: int(v[1]), Size: v[2], Count: v[3], Tombstones: v[4], RangeDeletes: v[5], MinLSN: v[6], MaxLSN: v[7], Hash: v[8],
		Lo: slices.Clone(cutBytes(p, ok)), Hi: slices.Clone(cutBytes(p, ok))}
}

// Manifest is an open manifest. Its methods may be called at once from many
// goroutines; edits serialise.
type Manifest struct {
	mu     sync.Mutex // guards state, and orders edits
	state  State
	store  [16]byte
	w      *editlog.Writer // nil: read only
	loaded *editlog.Loaded
}

// Load reads the manifest in dir and writes nothing. ErrNone: there is none;
// then the result, which is not nil, tells what files were seen.
func Load(fsys vfs.FS, dir string) (*Manifest, error) {
	var all load
	loaded, err := editlog.Load(fsys, dir, kind, func(_ uint64, b []byte) error {
		e, err := DecodeEdit(b)
		if err == nil {
			all.apply(e)
		}
		return err
	})
	if loaded == nil {
		return nil, err
	}
	return &Manifest{loaded: loaded, store: loaded.Store, state: all.state()}, err
}

// load is base.LogLoad for a whole State.
type load struct {
	rest State
	log  base.LogLoad
	segs map[uint64]Segment
}

func (l *load) apply(e *Edit) {
	if l.segs == nil {
		l.segs = map[uint64]Segment{}
	}
	rest := Edit{ReplayStart: e.ReplayStart, LastSegment: e.LastSegment}
	for _, g := range e.Add {
		l.segs[g.Number] = g
		rest.LastSegment = max(rest.LastSegment, g.Number)
	}
	for _, n := range e.Remove {
		delete(l.segs, n)
	}
	if e.Log != nil {
		l.log.Apply(e.Log)
	}
	l.rest.Apply(&rest)
}

func (l *load) state() State {
	s := l.rest
	s.Log = l.log.State()
	for _, n := range slices.Sorted(maps.Keys(l.segs)) {
		s.Segments = append(s.Segments, l.segs[n])
	}
	return s
}

// Writable readies what Load returned for edits; for a store without a
// manifest it makes one. Edits that were not proven are made so first: nothing
// may be acted on before. rand gives the store id and salts.
func (m *Manifest) Writable(fsys vfs.FS, dir string, rand io.Reader) error {
	fresh := m.loaded.Number == 0
	if fresh {
		m.state.ReplayStart = 1
		if _, err := io.ReadFull(rand, m.store[:]); err != nil {
			return err
		}
	}
	m.w = editlog.NewWriter(fsys, dir, kind, m.store, m.loaded, rand)
	if fresh || m.loaded.Dirty {
		return m.w.Rotate(m.state.Snapshot().Append(nil))
	}
	return nil
}

// Create makes a manifest that says s in a directory that exists and has none; it
// and its name are durable when Create returns. It is for who puts a store
// together: a backup, a salvage. fs.ErrExist: there is a manifest.
//
// s must be a state from which a store opens: nothing may be missing between the
// log's floor and the replay start.
func Create(fsys vfs.FS, dir string, store [16]byte, s State, rand io.Reader) error {
	m, err := Load(fsys, dir)
	switch {
	case err == nil:
		return fmt.Errorf("manifest: %s: %w", filepath.Join(dir, m.Name()), fs.ErrExist)
	case !errors.Is(err, ErrNone):
		return err
	}
	behind := s.Log.Floor.LSN + 1
	if s.ReplayStart < behind || s.ReplayStart > behind && len(s.Log.Files) == 0 {
		return fmt.Errorf("manifest: replay would start at LSN %d, but the log begins with %d", s.ReplayStart, behind)
	}
	w := editlog.NewWriter(fsys, dir, kind, store, m.loaded, rand)
	return errors.Join(w.Rotate(s.Snapshot().Append(nil)), w.Close())
}

// Name returns the name of the file that was loaded, "" when there was none.
func (m *Manifest) Name() string { return m.loaded.Name }

// Dirty says that the last edit that was loaded is not proven durable.
func (m *Manifest) Dirty() bool { return m.loaded.Dirty }

// StoreID is random and names the store.
func (m *Manifest) StoreID() [16]byte { return m.store }

// State returns a copy of what is live.
func (m *Manifest) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Clone()
}

// ErrReadOnly says that the manifest was loaded and not made writable.
var ErrReadOnly = errors.New("manifest: read only")

// Apply makes an edit durable and proven. After an error nothing more is
// accepted, and whether the edit counts is known at the next open; unless Err is
// nil: then there was no room for the edit, on the disk or in a record, and
// nothing has changed.
func (m *Manifest) Apply(e *Edit) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w == nil {
		return ErrReadOnly
	}
	encoded := e.Append(nil)
	if err := m.state.fits(e, encoded); err != nil {
		return err
	}
	if err := m.w.Append(encoded, func() []byte { return m.state.Snapshot().Append(nil) }); err != nil {
		return err
	}
	m.state.Apply(e)
	return nil
}

// LogState is for wal.Catalog.
func (m *Manifest) LogState() base.LogState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Log.Clone()
}

// EditLog is for wal.Catalog.
func (m *Manifest) EditLog(e *base.LogEdit) error { return m.Apply(&Edit{Log: e}) }

// Err returns the error after which no edit is accepted any more, or nil.
func (m *Manifest) Err() error {
	if m.w == nil {
		return ErrReadOnly
	}
	return m.w.Err()
}

// NextSegment returns a segment number that was never used. It fails when they
// are at their end.
func (m *Manifest) NextSegment() (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.LastSegment >= base.MaxFileNumber {
		return 0, fmt.Errorf("manifest: segment numbers are used up at %d", m.state.LastSegment)
	}
	m.state.LastSegment++
	return m.state.LastSegment, nil
}

// SkipSegments makes NextSegment pass over numbers up to n, which files on disk
// have.
func (m *Manifest) SkipSegments(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.LastSegment = max(m.state.LastSegment, n)
}

// Close closes the file. It writes nothing: every edit is durable already.
func (m *Manifest) Close() error {
	if m.w == nil {
		return nil
	}
	return m.w.Close()
}
