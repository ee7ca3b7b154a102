package queue

// Kept returns how many messages of a lane a group has in memory, and the bytes of them,
// those among them that are settled.
func Kept[T any](g *Group[T], lane int) (n int, bytes int64) {
	g.q.mu.Lock()
	defer g.q.mu.Unlock()
	for _, e := range g.places[lane].fifo {
		n++
		bytes += e.size
	}
	return n, bytes
}
