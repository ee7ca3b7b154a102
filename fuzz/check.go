package fuzz

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/forebaydb/forebay/vfs"
)

// state is what a disk holds after a crash, and what is promised of it. The
// check uses the disk up.
type state struct {
	disk         *vfs.Mem
	lo, kill, hi uint64
	hist         *history
	// fates made it of the cut; inner and fates2 of a cut, counted from 1,
	// inside the recovery of that.
	fates  []vfs.Fate
	inner  int
	fates2 []vfs.Fate
}

// key is a number that no other state of the workload has.
func (s *state) key(x *explorer) uint64 {
	return mix(mix(mix(x.w.Seed, uint64(x.cut)), hashFates(s.fates)), mix(uint64(s.inner), hashFates(s.fates2)))
}

// settings returns those under which a state is opened. One that is closed
// soon needs no small memtable, and settles nothing in the background.
func (x *explorer) settings(own bool) Settings {
	s := x.w.Settings
	x.rnd++
	s.Rand = &quickRand{mix(x.w.Seed, x.rnd)}
	s.MarkDelay, s.Mechanism = -1, 0
	if s.Policy == EveryInterval {
		s.Policy = Group
	}
	if !own {
		s.TableSize = 1 << 20
	}
	return s
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

// judge checks a state and reports what is wrong with it.
func (x *explorer) judge(s *state) {
	x.count++
	x.stats.States++
	x.shared.states.Add(1)
	if x.cfg.capture != nil && x.cfg.capture(x, s) {
		return
	}
	x.rnd = s.key(x)
	x.dice = rand.New(rand.NewPCG(x.rnd, 0))
	full := x.dice.IntN(fullEvery) == 0
	disk := s.disk
	s.disk = disk.Snapshot()
	kind, detail := x.check(s, full)
	if kind == "" {
		return
	}
	v := &Violation{Kind: kind, Detail: detail, Replay: replayID(x.w, x.cut, s), Workload: x.w.String(), Disk: disk}
	x.out = append(x.out, v)
	x.shared.violations.Add(1)
}

// check opens a state and compares it with what is promised. It returns an
// empty kind when all is well.
func (x *explorer) check(s *state, full bool) (kind, detail string) {
	st, err := x.cfg.Engine.Open(x.under(s.disk), x.settings(false))
	if err != nil {
		return "open fails", err.Error()
	}
	n := st.Last()
	kind, detail = x.compare(st, s, n)
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
func (x *explorer) compare(st Store, s *state, n uint64) (kind, detail string) {
	switch {
	case n < s.lo:
		return "acknowledged commits are lost", fmt.Sprintf("opened at LSN %d; %d must be there; %s", n, s.lo, s.hist.diff(contents(st)))
	case n > s.hi:
		return "LSN from nowhere", fmt.Sprintf("opened at LSN %d; the last that was assigned is %d; %s", n, s.hi, s.hist.diff(contents(st)))
	}
	sum, err := x.scan(st)
	if err != nil {
		return "scan fails", err.Error()
	}
	if sum != s.hist.hashes[n] {
		return "not a prefix", fmt.Sprintf("opened at LSN %d, and is not S(%d): %s", n, n, s.hist.diff(contents(st)))
	}
	x.found[mix(n, s.hist.hashes[n])] = struct{}{}
	return "", ""
}

// scan returns the hash of all pairs.
func (x *explorer) scan(st Store) (sum uint64, err error) {
	var last []byte
	order := true
	err = st.Scan(false, func(k, v []byte) {
		order = order && bytes.Compare(last, k) < 0
		last = append(last[:0], k...)
		sum += pairHash(k, v)
	})
	if err == nil && !order {
		err = fmt.Errorf("keys do not ascend, at %q", last)
	}
	return sum, err
}

// compareAll checks that all ways to read agree, that the disk holds no stray
// files, and that a new durable write survives one more crash.
func (x *explorer) compareAll(st Store, s *state, n uint64) (kind, detail string) {
	type pair struct{ k, v string }
	var forward, backward []pair
	err := st.Scan(false, func(k, v []byte) { forward = append(forward, pair{string(k), string(v)}) })
	if err == nil {
		err = st.Scan(true, func(k, v []byte) { backward = append(backward, pair{string(k), string(v)}) })
	}
	if err != nil {
		return "scan fails", err.Error()
	}
	slices.Reverse(backward)
	if !slices.Equal(forward, backward) {
		return "reverse scan differs", fmt.Sprintf("%d pairs forward, %d backward", len(forward), len(backward))
	}
	live := s.hist.state(n)
	for k := range s.hist.state(s.hi) { // also what is absent
		if _, ok := live[k]; !ok {
			if v, ok, err := st.Get([]byte(k)); ok || err != nil {
				return "get differs", fmt.Sprintf("%s is absent, get gives %d bytes (%v)", k, len(v), err)
			}
		}
	}
	for _, p := range forward {
		v, ok, err := st.Get([]byte(p.k))
		if err != nil || !ok || string(v) != p.v {
			return "get differs", fmt.Sprintf("%s: scan has %d bytes, get %v, %d bytes (%v)", p.k, len(p.v), ok, len(v), err)
		}
	}
	if err := x.cfg.Engine.Audit(s.disk, st); err != nil {
		return "stray files", err.Error()
	}
	return x.writeMore(st, s, n)
}

// writeMore commits once more, and cuts the power.
func (x *explorer) writeMore(st Store, s *state, n uint64) (kind, detail string) {
	before := s.disk.Snapshot()
	key, value := []byte("new"), []byte{1, 2, 3}
	lsn, err := st.Apply([]Op{{Key: key, Value: value}}, Durable)
	if err != nil {
		return "write fails", err.Error()
	}
	if lsn != n+1 {
		return "LSN jumps", fmt.Sprintf("opened at %d, the next commit is %d", n, lsn)
	}
	disk := s.disk.PowerCutSeed(x.dice.Uint64(), x.w.Model)
	s.disk = before // goes on without that commit
	again, err := x.cfg.Engine.Open(x.under(disk), x.settings(true))
	if err != nil {
		return "open fails after one more commit and a power cut", err.Error()
	}
	defer again.Close()
	sum, err := x.scan(again)
	if err != nil {
		return "scan fails after one more commit and a power cut", err.Error()
	}
	if again.Last() != n+1 || sum != s.hist.hashes[n]+pairHash(key, value) {
		return "a commit after recovery is lost", fmt.Sprintf("commit %d was durable; after a power cut the store is at %d: %s", n+1, again.Last(), s.hist.diff(contents(again)))
	}
	return "", ""
}

// recoverAgain checks that recovery changes nothing the second time: the
// process was killed right after the first, and the power was cut.
func (x *explorer) recoverAgain(s *state, n uint64) (kind, detail string) {
	for _, disk := range []*vfs.Mem{s.disk, s.disk.PowerCutSeed(x.dice.Uint64(), x.w.Model)} {
		st, err := x.cfg.Engine.Open(x.under(disk), x.settings(true))
		if err != nil {
			return "second open fails", err.Error()
		}
		sum, err := x.scan(st)
		last := st.Last()
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
