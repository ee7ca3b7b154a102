package fuzz

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/vfs"
)

// state is what a disk holds after a crash, and what is promised of it. The
// check uses the disk up.
type state struct {
	disk *vfs.Mem
	// lo and hi are the bounds of what is there, power what must be there still if
	// the power is cut once more.
	lo, power, hi uint64
	hist          *history
	backups       []backup
	busy          bool // a backup is being made
	// dir is the directory of the store, "" that of the engine's choice.
	dir string
	// crashes made it: of the workload, of the recovery after that, and so on.
	crashes []crash
}

// crash is one that comes after cut I/Os, counted from 0, and leaves what the
// fates say.
type crash struct {
	cut   int
	fates []vfs.Fate
}

// key is a number that no other state of the workload has.
func (s *state) key(x *explorer) uint64 {
	h := x.w.Seed
	for _, c := range s.crashes {
		h = mix(mix(h, uint64(c.cut)), hashFates(c.fates))
	}
	return h
}

// settings returns those under which a state is opened. One that is closed
// soon needs no small memtable.
func (x *explorer) settings(s *state, own bool) Settings {
	t := x.w.Settings
	x.rnd++
	t.Rand = &quickRand{mix(x.w.Seed, x.rnd)}
	t.MarkDelay, t.Mechanism = -1, 0
	if t.Policy == EveryInterval {
		t.Policy = Group
	}
	if !own {
		t.TableSize = 1 << 20
	}
	if s.dir != "" {
		t.Dir, t.LogDir = s.dir, false
	}
	return t
}

// quickRand is a source of ids and salts for one open. The mutex that it has
// not is not needed: whoever makes files takes turns.
type quickRand struct{ n uint64 }

func (q *quickRand) Read(p []byte) (int, error) {
	for i := range p {
		if i%8 == 0 {
			q.n = mix(q.n, 1)
		}
		p[i] = byte(q.n >> (i % 8 * 8))
	}
	return len(p), nil
}

// judge checks a state and reports what is wrong with it. It returns whether
// the state opened and no state of the workload that looks the same, and of which
// the same is promised, came before: such a one is counted, and not opened again.
func (x *explorer) judge(s *state) bool {
	if len(s.backups) == 0 && !isKill(s.crashes[len(s.crashes)-1].fates) {
		sum := x.sum(s)
		if _, ok := x.same[sum]; ok {
			x.stats.Same++
			return false
		}
		x.same[sum] = struct{}{}
	}
	x.count++
	x.stats.States++
	for i := range featureNames {
		if x.did>>i&1 != 0 {
			x.stats.With[i]++
		}
	}
	x.shared.states.Add(1)
	x.rnd = s.key(x)
	x.dice = rand.New(rand.NewPCG(x.rnd, 0))
	full := x.dice.IntN(fullEvery) == 0 || x.full
	disk := s.disk
	s.disk = disk.Snapshot()
	kind, detail := x.check(s, full)
	if kind == "" {
		return true
	}
	if x.want != "" && kind != x.want {
		return false
	}
	v := &Violation{Kind: kind, Clause: clauseOf(kind), Detail: detail, Replay: replayID(x.w, s.crashes...), Workload: x.w.String(), Disk: disk}
	x.out = append(x.out, v)
	x.shared.violations.Add(1)
	return false
}

// check opens a state, and the backups in it, and compares with what is
// promised. It returns an empty kind when all is well.
func (x *explorer) check(s *state, full bool) (kind, detail string) {
	if len(s.backups) > 0 {
		if kind, detail = x.checkBackups(s, full); kind != "" {
			return kind, detail
		}
	}
	st, n, err := x.open(x.under(s.disk), x.settings(s, false), s.hist, s.lo, s.hi)
	if err != nil {
		return "open fails", err.Error()
	}
	return x.checkOpen(st, s, n, full)
}

// checkOpen checks an open store, and closes it.
func (x *explorer) checkOpen(st *store, s *state, n uint64, full bool) (kind, detail string) {
	before := len(x.found)
	kind, detail = x.compare(st, s, n)
	full = full || len(x.found) > before // what is recovered the first time
	if kind == "" && full {
		kind, detail = x.compareAll(st, s, n)
	}
	if err := st.Close(); err != nil && kind == "" {
		return "close fails", err.Error()
	}
	if kind == "" && full {
		kind, detail = x.recoverAgain(s, n)
	}
	return kind, detail
}

