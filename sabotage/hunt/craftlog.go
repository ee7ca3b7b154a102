package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/wal"
	"github.com/forebaydb/forebay/wal/frame"
)

// craft makes forgeries for one check each, of a log or a manifest.
func (f *forgedImage) craft(name string, b []byte, put putter) {
	switch {
	case f.Name == "log alone" && strings.HasSuffix(name, ".log"):
		f.craftFrames(b, put)
	case f.Name == "log alone":
		_, raw, head, state := f.manifest()
		bads := [][]byte{{0x80}, {9, 1, 1}, {9, 0}, {1, 1, 9}, {1, 2, 9, 0}, overflow(11)}
		for _, g := range state.Log.Files { // as it is listed, but for one number
			for i, n := range []uint64{8, 1 << 63} {
				v := []uint64{g.Number, g.Salt, g.Epoch, 0, g.First, g.Last, g.Hash, uint64(g.Index), g.Keep, g.CutLSN, g.CutHash}
				v[3+4*i] = n
				p := uvarints(v...)
				p = append(binary.AppendUvarint([]byte{1}, uint64(len(p))), p...)
				bads = append(bads, append(binary.AppendUvarint([]byte{1}, uint64(len(p))), p...))
			}
		}
		for _, bad := range bads {
			if !put(fmt.Sprintf("crafted edit that is none, behind all others, %x", bad), func() ([]byte, map[string][]byte) {
				return layManifest(&head, raw[:head.Start()], state.Snapshot().Append(nil), bad), nil
			}) {
				return
			}
		}
	case f.Name == "several lives":
		f.craftEpoch(name, b, put)
	}
}

