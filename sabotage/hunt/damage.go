package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// An image is a closed store: all of it is proven, so that damage is an error or
// does no harm.
type image struct {
	w    *world
	name string
	// synced says that it was closed in order.
	closed bool
}

// images makes small stores that have, together, every kind of file and block.
func images() []*image {
	var out []*image
	add := func(name string, change func(*forebay.Options), closed bool, run func(w *world)) {
		o := small()
		if change != nil {
			change(&o)
		}
		w := newWorld(uint64(1000+100*len(out)), o)
		must(w.open())
		run(w)
		if closed {
			must(w.db.Close())
			w.acked = uint64(len(w.ops))
		} else {
			w.mem = w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
			_ = w.db.Close()
		}
		w.fsys, w.db = w.mem, nil
		out = append(out, &image{w: w, name: name, closed: closed})
	}
	commits := func(w *world, from, to int) {
		for i := from; i < to; i++ {
			must(w.commit(forebay.Durable, "key", value(i, 16), fmt.Sprint("k", i), value(i, 20)))
		}
		must(w.commit(forebay.Durable, fmt.Sprint("k", from), ""))
	}
	add("log alone", nil, true, func(w *world) { commits(w, 0, 4) })
	add("segments", nil, true, func(w *world) {
		commits(w, 0, 22)
		var many []string
		for i := range 40 { // more than two restart points
			many = append(many, fmt.Sprintf("m%02d", i), fmt.Sprint(i))
		}
		must(w.commit(forebay.Durable, many...))
		must(w.db.DeleteRange([]byte("k1"), []byte("k15")))
		w.deleteRange("k1", "k15")
		must(w.db.Checkpoint(background))
		commits(w, 40, 42)
	})
	add("range deletes", func(o *forebay.Options) { o.MemtableSize = 64 << 10 }, true, func(w *world) { // beside versions
		commits(w, 0, 10)
		must(w.db.Checkpoint(background)) // or there is nothing to delete
		commits(w, 10, 20)
		must(w.db.DeleteRange([]byte("k1"), []byte("k15")))
		w.deleteRange("k1", "k15")
		must(w.db.Checkpoint(background))
	})
	add("packed segments", func(o *forebay.Options) { o.Compression = forebay.S2 }, true, func(w *world) {
		for i := range 20 {
			must(w.commit(forebay.Durable, fmt.Sprint("k", i), strings.Repeat("ab", 20)))
		}
		must(w.db.Compact(background))
		must(w.commit(forebay.Durable, "z", strings.Repeat("cd", 80)))
	})
	add("packed log", func(o *forebay.Options) { o.Compression = forebay.S2 }, true, func(w *world) {
		for i := range 2 {
			must(w.commit(forebay.Durable, fmt.Sprint("k", i), strings.Repeat("ab", 200)))
		}
	})
	add("three blocks", func(o *forebay.Options) { o.MemtableSize = 64 << 10 }, true, func(w *world) { // in one segment
		for i := range 40 {
			must(w.commit(forebay.Durable, fmt.Sprintf("m%02d", i), value(i, 500)))
		}
		must(w.db.Compact(background))
	})
	add("several log files", nil, true, func(w *world) {
		must(w.db.Pin("all", 1))
		for i := range 12 {
			must(w.commit(forebay.Durable, "a", value(i, 3000)))
			if i == 6 {
				must(w.db.Checkpoint(background))
			}
		}
	})
	add("marked by a later group", nil, false, func(w *world) {
		commits(w, 0, 3)
		must(w.commit(forebay.Durable, "y", "1"))
		w.acked = uint64(len(w.ops)) - 1 // the last group is proven by nothing
		must(w.commit(forebay.Written, "y", "2"))
	})
	add("copied by an open", nil, false, func(w *world) {
		commits(w, 0, 3)
		w.mem = w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
		_ = w.db.Close()
		w.fsys = w.mem
		must(w.open())
		w.acked = w.db.LastLSN()
		// All that it showed is proven: the power may go.
		w.mem = w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Lost })
	})
	add("settled, and not closed", nil, false, func(w *world) {
		commits(w, 0, 3)
		must(w.db.Checkpoint(background))
		w.acked = uint64(len(w.ops))
	})
	// A small memtable would be settled at each open, and its log files gone.
	roomy := func(o *forebay.Options) { o.MemtableSize = 256 << 10 }
	add("several lives", roomy, true, func(w *world) {
		for i := range 3 {
			commits(w, 10*i, 10*i+2)
			must(w.db.Close())
			must(w.open())
		}
	})
	add("zstd", func(o *forebay.Options) { o.Compression = forebay.Zstd }, true, func(w *world) {
		for i := range 4 {
			must(w.commit(forebay.Durable, fmt.Sprint("k", i), strings.Repeat("abcd", 60)))
		}
		must(w.db.Checkpoint(background))
		must(w.commit(forebay.Durable, "z", strings.Repeat("cd", 80)))
	})
	return out
}

