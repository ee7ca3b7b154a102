package segment

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/vfs"
)

// DefaultBlockSize is the block size when WriterOptions names none, in bytes.
const DefaultBlockSize = 8 << 10

// writeSize is what one write to the file takes, in bytes. Writes end at its
// multiples in the file, but for the last and those around a larger block.
const writeSize = 256 << 10

// startSize is how much of a segment is given to the disk at once. Were all of it left
// to the sync at the end, the syncs of the log would wait behind it.
const startSize = 512 << 10

// WriterOptions says how a segment is written. The zero value is the default.
type WriterOptions struct {
	// Compression of the data blocks; zero means S2. A block that does not
	// become smaller by an eighth stays as it is.
	Compression Compression
	// BlockSize is the length that a data block aims at before compression, in
	// bytes; zero means DefaultBlockSize, the least is 256 and the most 1 MiB.
	BlockSize int
	// FilterBitsPerKey is the size of the filter in bits for each different
	// key; zero means 10 (about 1 wrong answer in 100), negative no filter.
	FilterBitsPerKey int
}

// withDefaults returns the options as they are used.
func (o WriterOptions) withDefaults() (WriterOptions, error) {
	if o.Compression == DefaultCompression {
		o.Compression = S2
	}
	if o.Compression > Zstd {
		return o, fmt.Errorf("%w: unknown compression %d", ErrLimit, o.Compression)
	}
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	if o.BlockSize < 256 || o.BlockSize > maxBlockSize {
		return o, fmt.Errorf("%w: block size of %d bytes", ErrLimit, o.BlockSize)
	}
	if o.FilterBitsPerKey == 0 {
		o.FilterBitsPerKey = defaultBitsPerKey
	}
	if o.FilterBitsPerKey > maxBitsPerKey {
		return o, fmt.Errorf("%w: filter of %d bits a key", ErrLimit, o.FilterBitsPerKey)
	}
	return o, nil
}

// Meta is what the list of live segments keeps of a segment.
type Meta struct {
	// Number is the segment's number, Size the length of its file in bytes.
	Number, Size uint64
	// Count is the number of versions, Tombstones how many are deletes.
	Count, Tombstones uint64
	// RangeDeletes is the number of range deletes.
	RangeDeletes uint64
	// All keys, and what the range deletes hide, is in [Lo, Hi): Hi of versions
	// is the largest key and a zero byte. They are copies.
	Lo, Hi []byte
	// MinLSN and MaxLSN are the lowest and the highest LSN of a version or a
	// range delete.
	MinLSN, MaxLSN base.LSN
	// Hash stands for every byte of the file; see Reader.Hash.
	Hash uint64
}

// Writer writes one segment. It is used by one goroutine at a time.
type Writer struct {
	f    vfs.File
	id   ID
	opts WriterOptions

	out []byte // what has been encoded and not yet written
	off uint64 // where out begins in the file
	// started is up to where the disk was told to begin.
	started uint64

	data    dataBuilder
	packed  []byte // memory for compression
	sepKey  []byte // the separator of the block being built
	sepLSN  base.LSN
	index   indexBuilder
	dels    delsBuilder
	hashes  hashes // of the distinct keys
	content *xxhash.Digest

	lastKey  []byte
	lastLSN  base.LSN
	lastKind base.Kind
	lones    bool // there are lone blocks
	props    Properties
	err      error // why nothing more is accepted
}

// NewWriter returns a writer of segment id into f, which must be empty and open
// for writing. The caller keeps f: he closes it after Finish, and after an error
// or a change of mind closes and removes it.
func NewWriter(f vfs.File, id ID, opts WriterOptions) (*Writer, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f, id: id, opts: opts, content: xxhash.New()}
	w.props.points.minLSN = base.MaxLSN
	return w, nil
}

// Add appends a version, which must come after the one before in the order of
// base.Compare (else ErrOrder). A key has 1 to base.MaxKeySize bytes, a value at
// most base.MaxValueSize, a delete none, and the LSN is below base.MaxLSN (else
// ErrLimit). Both errors leave the writer as it was. Any other error is from the
// file and ends the writer. key and value are copied.
//
// What an iterator of NewLastIter shows as base.KindPacked is added as such.
func (w *Writer) Add(key []byte, lsn base.LSN, kind base.Kind, value []byte) error {
	if w.err != nil {
		return w.err
	}
	switch {
	case len(key) == 0 || len(key) > base.MaxKeySize:
		return fmt.Errorf("%w: key of %d bytes", ErrLimit, len(key))
	case kind == base.KindPacked && lsn != base.MaxLSN:
	case len(value) > base.MaxValueSize:
		return fmt.Errorf("%w: value of %d bytes", ErrLimit, len(value))
	case kind != base.KindPut && kind != base.KindDelete:
		return fmt.Errorf("%w: unknown %v", ErrLimit, kind)
	case kind == base.KindDelete && len(value) != 0:
		return fmt.Errorf("%w: delete with a value", ErrLimit)
	case lsn == base.MaxLSN:
		return fmt.Errorf("%w: LSN %d", ErrLimit, lsn)
	}
	newKey := true
	if w.props.Count > 0 {
		c := bytes.Compare(w.lastKey, key)
		if c > 0 || c == 0 && w.lastLSN <= lsn {
			return fmt.Errorf("%w: %q at LSN %d after %q at LSN %d", ErrOrder, brief(key), lsn, brief(w.lastKey), w.lastLSN)
		}
		newKey = c < 0
	}
	if kind == base.KindPacked {
		return w.addPacked(key, lsn, value, newKey)
	}
	if w.data.n > 0 && w.data.size()+len(key)+len(value)+entryRoom/3 > w.opts.BlockSize {
		if err := w.endBlock(); err != nil {
			return err
		}
	}
	if w.data.n == 0 {
		w.beginBlock(key, lsn)
	}
	w.data.add(key, lsn, kind, value)
	w.count(key, lsn, kind, len(value), newKey)
	return nil
}

