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
)

// healer makes the index of sequences anew, where segments are lost that had it, from
// log files that are kept for their items. These need not reach to the end of the log
// without a gap, and so nothing else is taken from them.
type healer struct {
	v       *salvager
	rep     *replay
	seqs    sequences
	ids     []uint64
	regions []*Loss
	// Without a manifest nobody knows which segments are gone, and everything may be
	// missing. fromNone says that then there was no list of sequences at all, firsts
	// where the index of each begins: what is below was trimmed, or lost.
	fromNone bool
	firsts   map[uint64]uint64
	healed   uint64
}

// healSequences enters what is missing into rep.
func (v *salvager) healSequences(rep *replay) error {
	h := &healer{v: v, rep: rep}
	for i := range v.out.Losses {
		switch l := &v.out.Losses[i]; {
		case l.Harmless || l.Effect == effectUnlisted:
		case l.What != "log" && l.What != "record" && l.What != "manifest":
			h.regions = append(h.regions, l)
		}
	}
	if !v.heal || len(h.regions) == 0 && !v.out.Rebuilt {
		return nil
	}
	if err := h.look(); err != nil {
		return err
	}
	h.fromNone = v.out.Rebuilt && len(h.ids) == 0
	if err := h.pass(h.list); err != nil {
		return err
	}
	if err := h.look(); err != nil {
		return err
	}
	if err := h.name(); err != nil {
		return err
	}
	if err := h.pass(h.index); err != nil {
		return err
	}
	if h.healed > 0 {
		v.lose(Loss{File: v.cfg.LogDir, Offset: -1, What: "items", Harmless: true, Effect: effectHealedItems,
			Reason: fmt.Sprintf("the index of up to %d appends was taken from their records", h.healed)})
	}
	return nil
}

// pass gives the batches of the commits below to each.
func (h *healer) pass(each func(base.LSN, *batch.Reader) error) error {
	for i := range h.v.below {
		st := &h.v.below[i]
		if err := h.v.each(st, st.first, func(_ *piece, _ int64, lsn base.LSN, rec []byte) error {
			r, err := batch.Decode(rec)
			if err != nil {
				return nil // It is a loss only where an entry names it.
			}
			if err := each(lsn, &r); err != nil {
				return err
			}
			return h.rep.relieve()
		}); err != nil {
			return err
		}
	}
	return nil
}

// look reads which sequences are known by now, and where they begin.
func (h *healer) look() (err error) {
	it := h.v.reader(h.rep)
	defer it.Close()
	if h.seqs, err = listSequences(it); err != nil {
		return err
	}
	h.ids, h.firsts = h.seqs.ids(), map[uint64]uint64{}
	for _, id := range h.ids {
		if !it.SeekGE(keyspace.AppendPrefix(nil, id)) {
			continue
		}
		if e, is, ok := h.seqs.entry(it.Key(), it.Value(), it.LSN()); is && ok && e.id == id {
			h.firsts[id] = e.offset
		}
	}
	return it.Err()
}

// lost says that a version may have been in what is lost.
func (h *healer) lost(key []byte, lsn base.LSN) bool {
	return slices.ContainsFunc(h.regions, func(l *Loss) bool {
		return (l.Lo == nil || bytes.Compare(l.Lo, key) <= 0) && (l.Hi == nil || bytes.Compare(key, l.Hi) <= 0) &&
			(l.LastLSN == 0 || l.FirstLSN <= lsn && lsn <= l.LastLSN)
	})
}

// list enters what a commit says of the list of sequences.
func (h *healer) list(lsn base.LSN, r *batch.Reader) error {
	for r.Next() {
		if r.Kind() == base.KindAppend {
			h.rep.saw(r.Key())
		}
		id, own, _ := keyspace.Cut(r.Key())
		if id != keyspace.System || r.Kind() != base.KindPut && r.Kind() != base.KindDelete {
			continue
		}
		e, err := keyspace.DecodeEntry(own, r.Value())
		if err != nil || e.Name != "" && !strings.HasPrefix(e.Name, keyspace.SequencePrefix) {
			continue
		}
		if r.Kind() == base.KindPut && !h.fromNone && !h.lost(r.Key(), lsn) {
			continue
		}
		if err := h.rep.enter(lsn, r.Kind(), r.Key(), r.Value()); err != nil {
			return err
		}
	}
	return nil
}

// name gives names to sequences that the list has lost: without one nobody could read
// them. Their ids are not given again.
func (h *healer) name() error {
	at, named := h.v.top(), false
	for _, id := range slices.Sorted(maps.Keys(h.rep.appended)) {
		if _, known := h.seqs[id]; known || id < keyspace.First {
			continue
		}
		name := fmt.Sprintf("salvaged-%d", id)
		full := keyspace.SequencePrefix + name
		if err := h.rep.enter(at, base.KindPut, keyspace.NameKey(full), keyspace.EncodeID(id)); err != nil {
			return err
		}
		if err := h.rep.enter(at, base.KindPut, keyspace.IDKey(id), []byte(full)); err != nil {
			return err
		}
		h.seqs[id], named = listed{name, true}, true
		h.v.lose(Loss{File: h.v.cfg.Dir, Offset: -1, What: "items", Effect: effectName,
			Reason: fmt.Sprintf("the name of the sequence in keyspace %d is lost; it is now %q", id, name)})
	}
	if h.ids = h.seqs.ids(); !named {
		return nil
	}
	it := h.v.reader(h.rep)
	defer it.Close()
	next := h.ids[len(h.ids)-1] + 1
	if key := keyspace.NextKey(); it.SeekGE(key) && bytes.Equal(it.Key(), key) {
		if had, err := keyspace.DecodeID(it.Value()); err == nil && had >= next {
			return nil
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	return h.rep.enter(at, base.KindPut, keyspace.NextKey(), keyspace.EncodeID(next))
}

// index enters what a commit does to the indexes.
func (h *healer) index(lsn base.LSN, r *batch.Reader) error {
	for r.Next() {
		key, value, kind := r.Key(), r.Value(), r.Kind()
		if kind == base.KindRangeDelete {
			if h.seqs.overlap(h.ids, key, value) {
				if err := h.rep.enter(lsn, kind, key, value); err != nil {
					return err
				}
			}
			continue
		}
		if kind == base.KindAppend {
			key, value = batch.IndexEntry(nil, nil, key, value)
			kind = base.KindPut
		}
		e, is, ok := h.seqs.entry(key, value, lsn)
		lost := h.lost(key, lsn)
		if !is || kind == base.KindPut && !(ok && h.seqs[e.id].live && (lost || h.v.out.Rebuilt)) {
			continue
		}
		if first, some := h.firsts[e.id]; e.size > 0 && (lost || !some || e.offset < first) {
			h.healed++
		}
		if err := h.rep.enter(lsn, kind, key, value); err != nil {
			return err
		}
	}
	return nil
}
