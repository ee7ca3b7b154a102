package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/wal/frame"
)

// huge lets an open read records that are above the limits, with right checksums.
func huge(ctx context.Context) string {
	step("huge")
	return attempt(func() string {
		value := func(kind byte, n int) []byte {
			b := binary.AppendUvarint([]byte{1, 0, 1, kind, 2, 1, 'k'}, uint64(n))
			return append(b, slices.Repeat([]byte{2}, n)...)
		}
		for _, c := range []struct {
			name string
			rec  []byte
			good bool
		}{
			{"a value of the limit", value(1, base.MaxValueSize), true},
			{"a value above the limit", value(1, base.MaxValueSize+1), false},
			{"a record above the limit", make([]byte, base.MaxRecordSize+1), false},
		} {
			step("huge")
			err := openRecord(c.rec, false)
			if c.good && err != nil || !c.good && class(err) != 2 {
				return fmt.Sprintf("%s: open says %v", c.name, err)
			}
		}
		step("huge")
		// What is settled is not replayed; who follows reads it.
		if err := openSettled(value(1, base.MaxValueSize+1)); class(err) != 2 {
			return fmt.Sprintf("a value above the limit, settled: a follower gets %v", err)
		}
		two := value(1, 150<<10)
		two = append(binary.AppendUvarint(nil, uint64(len(two))), append([]byte{0}, two...)...)
		if err := openRecord(slices.Concat(two, two), true); class(err) != 2 {
			return fmt.Sprintf("two records in a frame above its limit: open says %v", err)
		}
		return ""
	})
}

// openRecord opens a store whose log has one record; with two rec is the payload of
// a frame of two.
func openRecord(rec []byte, two bool) error {
	w := newWorld(900, small())
	must(w.open())
	must(w.commit(forebay.Durable, "a", "1"))
	must(w.db.Close())
	for _, name := range w.files(w.mem) {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		p := path.Join(w.dir, name)
		b := w.mem.Bytes(p)
		head, err := frame.DecodeFileHeader(b[:512])
		must(err)
		var bl frame.Builder
		bl.Reset(&head, frame.CodecNone, head.Start(), 0)
		bl.Link(frame.Link{}, 0)
		next := uint64(2)
		if two { // what is laid out in front of the record is a part of rec
			front := len(binary.AppendUvarint(nil, uint64(len(rec)))) + 1
			bl.Record(1, 0, rec[front:], 0, 0)
			next = 3
		} else {
			bl.Record(1, 0, rec, 0, 0)
		}
		out := slices.Concat(b[:head.Start()], bl.Bytes())
		bl.Advance()
		bl.Mark(next, next-1, 0)
		out = slices.Concat(out, bl.Bytes(), make([]byte, 4096))
		if two {
			ps := places(out)
			copy(out[ps[1].off+56:], rec)
			out[ps[1].off+16] = 2
			reseal(out, ps, 0)
		}
		must(w.mem.SetBytes(p, out))
	}
	db, err := forebay.Open(w.dir, w.options(w.mem))
	if err != nil {
		return err
	}
	return db.Close()
}

// openSettled opens a store whose log has one record, which the manifest says is
// settled, and returns what a follower gets.
func openSettled(rec []byte) error {
	w := forgedStore(rec)
	f := &forgedImage{Files: map[string][]byte{}}
	for _, name := range w.files(w.mem) {
		f.Files[name] = w.mem.Bytes(path.Join(w.dir, name))
	}
	man, raw, head, state := f.manifest()
	state.ReplayStart = 2
	must(w.mem.SetBytes(path.Join(w.dir, man), layManifest(&head, raw[:head.Start()], state.Snapshot().Append(nil))))
	db, err := forebay.Open(w.dir, w.options(w.mem))
	if err != nil {
		return fmt.Errorf("open fails: %v", err)
	}
	defer db.Close()
	_, err = seen(db, forebay.Position{})
	return err
}

// forgedStore is a store whose log has these records, and nothing else.
func forgedStore(recs ...[]byte) *world {
	w := newWorld(910, small())
	must(w.open())
	must(w.commit(forebay.Durable, "a", "1"))
	must(w.db.Close())
	p := path.Join(w.dir, "000001.log")
	b := w.mem.Bytes(p)
	head, err := frame.DecodeFileHeader(b[:512])
	must(err)
	var bl frame.Builder
	bl.Reset(&head, frame.CodecNone, head.Start(), 0)
	bl.Link(frame.Link{}, 0)
	next := uint64(1)
	for _, rec := range recs {
		bl.Record(next, 0, rec, next-1, 0)
		next++
	}
	bl.Mark(next, next-1, 0)
	must(w.mem.SetBytes(p, slices.Concat(b[:head.Start()], bl.Bytes(), make([]byte, 4096))))
	return w
}
