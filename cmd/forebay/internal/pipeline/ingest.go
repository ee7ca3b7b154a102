package pipeline

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
)

// ingest takes frames from the network, makes their events durable, and acknowledges them.
type ingest struct {
	// newLog is where a connection keeps its events; nil: acknowledges without keeping them.
	newLog func() eventLog

	events, bytes atomic.Int64 // that are durable

	// Of each 64th frame, how large it is and how large it would be packed alone.
	raw, packed atomic.Int64

	conns sync.WaitGroup
	mu    sync.Mutex // guards the rest
	open  map[net.Conn]struct{}
	ended bool
	err   error
}

// serve accepts connections until the listener is closed.
func (in *ingest) serve(ctx context.Context, l net.Listener) {
	stop := context.AfterFunc(ctx, func() { l.Close(); in.hangUp() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				in.fail(err)
			}
			break
		}
		in.mu.Lock()
		if in.ended {
			conn.Close()
		} else {
			if in.open == nil {
				in.open = map[net.Conn]struct{}{}
			}
			in.open[conn] = struct{}{}
			in.conns.Go(func() { in.handle(conn) })
		}
		in.mu.Unlock()
	}
	in.conns.Wait()
}

// hangUp closes all connections.
func (in *ingest) hangUp() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	for c := range in.open {
		c.Close()
	}
}

func (in *ingest) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil && !in.ended {
		in.err = err
	}
}

func (in *ingest) handle(conn net.Conn) {
	if err := in.frames(conn); !errors.Is(err, io.EOF) {
		in.fail(err)
	}
	conn.Close()
	in.mu.Lock()
	delete(in.open, conn)
	in.mu.Unlock()
}

// frames ends with an error: io.EOF when the server hangs up.
func (in *ingest) frames(conn net.Conn) error {
	var buf, scratch []byte
	var log eventLog
	if in.newLog != nil {
		log = in.newLog()
	}
	for n := 0; ; n++ {
		events, count, err := readFrame(conn, buf)
		if err != nil {
			return err
		}
		buf = events
		if log != nil {
			if err := in.keep(log, events, count); err != nil {
				return err
			}
			if n%64 == 0 {
				scratch = s2.Encode(scratch[:cap(scratch)], events)
				in.raw.Add(int64(len(events)))
				in.packed.Add(int64(len(scratch)))
			}
		}
		if err := writeAck(conn, count); err != nil {
			return err
		}
	}
}

// keep makes the events of a frame durable, by one commit.
func (in *ingest) keep(log eventLog, events []byte, count int) error {
	log.begin()
	size := len(events) - 2*count
	for range count {
		e, rest, err := cutEvent(events)
		if err != nil {
			return err
		}
		if err := log.add(e); err != nil {
			return err
		}
		events = rest
	}
	if len(events) > 0 {
		return errFrame
	}
	if err := log.commit(); err != nil {
		return err
	}
	in.events.Add(int64(count))
	in.bytes.Add(int64(size))
	return nil
}