// compare checks that the store is S(n), and n within the bounds.
func (x *explorer) compare(st *store, s *state, n uint64) (kind, detail string) {
	switch {
	case st.numbered == nil && n >= uint64(len(s.hist.hashes)):
		return "not a prefix", "it is no S(n): " + s.hist.diff(contents(st))
	case n < s.lo:
		return "acknowledged commits are lost", fmt.Sprintf("opened at LSN %d; %d must be there; %s", n, s.lo, s.hist.diff(contents(st)))
	case n > s.hi:
		return "LSN from nowhere", fmt.Sprintf("opened at LSN %d; the last that was assigned is %d; %s", n, s.hi, s.hist.diff(contents(st)))
	}
	sum, err := scan(st)
	if err != nil {
		return "scan fails", err.Error()
	}
	if sum != s.hist.hashes[n] {
		return "not a prefix", fmt.Sprintf("opened at LSN %d, and is not S(%d): %s", n, n, s.hist.diff(contents(st)))
	}
	x.found[mix(n, s.hist.hashes[n])] = struct{}{}
	return "", ""
}

// scan returns the hash of all pairs and keyspaces.
func scan(st *store) (sum uint64, err error) {
	var last []byte
	in, order := 0, true
	err = st.Scan(func(space int, k, v []byte) {
		if k == nil {
			order = order && space > in
			in, last = space, last[:0]
		} else {
			order = order && space == in && bytes.Compare(last, k) < 0
			last = append(last[:0], k...)
		}
		sum += pairHash(space, k, v)
	})
	if err == nil && !order {
		err = fmt.Errorf("keys do not ascend, at %q", keyName(in, last))
	}
	return sum, err
}

// compareAll checks that all ways to read agree, that the disk holds no stray
// files, that a compaction changes nothing, and that a new durable write survives
// one more crash.
func (x *explorer) compareAll(st *store, s *state, n uint64) (kind, detail string) {
	x.dice = rand.New(rand.NewPCG(s.key(x), xxhash.Sum64String(s.dir))) // whatever came before
	if kind, detail = x.readAll(st, s, n); kind != "" {
		return kind, detail
	}
	if err := x.audit(s, st); err != nil {
		return "stray files", err.Error()
	}
	if st.compacter != nil && x.dice.IntN(4) == 0 {
		if err := st.compacter.Compact(); err != nil {
			return "compact fails", err.Error()
		}
		if kind, detail = x.readAll(st, s, n); kind != "" {
			return kind + " after a compact", detail
		}
		if err := x.audit(s, st); err != nil {
			return "stray files after a compact", err.Error()
		}
	}
	return x.writeMore(st, s, n)
}

// audit compares what is on the disk with what the store owns.
func (x *explorer) audit(s *state, st *store) error {
	if a, ok := x.cfg.Engine.(Auditor); ok {
		return a.Audit(s.disk, st.Store)
	}
	return nil
}

// readAll checks that reads of every kind find S(n).
func (x *explorer) readAll(st *store, s *state, n uint64) (kind, detail string) {
	type pair struct{ k, v string }
	var forward, backward []pair
	err := st.Scan(func(space int, k, v []byte) { forward = append(forward, pair{keyName(space, k), string(v)}) })
	if err == nil && st.reverse != nil {
		err = st.reverse.ScanReverse(func(space int, k, v []byte) { backward = append(backward, pair{keyName(space, k), string(v)}) })
	}
	if err != nil {
		return "scan fails", err.Error()
	}
	slices.Reverse(backward)
	if st.reverse != nil && !slices.Equal(forward, backward) {
		return "reverse scan differs", fmt.Sprintf("%d pairs forward, %d backward", len(forward), len(backward))
	}
	live := s.hist.state(n)
	names := maps.Clone(live)
	maps.Copy(names, s.hist.state(s.hi)) // also what is absent
	for name := range names {
		space, key := spaceOf(name)
		if key == "" || st.getter == nil {
			continue
		}
		want, there := live[name]
		if v, ok, err := st.getter.Get(space, []byte(key)); ok != there || string(v) != want || err != nil {
			return "get differs", fmt.Sprintf("%s: S(%d) has %v, %d bytes, get %v, %d bytes (%v)", name, n, there, len(want), ok, len(v), err)
		}
	}
	for _, p := range forward {
		if want, ok := live[p.k]; !ok || want != p.v {
			return "not a prefix", fmt.Sprintf("%s is not as in S(%d)", p.k, n)
		}
	}
	if len(forward) != len(live) {
		return "not a prefix", fmt.Sprintf("%d names are not the %d of S(%d)", len(forward), len(live), n)
	}
	var spaces []int
	for name := range live {
		if space, key := spaceOf(name); space > 0 && key == "" {
			spaces = append(spaces, space)
		}
	}
	slices.Sort(spaces)
	if got, err := st.spaces(); err != nil || !slices.Equal(got, spaces) {
		return "keyspaces differ", fmt.Sprintf("%v, not the %v of S(%d) (%v)", got, spaces, n, err)
	}
	return "", ""
}

