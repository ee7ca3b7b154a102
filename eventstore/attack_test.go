package eventstore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay"
	"github.com/forebaydb/forebay/check"
	"github.com/forebaydb/forebay/eventstore"
	"github.com/forebaydb/forebay/vfs"
)

// asked is a context that does something when it is asked for the nth time.
type asked struct {
	context.Context
	mu sync.Mutex // guards n
	n  int
	do func()
}

func askedAt(t *testing.T, n int, do func()) *asked {
	return &asked{Context: t.Context(), n: n, do: do}
}

func (c *asked) ask() {
	c.mu.Lock()
	c.n--
	now := c.n == 0
	c.mu.Unlock()
	if now {
		c.do()
	}
}

func (c *asked) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *asked) Err() error {
	c.ask()
	return c.Context.Err()
}

func (c *asked) Done() <-chan struct{} {
	c.ask()
	return c.Context.Done()
}

// A stream that was being read ended with ErrIndex when Retain took events between its
// last event that was read and its next one.
func TestStreamBesideRetain(t *testing.T) {
	_, s := newStore(t, nil)
	const many = 512 // entries that are looked up at once
	for range many {
		add(t, s, "a", "x")
	}
	for range 5 {
		add(t, s, "b", "x")
	}
	add(t, s, "a", "last")
	n := uint64(0)
	for ev, err := range s.Stream(ctx, "a", 1) {
		require.NoError(t, err)
		n++
		require.Equal(t, n, ev.Version)
		if n == many {
			out, err := s.Retain(ctx, eventstore.Retention{Before: many + 5})
			require.NoError(t, err)
			require.Equal(t, uint64(many+5), out.First)
		}
	}
	require.Equal(t, uint64(many+1), n)
}

// Retain beside another one counted what that one took, and returned ErrRetained when its
// files had gone.
func TestRetainBesideRetain(t *testing.T) {
	for _, files := range []bool{false, true} {
		ended := false
		for at := 1; !ended; at++ {
			db, s := newStore(t, nil)
			size := 1
			if files {
				size = 30_000
			}
			for i := range 30 {
				add(t, s, fmt.Sprint("s", i%3), strings.Repeat("x", size))
			}
			var inner eventstore.Retained
			c := askedAt(t, at, func() {
				var err error
				inner, err = s.Retain(ctx, eventstore.Retention{Before: 10})
				require.NoError(t, err)
				require.NoError(t, db.Checkpoint(ctx))
			})
			out, err := s.Retain(c, eventstore.Retention{Before: 20})
			require.NoError(t, err, at)
			require.Equal(t, uint64(20), out.First)
			require.Equal(t, uint64(20), out.Events+inner.Events, at)
			require.False(t, out.Held)
			verify(t, s)
			ended = c.left() > 0
			require.NoError(t, db.Close())
		}
	}
}

// A rebuild that somebody gave up returned as if it had been done; one that somebody
// else finished is done.
func TestRebuildThatIsGivenUp(t *testing.T) {
	for _, finish := range []bool{false, true} {
		_, s := newStore(t, nil)
		add(t, s, "a", "1", "2")
		var p *eventstore.Projection
		building := false
		o := byStream("p", 1)
		apply := o.Apply
		o.Apply = func(rows forebay.Space, ev eventstore.Event) error {
			if building {
				building = false
				if finish {
					require.NoError(t, p.Rebuild(ctx))
				} else {
					require.NoError(t, p.AbandonRebuild(ctx))
				}
			}
			return apply(rows, ev)
		}
		p = projection(t, s, o)
		catchUp(t, p)
		building = true
		err := p.Rebuild(ctx)
		st, serr := p.Status()
		require.NoError(t, serr)
		require.Zero(t, st.Building)
		if finish {
			require.NoError(t, err)
			require.Equal(t, uint64(2), st.Generation)
		} else {
			require.ErrorIs(t, err, eventstore.ErrNoRebuild)
			require.Equal(t, uint64(1), st.Generation)
		}
		got, _ := rows(t, p)
		require.Equal(t, map[string]string{"a": "12"}, got)
	}
}

// A load that had begun with a snapshot of before a Forget, and met a payload under the
// subject's next key, saved what was forgotten in a snapshot again.
func TestForgetAndReadmitBesideALoad(t *testing.T) {
	_, s := newStore(t, nil)
	j := journal(2)
	plain := j.Apply
	_, err := s.Append(ctx, "a", eventstore.Any, secret("bob", "first"), text("2"))
	require.NoError(t, err)
	l, err := j.Load(ctx, s, "a")
	require.NoError(t, err)
	require.NoError(t, l.SnapshotErr)
	add(t, s, "a", "3")
	var once sync.Once
	j.Encode = func(state string) ([]byte, error) { return []byte(state), nil }
	j.Decode = func(b []byte) (string, error) {
		once.Do(func() {
			require.NoError(t, s.Forget(ctx, "bob"))
			require.NoError(t, s.Readmit(ctx, "bob"))
			_, err := s.Append(ctx, "a", eventstore.Any, secret("bob", "second"))
			require.NoError(t, err)
		})
		return string(b), nil
	}
	l, err = j.Load(ctx, s, "a")
	require.NoError(t, err)
	require.Equal(t, uint64(2), l.Snapshot)
	require.ErrorIs(t, l.SnapshotErr, eventstore.ErrForgotten)
	j.Apply = plain
	l, err = j.Load(ctx, s, "a")
	require.NoError(t, err)
	require.NotContains(t, l.State, "first")
	require.Contains(t, l.State, "second")
}

