package real

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/forebaydb/forebay"
)

// The keys of a store: each of two keyspaces has so many, and range deletes cover
// any of them. Witness keys sort behind them.
const (
	keyCount  = 160
	sideSpace = "side"
	// maxFlight is how many commits of a writer may be under way: as many as it
	// has witness keys, so that none of those under way at a crash hides another.
	maxFlight = 8
)

type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opDeleteRange // [key, end), which the empty end leaves open
	opAdd         // in a transaction: adds one to the number under key
)

// op is one operation of a commit. In space 1, the side one, keys are of the
// keyspace with that name.
type op struct {
	kind     opKind
	space    int
	key, end string
	value    []byte
}

type how uint8

const (
	byApply how = iota
	bySubmit
	byUpdate
)

// commit is one batch, or one transaction.
type commit struct {
	ops   []op
	level forebay.Level
	how   how
}

// place names a commit: the life of the store in which it was made, its writer
// and its number there, from 1.
type place struct {
	life   int
	writer int
	number uint32
}

// witness is the key that says where a commit is, and what it says.
func (p place) witness() (key, value string) {
	return fmt.Sprintf("w%d/%d", p.writer, p.number%maxFlight), fmt.Sprintf("%d %d", p.life, p.number)
}

// parseWitness is the inverse of witness.
func parseWitness(key, value string) (p place, ok bool) {
	writer, _, ok := strings.Cut(strings.TrimPrefix(key, "w"), "/")
	if !ok || key[0] != 'w' {
		return p, false
	}
	_, err := fmt.Sscanf(writer+" "+value, "%d %d %d", &p.writer, &p.life, &p.number)
	return p, err == nil
}

func keyName(n int) string { return fmt.Sprintf("k%03d", n) }

// newCommit makes a commit of the store with this seed: the same one each time.
func newCommit(seed uint64, p place) commit {
	r := rand.New(rand.NewPCG(seed, uint64(p.life)<<40^uint64(p.writer)<<32^uint64(p.number)))
	c := commit{level: [...]forebay.Level{forebay.Durable, forebay.Written, forebay.Durable, forebay.Written, forebay.Buffered}[r.IntN(5)]}
	c.how = [...]how{byApply, byApply, bySubmit, bySubmit, byUpdate}[r.IntN(5)]
	key, value := p.witness()
	c.ops = append(c.ops, op{key: key, value: []byte(value)})
	n := 1
	if r.IntN(3) == 0 {
		n += r.IntN(6)
	}
	for range n {
		c.ops = append(c.ops, newOp(r, c.how))
	}
	return c
}

func newOp(r *rand.Rand, h how) op {
	at := r.IntN(keyCount)
	o := op{space: r.IntN(2), key: keyName(at)}
	switch k := r.IntN(20); {
	case k < 3:
		o.kind = opDelete
	case k == 3:
		o.kind, o.end = opDeleteRange, keyName(min(at+1+r.IntN(16), keyCount))
		if o.space == 1 && r.IntN(8) == 0 {
			o.key, o.end = "", ""
		}
	case h == byUpdate:
		o.kind = opAdd
	default:
		o.value = newValue(r)
	}
	return o
}

// newValue returns bytes that hardly any other value has; every eighth is long,
// every second can be packed.
func newValue(r *rand.Rand) []byte {
	n := 8 + r.IntN(240)
	if r.IntN(8) == 0 {
		n = 1000 + r.IntN(7000)
	}
	v := make([]byte, n)
	period := n
	if r.IntN(2) == 0 {
		period = 32
	}
	for i := 0; i < min(n, period); i += 8 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], r.Uint64())
		copy(v[i:], b[:])
	}
	for i := period; i < n; i++ {
		v[i] = v[i-period]
	}
	return v
}

// state is what a store holds: by the number of the keyspace and the key.
type state map[string]string

func stateKey(space int, key string) string { return strconv.Itoa(space) + key }

// apply does a commit to a state.
func (s state) apply(c commit) {
	for _, o := range c.ops {
		name := stateKey(o.space, o.key)
		switch o.kind {
		case opPut:
			s[name] = string(o.value)
		case opDelete:
			delete(s, name)
		case opDeleteRange:
			for k := range s {
				if k[0] == name[0] && k >= name && (o.end == "" || k[1:] < o.end) {
					delete(s, k)
				}
			}
		case opAdd:
			s[name] = added(s[name])
		}
	}
}

// added is the number behind the one in a value; the first has no value, or one
// that is no number.
func added(value string) string {
	n, _ := strconv.ParseUint(value, 10, 64)
	return strconv.FormatUint(n+1, 10)
}

// differ says which key of two states differs first, "" if none does.
func (s state) differ(got state) string {
	first := ""
	note := func(k string) {
		if first == "" || k < first {
			first = k
		}
	}
	for k, v := range s {
		if w, ok := got[k]; !ok || v != w {
			note(k)
		}
	}
	for k := range got {
		if _, ok := s[k]; !ok {
			note(k)
		}
	}
	return first
}
