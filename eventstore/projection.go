package eventstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/forebaydb/forebay"
)

// Errors of projections.
var (
	// ErrSchema: the rows that serve were made by an Apply of another Schema: Rebuild
	// makes new ones.
	ErrSchema = errors.New("eventstore: rows are of another schema of the projection")
	// ErrNoRebuild: no rebuild is under way.
	ErrNoRebuild = errors.New("eventstore: no rebuild is under way")
)

// OnFail says what a projection does with an event that its Apply fails at for good.
type OnFail uint8

const (
	// SetAside makes a DeadLetter of the event, and goes on.
	SetAside OnFail = iota
	// Stop ends Run, CatchUp or Rebuild with the *EventError; the event is met again by
	// the next one.
	Stop
)

// ProjectionOptions say what a projection is. The struct is copied.
type ProjectionOptions struct {
	// Name is 1 to 60 bytes without '/'.
	Name string
	// Schema is the version of Apply: when it changes, rows are made anew by Rebuild.
	Schema uint32
	// Apply folds an event into the rows of a generation, which are a keyspace: it reads
	// and writes there, and nowhere else. It runs inside of a transaction, perhaps more
	// than once for one event, of which one is committed, in the order of the events.
	// An error undoes what it did with the event, and means that the event cannot be
	// applied; but errors of rows (conflict, closed, full, damage, the disk's, which are
	// *fs.PathError) are to be returned as they are, wrapped or not, and are not the
	// event's.
	//
	// An event of type Forgotten says that the rows about Event.Subject are to go, and
	// one that is Erased has no payload any more.
	Apply func(rows forebay.Space, ev Event) error
	// Batch is how many events are applied in one commit; 0: 256.
	Batch int
	// Attempts is how often an event that has failed among others is applied by itself
	// before it has failed for good; 0: 1.
	Attempts int
	OnFail   OnFail
}

// Projection folds all events into rows. The rows of a generation, its dead letters and
// its checkpoint, the offset of the next event, move in one commit, so a crash never
// parts them: what was done with an event is done once. It is a handle, which any number
// of goroutines may use; when several of one name run, each event is applied by one.
type Projection struct {
	s *Store
	o ProjectionOptions
}

// generations is what a projection's record says: four numbers (uvarint), and the number
// that the next generation gets.
type generations struct {
	serving       uint64
	servingSchema uint64
	building      uint64 // 0: none
	buildSchema   uint64
	next          uint64
}

func projKey(name string) []byte { return append([]byte{'m'}, name...) }

// genKey is a key of one generation, with a letter before it.
func genKey(letter byte, name string, gen uint64) []byte {
	return binary.BigEndian.AppendUint64(append(append([]byte{letter}, name...), 0), gen)
}

func (s *Store) rowsName(name string, gen uint64) string {
	return "events/" + s.name + "/rows/" + name + "/" + strconv.FormatUint(gen, 10)
}

