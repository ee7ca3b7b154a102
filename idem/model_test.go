package idem_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/idem"
	"github.com/forebaydb/forebay/vfs"
)

var modelSeed = flag.Uint64("idem.seed", 0, "seed of TestModel; 0: another one each time")

// stored is what the model thinks is stored of a key.
type stored struct {
	state byte // 'r'uns, 'd'one, 'f'ailed
	stamp int64
	body  string
	value string
}

// model plays requests on a store and on a map.
type model struct {
	t    *testing.T
	r    *rand.Rand
	mem  *vfs.Mem
	db   *forebay.DB
	k    *idem.Keys
	c    *clock
	last int64
	has  map[string]stored
	done map[string]int // effects in the store
}

const (
	modelTTL     = time.Hour
	modelUnknown = 2 * time.Hour
	modelBytes   = 1500
)

func TestModel(t *testing.T) {
	seed := *modelSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-idem.seed %d", seed)
	steps := 3000
	if testing.Short() {
		steps = 800
	}
	m := &model{t: t, r: rand.New(rand.NewPCG(seed, 0)), mem: vfs.NewMem(), c: newClock(), has: map[string]stored{}, done: map[string]int{}}
	m.open()
	for range steps {
		m.step()
		m.check()
	}
	require.NoError(t, m.k.Close())
	require.NoError(t, m.db.Close())
}

func (m *model) open() {
	m.db = openStore(m.t, m.mem)
	m.k = openKeys(m.t, m.db, idem.Options{Now: m.c.now, TTL: modelTTL, UnknownTTL: modelUnknown, MaxBytes: modelBytes})
	m.last = 0
	for _, s := range m.has {
		m.last = max(m.last, s.stamp)
	}
}

func (m *model) now() int64 {
	m.last = max(m.last, m.c.now().UnixNano())
	return m.last
}

func (m *model) stamp() int64 {
	m.last = max(m.last+1, m.c.now().UnixNano())
	return m.last
}

func (m *model) space(key string, s stored) int64 {
	n := len(s.value)
	if s.state == 'f' {
		n += len("final")
	}
	return int64(10 + 2*len(key) + 42 + 2 + n)
}

func (m *model) bytes() (n int64) {
	for k, s := range m.has {
		if s.state != 'r' {
			n += m.space(k, s)
		}
	}
	return n
}

func (m *model) expired(s stored) bool {
	ttl := modelTTL
	if s.state == 'r' {
		ttl = modelUnknown
	}
	return m.now()-s.stamp > int64(ttl)
}

// pass takes out what a sweep is to take out.
func (m *model) pass() (n int) {
	m.now()
	over := int64(0)
	if b := m.bytes(); b > modelBytes {
		over = b - (modelBytes - modelBytes/16)
	}
	keys := slices.SortedFunc(maps.Keys(m.has), func(a, b string) int {
		return cmp.Or(cmp.Compare(m.has[a].stamp, m.has[b].stamp), strings.Compare(a, b))
	})
	for _, k := range keys {
		s := m.has[k]
		if !m.expired(s) && (s.state == 'r' || over <= 0) {
			continue
		}
		if s.state != 'r' {
			over -= m.space(k, s)
		}
		delete(m.has, k)
		n++
	}
	return n
}

func (m *model) room() {
	if m.bytes() > modelBytes {
		m.pass()
	}
}

