package pipeline

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/vfs"
)

func TestEvents(t *testing.T) {
	now := time.Date(2026, 11, 26, 21, 40, 28, 123456000, time.UTC)
	for _, size := range []int{minEvent, 200, 500, 5000} {
		g := newGenerator(300, size)
		frame := g.append(nil, 1000, now)
		var raw []byte
		for i := range uint64(1000) {
			e, rest, err := cutEvent(frame)
			require.NoError(t, err)
			frame = rest
			require.Len(t, e, size)
			server, n, ok := eventID(e)
			require.True(t, ok)
			require.Equal(t, uint64(300), server)
			require.Equal(t, i, n)
			at, ok := eventTime(e)
			require.True(t, ok)
			require.Equal(t, now, at)
			require.NotContains(t, string(e), "\n")
			raw = append(raw, e...)
		}
		require.Empty(t, frame)
		t.Logf("%d bytes: S2 packs them %.2f to 1; %s", size, float64(len(raw))/float64(len(s2.Encode(nil, raw))), raw[:min(size, 300)])
	}
	for _, e := range []string{"", strings.Repeat("x", 500)} {
		_, _, ok := eventID([]byte(e))
		require.False(t, ok)
		_, ok = eventTime([]byte(e))
		require.False(t, ok)
	}
}

func TestFrames(t *testing.T) {
	g := newGenerator(1, 300)
	good := endFrame(g.append(beginFrame(nil), 7, time.Now()), 7)
	events, n, err := readFrame(bytes.NewReader(good), nil)
	require.NoError(t, err)
	require.Equal(t, 7, n)
	require.Equal(t, good[frameHead:], events)
	_, _, err = readFrame(bytes.NewReader(nil), nil)
	require.Equal(t, io.EOF, err)
	for n := 1; n < len(good); n++ {
		_, _, err := readFrame(bytes.NewReader(good[:n]), nil)
		require.Error(t, err)
		require.NotEqual(t, io.EOF, err)
	}
	for _, head := range []string{"\xff\xff\xff\xff\x01\x00\x00\x00", "\x03\x00\x00\x00\x00\x00\x00\x00", "\x08\x00\x00\x00\xff\xff\xff\xff"} {
		_, _, err := readFrame(strings.NewReader(head), nil)
		require.ErrorIs(t, err, errFrame)
	}
	for _, b := range []string{"", "\x01", "\x05\x00four"} {
		_, _, err := cutEvent([]byte(b))
		require.ErrorIs(t, err, errFrame)
	}
}

func small(t *testing.T) Config {
	return Config{
		Dir: filepath.Join(t.TempDir(), "s"), Compression: forebay.S2, Servers: 4, Batch: 50, EventBytes: 300, Send: 200 * time.Millisecond,
		Consumers: 2, FlushRows: 500, FlushEvery: 20 * time.Millisecond, Sample: 10 * time.Millisecond,
	}
}

func nothingLost(t *testing.T, f *Figures) {
	t.Helper()
	require.Zero(t, f.Lost)
	require.Zero(t, f.Duplicated)
	require.Zero(t, f.Foreign)
	require.Positive(t, f.Events)
}

// both runs a test by each way into the sink.
func both(t *testing.T, test func(t *testing.T, through string)) {
	for _, through := range []string{Direct, Buffer} {
		t.Run(through, func(t *testing.T) { test(t, through) })
	}
}

// TestRun: over real loopback into a real store.
func TestRun(t *testing.T) { both(t, testRun) }

func testRun(t *testing.T, through string) {
	c := small(t)
	c.Through = through
	shown := make(chan Sample, 1000)
	c.Show = func(s Sample) { shown <- s }
	f, err := Run(context.Background(), c)
	require.NoError(t, err)
	nothingLost(t, f)
	require.Equal(t, through, f.Through)
	require.Positive(t, f.AckP50)
	require.Greater(t, f.CompressionRatio, 1.2)
	require.Equal(t, f.Events*300, f.UserBytes)
	require.NotEmpty(t, shown)
	require.InDelta(t, f.PerPacked, f.PerUser*f.CompressionRatio, 1e-9)
	c.Dir, c.Rate, c.EventBytes = filepath.Join(t.TempDir(), "r"), 5000, 500
	f, err = Run(context.Background(), c)
	require.NoError(t, err)
	nothingLost(t, f)
	require.Equal(t, int64(1000), f.Events)
}

