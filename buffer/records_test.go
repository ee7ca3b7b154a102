package buffer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/sink"
)

func TestRecordsRoundTrip(t *testing.T) {
	c := counters{1, 2, 3, 4, 5, 6, 7, 8, math.MaxUint64}
	got, err := decodeCounters(c.encode())
	require.NoError(t, err)
	require.Equal(t, c, got)

	k := &cut{number: 9, token: token{1, 2, 15: 3}, first: 1 << 40, end: 1<<40 + 1000, lanes: 7}
	back, err := decodeCut(9, k.encode())
	require.NoError(t, err)
	require.Equal(t, k, back)

	p := plan{next: 8, pieces: []piece{
		{gen: 3, writes: 1, spans: []span{{k.first, k.first + 1}, {k.first + 5, k.first + 9}}},
		{gen: 7, spans: []span{{k.first + 9, k.end}}},
	}}
	plan, err := decodePlan(k, p.encode(k))
	require.NoError(t, err)
	require.Equal(t, p, plan)

	l := &DeadLetter{
		Number: 5, Offset: 77, Added: time.Unix(1, 2), Died: time.Unix(3, 4), Reason: "r", Batch: "b", Attempts: 9,
		Row: Row{Key: []byte("k"), Value: []byte("v"), Headers: map[string]string{"a": "", "": "b"}},
	}
	dead, err := decodeDead(5, l.encode())
	require.NoError(t, err)
	require.Equal(t, l, dead)
	l.Damaged, l.Row = true, Row{Value: []byte{1}}
	dead, err = decodeDead(5, l.encode())
	require.NoError(t, err)
	require.Equal(t, l, dead)
}

// TestFormat: the bytes are as they are for ever.
func TestFormat(t *testing.T) {
	require.Equal(t, "\x01\x00\x01k\x02\x00\x01x\x01a\x01bvalue",
		string(appendEnvelope(nil, Row{Key: []byte("k"), Value: []byte("value"), Headers: map[string]string{"a": "b", "": "x"}}, time.Time{})))
	require.Equal(t, "\x01\x01\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00v", string(appendEnvelope(nil, Row{Value: []byte("v")}, time.Unix(0, 5))))
	require.Equal(t, "\x01\x01\x02\x03\x04\x05\x06\x07\x08\x80\x01", string(counters{1, 2, 3, 4, 5, 6, 7, 8, 128}.encode()))
	k := &cut{token: token{0: 'T', 15: 'U'}, first: 300, end: 310, lanes: 2}
	require.Equal(t, "\x01T\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00U\xac\x02\x0a\x02", string(k.encode()))
	p := plan{next: 3, pieces: []piece{{gen: 2, writes: 1, spans: []span{{300, 301}, {303, 310}}}}}
	require.Equal(t, "\x01\x03\x01\x02\x01\x02\x00\x01\x02\x07", string(p.encode(k)))
	l := &DeadLetter{Offset: 3, Attempts: 2, Died: time.Unix(0, 1), Added: time.Unix(0, 2), Reason: "no", Batch: "i", Row: Row{Value: []byte("v")}}
	require.Equal(t, "\x01\x00\x03\x02\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02no\x01i\x01\x00\x00\x00v", string(l.encode()))
	require.Equal(t, "c\x00\x00\x00\x00\x00\x00\x01\x02", string(numberKey(cutPrefix, 258)))
	require.Equal(t, "l\x00\x00\x00\x00\x00\x00\x01\x02\x00\x05", string(laneKey(258, 5)))

	// And the lane of a key.
	for _, c := range []struct {
		key   string
		cut   uint64
		lanes int
		lane  int
	}{
		{"", 10, 4, 2}, {"a", 10, 1, 0}, {"a", 0, 256, 0x8c}, {"foobar", 0, 256, 0xe8}, {"foobar", 99, 256, 0xe8},
	} {
		require.Equal(t, c.lane, laneOf(&row{Row: sink.Row{Key: []byte(c.key)}}, c.cut, c.lanes), "%+v", c)
	}
}

