package inspect

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/editlog"
	"github.com/forebaydb/forebay/vfs"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// chain is the history in the log files of a store that a process may be writing
// to, as far as it can be read, kept from look to look. A file is read front to
// back and each frame once: what verifies stays as it is, and what does not yet is
// asked for again.
//
// What counts is told as an open tells it: a file follows the one that its link
// names, as far as the link keeps that one; and only what a durable LSN in some
// frame proves is shown. So nothing that was shown is ever taken back by a crash.
type chain struct {
	t     *tool
	store [16]byte
	live  map[uint64]*liveFile // by number
	spans []span
	// proven is the highest LSN that is proven durable, written the highest that
	// verifies.
	proven, written base.LSN
}

// span is one file's part of the history.
type span struct {
	file        *liveFile
	first, last base.LSN // last of the file that is written to: the highest there is
}

// liveFile is one log file.
type liveFile struct {
	path    string
	meta    base.LogFile
	head    frame.FileHeader
	f       vfs.File
	scan    *frame.Reader // reads ahead, for proofs
	link    *frame.Link   // nil: it is not used yet
	durable base.LSN      // the highest proof in it
	next    base.LSN      // behind its last record that verifies
	endAt   int64         // where its frames ended, ends times
	ends    int
	lost    bool // a proof lies behind that place
}

// epochOf returns the epoch of a record in the file.
func (l *liveFile) epochOf(lsn base.LSN) uint64 {
	if l.link != nil && lsn <= l.link.Copies {
		return l.link.CopyEpoch
	}
	return l.meta.Epoch
}

// damage may also be that the file went while it was looked at: it is looked at
// again before it is told.
func (l *liveFile) damage(offset int64, format string, args ...any) error {
	return &base.CorruptionError{File: l.path, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}

// look brings the chain up to date with the store.
func (c *chain) look(s *store) error {
	if c.store != ([16]byte{}) && c.store != s.id {
		return damaged("%s holds another store than before", s.dir)
	}
	c.store = s.id
	if err := c.files(s); err != nil {
		return err
	}
	c.spans = c.spans[:0]
	for _, m := range s.state.Log.Files {
		if m.Retained {
			c.spans = append(c.spans, span{c.live[m.Number], m.First, m.Last})
		}
	}
	slices.SortFunc(c.spans, func(a, b span) int { return cmp.Compare(a.first, b.first) })
	c.proven = max(s.state.Log.Floor.LSN, max(s.state.ReplayStart, 1)-1)
	return c.follow(&s.state.Log)
}

// files opens what is listed, and lets go of what is not any more.
func (c *chain) files(s *store) error {
	for n, l := range c.live {
		if m, ok := s.listed(n); !ok || m.Salt != l.meta.Salt {
			l.close()
			delete(c.live, n)
		}
	}
	for _, m := range s.state.Log.Files {
		if l := c.live[m.Number]; l != nil {
			l.meta = m
			continue
		}
		l := &liveFile{meta: m, path: filepath.Join(s.logDir, wal.FileName(m.Number))}
		if err := c.open(l); err != nil {
			return err
		}
		c.live[m.Number] = l
	}
	return nil
}

func (c *chain) open(l *liveFile) error {
	f, err := c.t.fsys.Open(l.path, vfs.ReadOnly)
	if errors.Is(err, fs.ErrNotExist) {
		return l.damage(-1, "listed log file is missing")
	}
	if err != nil {
		return err
	}
	head, size, err := editlog.ReadHeader(f, l.path)
	switch {
	case errors.Is(err, frame.ErrNoHeader):
		err = l.damage(0, "file header does not verify")
	case err == nil && (head.Store != c.store || head.Number != l.meta.Number || head.Salt != l.meta.Salt):
		err = l.damage(0, "header is of another file")
	}
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.head, l.scan = f, head, frame.NewReader(f, size, head)
	return nil
}

// follow walks from the floor to the file that is written to.
func (c *chain) follow(log *base.LogState) error {
	at, limit := log.Floor.File, log.Floor.LSN
	for {
		var next *liveFile
		for _, m := range log.Files {
			l := c.live[m.Number]
			if m.Retained || m.Number <= at {
				continue // numbers go up along the history
			}
			if err := l.read(); err != nil {
				return err
			}
			if l.link != nil && l.link.Pred == at && l.next > l.link.Copies && (next == nil || m.Number > next.meta.Number) {
				next = l
			}
		}
		if next == nil {
			break
		}
		if n := len(c.spans); n > 0 && !c.spans[n-1].file.meta.Retained {
			c.spans[n-1].last = next.link.Kept
		} else if next.link.Kept != limit {
			return next.damage(next.head.Start(), "link follows LSN %d, and the log's floor is LSN %d", next.link.Kept, limit)
		}
		c.spans = append(c.spans, span{next, next.link.Kept + 1, next.next - 1})
		c.proven = max(c.proven, next.durable)
		at = next.meta.Number
	}
	c.written = c.proven
	if n := len(c.spans); n > 0 {
		l := c.spans[n-1].file
		if !l.meta.Retained && l.next <= c.proven && l.ends >= endsAgain {
			return l.damage(l.endAt, "record %d was durable and is not there", l.next)
		}
		c.written = max(c.written, c.spans[n-1].last)
	}
	return nil
}

// read reads on to where the frames end now.
func (l *liveFile) read() error {
	size, err := l.f.Size()
	if err != nil {
		return err
	}
	l.scan.Limit(size)
	for {
		fr, end, err := l.scan.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", l.path, err)
		}
		if end != nil {
			return l.ended(end)
		}
		if l.link == nil {
			link, err := frame.DecodeLink(fr.Payload)
			if fr.Kind != frame.KindLink || err != nil {
				return nil
			}
			l.link = &link
		}
		l.durable, l.next = max(l.durable, fr.Durable), fr.Next()
	}
}

