package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/sink"
	"github.com/forebaydb/forebay/vfs"
)

// Config is of one measurement.
type Config struct {
	// Dir is of the store, which must not exist; in FS, nil: the operating system.
	Dir string
	FS  vfs.FS
	// Compression of the log.
	Compression forebay.Compression
	// Servers send events of EventBytes bytes, Batch of them in a frame, for as long as
	// Send, Rate of them a second together; 0: as fast as they are acknowledged.
	Servers, Batch, EventBytes int
	Rate                       float64
	Send                       time.Duration
	// NoStore acknowledges what arrives and does nothing else.
	NoStore bool
	// Sink takes the events; SinkRate of them a second if that is not 0.
	Sink     sink.Sink
	SinkRate float64
	// SinkCredit is how much time that it has let pass such a sink makes up for; 0: 50 ms.
	SinkCredit time.Duration
	// Through is Direct or Buffer; "": Direct.
	Through string
	// Consumers write into the sink, at FlushRows rows or FlushEvery.
	Consumers, FlushRows int
	FlushEvery           time.Duration
	// Sample is how often figures are taken down.
	Sample time.Duration
	// Network makes the listener and how to reach it; nil: loopback TCP.
	Network func() (net.Listener, func(context.Context) (net.Conn, error), error)
	// Show is told of each sample, on a goroutine of its own.
	Show func(Sample)
}

// Sample is how far a measurement is.
type Sample struct {
	// Seconds since the first event was due.
	Seconds float64 `json:"seconds"`
	// Acked events are durable, Flushed ones in the sink; Depth is what lies between.
	Acked   int64 `json:"acked"`
	Flushed int64 `json:"flushed"`
	Depth   int64 `json:"depth"`
	// Flushes is how many batches the sink has taken.
	Flushes int64 `json:"flushes"`
	// LagMS is how old the last event was when it was in the sink.
	LagMS float64 `json:"lag_ms"`
}

// Figures are what one measurement has found.
type Figures struct {
	EventsPerS    float64 `json:"events_per_s"`
	Events        int64   `json:"events"`
	Lost          uint64  `json:"lost"`
	Duplicated    uint64  `json:"duplicated"`
	Foreign       uint64  `json:"foreign"`
	AckP50        uint32  `json:"ack_p50_us"`
	AckP99        uint32  `json:"ack_p99_us"`
	AckMax        uint32  `json:"ack_max_us"`
	Servers       int     `json:"servers"`
	ProducerBatch int     `json:"producer_batch"`
	EventBytes    int     `json:"event_bytes"`
	Compression   string  `json:"compression"`
	Through       string  `json:"through"`
	SendSeconds   float64 `json:"send_seconds"`
	DrainedAt     float64 `json:"drained_at_s"`
	DepthMost     int64   `json:"depth_most"`
	Flushes       int64   `json:"flushes"`
	RowsPerFlush  float64 `json:"rows_per_flush"`
	Retries       int64   `json:"sink_retries"`
	// UserBytes is the length of all events. CompressionRatio is how many of them make one
	// packed byte: of a sample of frames, each packed by itself with the codec of the log,
	// and where frames are small, or it is another codec, of the log as it lies there.
	UserBytes        int64   `json:"user_bytes"`
	CompressionRatio float64 `json:"compression_ratio"`
	// LogBytes as frames, zeros written ahead of them, and what the index cost.
	LogBytes     int64   `json:"log_bytes"`
	ZeroedBytes  int64   `json:"zeroed_bytes"`
	IndexBytes   int64   `json:"index_bytes"`
	PerUser      float64 `json:"bytes_written_per_user_byte"`
	PerPacked    float64 `json:"bytes_written_per_compressed_byte"`
	Syncs        int64   `json:"syncs"`
	EventsPerSyn float64 `json:"events_per_sync"`

	samples []Sample
}

// Run makes one measurement, and leaves the store where it is.
func Run(ctx context.Context, c Config) (*Figures, error) {
	r := &runner{c: &c, seen: newSeen(c.Servers)}
	if err := r.open(); err != nil {
		return nil, err
	}
	err := r.measure(ctx)
	if r.db != nil {
		err = errors.Join(err, r.stage.close(), r.db.Close())
	}
	if err != nil {
		return nil, err
	}
	return r.figures(), nil
}

