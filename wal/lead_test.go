package wal

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/forebaydb/forebay/vfs"
)

// crowd is an Applier beside which, while a group is applied, somebody else always
// comes and waits.
type crowd struct {
	l      *Log
	level  Level
	mu     sync.Mutex
	left   int
	groups int
	others sync.WaitGroup
	// looked is closed when the test has looked at groups. Until then the leader behind
	// the first one, who may have begun, does not go on to his second group.
	looked chan struct{}
}

func (c *crowd) Admit(*Request) error { return nil }
func (c *crowd) Assign([]*Request)    {}
func (c *crowd) Publish(LSN)          {}

func (c *crowd) Apply([]*Request, LSN) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.groups == maxRounds+1 {
		c.mu.Unlock()
		select {
		case <-c.looked:
		case <-time.After(10 * time.Second): // it is the first one's still
		}
		c.mu.Lock()
	}
	c.groups++
	if c.left--; c.left < 0 {
		return
	}
	c.others.Go(func() { _ = c.l.Commit(&Request{Level: c.level, Records: []Record{{Data: []byte("other")}}}) })
	for waits := false; !waits; {
		time.Sleep(10 * time.Microsecond)
		c.l.mu.Lock()
		waits = c.l.open != nil
		c.l.mu.Unlock()
	}
}

// TestLeaderGoesOn: who leads goes on with those who have come meanwhile, where none
// of them waits for the disk, but not for ever.
func TestLeaderGoesOn(t *testing.T) {
	for _, level := range []Level{Durable, Written, Buffered} {
		t.Run(level.String(), func(t *testing.T) {
			c := &crowd{left: 5 * maxRounds, level: level, looked: make(chan struct{})}
			o := &Options{FS: vfs.NewMem(), MarkDelay: -1}
			o.Applier, o.Hold = c, -1
			l, err := Open("log", o)
			require.NoError(t, err)
			c.l = l
			require.NoError(t, l.Commit(&Request{Level: Buffered, Records: []Record{{Data: []byte("first")}}}))
			c.mu.Lock()
			groups := c.groups
			c.mu.Unlock()
			close(c.looked)
			require.LessOrEqual(t, groups, maxRounds+1) // the next leader may have begun
			if level != Durable {
				require.GreaterOrEqual(t, groups, maxRounds)
			}
			c.others.Wait()
			require.Equal(t, 5*maxRounds+1, c.groups)
			require.Equal(t, LSN(5*maxRounds+1), l.LastLSN())
			require.NoError(t, l.Close())
		})
	}
}