// failing is a sink that fails one time in three.
type failing struct {
	mu   sync.Mutex
	last map[string]int
	n    int
}

func (s *failing) Write(_ context.Context, b sink.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if had, ok := s.last[b.ID]; ok && had != len(b.Rows) {
		return errors.New("it is another batch")
	}
	s.last[b.ID] = len(b.Rows)
	if s.n++; s.n%3 == 0 {
		return errors.New("it is down")
	}
	return nil
}

func TestSinkFails(t *testing.T) { both(t, testSinkFails) }

func testSinkFails(t *testing.T, through string) {
	c := small(t)
	c.Through = through
	c.Sink = &failing{last: map[string]int{}}
	f, err := Run(context.Background(), c)
	require.NoError(t, err)
	nothingLost(t, f)
	require.Positive(t, f.Retries)
}

func TestCancelled(t *testing.T) { both(t, testCancelled) }

func testCancelled(t *testing.T, through string) {
	c := small(t)
	c.Through = through
	c.Send = time.Hour
	ctx, cancel := context.WithCancel(context.Background())
	var n int
	c.Show = func(Sample) {
		if n++; n == 5 {
			cancel()
		}
	}
	_, err := Run(ctx, c)
	require.ErrorIs(t, err, context.Canceled)
	c.Dir = filepath.Join(t.TempDir(), "hangs")
	ctx, cancel = context.WithCancel(context.Background())
	c.Send, c.Sink = 10*time.Millisecond, hangs(cancel)
	_, err = Run(ctx, c)
	require.ErrorIs(t, err, context.Canceled)
}

// hangs is a sink that takes nothing; it is called when it has something.
type hangs func()

func (h hangs) Write(ctx context.Context, _ sink.Batch) error {
	h()
	<-ctx.Done()
	return ctx.Err()
}

// TestDiskFails: the store ends with an error, and so does the measurement.
func TestDiskFails(t *testing.T) { both(t, testDiskFails) }

func testDiskFails(t *testing.T, through string) {
	in := vfs.NewInjector(vfs.NewMem())
	c := small(t)
	c.Through = through
	c.FS, c.Send = in, time.Hour
	var once sync.Once
	c.Show = func(Sample) {
		once.Do(func() {
			for _, call := range []vfs.Call{vfs.CallSync, vfs.CallSyncData} {
				in.Add(vfs.Rule{Call: call, Err: errors.New("the disk fails"), Forever: true})
			}
		})
	}
	_, err := Run(context.Background(), c)
	require.Error(t, err)
}

// pipes is a network of net.Pipe, which takes no time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return nil }

func piped() (net.Listener, func(context.Context) (net.Conn, error), error) {
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	return p, func(ctx context.Context) (net.Conn, error) {
		mine, theirs := net.Pipe()
		select {
		case p.conns <- theirs:
			return mine, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, nil
}

// TestSpike plays the whole spike, 300 seconds in and 50 minutes until it is empty, on a
// clock that runs ahead, with few of the events.
func TestSpike(t *testing.T) { both(t, testSpike) }

func testSpike(t *testing.T, through string) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{
			Dir: "s", FS: vfs.NewMem(), Compression: forebay.S2, Servers: 4, Batch: 10, EventBytes: 200, Rate: 20, SinkRate: 2,
			Send: 300 * time.Second, Consumers: 2, FlushRows: 10, FlushEvery: time.Second, Network: piped, Through: through,
		}
		const n = 6000
		c.fine()
		s := &suite{c: c, say: func(string) {}}
		r, err := s.spike(context.Background(), 1)
		require.NoError(t, err)
		nothingLost(t, &r.Figures)
		require.EqualValues(t, n, r.Events)
		require.Less(t, r.Spike.Deviation, .01)
		for _, m := range r.Spike.Marks {
			if want := map[float64]int64{1: n * 54 / 300, 5: n * 9 / 10}[m.Minutes]; want > 0 {
				require.InEpsilon(t, want, m.Depth, .01)
			}
		}
		require.GreaterOrEqual(t, len(r.Spike.Marks), 12)
		require.InEpsilon(t, 3000, r.DrainedAt, .01)
		dir := t.TempDir()
		names, err := r.draw(dir, &c)
		require.NoError(t, err)
		require.Len(t, names, 4)
		for _, name := range names {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			require.Greater(t, len(b), 1000)
		}
		var out bytes.Buffer
		r.write(&out)
		require.Contains(t, out.String(), "arithmetic")
	})
}

