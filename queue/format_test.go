package queue

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFormats: bytes that are on disks already. A change of one of them is a new version.
func TestFormats(t *testing.T) {
	g := &group{name: "g"}
	id := ID{Lane: 2, Offset: 0x102}
	for want, got := range map[string][]byte{
		"0100": appendEnvelope(nil, &Meta{}, 0),
		"011f030000000000000007016b0264310202683101310268320132": appendEnvelope(nil, &Meta{
			Key: "k", Priority: 3, DedupeID: "d1", Headers: map[string]string{"h2": "2", "h1": "1"}}, 7),
		"0101ac02":                                 (&state{settled: true, size: 300}).encode(),
		"010009020304050602" + "6e6f":              (&state{size: 9, delivery: 2, attempts: 3, due: 4, index: 5, time: 6, reason: "no"}).encode(),
		"01020304050162" + "01007061":              (&deadRecord{delivery: 2, attempts: 3, time: 4, died: 5, reason: "b", body: []byte("\x01\x00pa")}).encode(),
		"0100000000000000090a":                     dedupe{until: 9, lane: 10}.encode(),
		"010b0102000000000000000000":               encodeStarts([laneLater + 1]uint64{1, 2}),
		"730167020000000000000102":                 g.key(kindState, id),
		"7701670000000000000008020000000000000102": g.waitingKey(8, id),
		"45000000000000000964":                     expiryKey(9, "d"),
	} {
		require.Equal(t, want, hex.EncodeToString(got))
	}
	require.Equal(t, strings.Repeat("x", MaxReason), cut(strings.Repeat("x", MaxReason+1)))
}

// TestForgedHeaders: a number of headers is no reason to take memory for them.
func TestForgedHeaders(t *testing.T) {
	forged := binary.AppendUvarint([]byte{envelopeVersion, hasHeaders}, 1<<20)
	forged = append(forged, make([]byte, 1<<20)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := decodeEnvelope(forged)
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, ErrDamaged)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

// FuzzDecode: no bytes make a decoder panic, and what it takes is what an encoder makes.
func FuzzDecode(f *testing.F) {
	f.Add(appendEnvelope(nil, &Meta{Key: "k", DedupeID: "d", Headers: map[string]string{"a": "b"}}, 1))
	f.Add((&state{delivery: 1, reason: "r"}).encode())
	f.Add((&state{settled: true}).encode())
	f.Add((&deadRecord{reason: "r", body: []byte("b")}).encode())
	f.Add(dedupe{until: 1}.encode())
	f.Add(encodeStarts([laneLater + 1]uint64{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeEnvelope(b); err == nil {
			m := Meta{Key: e.key, DedupeID: e.dedupe, Headers: e.headers, Priority: int(e.priority)}
			again, err := decodeEnvelope(append(appendEnvelope(nil, &m, e.notBefore), e.payload...))
			require.NoError(t, err)
			require.Equal(t, len(e.headers), len(again.headers))
			again.headers, e.headers = nil, nil
			require.True(t, bytes.Equal(e.payload, again.payload))
			again.payload, e.payload = nil, nil
			require.Equal(t, e, again)
		}
		if s, err := decodeState(b); err == nil {
			again, err := decodeState(s.encode())
			require.NoError(t, err)
			require.Equal(t, s, again)
		}
		if d, err := decodeDead(b); err == nil {
			again, err := decodeDead(d.encode())
			require.NoError(t, err)
			require.Equal(t, d, again)
		}
		if d, err := decodeDedupe(b); err == nil {
			again, err := decodeDedupe(d.encode())
			require.NoError(t, err)
			require.Equal(t, d, again)
		}
		if s, err := decodeStarts(b); err == nil {
			again, err := decodeStarts(encodeStarts(s))
			require.NoError(t, err)
			require.Equal(t, s, again)
		}
	})
}
