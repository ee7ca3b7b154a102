package real

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/vfs"
)

// child is the child of Model.
func (c *ModelConfig) child(ctx context.Context, out io.Writer) error {
	m := &modelRun{ModelConfig: c, start: time.Now(), out: json.NewEncoder(out)}
	m.rep = ModelReport{Seed: c.Seed, Volumes: map[string]int{}}
	var systems sync.WaitGroup
	errs := make([]error, len(c.Systems))
	for i, s := range c.Systems {
		systems.Go(func() {
			t := &modelled{modelRun: m, system: s, rand: rand.New(rand.NewPCG(c.Seed, uint64(i)))}
			errs[i] = t.run(ctx)
		})
	}
	systems.Wait()
	m.rep.Seconds = time.Since(m.start).Seconds()
	return errors.Join(errors.Join(errs...), m.out.Encode(&m.rep))
}

// modelRun is a campaign on all file systems.
type modelRun struct {
	*ModelConfig
	start time.Time
	begun atomic.Int64

	mu  sync.Mutex // guards rep and out
	rep ModelReport
	out *json.Encoder
}

// modelled is what a campaign does with one kind of file system.
type modelled struct {
	*modelRun
	system string
	rand   *rand.Rand
	volume *volume
	seen   *sectors // of the volume
	runs   int
}

func (t *modelled) run(ctx context.Context) error {
	for made := 0; ; made++ {
		options := kinds[t.system].options
		v, err := newVolume(t.Dir, t.system, options[made%len(options)])
		if err != nil {
			return err
		}
		t.volume, t.seen = v, newSectors()
		err = v.mount()
		more := true
		for cuts := 0; cuts < cutsVolume && more && err == nil; cuts++ {
			if more = t.begun.Add(1) <= int64(t.Cuts) && !t.broken(); more {
				err = errors.Join(ctx.Err(), t.round())
			}
		}
		if v.root != nil {
			err = errors.Join(err, v.unmount())
		}
		err = errors.Join(err, v.close(), os.Remove(v.dir))
		if err != nil || !more {
			return err
		}
	}
}

// broken says whether a problem was found.
func (t *modelled) broken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rep.Problem != ""
}

// round runs a script, or a store, in a new directory of the mounted file system,
// cuts, and compares.
func (t *modelled) round() error {
	dir := filepath.Join(t.volume.dir, fmt.Sprintf("run-%d", t.runs))
	t.runs++
	fsys := vfs.OS()
	if err := errors.Join(fsys.MkdirAll(dir), fsys.SyncDir(t.volume.dir)); err != nil {
		return err
	}
	w := &twin{real: fsys, root: dir, mem: vfs.NewMem(), seen: t.seen, boast: t.Boast}
	store := t.rand.IntN(4) == 0 && !t.Boast
	var what string
	var err error
	if store {
		what, err = t.store(w)
	} else {
		s := &script{fsys: w, dir: dir, rand: t.rand, since: map[string]int{}, early: writeEarly}
		if err = s.run(3 + t.rand.IntN(60)); err == nil {
			err = t.volume.cut()
		}
		what = strings.Join(s.log, "; ")
	}
	if err = errors.Join(err, t.volume.unmount()); err != nil {
		return err
	}
	if err := t.volume.mount(); err != nil {
		return err
	}
	tree, err := vfs.ReadTree(fsys, dir, 1<<30)
	if err != nil {
		return err
	}
	err = t.compare(w, tree, store, what)
	return errors.Join(err, os.RemoveAll(dir))
}

// compare compares what the disk holds with the model, and reports.
func (t *modelled) compare(w *twin, tree vfs.Tree, store bool, what string) error {
	units := w.mem.Unsynced()
	all := func(f vfs.Fate) (vfs.Tree, error) {
		return vfs.ReadTree(w.mem.PowerCut(func(int, vfs.Unit) vfs.Fate { return f }), "", 1<<30)
	}
	kept, err := all(vfs.Kept)
	lost, lerr := all(vfs.Lost)
	if err = errors.Join(err, lerr); err != nil {
		return err
	}
	same := func(want vfs.Tree) bool { return maps.EqualFunc(tree, want, slices.Equal) }
	outside := w.mem.Contains(tree, t.seen.known)
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.rep
	r.Cuts++
	r.Volumes[t.volume.String()]++
	r.Units += len(units)
	if store {
		r.Stores++
	}
	if !same(kept) {
		r.Lossy++
		if !same(lost) {
			r.Partial++
		}
	}
	if outside != nil {
		r.Outside++
		r.Problem = fmt.Sprintf("%v: %v; after: %s", t.volume, outside, what)
	}
	r.Seconds = time.Since(t.start).Seconds()
	return t.out.Encode(r)
}

// store writes to a store, and cuts between two calls of its.
func (t *modelled) store(w *twin) (what string, err error) {
	s := newSettings(t.rand, mechanisms(t.volume.dir))
	dir := filepath.Join(w.root, "store")
	ph := &phases{FS: w, tell: func(report) {}}
	cut := make(chan error, 1)
	stop := make(chan struct{})
	var early sync.WaitGroup
	seed := t.rand.Uint64()
	early.Go(func() { keepEarly(stop, dir, seed) })
	time.AfterFunc(time.Duration(t.rand.Int64N(int64(cutMost))), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		cut <- t.volume.cut()
	})
	db, err := forebay.Open(dir, s.options(ph))
	if err == nil {
		l := &load{settings: s, life: 1, db: db, tell: func(report) {}, phases: ph, scratch: filepath.Join(w.root, "copy")}
		if err = l.start(); err == nil {
			err = l.run(context.Background())
		}
	}
	cerr := <-cut
	close(stop)
	early.Wait()
	if db != nil {
		_ = db.Close()
	}
	if err == nil || errors.Is(err, errAccepted) {
		return "", errors.Join(cerr, fmt.Errorf("a store without power said: %v", err))
	}
	return "a store: " + s.String(), cerr
}

// keepEarly makes the kernel write parts of the files in dir early, until stop.
func keepEarly(stop chan struct{}, dir string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(r.IntN(2000)) * time.Microsecond):
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			continue
		}
		name := filepath.Join(dir, files[r.IntN(len(files))].Name())
		_ = writeEarly(name, int64(r.IntN(32))*4096, int64(1+r.IntN(8))*4096, r.IntN(8) == 0) // what is gone by now needs none
	}
}

// writeEarly makes the kernel write back a part of a file, as it does when it has
// the time or needs the memory, without a flush and without the journal; with all
// it writes the whole file and the journal, by a sync that nobody has asked for.
func writeEarly(name string, off, n int64, all bool) error {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if all {
		return f.Sync()
	}
	return unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}