func uvarints(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// record is an encoded batch with one value.
func record(n int) []byte {
	return append(binary.AppendUvarint([]byte{1, 0, 1, 1, 2, 1, 'k'}, uint64(n)), slices.Repeat([]byte{'v'}, n)...)
}

// craftFrames lays out logs that break one rule: what follows is proven, so that
// who refuses the one frame must refuse all.
func (f *forgedImage) craftFrames(b []byte, put putter) {
	head, err := frame.DecodeFileHeader(b[:512])
	must(err)
	lay := func(how string, codec frame.Codec, frames func(bl *frame.Builder), fix func(b []byte, ps []place)) bool {
		return put("crafted log, "+how, func() ([]byte, map[string][]byte) {
			var bl frame.Builder
			bl.Reset(&head, codec, head.Start(), 0)
			bl.Link(frame.Link{}, 0)
			frames(&bl)
			out := slices.Concat(b[:head.Start()], bl.Bytes(), make([]byte, 8192))
			if fix != nil {
				ps := places(out)
				fix(out, ps)
				reseal(out, ps, 0)
			}
			return out, nil
		})
	}
	proven := func(bl *frame.Builder, lsn uint64) {
		bl.Record(lsn, 0, record(20+int(lsn)), lsn-1, 0)
		bl.Mark(lsn+1, lsn, 0)
	}
	two := func(between func(bl *frame.Builder)) func(bl *frame.Builder) {
		return func(bl *frame.Builder) { proven(bl, 1); between(bl); proven(bl, 2) }
	}
	counted := func(i int) func(b []byte, ps []place) {
		return func(b []byte, ps []place) { b[ps[i].off+16] = 1 }
	}
	index := make([]frame.IndexEntry, 20)
	for i := range index {
		index[i] = frame.IndexEntry{LSN: uint64(i) + 1, Offset: 8 * int64(i)}
	}
	withIndex := two(func(bl *frame.Builder) { bl.Index(2, 1, index) })
	if !lay("in order", 0, two(func(*frame.Builder) {}), nil) ||
		!lay("a link within", 0, two(func(bl *frame.Builder) { bl.Link(frame.Link{Kept: 1, Copies: 1}, 1) }), nil) ||
		!lay("copies that are none", 0, two(func(*frame.Builder) {}), func(b []byte, ps []place) { le.PutUint64(b[ps[0].off+56+24:], 1) }) ||
		!lay("a link that counts a record", 0, func(bl *frame.Builder) { proven(bl, 2); proven(bl, 3) }, counted(0)) ||
		!lay("a data frame without records", 0, two(func(bl *frame.Builder) { bl.Mark(2, 1, 0) }), func(b []byte, ps []place) { b[ps[3].off+4] = 2 }) ||
		!lay("a mark that counts a record", 0, func(bl *frame.Builder) { proven(bl, 1); proven(bl, 3) }, counted(2)) ||
		!lay("an index within", 0, withIndex, nil) ||
		!lay("an index that counts a record", 0, func(bl *frame.Builder) { proven(bl, 1); bl.Index(2, 1, index); proven(bl, 3) }, counted(3)) {
		return
	}
	if !lay("a record whose length is none", 0, two(func(*frame.Builder) {}), func(b []byte, ps []place) { copy(b[ps[1].off+56:], overflow(11)) }) {
		return
	}
	for _, to := range [][]byte{overflow(11), append([]byte{1}, overflow(11)...), uvarints(1, 1<<62+1), uvarints(1, 1<<63), uvarints(1, 1<<62, 1, 1<<62), uvarints(1<<64-1, 0, 1, 0)} {
		if !lay(fmt.Sprintf("an index with %x", to), 0, withIndex, func(b []byte, ps []place) { copy(b[ps[3].off+56:], to) }) {
			return
		}
	}
	for k := range 2 {
		if !lay(fmt.Sprintf("an index that ends within number %d", k), 0, withIndex, func(b []byte, ps []place) {
			p := ps[3].off + 56
			copy(b[p+ps[3].stored-1-k:], []byte{0x80, 0x80}[:1+k])
			b[p+ps[3].stored-1] = 0x80
		}) {
			return
		}
	}
	for _, d := range []uint32{1, 8, 1 << 31} {
		for _, codec := range []frame.Codec{frame.CodecS2, frame.CodecZstd} {
			packed := func(bl *frame.Builder) {
				bl.Record(1, 0, record(3000), 0, 0)
				bl.Mark(2, 1, 0)
			}
			if !lay(fmt.Sprintf("packed, %s, and %d bytes more than it says", codec, d), codec, packed, func(b []byte, ps []place) {
				p := b[ps[1].off+12:]
				le.PutUint32(p, le.Uint32(p)+d)
			}) {
				return
			}
		}
	}
	for i, behind := range [][]byte{{1, 2, 3, 4, 5, 6, 7, 8}, {0}, overflow(9)} {
		if !put(fmt.Sprintf("crafted log, packed, with bytes behind it, %d", i), func() ([]byte, map[string][]byte) {
			return packedWith(b[:head.Start()], &head, behind), nil
		}) {
			return
		}
	}
}

// packedWith is a log of one packed frame with bytes behind what unpacks.
func packedWith(start []byte, head *frame.FileHeader, behind []byte) []byte {
	raw := record(3000)
	raw = append(append(binary.AppendUvarint(nil, uint64(len(raw))), 0), raw...)
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	must(err)
	stored := append(enc.EncodeAll(raw, nil), behind...)
	var bl frame.Builder
	bl.Reset(head, frame.CodecNone, head.Start(), 0)
	bl.Link(frame.Link{}, 0)
	bl.Record(1, 0, make([]byte, len(stored)-2), 0, 0) // in its place, with what stands in front
	bl.Mark(2, 1, 0)
	out := slices.Concat(start, bl.Bytes(), make([]byte, 8192))
	ps := places(out)
	p := ps[1]
	if p.stored != len(stored) {
		panic(failure{fmt.Errorf("a frame of %d bytes, and not %d", p.stored, len(stored))})
	}
	copy(out[p.off+56:], stored)
	out[p.off+5] |= 2
	le.PutUint32(out[p.off+12:], uint32(len(raw)))
	reseal(out, ps, 0)
	return out
}

// craftEpoch gives the last log file an epoch below that of the one before.
func (f *forgedImage) craftEpoch(name string, b []byte, put putter) {
	man, raw, head, state := f.manifest()
	i := len(state.Log.Files) - 1
	for i > 0 && len(places(f.Files[fmt.Sprintf("%06d.log", state.Log.Files[i].Number)])) == 0 {
		i-- // a spare
	}
	if i < 1 || name != fmt.Sprintf("%06d.log", state.Log.Files[i].Number) {
		return
	}
	for _, epoch := range []uint64{state.Log.Files[i-1].Epoch, state.Log.Files[i-1].Epoch - 1, 0} {
		put(fmt.Sprintf("crafted epoch %d behind %d", epoch, state.Log.Files[i-1].Epoch), func() ([]byte, map[string][]byte) {
			s := state.Clone()
			s.Log.Files[i].Epoch = epoch
			return rebound(b, 52, epoch), map[string][]byte{man: layManifest(&head, raw[:head.Start()], s.Snapshot().Append(nil))}
		})
	}
}

// rebound is a framed file with another number in its header, and all frames bound
// to it.
func rebound(b []byte, at int, n uint64) []byte {
	c := slices.Clone(b)
	le.PutUint64(c[at:], n)
	le.PutUint64(c[504:], xxhash.Sum64(c[:504]))
	rebind(b, c)
	return c
}

// crafts are made for one check each, and say by themselves what is due.
var crafts = []func() string{forgedCut, forgedCatalog, segmentsAlone, otherManifests, otherHeaders, keyTwice, replayed}

// forgedCatalog opens a log alone whose catalog says what cannot be.
func forgedCatalog() string {
	g := newLedger(79, 0)
	var err error
	g.l, _, err = g.open(g.mem)
	must(err)
	must(g.l.Close())
	names, err := g.mem.List("log")
	must(err)
	for _, name := range names {
		if !strings.HasPrefix(name, "CATALOG") {
			continue
		}
		raw := g.mem.Bytes("log/" + name)
		head, err := frame.DecodeFileHeader(raw[:512])
		must(err)
		for i, s := range []base.LogState{
			{},
			{Number: base.MaxFileNumber + 1}, {Epoch: base.MaxListed + 1},
			{Floor: base.LogFloor{File: 1, LSN: base.MaxListed + 1}}, {Floor: base.LogFloor{File: 1, LSN: 1, Epoch: base.MaxListed + 1}},
		} {
			disk := g.mem.Snapshot()
			must(disk.SetBytes("log/"+name, layManifest(&head, raw[:head.Start()], s.Snapshot().Append(nil))))
			l, _, err := g.open(disk)
			if err == nil {
				_ = l.Close()
			}
			if (i == 0) != (err == nil) || i > 0 && class(err) != 2 {
				return fmt.Sprintf("a catalog that says %+v: open says %v", s, err)
			}
		}
		return ""
	}
	return "a log without a catalog"
}

// replayed damages a log file between an open, which verified it, and the replay.
func replayed() string {
	g := newLedger(791, 0)
	l, _, err := g.open(g.mem)
	must(err)
	for i := range 4 {
		_, err := l.Append(record(100 + i))
		must(err)
	}
	must(l.Close())
	l, _, err = g.open(g.mem)
	must(err)
	const name = "log/000001.log"
	b := g.mem.Bytes(name)
	for _, c := range []struct {
		how string
		at  int
	}{{"its header", 20}, {"its first frame", places(b)[0].off + 20}, {"its last record", places(b)[4].off + 60}} {
		bad := slices.Clone(b)
		bad[c.at] ^= 1
		must(g.mem.SetBytes(name, bad))
		if err := l.Replay(1, func(wal.LSN, []byte) error { return nil }); class(err) != 2 {
			return fmt.Sprintf("a log file is damaged in %s behind an open, and the replay says %v", c.how, err)
		}
	}
	must(g.mem.SetBytes(name, b))
	n := 0
	if err := l.Replay(1, func(wal.LSN, []byte) error { n++; return nil }); err != nil || n != 4 {
		return fmt.Sprintf("a replay gives %d of 4 records, and %v", n, err)
	}
	must(l.Close())
	return ""
}

// segmentsAlone opens a directory in which segments are left, and nothing else.
func segmentsAlone() string {
	w := newWorld(810, small())
	must(w.open())
	must(w.commit(forebay.Durable, "a", "1"))
	must(w.db.Checkpoint(background))
	must(w.db.Close())
	for _, name := range w.files(w.mem) {
		if !strings.HasSuffix(name, ".seg") {
			must(w.mem.Remove(path.Join(w.dir, name)))
		}
	}
	if len(w.files(w.mem)) == 0 {
		return "a checkpoint leaves no segment"
	}
	db, err := forebay.Open(w.dir, w.options(w.mem))
	if err == nil {
		_ = db.Close()
	}
	if class(err) != 2 {
		return fmt.Sprintf("segments without a manifest: open says %v", err)
	}
	return ""
}

// otherManifests opens a store whose manifest is gone, or is of before most of its
// log files were listed.
func otherManifests() string {
	o := small()
	o.MemtableSize = 256 << 10 // all stays in the log
	w := newWorld(830, o)
	must(w.open())
	must(w.commit(forebay.Durable, "a", "1"))
	before := w.mem.Snapshot()
	for i := range 8 {
		must(w.commit(forebay.Durable, "a", value(i, 3000)))
	}
	must(w.db.Close())
	for _, name := range w.files(w.mem) {
		if !strings.HasPrefix(name, "MANIFEST") {
			continue
		}
		p := path.Join(w.dir, name)
		for _, to := range [][]byte{nil, before.Bytes(p)} {
			disk := w.mem.Snapshot()
			if to == nil {
				must(disk.Remove(p))
			} else {
				must(disk.SetBytes(p, to))
			}
			db, err := forebay.Open(w.dir, w.options(disk))
			if err == nil {
				_ = db.Close()
			}
			if class(err) != 2 {
				return fmt.Sprintf("the manifest is one of %d bytes: open says %v", len(to), err)
			}
		}
	}
	return ""
}

// otherHeaders puts another file in the place of a log file, while the store is
// open: followers open it by its name.
func otherHeaders() string {
	w := newWorld(820, small())
	must(w.open())
	must(w.db.Pin("all", 1))
	for i := range 8 {
		must(w.commit(forebay.Durable, "a", value(i, 3000)))
	}
	p := path.Join(w.dir, "000001.log")
	b := w.mem.Bytes(p)
	for _, c := range []struct {
		how string
		to  []byte
	}{
		{"a header of zeros", append(make([]byte, 512), b[512:]...)},
		{"another salt", rebound(b, 44, le.Uint64(b[44:])+1)},
		{"another number", rebound(b, 36, 77)},
		{"no header", b[:100]},
	} {
		must(w.mem.SetBytes(p, c.to))
		_, err := seen(w.db, forebay.Position{})
		if class(err) != 2 {
			return fmt.Sprintf("a log file is replaced by one with %s, and a follower gets %v", c.how, err)
		}
	}
	must(w.mem.SetBytes(p, b))
	if cs, err := seen(w.db, forebay.Position{}); err != nil || len(cs) != len(w.ops) {
		return fmt.Sprintf("a follower gets %d of %d changes, and %v", len(cs), len(w.ops), err)
	}
	if err := w.db.Close(); err != nil && !errors.Is(err, forebay.ErrClosed) {
		return err.Error()
	}
	return ""
}

// keyTwice opens a log one of whose batches has a key twice, behind more than a
// memtable has room for: it is settled without one.
func keyTwice() string {
	one := []byte{1, 2, 1, 'k', 1, 'v'}
	for _, twice := range []bool{false, true} {
		last := append([]byte{1, 0, 1}, one...)
		if twice {
			last = slices.Concat([]byte{1, 0, 2}, one, one)
		}
		w := forgedStore(record(3000), record(3000), record(3000), record(3000), last)
		db, err := forebay.Open(w.dir, w.options(w.mem))
		if err == nil {
			_ = db.Close()
		}
		if twice != (class(err) == 2) || !twice && err != nil {
			return fmt.Sprintf("a batch with a key twice (%v): open says %v", twice, err)
		}
	}
	return ""
}