// TestConsumerGoesOn: a consumer that is ended and begun again goes on behind what it has
// made durable, and a batch that was written twice is seen twice: seen sees it.
func TestConsumerGoesOn(t *testing.T) {
	mem := vfs.NewMem()
	seen := newSeen(1)
	g := newGenerator(0, 200)
	var sent uint64
	tokens := map[string]bool{}
	for range 5 {
		db, err := forebay.Open("s", &forebay.Options{FS: mem})
		require.NoError(t, err)
		seq, err := db.Sequence("events")
		require.NoError(t, err)
		pos, err := db.Keyspace("pipeline")
		require.NoError(t, err)
		in := &ingest{}
		n := 1 + rand.IntN(500)
		require.NoError(t, in.keep(newSequenceLog(db, seq), g.append(nil, n, time.Now()), n))
		sent += uint64(n)
		c := &consumer{db: db, seq: seq, pos: pos, sink: newArrivals(discard{}, seen), rows: 37, every: time.Millisecond, work: 3}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx) }()
		require.Eventually(t, func() bool { at, err := c.position(); return err == nil && at == sent }, 10*time.Second, time.Millisecond)
		cancel()
		require.NoError(t, <-ended)
		tokens[c.token] = true
		require.NoError(t, db.Close())
		mem = mem.PowerCutSeed(sent, vfs.SectorAtomic)
	}
	require.Len(t, tokens, 1)
	require.Zero(t, seen.lost(0, sent))
	require.Equal(t, sent, seen.events)
	require.Zero(t, seen.duplicated)
	require.Equal(t, uint64(3), seen.lost(0, sent+3))
	seen.add([]sink.Row{{Value: []byte("nonsense")}})
	require.Equal(t, uint64(1), seen.foreign)
	e, _, err := cutEvent(newGenerator(0, 200).append(nil, 1, time.Now()))
	require.NoError(t, err)
	seen.add([]sink.Row{{Value: e}})
	require.Equal(t, uint64(1), seen.duplicated)
}

func TestOrder(t *testing.T) {
	o := order{next: 5, done: map[uint64]uint64{}}
	for _, b := range [][3]uint64{{10, 20, 5}, {30, 31, 5}, {5, 10, 20}, {20, 30, 31}, {31, 32, 32}} {
		o.add(b[0], b[1])
		require.Equal(t, b[2], o.position())
	}
}

// TestFile: the file has a line for each event, and a batch that comes again is not written
// again.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "events.log")
	f, err := openFile(name)
	require.NoError(t, err)
	c := small(t)
	c.Sink, c.Rate = f, 5000
	got, err := Run(context.Background(), c)
	require.NoError(t, err)
	nothingLost(t, got)
	b := sink.Batch{ID: "again", Rows: []sink.Row{{Value: []byte("once")}}}
	require.NoError(t, f.Write(context.Background(), b))
	require.NoError(t, f.Write(context.Background(), b))
	require.NoError(t, f.Close())
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, 1001, bytes.Count(text, []byte("\n")))
	require.Equal(t, 1, bytes.Count(text, []byte("once\n")))
}