// A read of rows or keys that the disk failed at made a dead letter of the event.
func TestDiskFailsBesideAProjection(t *testing.T) {
	for _, what := range []string{"rows", "range", "keys"} {
		t.Run(what, func(t *testing.T) {
			in := vfs.NewInjector(vfs.NewMem())
			db := openDB(t, in)
			s := open(t, db, nil)
			var rule *vfs.Armed
			fail := false
			o := eventstore.ProjectionOptions{Name: "p", Apply: func(rows forebay.Space, ev eventstore.Event) error {
				if fail && rule == nil && what != "keys" {
					rule = in.Add(vfs.Rule{Call: vfs.CallRead, Name: "*.seg", Forever: true, Err: syscall.EIO})
				}
				key := []byte(ev.Stream)
				if what == "range" {
					for _, err := range rows.Range(key, append(key, 0)) {
						if err != nil {
							return err
						}
					}
				} else if _, err := rows.Get(key); err != nil && !errors.Is(err, forebay.ErrNotFound) {
					return err
				}
				return rows.Put(key, append(make([]byte, 500), ev.Payload...))
			}}
			p := projection(t, s, o)
			for i := range 1000 {
				n := secret(fmt.Sprintf("u%0200d", i), "x")
				n.Headers = map[string]string{"h": strings.Repeat("h", 100)}
				_, err := s.Append(ctx, fmt.Sprint("s", i), eventstore.Any, n)
				require.NoError(t, err)
			}
			catchUp(t, p)
			require.NoError(t, db.Checkpoint(ctx))
			require.NoError(t, db.Close())
			db = openDB(t, in)
			s = open(t, db, nil)
			_, err := s.Append(ctx, "s500", eventstore.Any, secret(fmt.Sprintf("u%0200d", 500), "y"))
			require.NoError(t, err)
			require.NoError(t, db.Close())
			db = openDB(t, in)
			s = open(t, db, nil)
			p = projection(t, s, o)
			_, err = p.Status() // where it is is in memory now
			require.NoError(t, err)
			fail = true
			if what == "keys" {
				rule = in.Add(vfs.Rule{Call: vfs.CallRead, Name: "*.seg", Forever: true, Err: syscall.EIO})
			}
			_, err = p.CatchUp(ctx)
			require.ErrorIs(t, err, syscall.EIO)
			require.NotNil(t, rule)
			fail = false
			rule.Remove()
			require.Empty(t, deadLetters(t, p))
			require.Equal(t, 1, catchUp(t, p))
		})
	}
}

// An error of the reader of an archive was damage where a number was read, and heads was
// brought forward by an archive that could not be read to its end.
func TestArchiveThatCannotBeRead(t *testing.T) {
	_, s := newStore(t, nil)
	for i := range 3 {
		add(t, s, "a", fmt.Sprint(i))
	}
	b, _ := archive(t, s, ^uint64(0))
	fault := errors.New("the line is cut")
	heads := map[string]eventstore.StreamHead{}
	for n := range len(b) + 1 {
		r := io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(fault))
		_, err := eventstore.VerifyArchive(r, heads)
		require.ErrorIs(t, err, fault, n)
		require.NotErrorIs(t, err, eventstore.ErrDamaged, n)
		require.Empty(t, heads, n)
	}
	_, err := eventstore.VerifyArchive(bytes.NewReader(b), heads)
	require.NoError(t, err)
	require.Equal(t, uint64(3), heads["a"].Version)
}

// Verify counted a sealed payload that it could not open among those that it could.
func TestVerifyCountsWhatOpens(t *testing.T) {
	db, s := newStore(t, nil)
	_, err := s.Append(ctx, "a", eventstore.Any, secret("bob", "1"), secret("eve", "2"))
	require.NoError(t, err)
	require.Equal(t, uint64(2), verify(t, s).Sealed)
	keys, err := db.Keyspace("events/bank/keys")
	require.NoError(t, err)
	rec, err := keys.Get([]byte("bob"))
	require.NoError(t, err)
	rec[len(rec)-1] ^= 1
	require.NoError(t, keys.Put([]byte("bob"), rec))
	r, err := s.Verify(ctx)
	require.ErrorIs(t, err, eventstore.ErrDamaged)
	require.Equal(t, uint64(1), r.Sealed)
	require.Zero(t, r.Erased)
}

