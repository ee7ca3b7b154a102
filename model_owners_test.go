package forebay_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/forebaydb/forebay"
)

// modelOwner writes alone to the keys "<id>/…" of the default keyspace and to a
// keyspace of its own. Each of its commits leads to the next of its states.
type modelOwner struct {
	w    *modelCrowd
	id   int
	name string // of its keyspace
	r    *modelRand
	ks   *forebay.Keyspace

	mu sync.Mutex // guards all below; others read them
	// hist has the states that may be found, the first of which is that after
	// base commits. A state is there before its commit begins.
	hist []modelState
	base int
	// acked, written and durable count the commits that are visible, survive a
	// crash of the process, and a power cut.
	acked, written, durable int
}

func (o *modelOwner) last() modelState { return o.hist[len(o.hist)-1] }

// begin notes the state that a commit leads to and returns its number.
func (o *modelOwner) begin(ops []modelOp) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hist = append(o.hist, o.last().apply(0, ops))
	return o.base + len(o.hist) - 1
}

// done notes that commit n, and so all before it, has returned.
func (o *modelOwner) done(n int, level forebay.Level) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acked = max(o.acked, n)
	if level != forebay.Buffered {
		o.written = max(o.written, n)
	}
	if level == forebay.Durable {
		o.durable = max(o.durable, n)
	}
	if k := o.durable - o.base; k > 4000 {
		// Who looked before that looks no more, unless he is very slow.
		k -= 2000
		o.hist = slices.Clone(o.hist[k:])
		o.base += k
	}
}

// bounds are what a look that begins now must at least find.
type ownerBounds struct{ acked, written, durable int }

func (o *modelOwner) now() ownerBounds {
	o.mu.Lock()
	defer o.mu.Unlock()
	return ownerBounds{o.acked, o.written, o.durable}
}

// found returns which of its states, from the least on, the owner's keys are in,
// or -1.
func (o *modelOwner) found(least int, got modelState) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := max(least-o.base, 0); i < len(o.hist); i++ {
		if sameKeys(o.hist[i].spaces[""], got.spaces[""]) && sameKeys(o.hist[i].spaces["own"], got.spaces["own"]) {
			return o.base + i
		}
	}
	return -1
}

func sameKeys(a, b modelSpace) bool {
	return slices.EqualFunc(a.entries, b.entries, func(x, y modelEntry) bool { return x.key == y.key && x.value == y.value })
}

func (o *modelOwner) prefix() string { return fmt.Sprintf("%02d/", o.id) }

func (o *modelOwner) key() []byte {
	if o.r.oneIn(20) {
		return []byte(o.prefix() + longPrefix[:300] + fmt.Sprint(o.r.IntN(4)))
	}
	return fmt.Appendf(nil, "%s%03d", o.prefix(), o.r.IntN(60))
}

func (o *modelOwner) value() []byte {
	v := o.r.value()
	return v[:min(len(v), 3000)]
}

// ops draws some operations, on the keys of which nobody else writes.
func (o *modelOwner) ops(n int) (ops []modelOp) {
	for range n {
		space := []string{"", "own"}[o.r.IntN(2)]
		switch k := o.r.IntN(10); {
		case k < 6:
			ops = append(ops, modelOp{kind: mPut, space: space, a: string(o.key()), b: string(o.value())})
		case k < 8:
			ops = append(ops, modelOp{kind: mDelete, space: space, a: string(o.key())})
		default:
			lo := o.r.IntN(60)
			ops = append(ops, modelOp{kind: mRange, space: space, a: fmt.Sprintf("%s%03d", o.prefix(), lo), b: fmt.Sprintf("%s%03d", o.prefix(), lo+1+o.r.IntN(15))})
		}
	}
	return ops
}

