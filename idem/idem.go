package idem

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/forebaydb/forebay"
)

// prefix is before the name of the keyspace.
const prefix = "idem/"

// MaxKeySize is the longest key, in bytes.
const MaxKeySize = 1024

// Options of a set of keys. The zero value is valid. Handles of one name should have the
// same.
type Options struct {
	// TTL is how long a result is kept, at least; 0: 24 hours; negative: no bound.
	// A result that is older is none, also before a sweep takes it out.
	TTL time.Duration
	// UnknownTTL is how long a mark of a call that ended in an unknown way forbids to
	// run the call again; 0: as TTL; negative: until it is resolved.
	UnknownTTL time.Duration
	// MaxBytes bounds what all results take, with their keys; beyond it the oldest go,
	// before their TTL. 0: 64 MiB; negative: no bound. It is exceeded for as long as a
	// sweep takes. Marks do not count, and do not go.
	MaxBytes int64
	// NoWait: who comes while the call with his key runs gets ErrInProgress at once,
	// and does not wait for its result.
	NoWait bool
	// Owner is put into marks, up to 4 KiB, for who has to resolve them.
	Owner string
	// Every is how often Sweep is called in the background; 0: each minute; negative:
	// never.
	Every time.Duration
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Keys is a handle of a set of idempotency keys. Any number of goroutines may use it, and
// any number of handles of a name may be open.
type Keys struct {
	db   *forebay.DB
	ks   *forebay.Keyspace
	core *core
	o    Options

	mu     sync.Mutex // guards closed, and that no call begins behind it
	closed bool
	calls  sync.WaitGroup // that run, and what they left behind

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	done sync.WaitGroup
}

// Result is what a request came to.
type Result struct {
	// Value is what its function returned. It belongs to the caller.
	Value []byte
	// At is when it was stored, by the clock of Options.
	At time.Time
	// Replayed: it comes from the store; the function of this call was not run.
	Replayed bool
}

// Stats are figures of a set of keys.
type Stats struct {
	// Results that are stored, and the bytes that they take.
	Results, Bytes int64
	// Expired and Evicted results and marks since the first handle was opened: by
	// time, and by MaxBytes.
	Expired, Evicted int64
	// Running calls, of all handles in this process.
	Running int
}

func (s *Stats) add(o Stats) {
	s.Results += o.Results
	s.Bytes += o.Bytes
	s.Expired += o.Expired
	s.Evicted += o.Evicted
}

// Open returns a handle of the set with a name of 1 to 200 bytes, and makes it if there is
// none. The first Open of a name reads the index of all results, some 100 bytes each.
// Close ends what it does in the background; the store is closed after that.
func Open(db *forebay.DB, name string, o *Options) (*Keys, error) {
	if name == "" || len(name) > 200 {
		return nil, fmt.Errorf("idem: a name has 1 to 200 bytes, not %d", len(name))
	}
	k := &Keys{db: db}
	if o != nil {
		k.o = *o
	}
	k.o.defaults()
	var err error
	if k.ks, err = db.Keyspace(prefix + name); err != nil {
		return nil, fmt.Errorf("idem %q: %w", name, err)
	}
	k.core = takeCore(db, prefix+name)
	if err := k.core.load(k.ks); err != nil {
		k.core.release()
		return nil, fmt.Errorf("idem %q: %w", name, err)
	}
	k.ctx, k.stop = context.WithCancel(context.Background())
	if k.o.Every > 0 {
		k.done.Go(k.sweepEvery)
	}
	return k, nil
}

func (o *Options) defaults() {
	if o.TTL == 0 {
		o.TTL = 24 * time.Hour
	}
	if o.UnknownTTL == 0 {
		o.UnknownTTL = o.TTL
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	if o.Every == 0 {
		o.Every = time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Close ends the handle: who waits for a call gets ErrClosed; calls that run go on, and
// Close waits for them, also for their results to be stored. It must not be called
// inside of their functions.
func (k *Keys) Close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.stop()
	k.calls.Wait()
	k.done.Wait()
	k.mu.Lock()
	c := k.core
	k.core = nil
	k.mu.Unlock()
	if c != nil {
		c.release()
	}
	return nil
}

// enter begins a call; leave ends it.
func (k *Keys) enter(ctx context.Context, key []byte) error {
	if len(key) == 0 || len(key) > MaxKeySize {
		return fmt.Errorf("%w, not %d", ErrKey, len(key))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return ErrClosed
	}
	k.calls.Add(1)
	return nil
}

func (k *Keys) leave() { k.calls.Done() }

// Stats returns figures.
func (k *Keys) Stats() Stats {
	k.mu.Lock()
	c := k.core
	k.mu.Unlock()
	if c == nil {
		return Stats{}
	}
	return c.figures()
}

// clock is what the clock shows, as far as it can be a stamp.
func (k *Keys) clock() int64 {
	switch t := k.o.Now(); {
	case t.Year() > 2261: // UnixNano ends in 2262
		return math.MaxInt64
	case t.Year() >= 1970:
		return max(0, t.UnixNano())
	}
	return 0
}

// now is the time. None that was seen is before one that was: so what is stored behind a
// look is not older than that look.
func (k *Keys) now() int64 { return k.core.clock(k.clock()) }

// stamp is the time of what is stored.
func (k *Keys) stamp() int64 { return k.core.stamp(k.clock()) }

// expired says whether an entry is to be as if it were not there. A mark whose call runs
// is never asked for.
func (k *Keys) expired(st state, stamp, now int64) bool {
	ttl := k.o.TTL
	if st == runs {
		ttl = k.o.UnknownTTL
	}
	return ttl >= 0 && stamp < now && now-stamp > int64(ttl)
}
