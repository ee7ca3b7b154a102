package pipeline

import (
	"sync"

	"github.com/forebaydb/forebay/sink"
)

// seen has a bit for each event that arrived at a sink.
type seen struct {
	mu         sync.Mutex // guards the rest
	bits       [][]uint64 // of each server
	events     uint64
	duplicated uint64
	foreign    uint64 // no server has sent them
}

func newSeen(servers int) *seen { return &seen{bits: make([][]uint64, servers)} }

func (s *seen) add(rows []sink.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range rows {
		server, n, ok := eventID(rows[i].Value)
		if !ok || server >= uint64(len(s.bits)) || n > 1<<30 { // the bits of so many are 128 MiB
			s.foreign++
			continue
		}
		word := int(n / 64)
		if b := s.bits[server]; word >= len(b) {
			s.bits[server] = append(b, make([]uint64, max(word+1-len(b), len(b)/2, 1024))...)
		}
		w := &s.bits[server][word]
		if *w>>(n%64)&1 == 1 {
			s.duplicated++
		} else {
			s.events++
		}
		*w |= 1 << (n % 64)
	}
}

// lost counts those of the first n events of a server that did not arrive.
func (s *seen) lost(server int, n uint64) (lost uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range n {
		b := s.bits[server]
		if i/64 >= uint64(len(b)) || b[i/64]>>(i%64)&1 == 0 {
			lost++
		}
	}
	return lost
}
