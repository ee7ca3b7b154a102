package memtable

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/forebaydb/forebay/internal/base"
)

// checkPath: what path says is what descend would say.
func (x *index) checkPath(a *arena) error {
	if x.height == 0 {
		return nil
	}
	root := x.root.Load()
	if int(root>>32) != x.height || x.path[0].ref != uint32(root) || x.path[0].lo != 0 || x.path[0].hi != 0 {
		return fmt.Errorf("root: height %d of %d, %+v", x.height, root>>32, x.path[0])
	}
	for d := range x.height - 1 {
		s, c := &x.path[d], &x.path[d+1]
		n := x.inners.at(s.ref)
		order := n.order.Load()
		if s.kid > count(order) {
			return fmt.Errorf("kid %d of %d at %d", s.kid, count(order), d)
		}
		lo, hi := s.lo, s.hi
		if s.kid > 0 {
			lo = n.addrs[place(order, s.kid-1)]
		}
		if s.kid < count(order) {
			hi = n.addrs[place(order, s.kid)]
		}
		if ref := n.slot(order, s.kid).Load(); ref != c.ref || lo != c.lo || hi != c.hi {
			return fmt.Errorf("depth %d kid %d: ref %d lo %d hi %d, path has %+v", d, s.kid, ref, lo, hi, *c)
		}
		if n.max.Load() < x.raised {
			return fmt.Errorf("max %d below raised %d at %d", n.max.Load(), x.raised, d)
		}
	}
	l := x.leaves.at(x.path[x.height-1].ref)
	order, s := l.order.Load(), x.path[x.height-1]
	for i := range count(order) {
		e := a.at(l.addrs[place(order, i)])
		if s.lo != 0 && a.compare(s.lo, e.key(), e.lsn()) > 0 || s.hi != 0 && a.compare(s.hi, e.key(), e.lsn()) <= 0 {
			return fmt.Errorf("entry out of bounds")
		}
		if l.heads[place(order, i)] != base.Head(e.key()[l.skip:]) {
			return fmt.Errorf("head")
		}
		if l.max.Load() < x.stamp(e.lsn()) {
			return fmt.Errorf("leaf max %d below %d", l.max.Load(), x.stamp(e.lsn()))
		}
	}
	return nil
}

// TestPathIsThatOfADescent: whatever is inserted, and whatever was split for it, the path
// of the last insert is the one that a descent would take; and the table has all of it.
func TestPathIsThatOfADescent(t *testing.T) {
	n := 400
	if testing.Short() {
		n = 100
	}
	for tables := range n {
		r := rand.New(rand.NewPCG(uint64(tables), 1))
		tb := New(0)
		type ver struct {
			key string
			lsn base.LSN
		}
		seen := map[ver]bool{}
		var all []ver
		prefix := bytes.Repeat([]byte("p"), r.IntN(14))
		width := r.IntN(8) + 1
		mode, cur, lsn := 0, uint64(0), base.LSN(1000)
		span := uint64(1) << (2 + r.IntN(20))
		size := 20 + r.IntN(4000)
		for i := range size {
			if r.IntN(50) == 0 {
				mode, cur = r.IntN(6), r.Uint64N(span)
			}
			switch mode {
			case 0:
				cur++
			case 1:
				cur--
			case 2:
				cur = r.Uint64N(span)
			case 3: // the same key again
			case 4:
				cur += r.Uint64N(3) - 1
			case 5:
				if len(all) > 0 {
					cur += 1000
				}
			}
			key := append(append([]byte{}, prefix...), 'x')
			for b := range width {
				key = append(key, byte(cur>>(8*(width-1-b))))
			}
			if r.IntN(4) == 0 {
				key = key[:len(key)-r.IntN(len(key)-len(prefix))]
			}
			switch r.IntN(5) {
			case 0:
				lsn -= base.LSN(r.IntN(20))
			case 1:
				lsn += 300
			default:
				lsn++
			}
			if lsn < 1 || lsn > 1<<40 {
				lsn = 1
			}
			v := ver{string(key), lsn}
			if len(all) > 0 && r.IntN(10) == 0 {
				v = all[max(0, len(all)-1-r.IntN(40))]
			}
			for range r.IntN(3) { // ahead: of this one or of another
				k, l := []byte(v.key), v.lsn
				if r.IntN(3) == 0 && len(all) > 0 {
					o := all[r.IntN(len(all))]
					k, l = []byte(o.key), o.lsn
				}
				if !tb.Near() || r.IntN(4) == 0 {
					tb.Ahead(l, k)
				}
			}
			err := tb.Add(v.lsn, base.KindPut, []byte(v.key), []byte{byte(i)})
			if seen[v] != errors.Is(err, ErrDuplicate) || err != nil && !seen[v] {
				t.Fatalf("table %d, %d: seen %v: %v", tables, i, seen[v], err)
			}
			if !seen[v] {
				seen[v] = true
				all = append(all, v)
			}
			if err := tb.index.checkPath(&tb.arena); err != nil {
				t.Fatalf("table %d, insert %d, height %d: %v", tables, i, tb.index.height, err)
			}
		}
		sort.Slice(all, func(i, j int) bool {
			return base.Compare([]byte(all[i].key), all[i].lsn, []byte(all[j].key), all[j].lsn) < 0
		})
		l := tb.index.edge(false)
		n := 0
		for l != nil {
			order := l.order.Load()
			for i := range count(order) {
				e := tb.arena.at(l.addrs[place(order, i)])
				if string(e.key()) != all[n].key || e.lsn() != all[n].lsn {
					t.Fatalf("table %d: %d differs", tables, n)
				}
				n++
			}
			next := l.next.Load()
			if next == 0 {
				break
			}
			l = tb.index.leaves.at(next)
		}
		if n != len(all) {
			t.Fatalf("%d of %d", n, len(all))
		}
		for range 200 {
			v := all[r.IntN(len(all))]
			_, _, at, ok := tb.Get([]byte(v.key), v.lsn)
			if !ok || at != v.lsn {
				t.Fatalf("get %v: %v %v", v, at, ok)
			}
		}
	}
}
