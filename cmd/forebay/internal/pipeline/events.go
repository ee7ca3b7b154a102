package pipeline

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// An event: "2026-11-26T21:40:28.123456Z req=0123456789abcdef trace=… srv=… …".
const (
	timeLayout = "2006-01-02T15:04:05.000000Z"
	idAt       = len(timeLayout) + len(" req=")
	idSize     = 16
	traceAt    = idAt + idSize + len(" trace=")
	traceSize  = 32
	msAt       = traceAt + traceSize + len(" ms=")
	msSize     = 6
	bytesAt    = msAt + msSize + len(" bytes=")
	bytesSize  = 7
	sessionAt  = bytesAt + bytesSize + len(" session=")
	headSize   = sessionAt + idSize + 1

	// minEvent and maxEvent bound the size of an event.
	minEvent = headSize
	maxEvent = 60_000
)

// templates are prepared events in which a few fields change: 48 of the characters of an
// event are random (trace and session), and two numbers, and which template it is; the
// rest repeats, as in real logs.
const templates = 64

// generator makes the events of one server. It is used by one goroutine.
type generator struct {
	server uint64
	next   uint64 // which event of the server
	lines  [][]byte
	rand   *rand.Rand
	second int64  // of stamp
	stamp  []byte // the time, to the second, as it is written
}

var (
	levels   = []string{"INFO ", "INFO ", "INFO ", "DEBUG", "WARN ", "ERROR"}
	services = []string{"checkout", "payments", "catalog", "search", "session", "gateway", "shipping", "billing"}
	messages = []string{
		"request completed", "cache miss, read from the primary", "connection taken from the pool", "upstream answered late, trying again",
		"user signed in", "order accepted", "rate limit near for the tenant", "row lock waited for",
	}
	agents = []string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
		"okhttp/4.12.0", "python-requests/2.32.3",
	}
)

func newGenerator(server int, size int) *generator {
	g := &generator{server: uint64(server), rand: rand.New(rand.NewPCG(uint64(server), 1))}
	for range templates {
		r := g.rand
		service := services[r.IntN(len(services))]
		line := fmt.Sprintf("%s req=%016x trace=%032x ms=%06d bytes=%07d session=%016x srv=%s-%03d.eu-west-1 level=%s service=%s msg=%q method=%s path=/api/v2/%s/%d status=%d user=%d tenant=t-%04d ip=10.%d.%d.%d agent=%q build=%08x",
			timeLayout, 0, 0, 0, 0, 0, service, server, levels[r.IntN(len(levels))], service, messages[r.IntN(len(messages))],
			[]string{"GET", "GET", "POST", "PUT"}[r.IntN(4)], service, r.IntN(1e6), []int{200, 200, 200, 201, 304, 404, 500}[r.IntN(7)],
			r.IntN(1e8), r.IntN(1e4), r.IntN(256), r.IntN(256), r.IntN(256), agents[r.IntN(len(agents))], r.Uint32())
		if n := size - len(line); n > 0 {
			const more = " kv=region:eu-west-1,zone:b,pod:7f9c,attempt:1,queue:default,feature:none,retry:false,shard:12"
			line += strings.Repeat(more, n/len(more)+1)[:n]
		}
		g.lines = append(g.lines, []byte(line[:size]))
	}
	return g
}

const hexDigits = "0123456789abcdef"

func putHex(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = hexDigits[v&15]
		v >>= 4
	}
}

func putDecimal(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
}

// id of the n-th event of a server.
func id(server, n uint64) uint64 { return server<<40 | n }

// append appends n events to a frame, all with one time.
func (g *generator) append(frame []byte, n int, now time.Time) []byte {
	if s := now.Unix(); g.stamp == nil || s != g.second {
		g.second, g.stamp = s, now.UTC().Truncate(time.Second).AppendFormat(nil, timeLayout)
	}
	micros := uint64(now.Nanosecond() / 1000)
	for range n {
		r := g.rand.Uint64()
		line := g.lines[r%templates]
		frame = binary.LittleEndian.AppendUint16(frame, uint16(len(line)))
		at := len(frame)
		frame = append(frame, line...)
		e := frame[at:]
		copy(e, g.stamp)
		putDecimal(e[20:26], micros)
		putHex(e[idAt:idAt+idSize], id(g.server, g.next))
		putHex(e[traceAt:traceAt+16], r)
		q := g.rand.Uint64()
		putHex(e[traceAt+16:traceAt+32], q)
		putHex(e[sessionAt:sessionAt+idSize], q*0x9E3779B97F4A7C15^r)
		putDecimal(e[msAt:msAt+msSize], r>>8%997)
		putDecimal(e[bytesAt:bytesAt+bytesSize], r>>20%99991)
		g.next++
	}
	return frame
}

// eventID reads the id of an event; ok is false where there is none.
func eventID(e []byte) (server, n uint64, ok bool) {
	if len(e) < headSize {
		return 0, 0, false
	}
	var v uint64
	for _, c := range e[idAt : idAt+idSize] {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return 0, 0, false
		}
	}
	return v >> 40, v & (1<<40 - 1), true
}

// eventTime reads the time of an event.
func eventTime(e []byte) (time.Time, bool) {
	if len(e) < headSize {
		return time.Time{}, false
	}
	t, err := time.Parse(timeLayout, string(e[:len(timeLayout)]))
	return t, err == nil
}