// addPacked appends a put as the block that it had alone.
func (w *Writer) addPacked(key []byte, lsn base.LSN, block []byte, newKey bool) error {
	payload, t, valueLen, ok := openLone(block, key, lsn)
	if !ok {
		return fmt.Errorf("%w: %q at LSN %d comes in a block that is not its own", ErrLimit, brief(key), lsn)
	}
	if w.data.n > 0 {
		if err := w.endBlock(); err != nil {
			return err
		}
	}
	w.beginBlock(key, lsn)
	w.count(key, lsn, base.KindPut, valueLen, newKey)
	return w.dataBlock(payload, t)
}

// brief cuts a key for an error's text.
func brief(key []byte) []byte { return key[:min(len(key), 64)] }

// count takes a version into the properties and the filter.
func (w *Writer) count(key []byte, lsn base.LSN, kind base.Kind, valueLen int, newKey bool) {
	p := &w.props
	if p.Count == 0 {
		p.points.lo = append([]byte(nil), key...)
	}
	p.Count++
	if kind == base.KindDelete {
		p.Tombstones++
	}
	if newKey {
		p.Keys++
		if w.opts.FilterBitsPerKey > 0 {
			w.hashes.add(xxhash.Sum64(key))
		}
	}
	p.points.minLSN = min(p.points.minLSN, lsn)
	p.points.maxLSN = max(p.points.maxLSN, lsn)
	p.KeyBytes += uint64(len(key))
	p.ValueBytes += uint64(valueLen)
	w.lastKey = append(w.lastKey[:0], key...)
	w.lastLSN, w.lastKind = lsn, kind
}

// EstimatedSize is about how long the file would be if Finish came now, in
// bytes. A compaction decides by it when to begin the next segment.
func (w *Writer) EstimatedSize() uint64 {
	filter := w.hashes.len() * max(w.opts.FilterBitsPerKey, 0) / 8
	return w.off + uint64(len(w.out)+w.data.size()+len(w.index.buf)+len(w.dels.buf)+filter+len(w.lastKey)) + footerSize
}

func (w *Writer) beginBlock(key []byte, lsn base.LSN) {
	k, l := []byte(nil), base.MaxLSN
	if w.props.Count > 0 {
		k, l = separator(w.lastKey, key, lsn)
	}
	w.sepKey, w.sepLSN = append(w.sepKey[:0], k...), l
}

// endBlock writes the data block that was being built.
func (w *Writer) endBlock() error {
	raw := w.data.finish()
	payload, t := raw, trailer{comp: NoCompression, rawLen: len(raw), lone: w.alone(len(raw))}
	if cap(w.packed) > maxKeptBuffer {
		w.packed = nil
	}
	if packed, ok := compress(w.opts.Compression, w.packed, raw); ok {
		payload, t.comp, w.packed = packed, w.opts.Compression, packed
	} else {
		w.packed = packed
	}
	err := w.dataBlock(payload, t)
	w.data.reset()
	return err
}

// alone says whether the version that was counted last is to be a lone block of rawLen
// bytes: where it would be alone beside whatever neighbours, so that who takes it over
// has the same blocks as who writes it anew; and where its key is short, so that the index,
// which stays in memory, does not become a copy of the data.
func (w *Writer) alone(rawLen int) bool {
	return w.data.n == 1 && w.lastKind == base.KindPut && rawLen > w.opts.BlockSize && len(w.lastKey) <= rawLen/loneKeyShare
}

// dataBlock appends a data block, the last version of which was counted.
func (w *Writer) dataBlock(payload []byte, t trailer) error {
	n := len(payload) + trailerSize
	if t.lone = t.lone && w.index.n > 0; t.lone { // the first separator is empty
		t.lsn, w.lones = w.lastLSN, true
		w.sepKey = append(w.sepKey[:0], w.lastKey...)
		n += loneSize
	} else {
		t.hashed = false
	}
	w.props.DataBytes += uint64(t.rawLen)
	if err := w.block(payload, kindData, t); err != nil {
		return err
	}
	w.index.add(n, w.sepKey, w.sepLSN)
	if len(w.index.buf) > maxIndex {
		return w.fail(fmt.Errorf("%w: segment has too many blocks", ErrLimit))
	}
	return nil
}

