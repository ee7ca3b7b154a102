package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// gateways are what notifications go out by, each with a weakness of its own:
//
//	push  one call in four fails, or is done and its answer is lost
//	mail  the first attempt of each mail is refused, as servers do that do not know one yet
//	sms   is paid for in advance; without credit nothing goes out
type gateways struct {
	mu     sync.Mutex // guards all that is below
	r      *rand.Rand
	copies map[string]int  // what was sent, by channel and id
	seen   map[string]bool // mails that were refused once
	credit int             // of SMS
}

// bill is for how many SMS the operator pays at a time.
const bill = 10

func newGateways(seed uint64) *gateways {
	return &gateways{r: rand.New(rand.NewPCG(seed, 0)), copies: map[string]int{}, seen: map[string]bool{}, credit: 2}
}

// ServeHTTP is all of them.
func (g *gateways) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	code, text, cut := g.do(r.URL.Path, r.Form.Get("id"), r.Form.Get("to"))
	if cut {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text)
}

func (g *gateways) do(path, id, to string) (code int, text string, cut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := strings.TrimPrefix(path, "/") + " " + id
	switch path {
	case "/pay":
		g.credit += bill
		return http.StatusOK, "thank you", false
	case "/push":
		switch g.r.IntN(8) {
		case 0:
			return http.StatusServiceUnavailable, "too busy", false
		case 1:
			cut = true
		}
	case "/mail":
		if !g.seen[id] {
			g.seen[id] = true
			return http.StatusServiceUnavailable, "try again later", false
		}
	case "/sms":
		if to == "nobody" {
			return http.StatusUnprocessableEntity, "no such number", false
		}
		if g.credit == 0 {
			return http.StatusPaymentRequired, "no credit", false
		}
		g.credit--
	default:
		return http.StatusNotFound, "not found", false
	}
	g.copies[key]++
	return http.StatusOK, "sent", cut
}

// client is how the gateways are reached.
type client struct {
	url  string
	http *http.Client
}

func newHTTP() *http.Client { return &http.Client{Timeout: 5 * time.Second} }

// errAddress: there is no such address, and there will not be.
var errAddress = errors.New("no such number")

// send sends a notification by a channel. After an error but errAddress it may have been
// sent.
func (c client) send(ctx context.Context, channel string, n notification) error {
	return c.post(ctx, "/"+channel, url.Values{"id": {n.ID}, "to": {n.User}, "text": {n.Text}})
}

// pay pays the bill of the SMS gateway.
func (c client) pay(ctx context.Context) error { return c.post(ctx, "/pay", nil) }

func (c client) post(ctx context.Context, path string, form url.Values) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the address, which says nothing here
		}
		return fmt.Errorf("no answer: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusUnprocessableEntity:
		return errAddress
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%d: %s", resp.StatusCode, strings.TrimSpace(string(b)))
	}
	return nil
}