// deleteRange takes down a range delete that was committed.
func (w *world) deleteRange(lo, hi string) {
	gone := map[string]string{}
	for k := range w.keys() {
		if k >= lo && k < hi {
			gone[k] = ""
		}
	}
	w.ops = append(w.ops, gone)
	w.acked = uint64(len(w.ops))
}

// brokenLink damages the link of a log file that has a mark and, behind it, a
// commit that was acknowledged and that no number proves: that the file was
// durable the mark says.
func brokenLink() string {
	w := newWorld(800, small())
	must(w.open())
	for i := range 3 {
		must(w.commit(forebay.Durable, "a", fmt.Sprint(i)))
	}
	w.mem = w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
	_ = w.db.Close()
	w.fsys = w.mem
	must(w.open()) // it copies, and marks
	must(w.commit(forebay.Durable, "b", "1"))
	disk := w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return vfs.Kept })
	_ = w.db.Close()
	im := &image{w: w, name: "link"}
	for i := 512 * 8; i < (512+64+48)*8; i += 3 {
		d := disk.Snapshot()
		must(d.Corrupt("db/000002.log", int64(i/8), 1, func(b []byte) { b[0] ^= 1 << (i % 8) }))
		if what := im.damage(d, "", false); what != "" {
			return fmt.Sprintf("link of a file with a mark, bit %d of byte %d: %s", i%8, i/8, what)
		}
	}
	return ""
}

// files lists the files of a store, without its lock.
func (w *world) files(m *vfs.Mem) []string {
	names, err := m.List(w.dir)
	must(err)
	return slices.DeleteFunc(names, func(n string) bool { return n == "LOCK" })
}

// damage checks a damaged copy of an image. Of a segment, which whole names, every
// byte counts: then Verify must find it, too, unless nobody names the file.
//
// What takes whole sectors of a log may take its last groups with their marks:
// then prefix says that any S(n) will do.
func (im *image) damage(disk *vfs.Mem, whole string, prefix bool) string {
	before := disk.Snapshot()
	db, err := forebay.Open(im.w.dir, im.w.options(disk))
	if err != nil {
		if class(err) != 2 {
			return "open fails, and not for damage: " + err.Error()
		}
		return im.unchanged(before, disk)
	}
	defer db.Close()
	n := db.LastLSN()
	if n < im.w.acked && !prefix || n > uint64(len(im.w.ops)) {
		return fmt.Sprintf("silent: opened at LSN %d of %d", n, im.w.acked)
	}
	what, err := im.w.reads(db, n)
	if err != nil {
		return ""
	}
	if what != "" {
		return "silent: " + what
	}
	if _, err := db.Verify(background); err != nil || whole == "" || disk.Bytes(whole) == nil || db.Stats().Compactions > 0 {
		return "" // or a compaction has taken its place, of which it needs no filter, say
	}
	return "silent: neither reads nor Verify find it"
}

// unchanged checks that an open that failed has changed nothing.
func (im *image) unchanged(before, after *vfs.Mem) string {
	a, b := im.w.files(before), im.w.files(after)
	if !slices.Equal(a, b) {
		return fmt.Sprintf("an open that failed has changed the directory: %v, then %v", a, b)
	}
	for _, name := range a {
		p := path.Join(im.w.dir, name)
		if string(before.Bytes(p)) != string(after.Bytes(p)) {
			return "an open that failed has changed " + name
		}
	}
	return ""
}

// used returns how much of a file is not its zeros at the end.
func used(b []byte) int {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	return n
}

// damaged flips bits, takes sectors and whole files away, cuts, and adds files that
// do not belong there: a part first, in which most is found, then all.
func damaged(ctx context.Context) string     { return hurtAll(ctx, 23) }
func damagedRest(ctx context.Context) string { return hurtAll(ctx, 1) }

// hurtAll damages all images; of the bits it flips one in stride.
func hurtAll(ctx context.Context, stride int) string {
	return attempt(func() string {
		for _, im := range images() {
			if what := im.hurt(ctx, stride); what != "" {
				return im.name + ": " + what
			}
		}
		return ""
	})
}