type runner struct {
	c        *Config
	db       *forebay.DB
	before   forebay.Stats
	after    forebay.Stats
	ingest   *ingest
	stage    stage // nil: nothing is kept
	arrivals *arrivals
	fleet    *fleet
	seen     *seen
	begin    time.Time
	retries  int64
	sent     time.Duration // until the last acknowledgement
	drained  time.Duration

	mu      sync.Mutex // guards samples
	samples []Sample
}

func (r *runner) open() error {
	c := r.c
	r.ingest = &ingest{}
	if c.NoStore {
		return nil
	}
	opts := &forebay.Options{FS: c.FS, Compression: c.Compression, MemoryLimit: 128 << 20}
	db, err := forebay.Open(c.Dir, opts)
	if err != nil {
		return err
	}
	var to sink.Sink = discard{}
	if c.Sink != nil {
		to = c.Sink
	}
	if c.SinkRate > 0 {
		l := &limited{next: to, rate: c.SinkRate, credit: c.SinkCredit}
		if l.credit == 0 {
			l.credit = shortCredit
		}
		to = l
	}
	r.arrivals = newArrivals(to, r.seen)
	if r.stage, err = openStage(db, c, r.arrivals); err != nil {
		return errors.Join(err, db.Close())
	}
	r.db, r.before = db, db.Stats()
	r.ingest.newLog = r.stage.newLog
	return nil
}

func loopback() (net.Listener, func(context.Context) (net.Conn, error), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	var d net.Dialer
	return l, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", l.Addr().String()) }, nil
}

