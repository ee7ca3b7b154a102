package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
)

// Engine is one kind of queue.
type Engine struct {
	Name   string
	Module string // the Go module, for its version; "": none
	// Notes say what is set beside the engine's defaults, and why.
	Notes string
	// Enqueued and Acked say what the return of Enqueue, and the acknowledgement of
	// a message that was consumed, promise.
	Enqueued, Acked string
	// Limit: it is no queue, but what the disk can do; it consumes nothing.
	Limit bool
	// server says which server the engine needs beside the module; nil: none.
	server func() string
	// absent says why the engine cannot run on this machine; nil: it always can.
	absent func() error
	open   func(ctx context.Context, dir string, cfg Config) (Queue, error)
}

// Config says what will be done with a queue.
type Config struct {
	Producers int // goroutines that call Enqueue at once
	Workers   int // handlers that run at once
}

// Queue is an open queue. Any number of goroutines may call Enqueue, and one
// Consume.
type Queue interface {
	// Enqueue puts messages in, all by one call of the engine, and returns when they
	// are durable. It keeps none of them.
	Enqueue(ctx context.Context, msgs [][]byte) error
	// Consume calls handle for each message, from so many goroutines at once, and
	// acked when its acknowledgement is durable, or what the engine has in its place.
	// Both get bytes that are lent for the call. It returns nil when ctx ends.
	Consume(ctx context.Context, workers int, handle, acked func(msg []byte)) error
	Close() error
}

// Home is the engine that the others are compared with.
const Home = "forebay"

// engines returns all of them, in the order of tables.
func engines() []*Engine {
	list := []*Engine{goqiteEngine(), riverSQLite(), riverPostgres(), natsEngine(), limitEngine()}
	if e := forebayEngine(); e != nil {
		list = append([]*Engine{e}, list...)
	}
	return list
}

// Absent says why the engine cannot run on this machine, or nil.
func (e *Engine) Absent() error {
	if e.absent == nil {
		return nil
	}
	return e.absent()
}

// Open opens the queue in dir, which exists and is empty.
func (e *Engine) Open(ctx context.Context, dir string, cfg Config) (Queue, error) {
	q, err := e.open(ctx, dir, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: open: %w", e.Name, err)
	}
	return q, nil
}

// Version of the engine's module, as this command was built with it.
func (e *Engine) Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || e.Module == "" {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path != e.Module {
			continue
		}
		if m.Replace != nil {
			return "this tree"
		}
		if e.server != nil {
			return m.Version + ", " + e.server()
		}
		return m.Version
	}
	return ""
}

// find returns the engines with names, which are separated by commas; "all": all.
func find(names string) ([]*Engine, error) {
	list := engines()
	if names == "all" {
		return list, nil
	}
	var out []*Engine
	for _, name := range strings.Split(names, ",") {
		e, err := findOne(list, name)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func findOne(list []*Engine, name string) (*Engine, error) {
	var names []string
	for _, e := range list {
		if e.Name == name {
			return e, nil
		}
		names = append(names, e.Name)
	}
	return nil, fmt.Errorf("there is no engine %q; there are %s", name, strings.Join(names, ", "))
}

// makeDir makes a directory for queues. Everybody may pass through it: a server
// of PostgreSQL does not run as root, and has its files below.
func makeDir(under string) (string, error) {
	dir, err := os.MkdirTemp(under, "forebay-queues-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}
