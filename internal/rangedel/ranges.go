package rangedel

import (
	"bytes"

	"github.com/forebaydb/forebay/internal/base"
)

// Ranges returns the range deletes of the set, each as long as it can be: of
// one LSN no two overlap or touch. They are sorted by Lo, then by LSN
// descending. New of them is the same set.
func (s *Set) Ranges() []base.RangeDelete {
	if s == nil {
		return nil
	}
	r := ranges{out: make([]base.RangeDelete, 0, len(s.spans)/2+1), open: map[base.LSN]int{}, was: map[base.LSN]int{}}
	for i := range s.spans {
		p := &s.spans[i]
		if i == 0 || !bytes.Equal(s.spans[i-1].Hi, p.Lo) {
			r.closeAll()
		}
		r.enter(p)
	}
	r.closeAll()
	return r.out
}

// ranges is the work of Ranges.
type ranges struct {
	out  []base.RangeDelete
	at   *Span            // the last one entered, nil at first and behind a gap
	open map[base.LSN]int // where in out those are that apply there
	was  map[base.LSN]int // of the span before, while the next is entered
}

// enter goes on into p, which r.at touches.
func (r *ranges) enter(p *Span) {
	if r.at != nil && r.at.in == p.in && p.in != nil {
		for _, rank := range p.in.end[r.at.ended:p.ended] {
			r.close(p.in.lsns[rank])
		}
		for _, rank := range p.in.begin[r.at.begun:p.begun] {
			r.begin(p.in.lsns[rank], p.Lo)
		}
		r.at = p
		return
	}
	r.open, r.was = r.was, r.open
	for _, lsn := range p.LSNs() {
		if i, ok := r.was[lsn]; ok {
			r.open[lsn] = i
			delete(r.was, lsn)
			continue
		}
		r.begin(lsn, p.Lo)
	}
	for _, i := range r.was {
		r.out[i].Hi = r.at.Hi
	}
	clear(r.was)
	r.at = p
}

func (r *ranges) begin(lsn base.LSN, lo []byte) {
	r.open[lsn] = len(r.out)
	r.out = append(r.out, base.RangeDelete{Lo: lo, LSN: lsn})
}

func (r *ranges) close(lsn base.LSN) {
	r.out[r.open[lsn]].Hi = r.at.Hi
	delete(r.open, lsn)
}

func (r *ranges) closeAll() {
	for _, i := range r.open {
		r.out[i].Hi = r.at.Hi
	}
	clear(r.open)
	r.at = nil
}
