package pipeline

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// fleet is the simulated servers.
type fleet struct {
	c       *Config
	servers []*server
	ended   sync.WaitGroup
	mu      sync.Mutex // guards err
	err     error
}

// server sends events and waits, frame by frame, for their acknowledgement.
type server struct {
	n     int
	gen   *generator
	acked uint64   // events; read when all have ended
	waits []uint32 // microseconds from when a frame was due to its acknowledgement
}

// start has all servers send until the end of c.Send. counted is called with what was
// acknowledged.
func (f *fleet) start(ctx context.Context, dial func(context.Context) (net.Conn, error), counted func(events int)) {
	begin := time.Now()
	for i := range f.c.Servers {
		s := &server{n: i, gen: newGenerator(i, f.c.EventBytes)}
		f.servers = append(f.servers, s)
		f.ended.Go(func() {
			if err := s.send(ctx, f.c, dial, begin, counted); err != nil && ctx.Err() == nil {
				f.mu.Lock()
				defer f.mu.Unlock()
				if f.err == nil {
					f.err = fmt.Errorf("server %d: %w", s.n, err)
				}
			}
		})
	}
}

// wait returns when all servers have sent all they had to.
func (f *fleet) wait() error {
	f.ended.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (s *server) send(ctx context.Context, c *Config, dial func(context.Context) (net.Conn, error), begin time.Time, counted func(int)) error {
	conn, err := dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	rate := c.Rate / float64(c.Servers)
	var total uint64
	if rate > 0 {
		total = uint64(rate*c.Send.Seconds() + .5)
	}
	var frame []byte
	for {
		n, due := c.Batch, time.Now()
		if rate > 0 {
			if s.acked >= total {
				return nil
			}
			n = int(min(uint64(n), total-s.acked))
			// A frame is due when the last of its events is.
			due = begin.Add(time.Duration(float64(s.acked+uint64(n)) / rate * float64(time.Second)))
			if err := sleep(ctx, time.Until(due)); err != nil {
				return err
			}
		} else if due.Sub(begin) >= c.Send {
			return nil
		}
		frame = endFrame(s.gen.append(beginFrame(frame), n, time.Now()), n)
		if _, err := conn.Write(frame); err != nil {
			return err
		}
		acked, err := readAck(conn)
		if err != nil {
			return err
		}
		if acked != n {
			return fmt.Errorf("%w: %d of %d events acknowledged", errFrame, acked, n)
		}
		s.acked += uint64(n)
		s.waits = append(s.waits, uint32(min(time.Since(due).Microseconds(), 1<<32-1)))
		counted(n)
	}
}

// sleep returns early, with its error, when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