// Reindex beside an append put the stream's head back, and the next append gave its
// version again.
func TestReindexBesideAnAppend(t *testing.T) {
	ended := false
	for at := 1; !ended; at++ {
		db, s := newStore(t, nil)
		add(t, s, "a", "1", "2")
		add(t, s, "b", "1")
		c := askedAt(t, at, func() { add(t, s, "a", "3") })
		err := s.Reindex(c)
		if ended = c.left() > 0; ended {
			require.NoError(t, err)
		} else if err != nil {
			require.ErrorIs(t, err, eventstore.ErrConflict, at)
		}
		add(t, s, "a", "4")
		require.NoError(t, s.Reindex(ctx))
		verify(t, s)
		require.NoError(t, db.Close())
	}
}

// Where a salvage has left a hole, events behind it could not be come to: not by a
// projection that was there, nor from the first one on when the hole was in front.
func TestHoles(t *testing.T) {
	for _, which := range []string{"first", "middle", "last"} {
		t.Run(which, func(t *testing.T) {
			fs := vfs.NewMem()
			opts := &forebay.Options{FS: fs, MemtableSize: 64 << 10, LogFileSize: 64 << 10}
			db, err := forebay.Open("data", opts)
			require.NoError(t, err)
			s := open(t, db, nil)
			const many = 600
			for i := range many {
				add(t, s, fmt.Sprint("s", i%7), fmt.Sprintf("%d %0700d", i, 0))
			}
			require.NoError(t, db.Checkpoint(ctx))
			require.NoError(t, db.Close())
			names, err := fs.List("data")
			require.NoError(t, err)
			var logs []string
			for _, name := range names {
				if strings.HasSuffix(name, ".log") {
					logs = append(logs, "data/"+name)
				}
			}
			require.Greater(t, len(logs), 4)
			lose := func(name string) *check.Salvaged {
				require.NoError(t, fs.Remove(name))
				out, err := check.Salvage(ctx, &check.Config{FS: fs, Dir: "data"}, "saved")
				require.NoError(t, err)
				return out
			}
			var out *check.Salvaged
			switch which {
			case "first":
				out = lose(logs[0])
			case "middle":
				out = lose(logs[2])
			case "last": // that has events
				for i := len(logs) - 1; out == nil || out.LostItems == 0; i-- {
					if out != nil {
						names, err := fs.List("saved")
						require.NoError(t, err)
						for _, name := range names {
							require.NoError(t, fs.Remove("saved/"+name))
						}
					}
					out = lose(logs[i])
				}
			}
			require.Positive(t, out.LostItems)
			db, err = forebay.Open("saved", opts)
			require.NoError(t, err)
			defer db.Close()
			s = open(t, db, nil)
			require.NoError(t, s.Reindex(ctx))

			var there []uint64
			has := map[uint64]bool{}
			for ev, err := range s.All(ctx, 0) {
				require.NoError(t, err)
				there = append(there, ev.Offset)
				has[ev.Offset] = true
			}
			require.Len(t, there, many-int(out.LostItems))
			hole := uint64(0)
			for has[hole] {
				hole++
			}
			behind := 0
			for _, at := range there {
				if at > hole {
					behind++
				}
			}
			n := 0
			for _, err := range s.All(ctx, hole) {
				require.NoError(t, err)
				n++
			}
			require.Equal(t, behind, n)
			_, err = s.Verify(ctx)
			if which != "last" {
				require.ErrorIs(t, err, eventstore.ErrDamaged)
			}

			// A projection that is in front of it, and waits behind all.
			o := byStream("p", 1)
			seen := make(chan uint64, many+1)
			o.Batch = 1
			o.Apply = func(_ forebay.Space, ev eventstore.Event) error {
				seen <- ev.Offset
				return nil
			}
			p := projection(t, s, o)
			ks, err := db.Keyspace("events/bank/projections")
			require.NoError(t, err)
			require.NoError(t, ks.Put(append([]byte("cp\x00"), binary.BigEndian.AppendUint64(nil, 1)...), binary.BigEndian.AppendUint64(nil, hole)))
			run, stop := context.WithCancel(ctx)
			defer stop()
			ran := make(chan error, 1)
			go func() { ran <- p.Run(run) }()
			for range behind {
				<-seen
			}
			more := add(t, s, "more", "x")
			select {
			case at := <-seen:
				require.Equal(t, more.Offset, at)
			case err := <-ran:
				require.NoError(t, err)
			}
			stop()
			require.ErrorIs(t, <-ran, context.Canceled)

			_, info := archive(t, s, ^uint64(0))
			require.Equal(t, uint64(len(there)+1), info.Events)
			require.NoError(t, p.Rebuild(ctx))
			got, err := s.Retain(ctx, eventstore.Retention{Before: many + 1})
			require.NoError(t, err)
			require.Equal(t, uint64(many+1), got.First)
		})
	}
}
