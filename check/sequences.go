package check

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/internal/merge"
	"github.com/forebaydb/forebay/internal/rangedel"
)

// The items of a sequence are in the log alone; segments have an index of them. An
// entry of the index names the record of an append by its LSN. Entries are read in the
// order of offsets, and their LSNs ascend, so that a sequence is read with one pass over
// the log files that have something of it.

// sequences are a store's sequences, by the ids of their keyspaces.
type sequences map[uint64]listed

// listed is what the list of keyspaces says of a sequence. It remembers one that was
// dropped, of which there is no entry of the index, and which is not live.
type listed struct {
	name string
	live bool
}

// listSequences reads the list of keyspaces.
func listSequences(it *merge.Visible) (sequences, error) {
	out := sequences{}
	for ok := it.SeekGE([]byte{byte(keyspace.System)}); ok; ok = it.Next() {
		id, own, ok := keyspace.Cut(it.Key())
		if !ok || id != keyspace.System {
			break
		}
		e, err := keyspace.DecodeEntry(own, it.Value())
		if name, is := strings.CutPrefix(e.Name, keyspace.SequencePrefix); err == nil && is {
			out[e.ID] = listed{name, e.Named || out[e.ID].live}
		}
	}
	return out, it.Err()
}

// ids returns the ids, ascending: so lie the keyspaces.
func (s sequences) ids() []uint64 { return slices.Sorted(maps.Keys(s)) }

// overlap says whether some of the keys in [lo, hi) may be of a sequence.
func (s sequences) overlap(ids []uint64, lo, hi []byte) bool {
	i, _ := slices.BinarySearchFunc(ids, lo, func(id uint64, lo []byte) int { return bytes.Compare(keyspace.End(id), lo) })
	for i < len(ids) && bytes.Compare(keyspace.End(ids[i]), lo) <= 0 {
		i++
	}
	return i < len(ids) && bytes.Compare(keyspace.AppendPrefix(nil, ids[i]), hi) < 0
}

// indexEntry is an entry of the index of a sequence.
type indexEntry struct {
	id                  uint64
	prefix              []byte // of its keyspace
	offset, count, size uint64
	lsn                 base.LSN // of the record that appended the items
	settled             []byte   // the Value of the append, if the entry has it
}

// end returns the offset behind its items.
func (e *indexEntry) end() uint64 { return e.offset + e.count }

// entry reads a key and its value. is: it is of a sequence; ok: and an entry.
func (s sequences) entry(key, value []byte, lsn base.LSN) (e indexEntry, is, ok bool) {
	id, own, cut := keyspace.Cut(key)
	if !cut {
		return e, false, false
	}
	if _, is = s[id]; !is {
		return e, false, false
	}
	e = indexEntry{id: id, prefix: key[:len(key)-len(own)], lsn: lsn}
	d, ok := batch.DecodeIndexEntry(own, value, lsn)
	e.offset, e.count, e.size = d.Offset, d.Count, d.Size
	if ok {
		e.lsn, e.settled = d.LSN, d.Settled
	}
	return e, true, ok
}

// lostItems are items of a sequence that follow each other and are lost by one thing.
type lostItems struct {
	id          uint64
	name        string
	first, end  uint64 // offsets
	by          hole
	from, until base.LSN // LSNs of their records
}

// text says which items are lost, and why.
func (l *lostItems) text() string {
	return fmt.Sprintf("items %d to %d of sequence %q: %s", l.first, l.end-1, l.name, l.by.reason)
}

// loser joins what is lost, so that a file that is gone is told once for each sequence.
type loser struct {
	tell func(l *lostItems)
	cur  *lostItems
}

// lose notes that the items of an entry are lost.
func (l *loser) lose(name string, e *indexEntry, by *hole) {
	if c := l.cur; c != nil && c.id == e.id && c.end == e.offset && c.by.file.path == by.file.path && c.by.offset == by.offset && c.by.reason == by.reason {
		c.end, c.until = e.end(), max(c.until, e.lsn)
		return
	}
	l.flush()
	l.cur = &lostItems{id: e.id, name: name, first: e.offset, end: e.end(), by: *by, from: e.lsn, until: e.lsn}
}

func (l *loser) flush() {
	if l.cur != nil {
		l.tell(l.cur)
	}
	l.cur = nil
}

