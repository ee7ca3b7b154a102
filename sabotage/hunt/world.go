package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// A world is a store in memory with the history of what was done to it: the
// commits, and S(n) after the first n of them.
type world struct {
	mem  *vfs.Mem
	fsys vfs.FS // what the store sees
	dir  string
	opts forebay.Options
	db   *forebay.DB
	// ops[i] is what commit i+1 did: a value, or "" for a delete, of each key.
	ops []map[string]string
	// acked is the last commit that was acknowledged as durable.
	acked uint64
	// unknown is a commit of which nobody knows, behind the last of ops.
	unknown map[string]string
	// below says that something was committed below Durable.
	below bool
	seed  uint64
}

// seeded gives ids and salts that repeat, and no two worlds the same.
type seeded struct{ r *rand.ChaCha8 }

func (s seeded) Read(p []byte) (int, error) { return s.r.Read(p) }

func newRand(n uint64) seeded {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], n)
	return seeded{rand.NewChaCha8(key)}
}

// newWorld returns a world of which no store is open yet.
func newWorld(seed uint64, o forebay.Options) *world {
	w := &world{mem: vfs.NewMem(), dir: "db", opts: o, seed: seed}
	w.fsys = w.mem
	return w
}

// small are the settings of small stores.
func small() forebay.Options {
	return forebay.Options{LogFileSize: 16 << 10, MemtableSize: 4 << 10, MemoryLimit: 1 << 20, MarkDelay: -1, Compression: forebay.NoCompression}
}

func (w *world) options(fsys vfs.FS) *forebay.Options {
	o := w.opts
	w.seed++
	o.FS, o.Rand = fsys, newRand(w.seed)
	return &o
}

func (w *world) open() (err error) {
	w.db, err = forebay.Open(w.dir, w.options(w.fsys))
	return err
}

// commit applies a batch and takes down what came of it. Its error is the
// engine's.
func (w *world) commit(level forebay.Level, kv ...string) error {
	w.below = w.below || level != forebay.Durable
	b := w.db.NewBatch()
	ops := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		ops[kv[i]] = kv[i+1]
		var err error
		if kv[i+1] == "" {
			err = b.Delete([]byte(kv[i]))
		} else {
			err = b.Put([]byte(kv[i]), []byte(kv[i+1]))
		}
		if err != nil {
			return err
		}
	}
	if err := w.db.Apply(b, level); err != nil {
		if errors.Is(err, forebay.ErrUnknown) && w.unknown == nil {
			w.unknown = ops
		}
		return err
	}
	for last := w.db.LastLSN(); uint64(len(w.ops))+1 < last && w.unknown != nil; {
		w.ops, w.unknown = append(w.ops, w.unknown), nil // it is there
	}
	w.unknown = nil // or it is not
	w.ops = append(w.ops, ops)
	if level == forebay.Durable {
		w.acked = uint64(len(w.ops))
	}
	return nil
}

// must fails the hunt for an error where nothing has failed.
func must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// failure is an error of the engine where there should be none.
type failure struct{ err error }

func (f failure) String() string { return "a call fails: " + f.err.Error() }

// attempt runs f and returns the failure that it met.
func attempt(f func() string) (what string) {
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			what = f.String()
		}
	}()
	return f()
}

// surely looks again where something is found: what the engine does in the
// background may make a difference once, which is not what was sought.
func surely(look func() string) (what string) {
	for range 4 {
		if what = look(); what == "" {
			return ""
		}
	}
	return what
}

// state returns S(n) as dump shows it.
func (w *world) state(n uint64) string {
	live := map[string]string{}
	ops := w.ops
	if n > uint64(len(ops)) && w.unknown != nil {
		ops = append(slices.Clip(ops), w.unknown)
	}
	for _, o := range ops[:min(n, uint64(len(ops)))] {
		for k, v := range o {
			if live[k] = v; v == "" {
				delete(live, k)
			}
		}
	}
	var b strings.Builder
	keys := make([]string, 0, len(live))
	for k := range live {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, "%q=%q\n", k, live[k])
	}
	return b.String()
}

func (w *world) last() uint64 {
	n := uint64(len(w.ops))
	if w.unknown != nil {
		n++
	}
	return n
}

// dump returns what is in a store, a line a pair, or the error of reading it.
func dump(db *forebay.DB) (string, error) {
	var b strings.Builder
	for e, err := range db.Range(nil, nil) {
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%q=%q\n", e.Key, e.Value)
	}
	return b.String(), nil
}

// reads compares every way to read with the state that is due. It returns what
// differs, or an error of a read.
func (w *world) reads(db *forebay.DB, n uint64) (what string, err error) {
	want := w.state(n)
	got, err := dump(db)
	if err != nil {
		return "", err
	}
	if got != want {
		return fmt.Sprintf("at LSN %d the store is not S(%d): %s", n, n, differ(got, want)), nil
	}
	var back []string
	for e, err := range db.RangeReverse(nil, nil) {
		if err != nil {
			return "", err
		}
		back = append(back, fmt.Sprintf("%q=%q\n", e.Key, e.Value))
	}
	slices.Reverse(back)
	if strings.Join(back, "") != want {
		return "the reverse scan differs", nil
	}
	for k := range w.keys() {
		v, err := db.Get([]byte(k))
		if err != nil && !errors.Is(err, forebay.ErrNotFound) {
			return "", err
		}
		line := fmt.Sprintf("%q=%q\n", k, v)
		if (err == nil) != strings.Contains(want, fmt.Sprintf("%q=", k)) || err == nil && !strings.Contains(want, line) {
			return fmt.Sprintf("Get of %s is not what the scan shows", k), nil
		}
	}
	return "", nil
}

func (w *world) keys() map[string]bool {
	keys := map[string]bool{}
	for _, o := range w.ops {
		for k := range o {
			keys[k] = true
		}
	}
	return keys
}

func differ(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for _, line := range w {
		if !slices.Contains(g, line) {
			return "missing " + brief(line)
		}
	}
	for _, line := range g {
		if !slices.Contains(w, line) {
			return "unexpected " + brief(line)
		}
	}
	return "in another order"
}

func brief(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// judge opens what a disk holds and checks that it is S(n) for an n from lo to
// hi. The disk is used up.
func (w *world) judge(disk *vfs.Mem, lo, hi uint64) string {
	db, err := forebay.Open(w.dir, w.options(disk))
	if err != nil {
		return "open fails: " + err.Error()
	}
	defer db.Close()
	n := db.LastLSN()
	switch {
	case n < lo:
		return fmt.Sprintf("acknowledged commits are lost: opened at LSN %d, %d must be there", n, lo)
	case n > hi:
		return fmt.Sprintf("LSN from nowhere: opened at %d, the last was %d", n, hi)
	}
	what, err := w.reads(db, n)
	if err != nil {
		return "a read fails: " + err.Error()
	}
	return what
}

// value is bytes of some length that no other commit has.
func value(i, n int) string {
	s := fmt.Sprintf("value %d.", i)
	r := rand.New(rand.NewPCG(uint64(i), 1))
	b := []byte(s)
	for len(b) < n {
		b = append(b, byte('a'+r.IntN(26)))
	}
	return string(b)
}

var background = context.Background()
