package fuzz

import (
	"fmt"
	"math/rand/v2"

	"github.com/forebaydb/forebay/vfs"
)

// crash makes the states that a crash leaves here, and checks each.
func (r *failRun) crash(at string) {
	doing := r.at.Load()
	defer func() { r.at.Store(fmt.Sprint(doing)) }()
	snap := r.disk.Snapshot()
	kill, power := r.led.after(r.led.kill), r.led.after(r.led.power)
	backups := r.backups
	try := func(how string, disk func() *vfs.Mem, ws map[uint64]world) {
		name := at + "." + how
		if only := r.f.cfg.cut; only != "" && only != name || len(r.wrongs) > 0 {
			return
		}
		r.at.Store("crash " + name)
		r.check(name, disk(), ws, backups)
		backups = nil // once is enough for those that change no more
	}
	units := snap.Unsynced()
	all := func(f vfs.Fate) func() *vfs.Mem {
		fates := make([]vfs.Fate, len(units))
		for i := range fates {
			fates[i] = f
		}
		return func() *vfs.Mem { return cutPower(snap, units, legal(units, r.w.Model, fates)) }
	}
	try("lost", all(vfs.Lost), power)
	try("killed", snap.Snapshot, kill)
	if len(units) == 0 {
		return // a power cut takes nothing
	}
	try("kept", all(vfs.Kept), power)
	cuts := r.f.cfg.Cuts
	if cuts == 0 {
		cuts = 2
	}
	for i := range cuts {
		seed := mix(mix(r.w.Seed, uint64(r.fault.k)<<8|uint64(r.fault.call)), uint64(i))
		rng := rand.New(rand.NewPCG(seed, 0))
		try(fmt.Sprintf("cut%d", i), func() *vfs.Mem { return cutPower(snap, units, draw(units, r.w.Model, rng)) }, power)
	}
}

// cutPower is PowerCut, but for one thing: a directory that was made and could
// neither be synced nor removed again (vfs.MkdirDurable) is kept. Who finds it
// later, in another open, cannot know that his own sync of it proves nothing. File
// systems that fail so do not go on.
func cutPower(disk *vfs.Mem, units []vfs.Unit, fates []vfs.Fate) *vfs.Mem {
	return disk.PowerCut(func(i int, u vfs.Unit) vfs.Fate {
		if u.Kind == vfs.EntryUnit && u.Failed && u.Call == vfs.CallMkdir {
			return vfs.Kept
		}
		return fates[i]
	})
}

// check opens what a crash has left, on a disk that is well.
func (r *failRun) check(cut string, disk *vfs.Mem, ws map[uint64]world, backups []failBackup) {
	r.states++
	image := disk.Snapshot()
	wrong := func(kind, format string, args ...any) { r.wrong(image, cut, kind, format, args...) }
	for _, b := range backups {
		r.checkBackup(disk.Snapshot(), b, wrong)
	}
	st := r.checkOpen(disk, "", ws, wrong)
	if st == nil {
		return
	}
	// One more durable commit outlives one more power cut.
	sum, err := scan(st)
	op := Op{Key: []byte("one more"), Value: []byte{3}}
	if err == nil {
		_, err = st.Store.Apply([]Op{op}, Durable)
	}
	if err != nil {
		wrong("a commit after recovery fails", "%v", err)
	}
	now := disk.Snapshot() // the store may be at work in the background
	units := now.Unsynced()
	after := cutPower(now, units, legal(units, r.w.Model, make([]vfs.Fate, len(units))))
	if cerr := st.Store.Close(); cerr != nil {
		wrong("close fails after recovery", "%v", cerr)
	}
	if err != nil {
		return
	}
	w, _ := ws[sum].with(commit{ops: []Op{op}})
	if st = r.checkOpen(after, "", map[uint64]world{w.sum: w}, func(kind, format string, args ...any) {
		wrong(kind+", after one more commit and a power cut", format, args...)
	}); st != nil {
		_ = st.Store.Close() // it has committed nothing
	}
}

// checkOpen opens a store that must be in one of the states; nil where it is not.
func (r *failRun) checkOpen(disk *vfs.Mem, dir string, ws map[uint64]world, wrong func(kind, format string, args ...any)) *store {
	s := r.settings()
	s.MarkDelay, s.Mechanism = -1, 0
	if s.Policy == EveryInterval {
		s.Policy = Group
	}
	if dir != "" {
		s.Dir, s.LogDir = dir, false
	}
	opened, err := r.f.cfg.Engine.Open(disk, s)
	if err != nil {
		wrong("open fails", "%v", err)
		return nil
	}
	st := newStore(opened)
	sum, err := scan(st)
	w, ok := ws[sum]
	good := false
	switch {
	case err != nil:
		wrong("scan fails", "%v", err)
	case !ok:
		wrong("a wrong state", "%d are legal; %s", len(ws), nearest(ws, contents(st)))
	default:
		good = true
		r.gets(st, w, ws, func(name string, err error) {
			good = false
			wrong("get fails", "%s: %v", name, err)
		}, func(name string) {
			good = false
			wrong("get differs from scan", "%s", name)
		})
	}
	if !good {
		_ = st.Store.Close() // it has been reported
		return nil
	}
	return st
}

// checkBackup opens a backup. One that was not done may refuse; if it opens it is
// empty, or right.
func (r *failRun) checkBackup(disk *vfs.Mem, b failBackup, wrong func(kind, format string, args ...any)) {
	ws := b.ws
	if !b.done {
		ws = map[uint64]world{0: {live: map[string]string{}}}
		for sum, w := range b.ws {
			ws[sum] = w
		}
	}
	st := r.checkOpen(disk, b.dir, ws, func(kind, format string, args ...any) {
		if b.done || kind != "open fails" {
			wrong("backup: "+kind, b.dir+": "+format, args...)
		}
	})
	if st != nil {
		_ = st.Store.Close() // it has committed nothing
	}
}