func (m *model) step() {
	r := m.r
	key := fmt.Sprint("key ", r.IntN(12))
	body := []string{"a", "a", "a", "b"}[r.IntN(4)]
	value := strings.Repeat("v", r.IntN(100))
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		m.request(key, body, value, false, r.IntN(3))
	case 4, 5, 6:
		m.request(key, body, value, true, r.IntN(4))
	case 7:
		s, has := m.has[key]
		if has {
			m.now()
		}
		err := m.k.Resolve(background, []byte(key), []byte(value), nil)
		if !has || s.state != 'r' {
			require.ErrorIs(m.t, err, forebay.ErrNotFound)
			return
		}
		require.NoError(m.t, err)
		m.has[key] = stored{'d', m.stamp(), s.body, value}
	case 8:
		if _, has := m.has[key]; has {
			m.now()
		}
		require.NoError(m.t, m.k.Forget(background, []byte(key)))
		delete(m.has, key)
	case 9:
		m.c.advance(time.Duration(r.Int64N(int64(time.Hour))) - 20*time.Minute)
	case 10:
		n, err := m.k.Sweep(background)
		require.NoError(m.t, err)
		require.Equal(m.t, m.pass(), n)
	case 11:
		if r.IntN(5) > 0 {
			return
		}
		mem := m.mem
		switch r.IntN(3) {
		case 0:
			mem = mem.Snapshot()
		case 1:
			mem = mem.PowerCutSeed(r.Uint64(), vfs.SectorAtomic)
		}
		require.NoError(m.t, m.k.Close())
		require.NoError(m.t, m.db.Close())
		m.mem = mem
		m.open()
	}
}

var errModel = errors.New("failed")

func (m *model) request(key, body, value string, outside bool, how int) {
	t := m.t
	m.room()
	s, has := m.has[key]
	live := has && !m.expired(s)
	ran := false
	outcome := func() ([]byte, error) {
		ran = true
		return []byte(value), []error{nil, errModel, idem.Final(errors.New("final")), idem.Unknown(errModel)}[how]
	}
	var r idem.Result
	var err error
	if outside {
		r, err = m.k.DoOutside(background, []byte(key), []byte(body), func(context.Context) ([]byte, error) { return outcome() })
	} else {
		r, err = m.k.Do(background, []byte(key), []byte(body), func(tx *forebay.Tx) ([]byte, error) {
			if _, err := add("n"+key, "")(tx); err != nil {
				return nil, err
			}
			return outcome()
		})
	}
	require.Equal(t, !live, ran)
	switch {
	case live && s.body != body:
		require.ErrorIs(t, err, idem.ErrMismatch)
		return
	case live && s.state == 'r':
		require.ErrorIs(t, err, idem.ErrInProgress)
		return
	case live:
		require.Equal(t, s.state == 'f', err != nil, "%v", err)
		if err != nil {
			require.EqualError(t, err, "final")
		}
		require.True(t, r.Replayed)
		require.Equal(t, s.value, string(r.Value))
		require.Equal(t, s.stamp, r.At.UnixNano())
		return
	}
	if outside && how < 3 {
		m.stamp() // of its mark
	}
	switch how {
	case 0:
		require.NoError(t, err)
		m.has[key] = stored{'d', m.stamp(), body, value}
		if !outside {
			m.done[key]++
		}
	case 1:
		require.ErrorIs(t, err, errModel)
		if outside { // its mark took the place of what was there
			delete(m.has, key)
		}
	case 2:
		require.EqualError(t, err, "final")
		m.has[key] = stored{'f', m.stamp(), body, value}
	case 3:
		require.ErrorIs(t, err, errModel)
		m.has[key] = stored{'r', m.stamp(), body, ""}
	}
	require.False(t, r.Replayed)
}

func (m *model) check() {
	results := 0
	marks := map[string]bool{}
	for k, s := range m.has {
		if s.state == 'r' {
			marks[k] = true
			m.now() // Marks looks at it
		} else {
			results++
		}
	}
	got := map[string]bool{}
	for mark, err := range m.k.Marks(background) {
		require.NoError(m.t, err)
		require.False(m.t, mark.Running)
		got[string(mark.Key)] = true
	}
	require.Equal(m.t, marks, got)
	s := m.k.Stats()
	require.Equal(m.t, m.bytes(), s.Bytes)
	require.Equal(m.t, int64(results), s.Results)
	for key, n := range m.done {
		require.Equal(m.t, n, times(m.t, m.db, "n"+key))
	}
}