// TestPlans plays answers of all kinds on a plan: each row is done or dead once, pieces
// stay in their order, no generation comes twice, and what is stored is the same.
func TestPlans(t *testing.T) {
	seed := rand.Uint64()
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		c := &cut{first: uint64(r.IntN(1000)), lanes: 1}
		c.end = c.first + 1 + uint64(r.IntN(50))
		j := &job{cut: c, plan: wholePlan(c)}
		want := 0
		for at := c.first; at < c.end; at++ {
			if r.IntN(3) > 0 { // of other lanes
				continue
			}
			j.rows = append(j.rows, row{Row: sink.Row{Offset: at}, size: int64(1 + r.IntN(maxDeath/8))})
			want++
		}
		fate := map[uint64]int{}
		gens := map[uint64]string{}
		last := uint64(0)
		for n := 0; len(j.plan.pieces) > 0; n++ {
			require.Less(t, n, 1000)
			back, err := decodePlan(c, j.plan.encode(c))
			require.NoError(t, err)
			require.Equal(t, j.plan, back)
			p := &j.plan.pieces[0]
			rows := j.of(p)
			what := fmt.Sprint(len(rows))
			for _, x := range rows {
				what += fmt.Sprint(" ", x.Offset)
			}
			if had, ok := gens[p.gen]; ok {
				require.Equal(t, had, what)
			}
			gens[p.gen] = what
			var rejected *sink.Rejected
			switch r.IntN(4) {
			case 0:
				rejected = &sink.Rejected{Err: errors.New("some")}
			case 1:
				rejected = &sink.Rejected{Err: errors.New("these")}
				for range 1 + r.IntN(4) {
					rejected.Rows = append(rejected.Rows, r.IntN(len(rows)+2)-1)
				}
			}
			next, out := j.plan.answered(rows, rejected)
			if rejected == nil {
				require.EqualValues(t, len(rows), out.done.rows)
				for _, x := range rows {
					require.GreaterOrEqual(t, x.Offset, last, "the order")
					last = x.Offset
					fate[x.Offset]++
				}
			}
			for _, x := range out.dead {
				fate[x.Offset]++
			}
			j.plan = next
			for _, x := range j.rows {
				require.NotEqual(t, fate[x.Offset] > 0, next.has(x.Offset), "offset %d", x.Offset)
			}
		}
		require.Len(t, fate, want)
		for _, n := range fate {
			require.Equal(t, 1, n)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n := range 200 {
		for _, most := range []time.Duration{0, 1, time.Second, math.MaxInt64} {
			d := backoff(time.Millisecond, most, n)
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, min(most, longest))
			if n < 20 {
				require.LessOrEqual(t, d, time.Millisecond<<n)
			}
		}
	}
}

func TestRate(t *testing.T) {
	var r rate
	at := time.Unix(1000, 0)
	require.Zero(t, r.perSecond(at))
	for i := range 300 { // 100 a second
		r.add(at.Add(time.Duration(i)*100*time.Millisecond), 10)
	}
	require.InDelta(t, 100, r.perSecond(at.Add(30*time.Second)), 3)
	require.Less(t, r.perSecond(at.Add(40*time.Second)), 60.)
	require.Zero(t, r.perSecond(at.Add(time.Minute)))
	r.add(at.Add(time.Hour), 7)
	require.InDelta(t, 7, r.perSecond(at.Add(time.Hour+time.Second)), .1)
}

// TestLongTimes: however slow it is, a time is one.
func TestLongTimes(t *testing.T) {
	require.Equal(t, 2*time.Second, timeFor(10, 5))
	require.Equal(t, longest, timeFor(1e12, 0.07))
}

func FuzzEnvelope(f *testing.F) {
	f.Add(appendEnvelope(nil, Row{Key: []byte("k"), Value: []byte("v"), Headers: map[string]string{"a": "b"}}, time.Unix(1, 1)))
	f.Add([]byte("\x01\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r sink.Row
		if decodeEnvelope(b, &r) != nil {
			return
		}
		again := appendEnvelope(nil, Row{r.Key, r.Value, r.Headers}, r.Time)
		var back sink.Row
		require.NoError(t, decodeEnvelope(again, &back))
		require.Equal(t, r.Key, back.Key)
		require.Equal(t, string(r.Value), string(back.Value))
		require.Len(t, back.Headers, len(r.Headers))
	})
}

func FuzzRecords(f *testing.F) {
	k := &cut{first: 300, end: 310, lanes: 2}
	p := wholePlan(k)
	f.Add(counters{}.encode())
	f.Add(k.encode())
	f.Add(p.encode(k))
	f.Add((&DeadLetter{Reason: "r", Row: Row{Key: []byte("k")}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeCounters(b); err == nil {
			back, err := decodeCounters(c.encode())
			require.NoError(t, err)
			require.Equal(t, c, back)
		}
		if c, err := decodeCut(1, b); err == nil {
			back, err := decodeCut(1, c.encode())
			require.NoError(t, err)
			require.Equal(t, c, back)
		}
		if p, err := decodePlan(k, b); err == nil {
			for _, q := range p.pieces {
				for _, s := range q.spans {
					require.Less(t, s.lo, s.hi)
					require.LessOrEqual(t, s.hi, k.end)
					require.GreaterOrEqual(t, s.lo, k.first)
				}
			}
			_, err := decodePlan(k, p.encode(k))
			require.NoError(t, err)
		}
		if l, err := decodeDead(1, b); err == nil {
			_, err := decodeDead(1, l.encode())
			require.NoError(t, err)
		}
	})
}