func (g generations) encode() []byte {
	var b []byte
	for _, v := range []uint64{g.serving, g.servingSchema, g.building, g.buildSchema, g.next} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func generationsOf(r forebay.Reader, name string) (g generations, err error) {
	err = r.GetFunc(projKey(name), func(b []byte) error {
		d := decoder{b: b}
		g = generations{d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()}
		if d.bad || len(d.b) > 0 || g.serving == 0 {
			return fmt.Errorf("%w: generations of projection %q", ErrDamaged, name)
		}
		return nil
	})
	return g, err
}

func checkpointOf(r forebay.Reader, name string, gen uint64) (at uint64, err error) {
	err = r.GetFunc(genKey('c', name, gen), func(b []byte) error {
		if len(b) != 8 {
			return fmt.Errorf("%w: checkpoint of projection %q", ErrDamaged, name)
		}
		at = binary.BigEndian.Uint64(b)
		return nil
	})
	return at, err
}

// Projection returns the projection with a name, and makes it if there is none, by a
// durable commit: it begins with the first event that Retain has left. Rows that a
// rebuild has replaced, and that a crash has left, are dropped.
func (s *Store) Projection(o ProjectionOptions) (*Projection, error) {
	if err := checkName("projection", o.Name, 60); err != nil {
		return nil, err
	}
	if o.Apply == nil || o.Batch < 0 || o.Attempts < 0 || o.OnFail > Stop {
		return nil, fmt.Errorf("%w of a projection: %q has no Apply, or options that are none", ErrName, o.Name)
	}
	if s.sealed { // its rows would not be what they are with the keys
		return nil, fmt.Errorf("%w: a store that leaves events sealed has no projections", ErrNoMasterKey)
	}
	if o.Batch == 0 {
		o.Batch = 256
	}
	if o.Attempts == 0 {
		o.Attempts = 1
	}
	p := &Projection{s, o}
	if err := s.db.UpdateLevel(context.Background(), forebay.Durable, func(tx *forebay.Tx) error {
		ks, err := tx.Keyspace(s.projs.Name())
		if err != nil {
			return err
		}
		if _, err := generationsOf(ks.Reader, o.Name); !errors.Is(err, forebay.ErrNotFound) {
			return err
		}
		g := generations{serving: 1, servingSchema: uint64(o.Schema), next: 2}
		return errors.Join(ks.Put(projKey(o.Name), g.encode()), p.begin(tx, ks, g.serving))
	}); err != nil {
		return nil, fmt.Errorf("projection %q: %w", o.Name, err)
	}
	return p, p.dropGarbage()
}

// begin gives a generation rows and a checkpoint, at the first event that is kept. The
// floor is read in the transaction: Retain does not move it behind its back.
func (p *Projection) begin(tx *forebay.Tx, ks forebay.Space, gen uint64) error {
	main, err := tx.Keyspace(p.s.main.Name())
	if err != nil {
		return err
	}
	floor, err := floorOf(main.Reader)
	if err != nil {
		return err
	}
	if _, err := tx.Keyspace(p.s.rowsName(p.o.Name, gen)); err != nil {
		return err
	}
	return ks.Put(genKey('c', p.o.Name, gen), binary.BigEndian.AppendUint64(nil, floor))
}

// Name returns the projection's name.
func (p *Projection) Name() string { return p.o.Name }

// View calls fn with the rows of the generation that serves, as they were at one moment,
// and the offset of the first event that is not in them. rows are good until fn returns.
func (p *Projection) View(fn func(rows forebay.Reader, next uint64) error) error {
	return p.s.db.View(func(snap *forebay.Snapshot) error {
		ks, err := snap.Keyspace(p.s.projs.Name())
		if err != nil {
			return err
		}
		g, err := generationsOf(ks, p.o.Name)
		if err != nil {
			return err
		}
		at, err := checkpointOf(ks, p.o.Name, g.serving)
		if err != nil {
			return err
		}
		rows, err := snap.Keyspace(p.s.rowsName(p.o.Name, g.serving))
		if err != nil {
			return err
		}
		return fn(rows, at)
	})
}

// Status says where a projection is.
type Status struct {
	// Generation serves, and Next is the offset of the first event that is not in it.
	Generation, Next uint64
	Schema           uint32
	// Building is the generation of a rebuild under way, 0: none, and BuildingNext is
	// how far that is.
	Building, BuildingNext uint64
	// Lag is how many events there are that are not in the serving generation.
	Lag uint64
}

// Status returns where the projection is, by durable events.
func (p *Projection) Status() (st Status, err error) {
	err = p.s.db.View(func(snap *forebay.Snapshot) error {
		ks, err := snap.Keyspace(p.s.projs.Name())
		if err != nil {
			return err
		}
		g, err := generationsOf(ks, p.o.Name)
		if err != nil {
			return err
		}
		st = Status{Generation: g.serving, Schema: uint32(g.servingSchema), Building: g.building}
		if st.Next, err = checkpointOf(ks, p.o.Name, g.serving); err != nil || g.building == 0 {
			return err
		}
		st.BuildingNext, err = checkpointOf(ks, p.o.Name, g.building)
		return err
	})
	if err != nil {
		return st, err
	}
	_, next, err := p.s.seq.Bounds()
	st.Lag = next - min(next, st.Next)
	return st, err
}

// CatchUp applies the events that are durable by now, and returns how many.
func (p *Projection) CatchUp(ctx context.Context) (n int, err error) {
	return p.catchUp(ctx, serving)
}

// Run applies events as they come, until ctx ends, whose error it returns, or another
// one comes: ErrSchema when they are of another Schema from the start, or, with the next
// event, when a Rebuild has replaced them by such; an *EventError with Stop. It goes on
// beside a Rebuild, and with the new generation behind it.
func (p *Projection) Run(ctx context.Context) error {
	for {
		if _, err := p.catchUp(ctx, serving); err != nil {
			return err
		}
		st, err := p.Status()
		if err != nil {
			return err
		}
		if err := p.s.items(ctx, st.Next, p.s.seq.Follow, func(forebay.Item, *names) (bool, error) {
			return false, nil // there is something
		}); err != nil {
			return err
		}
	}
}

// dropGarbage drops the rows of generations that were replaced.
func (p *Projection) dropGarbage() error {
	prefix := append(append([]byte{'g'}, p.o.Name...), 0)
	var keys [][]byte
	for e, err := range p.s.projs.Prefix(prefix) {
		if err != nil {
			return err
		}
		keys = append(keys, bytes.Clone(e.Key))
	}
	for _, key := range keys {
		if len(key) != len(prefix)+8 {
			return fmt.Errorf("%w: rows that are to be dropped: %q", ErrDamaged, key)
		}
		gen := binary.BigEndian.Uint64(key[len(prefix):])
		// First the rows, then what knows of them.
		if err := p.s.db.DropKeyspace(p.s.rowsName(p.o.Name, gen)); err != nil && !errors.Is(err, forebay.ErrNoKeyspace) {
			return err
		}
		if err := p.s.projs.Delete(key); err != nil {
			return err
		}
	}
	return nil
}