// to carries operations out on a writer for each of the two keyspaces.
func (o *modelOwner) to(ops []modelOp, def, own modelWriter) error {
	for _, op := range ops {
		w, err := def, error(nil)
		if op.space == "own" {
			w = own
		}
		switch op.kind {
		case mPut:
			err = w.Put([]byte(op.a), []byte(op.b))
		case mDelete:
			err = w.Delete([]byte(op.a))
		default:
			err = w.DeleteRange([]byte(op.a), []byte(op.b))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// step does one operation, while the store stays open.
func (o *modelOwner) step() string {
	db := o.w.db
	level := forebay.Level(o.r.IntN(3))
	switch k := o.r.IntN(100); {
	case k < 25:
		ops := o.ops(1)
		n := o.begin(ops)
		o.w.must(o.to(ops, db, o.ks), "write")
		o.done(n, o.w.level)
		return "write"
	case k < 45:
		ops := o.ops(1 + o.r.IntN(8))
		b := db.NewBatch()
		o.w.must(o.to(ops, b, b.In(o.ks)), "batch")
		n := o.begin(ops)
		o.w.must(db.Apply(b, level), "apply")
		o.done(n, level)
		return "batch"
	case k < 52:
		o.submit(db)
		return "submit"
	case k < 64:
		o.update(db, level)
		return "update"
	case k < 80:
		o.reads(db)
		return "read"
	case k < 92:
		o.iterate(db)
		return "iterate"
	}
	o.scan(db)
	return "scan of all"
}

func (o *modelOwner) submit(db *forebay.DB) {
	type wait struct {
		c     *forebay.Commit
		n     int
		level forebay.Level
	}
	var waits []wait
	for range 1 + o.r.IntN(4) {
		ops := o.ops(1 + o.r.IntN(3))
		b := db.NewBatch()
		o.w.must(o.to(ops, b, b.In(o.ks)), "batch")
		level, n := forebay.Level(o.r.IntN(3)), o.begin(ops)
		c, err := db.Submit(b, level)
		o.w.must(err, "submit")
		waits = append(waits, wait{c, n, level})
	}
	for _, w := range waits {
		o.w.must(w.c.Wait(background), "wait")
		o.done(w.n, w.level)
	}
}

// update reads and writes its own keys, and reads those of others at times.
func (o *modelOwner) update(db *forebay.DB, level forebay.Level) {
	fail, far := o.r.oneIn(6), o.r.oneIn(4)
	ops := o.ops(1 + o.r.IntN(5))
	before := o.last()
	after := before.apply(0, ops)
	n := 0
	err := db.UpdateLevel(context.Background(), level, func(tx *forebay.Tx) error {
		own, err := tx.Keyspace(o.name)
		if err != nil {
			return err
		}
		o.compare(tx, own, before, "transaction")
		if far {
			for range tx.Prefix(fmt.Appendf(nil, "%02d/00", o.r.IntN(len(o.w.owners)))) {
			}
		}
		if err := o.to(ops, tx, own); err != nil {
			return err
		}
		o.compare(tx, own, after, "transaction behind its writes")
		if fail {
			return errModel
		}
		if n == 0 {
			n = o.begin(ops)
		}
		return nil
	})
	if fail {
		o.w.mustBe(err, errModel, "update that fails")
		return
	}
	o.w.must(err, "update")
	o.done(n, level)
}

// compare reads some of the owner's keys, which nobody else changes.
func (o *modelOwner) compare(def, own modelReader, s modelState, what string) {
	o.w.point(o, def, s.spaces[""], what)
	o.w.point(o, own, s.spaces["own"], what)
	if o.r.oneIn(2) {
		o.w.walk(o, own, s.spaces["own"], what)
	} else {
		o.w.walk(o, def, s.spaces[""], what)
	}
}

func (o *modelOwner) reads(db *forebay.DB) {
	o.compare(db, o.ks, o.last(), "store")
	o.w.must(db.View(func(s *forebay.Snapshot) error {
		own, err := s.Keyspace(o.name)
		if err == nil {
			o.compare(s, own, o.last(), "view")
		}
		return err
	}), "view")
}

// iterate walks with an iterator while it writes.
func (o *modelOwner) iterate(db *forebay.DB) {
	s := o.last()
	m := &modelIter{pos: -1, what: "its own keyspace"}
	if o.r.oneIn(2) {
		m.it, m.entries = o.ks.NewIterator(nil), s.spaces["own"].entries
	} else {
		m.it = db.NewIterator(&forebay.IterOptions{Prefix: []byte(o.prefix())})
		m.entries = s.spaces[""].entries
	}
	defer m.it.Close()
	for range 3 {
		for range 8 {
			if text := m.moveAny(o); text != "" {
				o.w.fail("owner %d: %s", o.id, text)
			}
		}
		ops := o.ops(2)
		b := db.NewBatch()
		o.w.must(o.to(ops, b, b.In(o.ks)), "batch")
		n := o.begin(ops)
		o.w.must(db.Apply(b, forebay.Written), "apply")
		o.done(n, forebay.Written)
	}
}

// moveAny is move for entries of which the LSN is not known.
func (m *modelIter) moveAny(o *modelOwner) string {
	m.anyLSN = true
	r := &modelRand{rand.New(rand.NewPCG(o.r.Uint64(), 1))}
	return m.move(r)
}

// scan reads the keys of all, and finds each owner in one of its states.
func (o *modelOwner) scan(db *forebay.DB) {
	before := o.w.bounds()
	o.w.must(db.View(func(s *forebay.Snapshot) error {
		m, err := o.w.read(s, o.r.oneIn(2))
		if err == nil {
			o.w.find(m, func(i int) int { return before[i].acked }, "scan")
		}
		return err
	}), "scan")
}
