package segment

import "encoding/binary"

// propsFixed is the length of the properties before the keys.
const propsFixed = 72

// Properties describes what a segment holds.
type Properties struct {
	// Count is the number of versions, Tombstones how many of them are
	// deletes, Keys how many different keys they have.
	Count, Tombstones, Keys uint64
	// MinLSN and MaxLSN are the lowest and the highest LSN of a version.
	MinLSN, MaxLSN uint64
	// KeyBytes and ValueBytes are the sums over all versions, in bytes.
	KeyBytes, ValueBytes uint64
	// DataBytes is the length of all data blocks when decompressed, in bytes.
	DataBytes uint64
	// Smallest and Largest are the first and the last key.
	Smallest, Largest []byte
	// Compression is what the writer was asked for; single blocks may have
	// stayed uncompressed.
	Compression Compression
}

func (p *Properties) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, propsFixed+len(p.Smallest)+len(p.Largest)+trailerSize)
	for _, v := range [...]uint64{p.Count, p.Tombstones, p.Keys, p.MinLSN, p.MaxLSN, p.KeyBytes, p.ValueBytes, p.DataBytes} {
		b = le.AppendUint64(b, v)
	}
	b = le.AppendUint32(b, uint32(len(p.Smallest)))
	b = le.AppendUint32(b, uint32(len(p.Largest)))
	b = append(b, p.Smallest...)
	return append(b, p.Largest...)
}

// decodeProps reads a verified payload; ok is false when it does not hold
// together. The keys are copies.
func decodeProps(b []byte) (p Properties, ok bool) {
	if len(b) < propsFixed {
		return p, false
	}
	le := binary.LittleEndian
	for i, v := range [...]*uint64{&p.Count, &p.Tombstones, &p.Keys, &p.MinLSN, &p.MaxLSN, &p.KeyBytes, &p.ValueBytes, &p.DataBytes} {
		*v = le.Uint64(b[8*i:])
	}
	small, large := uint64(le.Uint32(b[64:])), uint64(le.Uint32(b[68:]))
	keys := b[propsFixed:]
	if small == 0 || large == 0 || small+large != uint64(len(keys)) {
		return p, false
	}
	p.Smallest = append([]byte(nil), keys[:small]...)
	p.Largest = append([]byte(nil), keys[small:]...)
	return p, true
}
