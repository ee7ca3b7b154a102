package queue

import (
	"encoding/json"
	"fmt"
)

// Codec turns values into payloads and back. It is used by many goroutines at once.
type Codec[T any] interface {
	// Append appends the encoded value to dst, and keeps neither.
	Append(dst []byte, value T) ([]byte, error)
	// Decode decodes a payload, which it may keep, and must not change: it is shared by
	// all deliveries of the message in a group. A message that it refuses is a dead letter.
	Decode(payload []byte) (T, error)
}

// Bytes is the codec of plain bytes. A received payload is the message's own memory,
// without a copy, and must not be changed.
type Bytes struct{}

// Append is Codec.Append.
func (Bytes) Append(dst, value []byte) ([]byte, error) { return append(dst, value...), nil }

// Decode is Codec.Decode.
func (Bytes) Decode(payload []byte) ([]byte, error) { return payload, nil }

// JSON is the codec of what encoding/json knows.
type JSON[T any] struct{}

// Append is Codec.Append.
func (JSON[T]) Append(dst []byte, value T) ([]byte, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("queue: %w", err)
	}
	return append(dst, b...), nil
}

// Decode is Codec.Decode.
func (JSON[T]) Decode(payload []byte) (v T, err error) {
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, fmt.Errorf("queue: %w", err)
	}
	return v, nil
}
