package workload

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memory is the resident memory of this process, in bytes; zero where the
// system does not tell.
type memory struct{ anon, file int64 }

func readMemory() memory {
	f := procFields("/proc/self/status")
	return memory{anon: f["RssAnon"] << 10, file: (f["RssFile"] + f["RssShmem"]) << 10}
}

// writtenBytes is what this process has made the system write, or have to
// write, to disks since it began: pages made dirty count, also through mappings.
func writtenBytes() int64 { return procFields("/proc/self/io")["write_bytes"] }

// procFields reads lines of the form "name: number unit".
func procFields(path string) map[string]int64 {
	out := map[string]int64{}
	b, err := os.ReadFile(path)
	if err != nil {
		return out
	}
	for l := range bytes.Lines(b) {
		name, rest, ok := strings.Cut(string(l), ":")
		if !ok {
			continue
		}
		if f := strings.Fields(rest); len(f) > 0 {
			if n, err := strconv.ParseInt(f[0], 10, 64); err == nil {
				out[name] = n
			}
		}
	}
	return out
}

// peak watches the memory of this process until it is stopped.
type peak struct {
	before memory
	mu     sync.Mutex // guards most
	most   memory
	cancel context.CancelFunc
	done   chan struct{}
}

const memoryEvery = 50 * time.Millisecond

func watchMemory() *peak {
	ctx, cancel := context.WithCancel(context.Background())
	p := &peak{before: readMemory(), cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		t := time.NewTicker(memoryEvery)
		defer t.Stop()
		for {
			p.look()
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
		}
	}()
	return p
}

func (p *peak) look() {
	m := readMemory()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = memory{max(p.most.anon, m.anon), max(p.most.file, m.file)}
}

// soFar returns the peak until now.
func (p *peak) soFar() memory {
	p.look()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

func (p *peak) stop() {
	p.cancel()
	<-p.done
}