// block appends a block to the file. A large one is written from where it is.
func (w *Writer) block(payload []byte, kind blockKind, t trailer) error {
	at := w.off + uint64(len(w.out))
	var sum uint64
	if len(payload) >= writeSize {
		if err := w.write(len(w.out)); err != nil {
			return err
		}
		if t.hashed { // what is behind it is not ours
			if err := w.writeAt(payload); err != nil {
				return err
			}
			w.out, sum = appendTrailer(w.out, &w.id, at, kind, t)
		} else {
			payload, sum = appendTrailer(payload, &w.id, at, kind, t)
			if err := w.writeAt(payload); err != nil {
				return err
			}
		}
	} else {
		start := len(w.out)
		w.out = append(w.out, payload...)
		var b []byte
		b, sum = appendTrailer(w.out[start:], &w.id, at, kind, t)
		w.out = append(w.out[:start], b...)
	}
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], sum)
	_, _ = w.content.Write(s[:]) // a Digest does not fail
	if len(w.out) >= writeSize {
		end := w.off + uint64(len(w.out))
		return w.write(len(w.out) - int(end%writeSize))
	}
	return nil
}

// write writes the first n bytes of out.
func (w *Writer) write(n int) error {
	if n == 0 {
		return nil
	}
	if err := w.writeAt(w.out[:n]); err != nil {
		return err
	}
	w.out = w.out[:copy(w.out, w.out[n:])]
	return nil
}

func (w *Writer) writeAt(b []byte) error {
	if _, err := w.f.WriteAt(b, int64(w.off)); err != nil {
		return w.fail(fmt.Errorf("segment: write %v at offset %d: %w", w.id, w.off, err))
	}
	w.off += uint64(len(b))
	if w.off-w.started >= startSize {
		vfs.StartWriteback(w.f, int64(w.started), int64(w.off-w.started))
		w.started = w.off
	}
	return nil
}

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}

// Finish writes the rest of the file; it neither syncs nor closes f. The segment is
// durable once the caller has synced the file, and its name after a sync of the
// directory. Without any version and any range delete the error is ErrEmpty. After Finish, whatever
// it returned, the writer accepts nothing.
func (w *Writer) Finish() (Meta, error) {
	if w.err != nil {
		return Meta{}, w.err
	}
	if w.props.Count == 0 && w.dels.n == 0 {
		return Meta{}, w.fail(ErrEmpty)
	}
	f := footer{version: formatVersion, footerLength: footerSize, id: w.id, compression: w.opts.Compression}
	if err := w.writePoints(&f); err != nil {
		return Meta{}, err
	}
	if w.lones {
		f.required |= featureLone
	}
	if err := w.writeDels(&f); err != nil {
		return Meta{}, err
	}
	p := w.props.encode()
	if err := w.block(p, kindProps, trailer{comp: NoCompression, rawLen: len(p)}); err != nil {
		return Meta{}, err
	}
	w.props.merge()
	f.propsLen = w.end() - f.propsOff()
	f.fileLen = w.end() + footerSize
	f.contentHash = w.content.Sum64()
	w.out = append(w.out, f.encode()...)
	if err := w.write(len(w.out)); err != nil {
		return Meta{}, err
	}
	w.err = ErrFinished
	w.out, w.packed, w.hashes, w.data, w.index, w.dels = nil, nil, hashes{}, dataBuilder{}, indexBuilder{}, delsBuilder{}
	return Meta{
		Number: w.id.Number, Size: f.fileLen, Count: w.props.Count, Tombstones: w.props.Tombstones,
		RangeDeletes: w.props.RangeDeletes, Lo: w.props.Lo, Hi: w.props.Hi,
		MinLSN: w.props.MinLSN, MaxLSN: w.props.MaxLSN, Hash: f.checksum,
	}, nil
}

// end is where the next block will stand.
func (w *Writer) end() uint64 { return w.off + uint64(len(w.out)) }

// writePoints writes the last data block, the filter and the index.
func (w *Writer) writePoints(f *footer) error {
	if w.props.Count == 0 {
		w.props.points = bounds{}
		return nil
	}
	if w.data.n > 0 {
		if err := w.endBlock(); err != nil {
			return err
		}
	}
	f.dataLen = w.end()
	if err := w.writeFilter(f); err != nil {
		return err
	}
	f.filterLen = w.end() - f.dataLen
	x := w.index.finish()
	if err := w.block(x, kindIndex, trailer{comp: NoCompression, rawLen: len(x)}); err != nil {
		return err
	}
	f.indexLen = w.end() - f.indexOff()
	w.props.points.hi = append([]byte(nil), w.lastKey...)
	return nil
}

func (w *Writer) writeFilter(f *footer) error {
	if w.hashes.len() == 0 {
		return nil
	}
	shape, pages := buildBloom(&w.hashes, w.opts.FilterBitsPerKey)
	n := int(shape.linesPerPage) * lineSize
	f.filter, f.pageLen = blockedBloom, uint32(n)
	for len(pages) > 0 {
		if err := w.block(pages[:n], kindFilter, trailer{comp: NoCompression, rawLen: n}); err != nil {
			return err
		}
		pages = pages[n:]
	}
	return nil
}
