package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// services are a bank and a mail service, as one finds them: they fail, they do what they
// are told and the answer is lost, or comes too late. They are no part of the shop, and
// what they know does not go with it.
type services struct {
	mu      sync.Mutex // guards all that is below
	r       *rand.Rand
	charges map[string]payment // by idempotency key
	asked   int                // for charges
	mails   map[string]int     // copies, by Message-ID
}

type payment struct {
	order, customer string
	cents           int64
	receipt         string // "": declined
}

func newServices(seed uint64) *services {
	return &services{r: rand.New(rand.NewPCG(seed, 0)), charges: map[string]payment{}, mails: map[string]int{}}
}

// ServeHTTP is both services.
func (s *services) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	luck, text, code := s.do(r)
	switch luck {
	case 0:
		http.Error(w, "out of order", http.StatusServiceUnavailable)
	case 1:
		panic(http.ErrAbortHandler) // it is done, and the line is cut
	case 2:
		<-r.Context().Done() // it is done, and the answer comes when nobody waits for it any more
	default:
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}
}

// do does what a request asks for, but with luck 0 nothing.
func (s *services) do(r *http.Request) (luck int, text string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if luck = s.r.IntN(8); luck == 0 {
		return luck, "", 0
	}
	switch r.URL.Path {
	case "/charge":
		s.asked++
		key := r.Header.Get("Idempotency-Key")
		cents, _ := strconv.ParseInt(r.Form.Get("cents"), 10, 64)
		p, ok := s.charges[key]
		if !ok {
			p = payment{order: r.Form.Get("order"), customer: r.Form.Get("customer"), cents: cents}
			if p.customer != "mallory" {
				p.receipt = fmt.Sprint("r-", 1000+len(s.charges))
			}
			s.charges[key] = p
		}
		switch {
		case p.cents != cents:
			return luck, "the key is of another charge", http.StatusUnprocessableEntity
		case p.receipt == "":
			return luck, "declined", http.StatusPaymentRequired
		}
		return luck, p.receipt, http.StatusOK
	case "/mail":
		s.mails[r.Header.Get("Message-ID")]++
		return luck, "sent", http.StatusOK
	}
	return luck, "not found", http.StatusNotFound
}

// client is how the shop reaches the services.
type client struct {
	url  string
	http *http.Client
}

func newClient(url string) client {
	return client{url: url, http: &http.Client{Timeout: 250 * time.Millisecond}}
}

// errDeclined: the bank will never pay this.
var errDeclined = errors.New("declined")

// charge asks the bank for money. The key is made of the order alone: it is the same
// however often, and from whichever process, the bank is asked. After an error, but for
// errDeclined, it is unknown whether there was a charge.
func (c client) charge(ctx context.Context, order, customer string, cents int64) (receipt string, err error) {
	code, text, err := c.post(ctx, "/charge", "Idempotency-Key", "shop/charge/"+order,
		url.Values{"order": {order}, "customer": {customer}, "cents": {strconv.FormatInt(cents, 10)}})
	switch {
	case err != nil:
		return "", err
	case code == http.StatusPaymentRequired:
		return "", errDeclined
	case code != http.StatusOK:
		return "", fmt.Errorf("%d: %s", code, text)
	}
	return text, nil
}

// mail sends a mail.
func (c client) mail(ctx context.Context, id, to, text string) error {
	code, answer, err := c.post(ctx, "/mail", "Message-ID", id, url.Values{"to": {to}, "text": {text}})
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%d: %s", code, answer)
	}
	return err
}

func (c client) post(ctx context.Context, path, header, id string, form url.Values) (code int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set(header, id)
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			if u.Timeout() {
				return 0, "", errors.New("no answer in time")
			}
			err = u.Err // without the address, which says nothing here
		}
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	return resp.StatusCode, strings.TrimSpace(string(b)), err
}