// hiding collects what the part of the log that an open replays hides of the indexes in
// segments: range deletes, and entries that were put again because their items were
// settled. Entries of appends in the log itself need no look: their records were read.
type hiding struct {
	seqs sequences
	ids  []uint64
	dels []base.RangeDelete
	puts map[string]bool // keys
	bad  []string        // of them, that are no entries
}

func (h *hiding) see(lsn base.LSN, r batch.Reader) {
	for len(h.ids) > 0 && r.Next() && r.Kind() != base.KindAppend { // these come last
		switch r.Kind() {
		case base.KindRangeDelete:
			if h.seqs.overlap(h.ids, r.Key(), r.Value()) {
				h.dels = append(h.dels, base.RangeDelete{Lo: slices.Clone(r.Key()), Hi: slices.Clone(r.Value()), LSN: lsn})
			}
		case base.KindPut:
			_, is, ok := h.seqs.entry(r.Key(), r.Value(), lsn)
			if !is {
				continue
			}
			if h.puts == nil {
				h.puts = map[string]bool{}
			}
			h.puts[string(r.Key())] = true
			if !ok {
				h.bad = append(h.bad, fmt.Sprintf("record %d puts an entry of the index of sequence %q that does not decode", lsn, h.seqs.nameOf(r.Key())))
			}
		}
	}
}

// nameOf returns the name of the sequence of whose index a key is.
func (s sequences) nameOf(key []byte) string {
	id, _, _ := keyspace.Cut(key)
	return s[id].name
}

// known reads which sequences the segments know.
func (v *verifier) known() error {
	it := merge.NewReader(v.sources(), base.OwnLSN-1, nil, nil)
	defer it.Close()
	seqs, err := listSequences(it)
	v.hide = hiding{seqs: seqs, ids: seqs.ids()}
	return err
}

// sequences checks that what the indexes of sequences name is there.
func (v *verifier) sequences() error {
	if v.man == nil || len(v.hide.ids) == 0 {
		return nil
	}
	for _, reason := range v.hide.bad {
		v.damage(v.cfg.LogDir, -1, reason, nil)
	}
	sources := v.sources()
	if len(v.hide.dels) > 0 {
		sources = append(sources, merge.Source{Iter: failed{}, Dels: []*rangedel.Set{rangedel.New(v.hide.dels)}})
	}
	it := merge.NewReader(sources, base.OwnLSN-1, nil, nil)
	defer it.Close()
	var recs *records
	defer func() {
		if recs != nil {
			recs.close()
		}
	}()
	lost := loser{tell: func(l *lostItems) { v.damage(l.by.file.path, l.by.offset, l.text(), l.by.err) }}
	for _, id := range v.hide.ids {
		last := base.LSN(0)
		for ok := it.SeekGE(keyspace.AppendPrefix(nil, id)); ok; ok = it.Next() {
			e, is, ok := v.hide.seqs.entry(it.Key(), it.Value(), it.LSN())
			if !is || e.id != id {
				break
			}
			if v.hide.puts[string(it.Key())] {
				continue
			}
			by := v.odd(&e, ok, last)
			if e.size > 0 {
				last = max(last, e.lsn)
			}
			if by == nil && e.size > 0 && e.settled == nil {
				if recs == nil {
					h, err := v.readLog()
					if err != nil {
						return err
					}
					recs = newRecords(v.source, h)
				}
				var err error
				if _, by, err = recs.appended(&e); err != nil {
					return err
				}
			}
			if by != nil {
				lost.lose(v.hide.seqs[id].name, &e, by)
			}
		}
		if err := it.Err(); err != nil {
			return err
		}
		lost.flush()
	}
	return nil
}

// odd says what of an entry, in itself, does not hold; last is the LSN of the last one
// of items that are there. (One of nothing may have been put beside appends.)
func (s *source) odd(e *indexEntry, ok bool, last base.LSN) *hole {
	switch {
	case !ok:
		return &hole{file: &logFile{path: s.cfg.Dir}, offset: -1, reason: "an entry of the index does not decode"}
	case e.size > 0 && e.lsn <= last:
		return &hole{file: &logFile{path: s.cfg.Dir}, offset: -1, reason: fmt.Sprintf("an entry of the index names record %d, and the one before it %d", e.lsn, last)}
	}
	return nil
}
