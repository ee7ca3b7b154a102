package real

import (
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// phase is what a store is doing at a moment; of several at once the first
// counts.
type phase uint8

const (
	phaseOpen       phase = iota // recovery
	phaseCompaction              // from the first new segment to the edit that lists it
	phaseCheckpoint              // likewise
	phaseBackup                  //
	phaseLog                     // a log file is made, zeroed, renamed or removed
	phaseWrite                   // none of these
	phaseStart                   // before the open, or behind it and before the first commit
	numPhases
)

var phaseNames = [numPhases]string{"recovery", "compaction", "checkpoint", "backup", "log file change", "writing", "starting"}

// String returns the phase's name.
func (p phase) String() string { return phaseNames[p] }

// phases is a file system that tells of phases. Which one a new segment is of is
// seen by who makes it.
type phases struct {
	vfs.FS
	tell teller

	mu  sync.Mutex
	run [numPhases]bool
}

func (p *phases) begin(ph phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.run[ph] {
		p.run[ph] = true
		p.tell(report{kind: sayPhase, phase: ph})
	}
}

func (p *phases) end(ph phase) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run[ph] {
		p.run[ph] = false
		p.tell(report{kind: sayPhaseEnd, phase: ph})
	}
}

// event is Options.OnEvent: a checkpoint or a compaction has ended.
func (p *phases) event(e forebay.Event) {
	switch e.Kind {
	case forebay.EventCheckpoint:
		p.end(phaseCheckpoint)
	case forebay.EventCompaction:
		p.end(phaseCompaction)
	}
}

// Create implements vfs.FS.
func (p *phases) Create(name string, mode vfs.Mode) (vfs.File, error) {
	switch filepath.Ext(name) {
	case ".seg":
		if ph := segmentPhase(); ph != phaseWrite {
			p.begin(ph)
		}
	case ".log":
		p.begin(phaseLog)
		defer p.end(phaseLog)
		f, err := p.FS.Create(name, mode)
		if err != nil {
			return nil, err
		}
		return &phasedLog{f, p}, nil
	}
	return p.FS.Create(name, mode)
}

// Rename implements vfs.FS.
func (p *phases) Rename(oldName, newName string) error {
	p.begin(phaseLog)
	defer p.end(phaseLog)
	return p.FS.Rename(oldName, newName)
}

// Remove implements vfs.FS.
func (p *phases) Remove(name string) error {
	if filepath.Ext(name) == ".log" {
		p.begin(phaseLog)
		defer p.end(phaseLog)
	}
	return p.FS.Remove(name)
}

type phasedLog struct {
	vfs.File
	p *phases
}

// Zero implements vfs.File.
func (f *phasedLog) Zero(off, n int64) error {
	f.p.begin(phaseLog)
	defer f.p.end(phaseLog)
	return f.File.Zero(off, n)
}

// Reserve implements vfs.Reserver.
func (f *phasedLog) Reserve(off, n int64) error {
	f.p.begin(phaseLog)
	defer f.p.end(phaseLog)
	return vfs.Reserve(f.File, off, n)
}

// Map implements vfs.Mapper.
func (f *phasedLog) Map(off, n int64) (vfs.Mapping, error) { return vfs.Map(f.File, off, n) }

// StartWriteback is for vfs.StartWriteback.
func (f *phasedLog) StartWriteback(off, n int64) { vfs.StartWriteback(f.File, off, n) }

// LetGo is for vfs.LetGo.
func (f *phasedLog) LetGo(off, n int64) { vfs.LetGo(f.File, off, n) }

// segmentPhase tells for whom the caller makes a segment.
func segmentPhase() phase {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		switch {
		case strings.Contains(f.Function, "forebay/checkpoint."):
			return phaseCheckpoint
		case strings.Contains(f.Function, "forebay/compaction.Run"):
			return phaseCompaction
		}
		if !more {
			return phaseWrite
		}
	}
}