// writeMore commits once more, and cuts the power.
func (x *explorer) writeMore(st *store, s *state, n uint64) (kind, detail string) {
	before := s.disk.Snapshot()
	op := Op{Key: []byte("new"), Value: []byte{1, 2, 3}}
	var lsn uint64
	var err error
	sum := s.hist.hashes[n]
	if x.dice.IntN(2) == 0 || st.spacer == nil || st.updater == nil {
		lsn, err = st.Apply([]Op{op}, Durable)
	} else {
		op.Space = 9
		lsn, _, err = st.updater.Update([]Op{op}, Durable)
		sum += pairHash(op.Space, nil, nil)
	}
	sum += pairHash(op.Space, op.Key, op.Value)
	if err != nil {
		return "write fails", err.Error()
	}
	if st.numbered != nil && lsn != n+1 {
		return "LSN jumps", fmt.Sprintf("opened at %d, the next commit is %d", n, lsn)
	}
	disk := x.powerCut(s.disk)
	s.disk = before // goes on without that commit
	more := s.hist.with(n, op, sum)
	again, m, err := x.open(x.under(disk), x.settings(s, true), more, n+1, n+1)
	if err != nil {
		return "open fails after one more commit and a power cut", err.Error()
	}
	defer again.Close()
	got, err := scan(again)
	if err != nil {
		return "scan fails after one more commit and a power cut", err.Error()
	}
	if m != n+1 || got != sum {
		return "a commit after recovery is lost", fmt.Sprintf("commit %d was durable; after a power cut the store is at %d: %s", n+1, m, more.diff(contents(again)))
	}
	return "", ""
}

// powerCut cuts the power with fates by chance.
func (x *explorer) powerCut(disk *vfs.Mem) *vfs.Mem {
	return x.cutBySeed(disk, x.dice.Uint64())
}

// cutBySeed cuts the power with fates that a seed decides, or with others that
// the filter lets pass.
func (x *explorer) cutBySeed(disk *vfs.Mem, seed uint64) *vfs.Mem {
	disk = disk.Snapshot() // the engine may be at work on it still
	f := disk.SeedFates(seed, x.w.Model)
	units, rng := disk.Unsynced(), rand.New(rand.NewPCG(seed, 0))
	for try := 0; !x.allowed(disk, units, f); try++ {
		if f = draw(units, x.w.Model, rng); try == 20 {
			for i := range f {
				f[i] = vfs.Kept // which every filter lets pass
			}
			break
		}
	}
	return disk.PowerCut(func(i int, _ vfs.Unit) vfs.Fate { return f[i] })
}

// with returns the history of the first n commits and one more, after which the
// hash is sum.
func (h *history) with(n uint64, op Op, sum uint64) *history {
	return &history{
		commits: append(slices.Clip(h.commits[:n]), commit{ops: []Op{op}, how: byUpdate}),
		hashes:  append(slices.Clip(h.hashes[:n+1]), sum),
	}
}

// recoverAgain checks that recovery changes nothing the second time: the
// process was killed right after the first, and the power was cut.
func (x *explorer) recoverAgain(s *state, n uint64) (kind, detail string) {
	for _, disk := range []*vfs.Mem{s.disk, x.powerCut(s.disk)} {
		st, last, err := x.open(x.under(disk), x.settings(s, true), s.hist, n, n)
		if err != nil {
			return "second open fails", err.Error()
		}
		sum, err := scan(st)
		st.Close()
		if err != nil {
			return "scan fails after the second open", err.Error()
		}
		if last != n || sum != s.hist.hashes[n] {
			return "second recovery differs", fmt.Sprintf("first at %d, then at %d", n, last)
		}
	}
	return "", ""
}
