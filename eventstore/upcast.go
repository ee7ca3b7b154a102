package eventstore

import (
	"fmt"
)

// Upcaster brings an event of one type from a schema to a later one. Reads of all kinds
// see what upcasters make of an event; what is stored stays as it was appended.
type Upcaster struct {
	// Type and From are what it takes.
	Type string
	From uint32
	// To is the schema that comes out, greater than From. The next upcaster is looked
	// up by that, and by the type that comes out.
	To uint32
	// Up returns the event with another payload, and another Type if that was renamed.
	// What it does to the other fields is not taken over. It must be a function of the
	// event alone, and may be called by many goroutines at once. Its error is one of
	// the event: reads end with it, a projection has a dead letter.
	Up func(Event) (Event, error)
}

type upcasterOf struct {
	typ  string
	from uint32
}

type upcasters map[upcasterOf]Upcaster

func newUpcasters(list []Upcaster) (upcasters, error) {
	out := upcasters{}
	for _, u := range list {
		at := upcasterOf{u.Type, max(u.From, 1)}
		switch _, had := out[at]; {
		case u.Up == nil || u.Type == "":
			return nil, fmt.Errorf("%w of an upcaster: without a type, or without a function", ErrName)
		case u.To <= at.from:
			return nil, fmt.Errorf("%w of an upcaster of %q: from schema %d to %d", ErrName, u.Type, at.from, u.To)
		case had:
			return nil, fmt.Errorf("%w of an upcaster of %q: two from schema %d", ErrName, u.Type, at.from)
		}
		out[at] = u
	}
	return out, nil
}

// apply brings an event up as far as there are upcasters. Schemas grow at each step, so
// there are at most as many steps as upcasters.
func (us upcasters) apply(ev *Event) error {
	for {
		u, ok := us[upcasterOf{ev.Type, ev.Schema}]
		if !ok {
			return nil
		}
		up, err := u.Up(*ev)
		if err != nil {
			return failedAt(*ev, fmt.Errorf("upcaster from schema %d: %w", ev.Schema, err))
		}
		if up.Type == "" {
			return failedAt(*ev, fmt.Errorf("%w of a type: upcaster from schema %d gives none", ErrName, ev.Schema))
		}
		ev.Type, ev.Schema, ev.Payload = up.Type, u.To, up.Payload
	}
}
