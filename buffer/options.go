package buffer

import (
	"fmt"
	"log/slog"
	"time"
)

// Limits.
const (
	// MaxRow is the longest row, in bytes: key, value and headers.
	MaxRow = 16 << 20
	// MaxName is the longest name of a buffer, in bytes.
	MaxName = 64
	// MaxLanes is the largest Options.Lanes.
	MaxLanes = 256
)

// Options of a buffer. A nil pointer is valid, zero fields mean the defaults, and Open
// changes nothing in it.
type Options struct {
	// Items and Bytes bound a batch: rows, and bytes as they have in the log. A row that
	// is larger alone goes alone. Default 1,000 and 4 MiB.
	Items int
	Bytes int64
	// Age is how long a row waits for others at most while the sink can follow; default
	// 100 ms. Negative: it does not wait.
	Age time.Duration
	// Lanes is how many batches are written at once; default 1, at most MaxLanes.
	Lanes int
	// MaxRows and MaxBytes bound what waits to be written: more is refused with a
	// *FullError. 0: no bound. Dead letters do not count.
	MaxRows  int64
	MaxBytes int64
	// Timeout is how long one write may take until its context ends; default 1 minute,
	// negative: for ever.
	Timeout time.Duration
	// Backoff and MaxBackoff bound the wait before attempt n: a random part of
	// Backoff × 2^(n-1), or of MaxBackoff if that is less; default 100 ms and 30 s. When
	// the target asks for more (sink.Later) it gets that, up to an hour.
	Backoff, MaxBackoff time.Duration
	// Keep is how long rows stay in the topic at least, to be read again, counted from
	// when they were added; 0: until they are written or dead.
	Keep time.Duration
	// Logger is told of failed writes and dead letters; nil: nobody.
	Logger *slog.Logger
}

func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"Items", int64(out.Items)}, {"Bytes", out.Bytes}, {"Lanes", int64(out.Lanes)}, {"MaxRows", out.MaxRows}, {"MaxBytes", out.MaxBytes},
		{"Backoff", int64(out.Backoff)}, {"MaxBackoff", int64(out.MaxBackoff)}, {"Keep", int64(out.Keep)},
	} {
		if n.value < 0 {
			return out, fmt.Errorf("buffer: Options.%s is %d, and may not be negative", n.name, n.value)
		}
	}
	if out.Lanes > MaxLanes {
		return out, fmt.Errorf("buffer: Options.Lanes is %d, and may be %d at most", out.Lanes, MaxLanes)
	}
	orDefault(&out.Items, 1000)
	orDefault(&out.Bytes, 4<<20)
	orDefault(&out.Age, 100*time.Millisecond)
	orDefault(&out.Lanes, 1)
	orDefault(&out.Timeout, time.Minute)
	orDefault(&out.Backoff, 100*time.Millisecond)
	orDefault(&out.MaxBackoff, 30*time.Second)
	out.Age = max(out.Age, 0)
	if out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return out, nil
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// checkName: an id is made of it, which sinks put into headers and columns.
func checkName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("buffer: a name has 1 to %d bytes, not %d", MaxName, len(name))
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("buffer: name %q: it is made of letters, digits and . _ -", name)
		}
	}
	return nil
}