func (im *image) hurt(ctx context.Context, stride int) string {
	m := im.w.mem
	for _, name := range im.w.files(m) {
		p := path.Join(im.w.dir, name)
		b := m.Bytes(p)
		segment, sectors := strings.HasSuffix(name, ".seg"), false
		try := func(how string, change func(*vfs.Mem) error) string {
			return surely(func() string {
				step("damaged")
				disk := m.Snapshot()
				must(change(disk))
				whole := ""
				if segment && im.closed {
					whole = p
				}
				if what := im.damage(disk, whole, sectors && strings.HasSuffix(name, ".log")); what != "" {
					return fmt.Sprintf("%s, %s: %s", name, how, what)
				}
				return ""
			})
		}
		set := func(to []byte) func(*vfs.Mem) error {
			return func(d *vfs.Mem) error { return d.SetBytes(p, to) }
		}
		if what := try("removed", func(d *vfs.Mem) error { return d.Remove(p) }); what != "" {
			return what
		}
		sectors = true
		for at := 0; at < used(b) && ctx.Err() == nil; at += 512 {
			end := min(at+512, len(b))
			if used(b[at:end]) > 0 {
				zero := slices.Clone(b)
				clear(zero[at:end])
				if what := try(fmt.Sprintf("zeros at %d", at), set(zero)); what != "" {
					return what
				}
			}
			if what := try(fmt.Sprintf("cut at %d", at), set(b[:at])); what != "" {
				return what
			}
			if at >= 512 {
				swapped := slices.Clone(b)
				copy(swapped[at:end], b[at-512:at])
				if what := try(fmt.Sprintf("sector before copied to %d", at), set(swapped)); what != "" {
					return what
				}
			}
		}
		sectors = false
		every := stride
		if stride > 1 && used(b) > 8<<10 {
			every *= 7
		}
		for i := 0; i < used(b)*8 && ctx.Err() == nil; i += every {
			if what := try(fmt.Sprintf("bit %d of byte %d", i%8, i/8), func(d *vfs.Mem) error {
				return d.Corrupt(p, int64(i/8), 1, func(b []byte) { b[0] ^= 1 << (i % 8) })
			}); what != "" {
				return what
			}
		}
	}
	return im.strays(ctx)
}

// strays adds files that do not belong there: an open that succeeds is as before,
// one that fails leaves them.
func (im *image) strays(ctx context.Context) string {
	m := im.w.mem
	for _, name := range im.w.files(m) {
		if ctx.Err() != nil {
			return ""
		}
		b := m.Bytes(path.Join(im.w.dir, name))
		var copies []string
		switch ext := path.Ext(name); {
		case ext == ".log":
			copies = []string{"000077.log", "000001.log", "000002.log", "000003.log"}
		case ext == ".seg":
			copies = []string{"000077.seg", "000001.seg", "000002.seg"}
		default:
			copies = []string{"MANIFEST-000077", "MANIFEST-000001"}
		}
		for _, c := range copies {
			p := path.Join(im.w.dir, c)
			if m.Bytes(p) != nil {
				continue
			}
			step("damaged")
			disk := m.Snapshot()
			must(disk.SetBytes(p, b))
			if what := im.damage(disk, "", false); what != "" {
				return fmt.Sprintf("%s again as %s: %s", name, c, what)
			}
			// And with something else that is damaged.
			for _, other := range im.w.files(m) {
				disk := m.Snapshot()
				must(disk.SetBytes(p, b))
				size := int64(len(disk.Bytes(path.Join(im.w.dir, other))))
				must(disk.Corrupt(path.Join(im.w.dir, other), min(600, size/2), 1, func(b []byte) { b[0] ^= 1 }))
				if what := im.damage(disk, "", false); what != "" {
					return fmt.Sprintf("%s again as %s, with %s damaged: %s", name, c, other, what)
				}
			}
		}
	}
	return ""
}

// live damages files of a store that is open, and reads: what is not in memory
// must be found.
func live(ctx context.Context) string {
	return attempt(func() string {
		for _, im := range images() {
			for _, name := range im.w.files(im.w.mem) {
				if strings.HasPrefix(name, "MANIFEST") {
					continue
				}
				p := path.Join(im.w.dir, name)
				b := im.w.mem.Bytes(p)
				if strings.HasSuffix(name, ".seg") {
					if what := surely(func() string { return im.cutLive(p, len(b)/2) }); what != "" {
						return fmt.Sprintf("%s: %s is cut while the store is open: %s", im.name, name, what)
					}
				}
				for i := 0; i < used(b)*8 && ctx.Err() == nil; i += 37 {
					step("live")
					if what := surely(func() string { return im.hurtLive(name, i) }); what != "" {
						return fmt.Sprintf("%s: %s, bit %d of byte %d, while the store is open: %s", im.name, name, i%8, i/8, what)
					}
				}
			}
		}
		return ""
	})
}

