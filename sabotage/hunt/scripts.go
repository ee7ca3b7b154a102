package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/forebaydb/forebay"
)

// scripts are small workloads, each aimed at something, with the states of every
// cut.
var scripts = []struct {
	name string
	opts func(*forebay.Options)
	dir  string
	run  func(t *tape)
}{
	{"durable commits", nil, "", func(t *tape) {
		for i := range 4 {
			t.commit(forebay.Durable, "a", value(i, 20), fmt.Sprint("k", i), value(10+i, 600))
		}
	}},
	{"a store deep in new directories", nil, "x/y/db", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"written commits over several files, and then a durable one", func(o *forebay.Options) { o.Sync = forebay.SyncNever }, "", func(t *tape) {
		for i := range 12 {
			t.commit(forebay.Written, "a", value(i, 3000))
		}
		t.commit(forebay.Durable, "b", "2")
		t.commit(forebay.Written, "c", "3")
	}},
	{"commits that are submitted together", nil, "", func(t *tape) {
		t.together(8)
		t.together(5)
	}},
	{"written commits over several files", func(o *forebay.Options) { o.MemtableSize = 256 << 10 }, "", func(t *tape) {
		for i := range 14 {
			t.commit(forebay.Written, "a", value(i, 3000))
		}
		if t.w.db.DurableLSN() == 0 {
			must(errors.New("SyncGroup syncs a file that is full, and nothing is durable after several"))
		}
	}},
	{"checkpoint", nil, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1", "b", "1")
		t.commit(forebay.Buffered, "a", "2")
		t.checkpoint()
		t.commit(forebay.Written, "b", "3")
		t.commit(forebay.Durable, "c", "4")
		t.checkpoint()
	}},
	{"compaction", nil, "", func(t *tape) {
		for i := range 3 {
			t.commit(forebay.Durable, "a", fmt.Sprint(i), "b", fmt.Sprint(i))
			t.checkpoint()
		}
		t.say("compaction")
		must(t.w.db.Compact(background))
		t.commit(forebay.Durable, "c", "4")
	}},
	{"checkpoint and recycling of log files", nil, "", func(t *tape) {
		for i := range 14 {
			t.commit(forebay.Durable, "a", value(i, 5000))
			if i%3 == 2 {
				t.checkpoint()
			}
		}
	}},
	{"keys that are long", nil, "", func(t *tape) {
		long := strings.Repeat("k", 900)
		for i := range 3 {
			t.commit(forebay.Durable, long+"a", value(i, 10), long+"z", value(i, 10))
			t.checkpoint()
		}
	}},
	{"sync and close", func(o *forebay.Options) { o.Sync = forebay.SyncNever }, "", func(t *tape) {
		t.commit(forebay.Buffered, "a", "1")
		t.commit(forebay.Written, "b", "1")
		must(t.w.db.Sync(background))
		t.synced()
		t.commit(forebay.Buffered, "c", "1")
		t.reopen()
		t.commit(forebay.Written, "d", "1")
		t.reopen()
	}},
	{"sync by bytes", func(o *forebay.Options) { o.Sync = forebay.SyncBytes(2000) }, "", func(t *tape) {
		for i := range 4 {
			t.commit(forebay.Written, "a", value(i, 1500))
		}
		if t.w.db.DurableLSN() < 2 {
			must(errors.New("SyncBytes(2000) has not synced after 6000 bytes"))
		}
	}},
	{"sync by interval", func(o *forebay.Options) { o.Sync = forebay.SyncInterval(time.Millisecond) }, "", func(t *tape) {
		t.commit(forebay.Written, "a", "1")
		for wait := time.Millisecond; t.w.db.DurableLSN() < 1; wait *= 2 {
			if wait > 2*time.Second {
				must(errors.New("SyncInterval(1 ms) has not synced after seconds"))
			}
			time.Sleep(wait)
		}
	}},
	{"sync with O_DSYNC", func(o *forebay.Options) { o.Mechanism = forebay.DSync }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"sync with O_DIRECT and O_DSYNC", func(o *forebay.Options) { o.Mechanism, o.LogAlign = forebay.DirectDSync, 4096 }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"sync with fsync", func(o *forebay.Options) { o.Mechanism = forebay.Fsync }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.commit(forebay.Durable, "b", "2")
	}},
	{"idle marks", func(o *forebay.Options) { o.MarkDelay = time.Millisecond }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		time.Sleep(5 * time.Millisecond)
		t.commit(forebay.Written, "b", "2")
		time.Sleep(5 * time.Millisecond)
	}},
	{"a spare that the next open finds", func(o *forebay.Options) { o.MarkDelay, o.MemtableSize = time.Millisecond, 256<<10 }, "", func(t *tape) {
		for i := range 3 {
			t.commit(forebay.Durable, "a", value(i, 4000))
		}
		time.Sleep(5 * time.Millisecond)
		t.kill()
		for i := range 9 {
			t.commit(forebay.Durable, "a", value(i, 4000))
		}
	}},
	{"backup", nil, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.checkpoint()
		t.commit(forebay.Durable, "b", "2")
		t.backup("copy")
		t.commit(forebay.Durable, "c", "3")
		t.backup("deep/in/copies")
	}},
	{"a log in a directory of its own", func(o *forebay.Options) { o.LogDir = "logs/log" }, "", func(t *tape) {
		t.commit(forebay.Durable, "a", "1")
		t.checkpoint()
		t.commit(forebay.Durable, "b", "2")
	}},
}