// TestArithmetic: what is late is judged by when it was and not by when it was due, and
// what is not there is missed.
func TestArithmetic(t *testing.T) {
	c := &Config{Rate: 1000, SinkRate: 100, Send: 10 * time.Second}
	samples := func(late float64, missing int64) *Figures {
		f := &Figures{Events: 10_000, DrainedAt: 100}
		for at := 1.0; at <= 20; at++ {
			s := Sample{Seconds: at + late, Acked: min(10_000, int64(1000*at)), Flushed: int64(100 * (at + late))}
			s.Depth = s.Acked - s.Flushed - missing
			f.samples = append(f.samples, s)
		}
		return f
	}
	p := arithmetic(samples(0, 0), c, 1)
	require.InDelta(t, 0, p.Deviation, 1e-3)
	require.InDelta(t, 0, p.SlipMS, 1e-6)
	require.Equal(t, []float64{1, 2, 3, 4, 5, 10}, minutes(p.Marks))
	require.Equal(t, int64(1800), p.Marks[0].PlanDepth)
	require.Equal(t, int64(9000), p.Marks[4].PlanDepth)
	require.InDelta(t, 100, p.WantDone, 1e-9)
	p = arithmetic(samples(.05, 0), c, 1)
	require.InDelta(t, 0, p.Deviation, 1e-3)
	require.InDelta(t, 50, p.SlipMS, 1e-6)
	p = arithmetic(samples(0, 90), c, 1)
	require.InDelta(t, .05, p.Deviation, 1e-3) // 90 of 1800
	late := samples(0, 0)
	late.DrainedAt = 103
	require.InDelta(t, .03, arithmetic(late, c, 1).Deviation, 1e-3)
}

func minutes(marks []Mark) (out []float64) {
	for _, m := range marks {
		out = append(out, m.Minutes)
	}
	return out
}

func TestTicks(t *testing.T) {
	labels := func(hi float64) (out []string) {
		for _, tick := range (counts{}).Ticks(0, hi) {
			out = append(out, tick.Label)
		}
		return out
	}
	require.Equal(t, []string{"0", "50K", "100K", "150K", "200K", "250K", "300K"}, labels(300e3))
	require.Equal(t, []string{"0", "5M", "10M", "15M", "20M", "25M"}, labels(29.7e6))
	require.Equal(t, []string{"0", "250K", "500K", "750K", "1M"}, labels(1.1e6))
	require.Equal(t, []string{"0", "0.25", "0.5", "0.75", "1"}, labels(1))
	for hi := .5; hi < 1e12; hi *= 1.1 {
		require.GreaterOrEqual(t, len(labels(hi)), 4, hi)
		require.LessOrEqual(t, len(labels(hi)), 11, hi)
	}
}

// TestFileOfTwo: batches of two stores are different ones for a sink that knows what it has.
func TestFileOfTwo(t *testing.T) {
	both(t, func(t *testing.T, through string) {
		name := filepath.Join(t.TempDir(), "events.log")
		f, err := openFile(name)
		require.NoError(t, err)
		for i := range 2 {
			c := small(t)
			c.Through, c.Sink, c.Rate, c.Dir = through, f, 5000, filepath.Join(t.TempDir(), strconv.Itoa(i))
			_, err := Run(context.Background(), c)
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, 2000, bytes.Count(text, []byte("\n")))
	})
}

// TestProblem: what was lost or came twice, in whichever measurement, is the command's error.
func TestProblem(t *testing.T) {
	fine := &Figures{Events: 5}
	require.Empty(t, (&Report{Figures: *fine, Single: fine, Uncompressed: fine}).problem())
	for _, bad := range []Figures{{Lost: 1}, {Duplicated: 1}, {Foreign: 1}} {
		require.NotEmpty(t, (&Report{Figures: bad}).problem())
		require.NotEmpty(t, (&Report{Single: &bad}).problem())
		require.NotEmpty(t, (&Report{Uncompressed: &bad}).problem())
	}
}
