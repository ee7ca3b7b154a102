package queue

import "time"

// overhead is about what an item has in its record beside its bytes.
const overhead = 10

// slowest returns the backlog that bounds apply to; mu is held.
func (q *core) slowest() (worst backlog, rate float64, ok bool) {
	if len(q.groups) == 0 {
		return q.none, 0, true
	}
	for _, g := range q.groups {
		if !ok || q.in-g.passed > q.in-worst.passed {
			worst.passed = g.passed
			rate = g.rate.perSecond(g.rate.last)
		}
		worst.bytes = max(worst.bytes, g.bytes)
		ok = true
	}
	return worst, rate, ok
}

// reserve makes room for messages that are to be enqueued, which release gives back.
func (q *core) reserve(s size) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return ErrClosed
	}
	o := &q.o
	switch {
	case o.MaxMessages > 0 && s.n > o.MaxMessages:
		return &LimitError{"number of messages", s.n, o.MaxMessages}
	case o.MaxBytes > 0 && s.bytes > o.MaxBytes:
		return &LimitError{"bytes of messages", s.bytes, o.MaxBytes}
	}
	if o.MaxMessages > 0 || o.MaxBytes > 0 {
		worst, rate, _ := q.slowest()
		pending := q.in - worst.passed + q.pend.n
		bytes := worst.bytes + q.pend.bytes
		switch {
		case o.MaxMessages > 0 && pending+s.n > o.MaxMessages:
			return &FullError{"messages", o.MaxMessages, retryAfter(float64(pending+s.n-o.MaxMessages), rate)}
		case o.MaxBytes > 0 && bytes+s.bytes > o.MaxBytes:
			each := float64(max(bytes, 1)) / float64(max(pending, 1))
			return &FullError{"bytes", o.MaxBytes, retryAfter(float64(bytes+s.bytes-o.MaxBytes)/each, rate)}
		}
	}
	q.pend.n += s.n
	q.pend.bytes += s.bytes
	return nil
}

// retryAfter is how long messages take to drain.
func retryAfter(messages, perSecond float64) time.Duration {
	if perSecond <= 0 {
		return time.Second
	}
	d := time.Duration(min(messages/perSecond, 60) * float64(time.Second))
	return max(d, 10*time.Millisecond)
}

// release ends a reservation; committed: the messages are in the queue.
func (q *core) release(s size, committed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pend.n -= s.n
	q.pend.bytes -= s.bytes
	if committed {
		q.in += s.n
		if len(q.groups) == 0 {
			q.none.bytes += s.bytes
		}
	}
	for _, g := range q.groups {
		if committed {
			g.bytes += s.bytes
			g.poke()
		}
		g.settleBytes()
	}
}

// settleBytes corrects what is only about right; mu is held.
func (g *group) settleBytes() {
	switch {
	case g.q.in-g.passed <= 0 && g.q.pend.n == 0:
		g.bytes = 0
	case g.q.o.MaxBytes == 0: // what there was at the open was not counted
		g.bytes = max(0, g.bytes)
	}
}

// rateSlots is over how many seconds a rate is measured.
const rateSlots = 10

// rate counts what happens in each second.
type rate struct {
	slots [rateSlots + 1]int64 // by the second, round and round
	at    int64                // the second of the last count
	began int64                // of the first count of this stretch; 0: none
	last  time.Time
}

// add counts n at a time.
func (r *rate) add(now time.Time, n int64) {
	r.turn(now)
	r.slots[r.at%int64(len(r.slots))] += n
}

// turn empties the seconds that have passed since the last count.
func (r *rate) turn(now time.Time) {
	s := now.Unix()
	if gone := s - r.at; r.began == 0 || gone < 0 || gone > rateSlots { // a clock may go back
		*r = rate{at: s, began: s}
	}
	for ; r.at < s; r.at++ {
		r.slots[(r.at+1)%int64(len(r.slots))] = 0
	}
	r.last = now
}

// perSecond returns the rate over the last seconds, those that are over, or over the
// one under way when it is the first.
func (r *rate) perSecond(now time.Time) float64 {
	if r.began == 0 {
		return 0
	}
	if !now.Equal(r.last) {
		r.turn(now)
	}
	var sum, whole int64
	for s := max(r.began, r.at-rateSlots+1); s < r.at; s++ {
		sum += r.slots[s%int64(len(r.slots))]
		whole++
	}
	if whole == 0 {
		return float64(r.slots[r.at%int64(len(r.slots))])
	}
	return float64(sum) / float64(whole)
}
