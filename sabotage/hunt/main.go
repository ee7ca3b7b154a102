// Command hunt looks for a violation of what Forebay promises, with all that the
// project has for it: the crash explorer, failing calls, damage, bytes of an
// adversary, followers and snapshots. It is what the command sabotage builds, once,
// with all switches, and runs with one of them on; without it finds nothing.
//
// It ends with status 3, and a line that says what it found and how, at the first
// violation; with 0 when its time is over. A panic is the engine's.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
)

// found is what a hunt caught.
type found struct {
	// Hunt is the hunt, What the violation in words.
	Hunt string `json:"hunt"`
	What string `json:"what"`
}

// hunts are the ways to look. Each returns the violation in words, "" for none,
// before its context ends or soon after.
var hunts = map[string]func(ctx context.Context) string{
	"made": handMade, "crafted": crafted, "forged": forged, "forged+": forgedRest, "damaged": damaged, "damaged+": damagedRest, "live": live, "failing": failing, "crash": crashes, "lives": secondLives, "reopens": reopens,
	"failing+": failingAll, "crash+": crashesAll, "reopens+": reopensAll, "log+": logAloneAll,
	"huge": huge, "log-damage": damagedLogs, "follow": follow, "snapshots": snapshots, "log": logAlone, "twins": twins, "explore": explore,
}

// orders says which hunts come first for a kind of site: the likely ones, and
// then all others.
var orders = map[string]string{
	"sync":     "made crash reopens log failing follow damaged snapshots live twins crafted forged " + more,
	"dirsync":  "made crash reopens log failing damaged snapshots follow live twins crafted forged " + more,
	"checksum": "made crafted twins log-damage damaged forged live damaged+ reopens log crash failing follow snapshots " + more,
	"bound":    "made crafted forged huge follow log-damage damaged live twins forged+ log crash reopens failing snapshots " + more,
	"poison":   "made failing log crash reopens follow damaged snapshots live twins crafted forged " + more,
	"order":    "made follow snapshots twins crash reopens log-damage failing log damaged live crafted forged " + more,
}

// more are the hunts that take long.
const more = "huge log-damage reopens+ crash+ log+ failing+ lives explore damaged+ forged+"

func main() {
	kind := flag.String("kind", "order", "kind of the site that is sabotaged: it decides which hunt comes first")
	budget := flag.Duration("budget", time.Minute, "time for all hunts together, of one processor")
	only := flag.String("hunts", "", "hunts, in order, instead of those of the kind")
	first := flag.String("first", "", "hunts that come before those of the kind")
	list := flag.String("corpus", "", "what the engine that is not sabotaged says of the forged bytes; written with -write")
	write := flag.Bool("write", false, "write the corpus and end")
	parts := flag.Int("parts", 6, "how many of the 16 parts of the forgeries are written")
	flag.Parse()
	debug.SetGCPercent(400)
	debug.SetMemoryLimit(1 << 30)
	corpus.file = *list
	if *write {
		if err := corpus.write(*parts); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	order := *first + " " + orders[*kind]
	if *only != "" {
		order = *only
	}
	for _, name := range strings.Fields(order) {
		if hunts[name] == nil { // to run it would look like a catch
			fmt.Fprintf(os.Stderr, "hunter: there is no hunt %q\n", name)
			os.Exit(1)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // a machine that does other things, too, is no reason to see less
		for processor() < *budget {
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
	}()
	go watch()
	for _, name := range strings.Fields(order) {
		step(name)
		if what := guarded(ctx, hunts[name]); what != "" {
			report(name, what)
		}
		if ctx.Err() != nil {
			break
		}
	}
}

func report(name, what string) {
	b, _ := json.Marshal(found{name, what})
	fmt.Println(string(b))
	os.Exit(3)
}

// guarded runs a hunt; a panic in its own goroutine is a catch with its words.
func guarded(ctx context.Context, run func(context.Context) string) (what string) {
	defer func() {
		if p := recover(); p != nil {
			stack := string(debug.Stack())
			if at := strings.Index(stack, "panic("); at >= 0 {
				stack = stack[at:]
			}
			what = fmt.Sprintf("panic: %v", p)
			if os.Getenv("HUNT_STACK") != "" {
				what += "\n" + stack
			}
		}
	}()
	return run(ctx)
}

// beat is when the hunt last said that it is alive, in Unix nanoseconds, and spent
// what it had had of processors then; at is at what it is.
var beat, spent atomic.Int64
var at atomic.Value

// step says that the hunt goes on, at what.
func step(what string) {
	at.Store(what)
	spent.Store(int64(processor()))
	beat.Store(time.Now().UnixNano())
}

// hangs is how long one step may take, of the clock, and spins of a processor.
const (
	hangs = time.Minute
	spins = 20 * time.Second
)

// watch ends the hunt when a step takes too long: the engine hangs. Where the
// machine stood still, this comes late, too, and the clock says nothing.
func watch() {
	last := time.Now()
	for range time.Tick(time.Second) {
		late := time.Since(last) > 10*time.Second
		if last = time.Now(); late {
			beat.Store(last.UnixNano())
		}
		if since := time.Since(time.Unix(0, beat.Load())); since > hangs {
			report(at.Load().(string), fmt.Sprintf("hang: no answer for %v", since.Round(time.Second)))
		}
		if n := processor() - time.Duration(spent.Load()); n > spins {
			report(at.Load().(string), fmt.Sprintf("hang: no answer in %v of a processor", n.Round(time.Second)))
		}
	}
}