// cutLive makes a segment of an open store shorter: whoever reads it must say that
// it is damaged.
func (im *image) cutLive(p string, size int) string {
	disk := im.w.mem.Snapshot()
	db, err := forebay.Open(im.w.dir, im.w.options(disk))
	must(err)
	defer db.Close()
	if disk.Bytes(p) == nil {
		return ""
	}
	whole := disk.Bytes(p)
	other := slices.Clone(whole)
	other[len(other)-footSize+16] ^= 1 // a feature that a reader may pass over
	sealFoot(other)
	must(disk.SetBytes(p, other))
	if _, err := db.Verify(background); class(err) != 2 && disk.Bytes(p) != nil && db.Stats().Compactions == 0 { // no compaction took it
		return fmt.Sprintf("its footer is another, and Verify says %v", err)
	}
	if disk.Bytes(p) == nil {
		return ""
	}
	must(disk.SetBytes(p, whole[:size]))
	if _, err := db.Backup(background, "backup"); class(err) != 2 && disk.Bytes(p) != nil && db.Stats().Compactions == 0 {
		return fmt.Sprintf("a backup says %v", err)
	}
	if _, err := db.Verify(background); class(err) != 2 && disk.Bytes(p) != nil && db.Stats().Compactions == 0 {
		return fmt.Sprintf("Verify says %v", err)
	}
	if _, err := dump(db); err != nil && class(err) != 2 {
		return fmt.Sprintf("a scan says %v", err)
	}
	return ""
}

func (im *image) hurtLive(name string, bit int) string {
	disk := im.w.mem.Snapshot()
	db, err := forebay.Open(im.w.dir, im.w.options(disk))
	must(err)
	defer db.Close()
	n := db.LastLSN()
	p := path.Join(im.w.dir, name)
	if disk.Bytes(p) == nil {
		return "" // the open had no use for it
	}
	must(disk.Corrupt(p, int64(bit/8), 1, func(b []byte) { b[0] ^= 1 << (bit % 8) }))
	what, err := im.w.reads(db, n)
	if what != "" && err == nil {
		return "silent: " + what
	}
	count := 0
	for c, err := range db.Changes(background, forebay.Position{}) {
		if err != nil {
			count = -1
			break
		}
		count++
		if what := im.w.sameChange(c); what != "" {
			return what
		}
	}
	_, verr := db.Verify(background)
	if strings.HasSuffix(name, ".seg") && verr == nil && disk.Bytes(p) != nil && db.Stats().Compactions == 0 {
		return "silent: Verify does not find it"
	}
	_, berr := db.Backup(background, "backup")
	if berr != nil {
		return ""
	}
	copied := &world{dir: "backup", opts: im.w.opts, ops: im.w.ops, seed: im.w.seed}
	if what := copied.judge(disk.Snapshot(), n, n); what != "" {
		return "a backup that succeeded: " + what
	}
	return ""
}

// sameChange compares a change with the commit that it should be.
func (w *world) sameChange(c forebay.Change) string {
	if c.LSN == 0 || c.LSN > uint64(len(w.ops)) {
		return fmt.Sprintf("a change at LSN %d, of %d", c.LSN, len(w.ops))
	}
	for _, op := range c.Ops {
		if op.Kind != forebay.OpPut || op.Keyspace != "" {
			continue
		}
		if v := w.ops[c.LSN-1][string(op.Key)]; v != string(op.Value) {
			return fmt.Sprintf("change %d is not commit %d: key %s", c.LSN, c.LSN, op.Key)
		}
	}
	return ""
}

// twins are two stores that were one: a file of one in the other must be found.
func twins(ctx context.Context) string {
	return attempt(func() string {
		for _, settle := range []bool{false, true} {
			o := small()
			w := newWorld(5000, o)
			must(w.open())
			must(w.commit(forebay.Durable, "a", "1"))
			must(w.db.Checkpoint(background))
			must(w.commit(forebay.Durable, "b", "1"))
			must(w.db.Close())
			var two [2]*world
			for i := range two {
				disk := w.mem.Snapshot()
				t := &world{mem: disk, fsys: disk, dir: w.dir, opts: o, ops: slices.Clone(w.ops), seed: 6000 + 100*uint64(i)}
				must(t.open())
				for k := range 3 {
					must(t.commit(forebay.Durable, "c", fmt.Sprintf("twin %d has %d", i, k)))
				}
				if settle {
					must(t.db.Checkpoint(background))
				}
				must(t.commit(forebay.Durable, "d", fmt.Sprintf("twin %d", i)))
				must(t.db.Close())
				t.acked = uint64(len(t.ops))
				two[i] = t
			}
			for _, name := range two[0].files(two[0].mem) {
				step("twins")
				p := path.Join(w.dir, name)
				im := &image{w: two[1], name: name}
				disk := two[1].mem.Snapshot()
				if disk.Bytes(p) == nil || string(disk.Bytes(p)) == string(two[0].mem.Bytes(p)) {
					continue
				}
				must(disk.SetBytes(p, two[0].mem.Bytes(p)))
				if strings.HasPrefix(name, "MANIFEST") {
					continue // it vouches for all others, and nothing for it
				}
				if what := im.damage(disk, "", false); what != "" {
					return fmt.Sprintf("%s of a twin, settled %v: %s", name, settle, what)
				}
			}
		}
		return ""
	})
}