// ended looks once whether frames that end at the same place again and again end
// by damage, behind which something proves that more was durable.
func (l *liveFile) ended(end *frame.End) error {
	if end.Offset != l.endAt {
		l.endAt, l.ends, l.lost = end.Offset, 0, false
		return nil
	}
	if l.ends++; l.ends == endsAgain && end.Reason != "" {
		size, err := l.f.Size()
		if err != nil {
			return err
		}
		p, err := frame.Search(l.f, size, &l.head, end.Offset, nil)
		if err != nil {
			return err
		}
		l.lost = l.next > 0 && p.Durable >= l.next
	}
	if l.lost {
		return l.damage(end.Offset, "record %d was durable and does not verify: %s", l.next, end.Reason)
	}
	return nil
}

// endsAgain is how often frames end at one place before it is looked why. A write
// that is under way takes less.
const endsAgain = 10

// span returns the part of the history that holds a record, nil if none does.
func (c *chain) span(lsn base.LSN) *span {
	for i := range c.spans {
		if s := &c.spans[i]; s.first <= lsn && lsn <= s.last {
			return s
		}
	}
	return nil
}

// oldest returns the lowest LSN from which on nothing is missing.
func (c *chain) oldest() base.LSN {
	if len(c.spans) == 0 {
		return c.proven + 1
	}
	low := c.spans[len(c.spans)-1].first
	for i := len(c.spans) - 2; i >= 0 && c.spans[i].last+1 == low; i-- {
		low = c.spans[i].first
	}
	return low
}

func (c *chain) close() {
	for _, l := range c.live {
		l.close()
	}
}

func (l *liveFile) close() {
	l.scan.Release()
	l.f.Close()
}

// cursor reads the records of a chain in order.
type cursor struct {
	at     wal.Position // the last record that was given out
	number uint64       // of the file in which it stands, with its salt
	salt   uint64
	r      *frame.Reader
}

// each gives out the records behind the cursor that are proven, in order.
func (u *cursor) each(c *chain, fn func(wal.Position, []byte) error) error {
	for u.at.LSN < c.proven {
		s := c.span(u.at.LSN + 1)
		if s == nil && u.at.LSN+1 >= c.oldest() {
			return nil // it does not verify yet, or is damaged: the chain tells
		}
		if s == nil {
			return &wal.CompactedError{Oldest: c.oldest()}
		}
		if u.r == nil || u.number != s.file.meta.Number || u.salt != s.file.meta.Salt {
			size, err := s.file.f.Size()
			if err != nil {
				return err
			}
			u.number, u.salt, u.r = s.file.meta.Number, s.file.meta.Salt, frame.NewReader(s.file.f, size, s.file.head)
		}
		if err := u.file(s, min(s.last, c.proven), fn); err != nil {
			return err
		}
	}
	return nil
}

// file gives out the records of one file up to last, which verified before.
func (u *cursor) file(s *span, last base.LSN, fn func(wal.Position, []byte) error) error {
	again := true
	for u.at.LSN < last {
		fr, end, err := u.r.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", s.file.path, err)
		}
		if end != nil {
			// What was read ahead may be older than what is there now.
			size, err := s.file.f.Size()
			if err != nil {
				return err
			}
			if u.r.Limit(size); !again {
				u.r = nil
				return s.file.damage(end.Offset, "record %d is durable and does not verify: %s", u.at.LSN+1, end.Reason)
			}
			again = false
			continue
		}
		again = true
		if fr.Kind != frame.KindData || fr.Next() <= u.at.LSN+1 {
			continue
		}
		if err := fr.EachRecord(func(lsn frame.LSN, _ uint64, rec []byte) error {
			if lsn <= u.at.LSN || lsn > last {
				return nil
			}
			u.at = wal.Position{Epoch: s.file.epochOf(lsn), LSN: lsn}
			return fn(u.at, bytes.Clone(rec))
		}); err != nil {
			return err
		}
		if fr.Next()-1 > last {
			u.r.SeekTo(fr.Offset) // the rest of it comes once it is proven
		}
	}
	return nil
}
