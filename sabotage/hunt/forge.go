package main

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime/metrics"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// Forged bytes are those of an adversary: they differ from what was written in
// one thing, and all checksums around it are right. An engine must not panic,
// hang or allocate for them what the file does not account for, and what it
// refuses without sabotage it must refuse with it: else it takes what is against
// the format.

// forgedImage is one store, with what the engine that is not sabotaged says of
// each forgery of it. It goes from one process to the next, since no two runs
// make the same files.
type forgedImage struct {
	Name  string
	Files map[string][]byte
	// Forge is how the names of the files end that are forged; "": of all.
	Forge string
	// Says has an answer for each forgery; 0 for one of which the answers differ
	// from run to run.
	Says map[int]uint64
}

type corpusFile struct {
	file string
	all  []*forgedImage
}

var corpus corpusFile

// forgedImages makes the stores.
func forgedImages() (out []*forgedImage) {
	for _, im := range images() {
		end, ok := map[string]string{"log alone": "", "segments": ".seg", "range deletes": ".seg", "packed segments": ".seg", "packed log": ".log", "three blocks": ".seg", "several log files": ".log", "several lives": ".log", "zstd": ".seg"}[im.name]
		if !ok {
			continue
		}
		f := &forgedImage{Name: im.name, Files: map[string][]byte{}, Forge: end}
		for _, name := range im.w.files(im.w.mem) {
			f.Files[name] = im.w.mem.Bytes(path.Join(im.w.dir, name))
		}
		out = append(out, f)
	}
	return out
}

// write makes the corpus.
func (c *corpusFile) write(parts int) error {
	all := forgedImages()
	for _, f := range all {
		f.Says = map[int]uint64{}
		for again := range 2 {
			for part := -1; part < parts; part++ {
				f.each(part, func(i int, _ string, disk func() *vfs.Mem) bool {
					if says, _ := f.ask(disk()); again == 0 {
						f.Says[i] = says
					} else if f.Says[i] != says {
						f.Says[i] = 0
					}
					return true
				})
			}
		}
		fmt.Printf("%s: %d forgeries\n", f.Name, len(f.Says))
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(all); err != nil {
		return err
	}
	return os.WriteFile(c.file, b.Bytes(), 0o600)
}

func (c *corpusFile) load() error {
	if c.all != nil {
		return nil
	}
	b, err := os.ReadFile(c.file)
	if err != nil {
		return err
	}
	return gob.NewDecoder(bytes.NewReader(b)).Decode(&c.all)
}

// passes is in how many parts the forgeries of each store are divided: what is next
// to each other is alike, and so each part has some of every kind.
const passes = 16

// forged goes through a part of the corpus, forgedRest through the rest. What was
// made for one check each is crafted's, which comes first.
func forged(ctx context.Context) string     { return forgeries(ctx, 0, 3) }
func forgedRest(ctx context.Context) string { return forgeries(ctx, 3, passes) }

func crafted(ctx context.Context) string { return forgeries(ctx, craftedPart, craftedPart+1) }

// handMade is of stores that were made for one check each, and takes no time.
func handMade(context.Context) string {
	step("made")
	for _, f := range crafts {
		if what := attempt(f); what != "" {
			return what
		}
	}
	return ""
}

// craftedPart is the part of the forgeries that were made for one check each: of
// those there are few.
const craftedPart = -1

func forgeries(ctx context.Context, from, to int) string {
	if corpus.file == "" {
		return ""
	}
	must(corpus.load())
	for pass := from; pass < to; pass++ {
		for _, f := range corpus.all {
			what := ""
			f.each(pass, func(i int, how string, disk func() *vfs.Mem) bool {
				want, ok := f.Says[i]
				if !ok {
					return false // no such part was made
				}
				what = surely(func() string {
					step("forged")
					says, text := f.ask(disk())
					if what := f.differs(want, says, text); what != "" {
						return fmt.Sprintf("%s, %s: %s", f.Name, how, what)
					}
					return ""
				})
				return what == "" && ctx.Err() == nil
			})
			if what != "" || ctx.Err() != nil {
				return what
			}
		}
	}
	return ""
}

// differs compares an answer with the one that is due.
func (f *forgedImage) differs(want, says uint64, text string) string {
	switch {
	case says == tooMuch:
		return text
	case want == 0 || says == want:
		return ""
	case want < 8 && says >= 8:
		return "takes forged bytes that it must refuse"
	case want < 8:
		return "refuses forged bytes with another kind of error: " + text
	case says < 8:
		return "refuses what is right: " + text
	}
	return "shows something else: " + text
}

// tooMuch is the answer of one that allocates too much.
const tooMuch = 7

// allocated is how many bytes were ever allocated.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// mostAllocated is what an open and reads of a small store may allocate, forged or
// not: a frame may say that it has 64 MiB.
const mostAllocated = 300 << 20

// mostTime is how long that may take, of processors.
const mostTime = time.Second

// class is what an error is: of damage, of a newer format, or any other.
func class(err error) uint64 {
	var c *forebay.CorruptionError
	switch {
	case err == nil:
		return 1
	case errors.As(err, &c):
		return 2
	case strings.Contains(err.Error(), "not supported"), strings.Contains(err.Error(), "unknown required"):
		return 3
	}
	return 4
}

// ask opens a disk and reads in all ways. It returns the answer: below 8 for an
// open that fails.
func (f *forgedImage) ask(disk *vfs.Mem) (says uint64, text string) {
	before, began := allocated(), processor()
	defer func() {
		if n := allocated() - before; n > mostAllocated {
			says, text = tooMuch, fmt.Sprintf("allocates %d MiB", n>>20)
		}
		if d := processor() - began; d > mostTime {
			says, text = tooMuch, fmt.Sprintf("hangs: takes %v of a processor", d.Round(time.Millisecond))
		}
	}()
	o := small()
	o.MemtableSize = 256 << 10 // or it is settled, or not yet, beside what is asked
	o.FS, o.Rand = disk, newRand(1)
	db, err := forebay.Open("db", &o)
	if err != nil {
		return class(err), err.Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", db.LastLSN())
	errs := func(name string, err error) {
		if err != nil {
			fmt.Fprintf(&b, "%s %d\n", name, class(err))
			text += name + ": " + err.Error() + "; "
		}
	}
	show := func(name string, seq func(func(forebay.Entry, error) bool)) {
		n := 0
		for e, err := range seq {
			if err != nil {
				errs(name, err)
				break
			}
			fmt.Fprintf(&b, "%q=%q@%d\n", e.Key, e.Value, e.LSN)
			if n++; n > 10000 {
				fmt.Fprintf(&b, "endless\n")
				text += name + " is endless; "
				break
			}
		}
	}
	show("scan", db.Range(nil, nil))
	show("reverse scan", db.RangeReverse(nil, nil))
	for i := range 45 {
		v, err := db.Get([]byte(fmt.Sprint("k", i)))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			errs("get", err)
		}
		fmt.Fprintf(&b, "%q\n", v)
	}
	for _, lo := range []string{"k2", "m05", "m17", "m33"} {
		show("seek", db.Range([]byte(lo), []byte(lo+"9")))
		show("reverse seek", db.RangeReverse([]byte(lo), []byte(lo+"9")))
		v, err := db.Get([]byte(lo))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			errs("get", err)
		}
		fmt.Fprintf(&b, "%q\n", v)
	}
	for c, err := range db.Changes(background, forebay.Position{}) {
		if err != nil {
			errs("changes", err)
			break
		}
		fmt.Fprintf(&b, "%d.%d %q\n", c.Epoch, c.LSN, c.Ops)
	}
	_, err = db.Verify(background)
	errs("verify", err)
	if xxhash.Sum64String(b.String())%4 == 0 {
		errs("compact", db.Compact(background))
		show("scan after a compact", db.Range(nil, nil))
	}
	errs("close", db.Close())
	if text == "" {
		text = "other pairs"
	}
	return xxhash.Sum64String(b.String()) | 8, text
}