// measure runs all parts until everything that was acknowledged is in the sink.
func (r *runner) measure(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	network := r.c.Network
	if network == nil {
		network = loopback
	}
	l, dial, err := network()
	if err != nil {
		return err
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	consumed := make(chan error, 1)
	if r.stage != nil {
		parts.Go(func() { consumed <- r.stage.run(ctx) })
	}
	parts.Go(func() { r.ingest.serve(ctx, l) })
	r.begin = time.Now()
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	var sampler sync.WaitGroup
	sampler.Go(func() { r.sample(sampling) })
	r.fleet = &fleet{c: r.c}
	r.fleet.start(ctx, dial, func(n int) {
		if r.c.NoStore {
			r.ingest.events.Add(int64(n))
		}
	})
	err = r.fleet.wait()
	r.sent = time.Since(r.begin)
	if err == nil {
		err = r.drain(ctx, consumed)
	}
	r.drained = time.Since(r.begin)
	stop()
	sampler.Wait()
	if r.db != nil {
		r.after, r.retries = r.db.Stats(), r.stage.retries()
	}
	r.take()
	r.ingest.mu.Lock()
	err = errors.Join(err, r.ingest.err)
	r.ingest.mu.Unlock()
	l.Close()
	return errors.Join(err, context.Cause(ctx))
}

// drain waits until the sink has everything.
func (r *runner) drain(ctx context.Context, consumed chan error) error {
	if r.stage == nil {
		return nil
	}
	for r.arrivals.rows.Load() < r.ingest.events.Load() {
		select {
		case err := <-consumed:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("pipeline: the consumer ended early: %w", err)
		case <-r.arrivals.moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// sample takes figures down at each multiple of the interval.
func (r *runner) sample(ctx context.Context) {
	for at := r.c.Sample; ; at += r.c.Sample {
		if sleep(ctx, time.Until(r.begin.Add(at))) != nil {
			return
		}
		s := r.take()
		if r.c.Show != nil {
			r.c.Show(s)
		}
	}
}

// look reads the figures of one moment: again, when they took too long to be of one.
func (r *runner) look() (s Sample) {
	for range 10 {
		begin := time.Now()
		s = Sample{Acked: r.ingest.events.Load()}
		if a := r.arrivals; a != nil {
			s.Flushed, s.Flushes, s.LagMS = a.rows.Load(), a.batches.Load(), float64(a.lag.Load())/1e6
			s.Acked = max(s.Acked, s.Flushed) // that is counted a moment later
			s.Depth = s.Acked - s.Flushed
		}
		took := time.Since(begin)
		s.Seconds = (begin.Sub(r.begin) + took/2).Seconds()
		if took < 100*time.Microsecond {
			break
		}
	}
	return s
}

func (r *runner) take() Sample {
	s := r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, s)
	return s
}

func (r *runner) figures() *Figures {
	c := r.c
	f := &Figures{Servers: c.Servers, ProducerBatch: c.Batch, EventBytes: c.EventBytes, Compression: compressionName(c.Compression), Through: c.through(),
		SendSeconds: r.sent.Seconds(), DrainedAt: r.drained.Seconds(), samples: r.samples}
	var waits []uint32
	for _, s := range r.fleet.servers {
		f.Events += int64(s.acked)
		waits = append(waits, s.waits...)
		if !c.NoStore {
			f.Lost += r.seen.lost(s.n, s.acked)
		}
	}
	slices.Sort(waits)
	if n := len(waits); n > 0 {
		f.AckP50, f.AckP99, f.AckMax = waits[n/2], waits[n*99/100], waits[n-1]
	}
	f.EventsPerS = ratio(f.Events, r.sent.Seconds())
	for _, s := range r.samples {
		f.DepthMost = max(f.DepthMost, s.Depth)
	}
	if c.NoStore {
		return f
	}
	f.Duplicated, f.Foreign = r.seen.duplicated, r.seen.foreign
	f.Flushes, f.Retries = r.arrivals.batches.Load(), r.retries
	f.RowsPerFlush = ratio(r.arrivals.rows.Load(), float64(f.Flushes))
	f.UserBytes = r.ingest.bytes.Load()
	f.CompressionRatio = 1
	if p := r.ingest.packed.Load(); p > 0 && c.Compression == forebay.S2 { // the same codec as the log's
		f.CompressionRatio = ratio(r.ingest.raw.Load(), float64(p))
	}
	a, b := &r.after, &r.before
	if f.LogBytes = a.Log.Bytes - b.Log.Bytes; c.Compression == forebay.Zstd || c.Compression == forebay.S2 && c.Batch < smallBatch {
		f.CompressionRatio = ratio(f.UserBytes, float64(f.LogBytes))
	}
	f.ZeroedBytes = a.Log.Zeroed - b.Log.Zeroed
	f.IndexBytes = a.SettledBytes - b.SettledBytes + a.CompactionWritten - b.CompactionWritten
	f.PerUser = ratio(f.LogBytes+f.ZeroedBytes+f.IndexBytes, float64(f.UserBytes))
	f.PerPacked = f.PerUser * f.CompressionRatio
	f.Syncs = a.Log.Syncs - b.Log.Syncs
	f.EventsPerSyn = ratio(f.Events, float64(f.Syncs))
	return f
}

func (c *Config) through() string {
	switch {
	case c.NoStore:
		return "none"
	case c.Through == "":
		return Direct
	}
	return c.Through
}

// smallBatch is the least number of events in a frame that is a sample of what the log packs
// at once.
const smallBatch = 64

func ratio[T ~int64 | ~uint64](n T, d float64) float64 {
	if d <= 0 {
		return 0
	}
	return float64(n) / d
}

func compressionName(c forebay.Compression) string {
	switch c {
	case forebay.S2:
		return "s2"
	case forebay.Zstd:
		return "zstd"
	}
	return "none"
}

// appendAlone is how many events a second a store takes from goroutines that have them at
// hand: without network, and without a consumer.
func appendAlone(ctx context.Context, c Config) (float64, error) {
	db, err := forebay.Open(filepath.Clean(c.Dir), &forebay.Options{FS: c.FS, Compression: c.Compression, MemoryLimit: 128 << 20})
	if err != nil {
		return 0, err
	}
	seq, err := db.Sequence("events")
	if err != nil {
		return 0, errors.Join(err, db.Close())
	}
	in := &ingest{}
	begin := time.Now()
	errs := make([]error, c.Servers)
	var g sync.WaitGroup
	for i := range c.Servers {
		g.Go(func() {
			gen, log := newGenerator(i, c.EventBytes), newSequenceLog(db, seq)
			var frame []byte
			for time.Since(begin) < c.Send && ctx.Err() == nil && errs[i] == nil {
				frame = gen.append(frame[:0], c.Batch, time.Now())
				errs[i] = in.keep(log, frame, c.Batch)
			}
		})
	}
	g.Wait()
	took := time.Since(begin)
	err = errors.Join(append(errs, ctx.Err(), db.Close())...)
	return ratio(in.events.Load(), took.Seconds()), err
}
