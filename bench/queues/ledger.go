package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// messageSize is how long every message is, in bytes. All of them are printable,
// so that a queue which keeps its messages as JSON text needs not encode them.
const messageSize = 100

const numberSize = 16 // hexadecimal digits

// ledger knows which messages went in and which came out.
type ledger struct {
	began time.Time
	slots []slot
	next  atomic.Int64 // number of the next message

	enqueued, handled, acked atomic.Int64
	again                    atomic.Int64 // handled or acknowledged, beyond the first time
	bad                      atomic.Pointer[error]
}

// slot is one message. sent is nanoseconds since the ledger began.
type slot struct {
	sent           atomic.Int64
	handled, acked atomic.Uint32
}

// newLedger returns a ledger for at most so many messages.
func newLedger(most int) *ledger {
	return &ledger{began: time.Now(), slots: make([]slot, most)}
}

// take makes the next n messages, or returns false when the ledger is full.
func (l *ledger) take(msgs [][]byte) bool {
	n := int64(len(msgs))
	first := l.next.Add(n) - n
	if first+n > int64(len(l.slots)) {
		l.next.Add(-n)
		return false
	}
	now := int64(time.Since(l.began))
	for i := range msgs {
		l.slots[first+int64(i)].sent.Store(now)
		msgs[i] = appendMessage(msgs[i][:0], uint64(first)+uint64(i))
	}
	return true
}

// appendMessage appends the message of a number.
func appendMessage(b []byte, number uint64) []byte {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], number)
	b = hex.AppendEncode(b, raw[:])
	// What follows is different for each message, and does not compress to nothing.
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	x := number*0x9E3779B97F4A7C15 + 1
	for i := numberSize; i < messageSize; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = append(b, letters[x>>58])
	}
	return b
}

// slot returns the slot of a message that came out.
func (l *ledger) slot(msg []byte) *slot {
	number, err := numberOf(msg)
	if err == nil && number >= uint64(l.next.Load()) {
		err = fmt.Errorf("message %d came out, and nobody put it in", number)
	}
	if err != nil {
		l.fail(err)
		return nil
	}
	return &l.slots[number]
}

func numberOf(msg []byte) (uint64, error) {
	var raw [8]byte
	if len(msg) != messageSize {
		return 0, fmt.Errorf("a message of %d bytes came out, not of %d", len(msg), messageSize)
	}
	if _, err := hex.Decode(raw[:], msg[:numberSize]); err != nil {
		return 0, fmt.Errorf("a message came out that has no number: %w", err)
	}
	number := binary.BigEndian.Uint64(raw[:])
	// All of them would cost the fast engines more than the slow ones.
	if number%64 == 0 && string(appendMessage(nil, number)) != string(msg) {
		return 0, fmt.Errorf("message %d came out changed", number)
	}
	return number, nil
}

func (l *ledger) fail(err error) { l.bad.CompareAndSwap(nil, &err) }

// handle is told of each message that a worker gets.
func (l *ledger) handle(msg []byte) {
	s := l.slot(msg)
	if s == nil {
		return
	}
	if s.handled.Add(1) == 1 {
		l.handled.Add(1)
	} else {
		l.again.Add(1)
	}
}

// ack is told of each message whose acknowledgement is durable. It returns how
// long ago its producer began to put it in; false: it is none that counts.
func (l *ledger) ack(msg []byte) (time.Duration, bool) {
	s := l.slot(msg)
	if s == nil {
		return 0, false
	}
	if s.handled.Load() == 0 {
		l.fail(errors.New("a message was acknowledged that no worker got"))
		return 0, false
	}
	if s.acked.Add(1) != 1 {
		l.again.Add(1)
		return 0, false
	}
	l.acked.Add(1)
	return time.Since(l.began) - time.Duration(s.sent.Load()), true
}

// check returns what is wrong with the whole when all that was put in should have
// come out.
func (l *ledger) check() error {
	if err := l.bad.Load(); err != nil {
		return *err
	}
	if in, out := l.enqueued.Load(), l.acked.Load(); in != out {
		return fmt.Errorf("%d messages were enqueued, %d handled, %d acknowledged: %w", in, l.handled.Load(), out, errLost)
	}
	return nil
}

var errLost = errors.New("messages are lost")