// disk returns the store, with some files replaced.
func (f *forgedImage) disk(files map[string][]byte) *vfs.Mem {
	m := vfs.NewMem()
	must(m.MkdirAll("db"))
	for name, b := range f.Files {
		if other, ok := files[name]; ok {
			b = other
		}
		must(m.SetBytes("db/"+name, b))
	}
	return m
}

// craftedWord is in the words of forgeries that were made for one check each.
const craftedWord = "crafted"

// putter takes a forgery: how, and what makes the file, and others with it.
type putter func(how string, make func() (b []byte, more map[string][]byte)) bool

// each calls try with every forgery of the store whose number is part modulo
// passes, or with those of craftedPart, always in the same order, until it returns
// false. Each call of disk makes the forgery anew.
func (f *forgedImage) each(part int, try func(i int, how string, disk func() *vfs.Mem) bool) {
	names := make([]string, 0, len(f.Files))
	for name := range f.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	logs := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !strings.HasSuffix(n, ".log") })
	if f.Forge != "" {
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, f.Forge) })
	}
	base := f.disk(nil)
	on, i := true, -1
	for _, name := range names {
		put := func(how string, make func() ([]byte, map[string][]byte)) bool {
			i++
			mine := i%passes == part
			if strings.Contains(how, craftedWord) {
				mine = part == craftedPart
			}
			if !on || !mine {
				return on
			}
			on = try(i, name+", "+how, func() *vfs.Mem {
				b, more := make()
				disk := base.Snapshot()
				must(disk.SetBytes("db/"+name, b))
				for other, b := range more {
					must(disk.SetBytes("db/"+other, b))
				}
				return disk
			})
			return on
		}
		if b := f.Files[name]; strings.HasSuffix(name, ".seg") {
			f.segment(name, b, put)
		} else {
			f.craft(name, b, put)
			// Of many logs, two are enough, but for their links.
			k := slices.Index(logs, name)
			framed(name, b, k > 1 && k < len(logs)-1, put)
		}
		if !on {
			return
		}
	}
}

// values are what a byte is changed to.
func values(b byte) []byte {
	out := []byte{0, 0x7f, 0x80, 0xff, b ^ 1, b ^ 4, b ^ 16, b + 1}
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(v byte) bool { return v == b })
}

// few are fewer values, where there are many bytes.
func few(b byte) []byte { return []byte{b ^ 1, b + 16, ^b} }
