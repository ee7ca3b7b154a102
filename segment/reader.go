package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/cache"
	"github.com/forebaydb/forebay/internal/rangedel"
	"github.com/forebaydb/forebay/vfs"
)

// Options says how a segment is read. The zero value is the default.
type Options struct {
	// Cache keeps verified blocks; nil means that every read goes to the file.
	// One cache may serve any number of segments and stores.
	Cache *Cache
}

// Cache keeps verified blocks in memory; see package cache.
type Cache = cache.Cache[directory]

// NewCache makes a cache of at most budget bytes.
func NewCache(budget int64) *Cache { return cache.New[directory](budget) }

// cachedBlock is a block in the cache, a slot where it is found.
type (
	cachedBlock = cache.Block[directory]
	slot        = cache.Slot[directory]
)

// Reader reads one segment. All methods but Close may be called at once from
// many goroutines. Errors are *base.CorruptionError where bytes do not verify,
// and else those of the file, wrapped with its name and the offset. No error
// sticks: the next call reads again.
type Reader struct {
	f      vfs.File
	name   string
	foot   footer
	filter filter // nil without one

	cache *Cache
	file  uint64 // what the cache calls this file

	// Nil until a read needs them.
	index  atomic.Pointer[index]
	dels   atomic.Pointer[rangedel.Set]
	bounds atomic.Pointer[bounds]
	loadMu sync.Mutex // held while index or range deletes are read

	habit habit
}

// Open opens the segment id in f, which errors call name. It reads the size and
// the footer and nothing else; the rest is read and verified when it is needed.
// A file that is not this segment, or is not as long as its footer says, is a
// *base.CorruptionError; an intact file of a newer format an *UnsupportedError.
//
// The reader owns f from here on and closes it in Close. After an error of Open
// the caller still owns it.
func Open(f vfs.File, name string, id ID, opts Options) (*Reader, error) {
	r := &Reader{f: f, name: name, cache: opts.Cache}
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("segment: size of %s: %w", name, err)
	}
	if size < footerSize {
		return nil, &base.CorruptionError{File: name, Offset: -1, Reason: fmt.Sprintf("segment of %d bytes is shorter than its footer", size)}
	}
	s := getScratch()
	defer s.release()
	s.disk = grow(s.disk, footerSize)
	if err := r.readAt(s.disk, uint64(size)-footerSize); err != nil {
		return nil, err
	}
	if r.foot, err = decodeFooter(s.disk, name, uint64(size), &id); err != nil {
		return nil, err
	}
	r.filter = newFilter(&r.foot)
	r.file = opts.Cache.NewFile()
	return r, nil
}

// Close closes the file and drops its blocks from the cache. No other call may
// be running, and all iterators must be closed; what Find has found stays good until
// it is released.
func (r *Reader) Close() error {
	if x := r.index.Load(); x != nil && r.cache != nil {
		x.evict(r)
	}
	if err := r.f.Close(); err != nil {
		return fmt.Errorf("segment: close %s: %w", r.name, err)
	}
	return nil
}

// ID returns the segment's identity.
func (r *Reader) ID() ID { return r.foot.id }

// Name returns the name given to Open.
func (r *Reader) Name() string { return r.name }

// Size returns the length of the file in bytes.
func (r *Reader) Size() uint64 { return r.foot.fileLen }

// Hash returns the footer's checksum, which through the footer's content hash
// stands for every byte of the file. It equals Meta.Hash of the writer; a file
// with another hash is not the one that was written, however well it verifies.
func (r *Reader) Hash() uint64 { return r.foot.checksum }

// Memory returns what the reader keeps beside the cache, in bytes: index, range
// deletes and bounds, once they were needed.
func (r *Reader) Memory() int64 {
	var n int64
	if x := r.index.Load(); x != nil {
		n += x.memory()
	}
	if s := r.dels.Load(); s != nil {
		n += int64(s.Memory())
	}
	if b := r.bounds.Load(); b != nil {
		n += int64(len(b.lo) + len(b.hi))
	}
	return n
}

// Props reads, verifies and returns the properties.
func (r *Reader) Props() (Properties, error) {
	p, _, err := r.readProps()
	return p, err
}

func (r *Reader) readProps() (Properties, trailer, error) {
	s := getScratch()
	defer s.release()
	off := r.foot.propsOff()
	payload, t, err := r.load(off, r.foot.propsLen, kindProps, s, false)
	if err != nil {
		return Properties{}, t, err
	}
	p, ok := decodeProps(payload, r.foot.dataLen > 0, r.foot.delsLen > 0)
	if !ok {
		return p, t, r.corrupt(off, "segment properties do not hold together", nil)
	}
	p.Compression = r.foot.compression
	return p, t, nil
}

// Get finds the newest version of key at or below lsn. kind tells a value from
// a delete; at is the version's own LSN. value is a copy.
func (r *Reader) Get(key []byte, lsn base.LSN) (value []byte, kind base.Kind, at base.LSN, found bool, err error) {
	f, err := r.Find(key, lsn)
	value = bytes.Clone(f.Value)
	f.Block.Release()
	return value, f.Kind, f.LSN, f.OK, err
}

// Found is what Find has found, if OK says so.
type Found struct {
	// Value lies in Block, which the caller releases when he does not look at it any
	// more, or, if that is nil, in memory of its own. He must not write to it.
	Value []byte
	Block *Block
	Kind  base.Kind // which tells a value from a delete
	LSN   base.LSN
	OK    bool
}

// Block is a block in the cache.
type Block = cachedBlock

// Find is Get without a copy.
func (r *Reader) Find(key []byte, lsn base.LSN) (Found, error) {
	l, err := r.find(key, lsn)
	return Found{l.value, l.block, l.kind, l.lsn, l.found}, err
}

func (r *Reader) find(key []byte, lsn base.LSN) (l lookup, err error) {
	x := r.index.Load()
	if x == nil {
		if x, err = r.loadIndex(); err != nil {
			return l, err
		}
	}
	if len(x.blocks) == 0 {
		return l, nil
	}
	hash := xxhash.Sum64(key)
	sampled := hash%habitSample == 0
	if r.filter != nil && (sampled || !r.habit.there.Load()) {
		may, err := r.mayContain(x, hash)
		if sampled && err == nil {
			r.habit.note(may)
		}
		if err != nil || !may {
			return l, err
		}
	}
	i := x.find(key, lsn)
	l, err = r.getInBlock(x, i, key, lsn, hash, sampled)
	if !l.found && err == nil && i+1 < len(x.blocks) && bytes.Equal(x.key(i+1), key) {
		// The versions of key go on in the next block.
		l, err = r.getInBlock(x, i+1, key, lsn, hash, sampled)
	}
	return l, err
}

// habitSample: the filter is asked for one key of so many whatever the habit is.
const habitSample = 16

// habit is what the filter mostly says. Where keys mostly are there it is asked only
// when their block is not in the cache: a block's directory tells as much.
type habit struct {
	there     atomic.Bool
	asked, no atomic.Uint32
}

// note takes in an answer. Some that are lost between two readers do no harm.
func (h *habit) note(may bool) {
	if !may {
		h.no.Add(1)
	}
	if h.asked.Add(1) < 64 {
		return
	}
	if there := h.no.Load() < 64/8; there != h.there.Load() {
		h.there.Store(there)
	}
	h.asked.Store(0)
	h.no.Store(0)
}

// getInBlock is find in data block i; asked says that the filter was.
func (r *Reader) getInBlock(x *index, i int, key []byte, lsn base.LSN, hash uint64, asked bool) (lookup, error) {
	var payload []byte
	c := x.cached(i)
	if c == nil {
		if r.filter != nil && !asked && r.habit.there.Load() {
			if may, err := r.mayContain(x, hash); err != nil || !may {
				return lookup{}, err
			}
		}
		s := getScratch()
		defer s.release()
		var err error
		if payload, c, err = r.loadData(x, i, s); err != nil {
			return lookup{}, err
		}
	} else {
		c = r.laidOut(c)
	}
	if c != nil {
		if c.Side.n > 0 {
			return c.Side.get(key, lsn, hash).in(c), nil
		}
		payload = c.Data
	}
	var b blockIter
	var l lookup
	ok := b.init(payload)
	if ok {
		l, ok = b.get(key, lsn)
	}
	if !ok {
		c.Release()
		off, _ := x.block(i)
		return lookup{}, r.corruptBlock(off)
	}
	if c == nil && l.found { // it lies in memory that is used again
		l.value = bytes.Clone(l.value)
	}
	return l.in(c), nil
}

func (r *Reader) mayContain(x *index, hash uint64) (bool, error) {
	i := r.filter.page(hash)
	if c := x.page(i); c != nil {
		may := r.filter.mayContain(c.Data, hash)
		c.Release()
		return may, nil
	}
	off, n := r.foot.page(i)
	s := getScratch()
	defer s.release()
	page, _, err := r.load(off, n, kindFilter, s, false)
	if err != nil {
		return false, err
	}
	if in := x.pageSlot(i); in != nil {
		r.keep(in, off, page).Release()
	}
	return r.filter.mayContain(page, hash), nil
}

// keep puts a copy of a payload into the cache, and returns the block that is there,
// for the caller to release.
func (r *Reader) keep(in *slot, off uint64, payload []byte) *cachedBlock {
	b := r.cache.NewBlock(r.file, off, len(payload))
	copy(b.Data, payload)
	return r.cache.Put(in, b)
}

// NewIter returns an iterator over all versions; see base.Iterator. Blocks that
// it reads go to the cache.
func (r *Reader) NewIter() base.Iterator { return &iter{r: r, block: -1} }

// ReuseIter is NewIter in the memory of an iterator of NewIter, of any segment, that
// was closed and that nobody uses any more; nil is none.
func (r *Reader) ReuseIter(old base.Iterator) base.Iterator {
	it, ok := old.(*iter)
	if !ok {
		return r.NewIter()
	}
	it.r, it.err = r, nil
	return it
}

// NewScanIter is NewIter for who reads much and once (a compaction, a backup):
// it reads 256 KiB ahead, in the direction in which it goes, and past the cache,
// so that it neither fills it nor counts as use of what is there.
func (r *Reader) NewScanIter() base.Iterator { return &iter{r: r, block: -1, scans: true} }

// loadIndex returns the index, read and verified at the first need.
func (r *Reader) loadIndex() (*index, error) {
	if x := r.index.Load(); x != nil {
		return x, nil
	}
	r.loadMu.Lock()
	defer r.loadMu.Unlock()
	if x := r.index.Load(); x != nil {
		return x, nil
	}
	x, _, err := r.readIndex()
	if err != nil {
		return nil, err
	}
	if r.cache != nil {
		x.slots = make([]slot, uint64(len(x.blocks))+r.foot.pages())
	}
	r.index.Store(x)
	return x, nil
}

func (r *Reader) readIndex() (*index, trailer, error) {
	if r.foot.indexLen == 0 { // range deletes alone
		return &index{}, trailer{}, nil
	}
	off := r.foot.indexOff()
	payload, t, err := r.load(off, r.foot.indexLen, kindIndex, nil, true)
	if err != nil {
		return nil, t, err
	}
	x, reason := decodeIndex(payload, r.foot.dataLen)
	if reason != "" {
		return nil, t, r.corrupt(off, reason, nil)
	}
	return x, t, nil
}

// loadData reads data block i and puts it into its slot, if there is one; then it
// returns it for the caller to release, and else its payload, which lies in s. While
// the cache has room it is laid out at once; else when it is asked for again, if it
// stays so long.
func (r *Reader) loadData(x *index, i int, s *scratch) (payload []byte, c *cachedBlock, err error) {
	off, n := x.block(i)
	payload, _, err = r.load(off, n, kindData, s, false)
	in := x.slot(i)
	switch {
	case err != nil || in == nil:
		return payload, nil, err
	case !r.cache.HasRoom(r.file, off, directoryMax):
		return nil, r.keep(in, off, payload), nil
	}
	var b *cachedBlock
	d, ok := layOut(payload, func(n int) []byte {
		b = r.cache.NewBlock(r.file, off, n)
		return b.Data
	})
	if ok {
		b.Side = d
		return nil, r.cache.Put(in, b), nil
	}
	c = r.keep(in, off, payload)
	if c.Side.n == 0 {
		c.Claim() // it has none: nobody need try again
	}
	return nil, c, nil
}

// load reads a block of n bytes at off, verifies and unpacks it. With keep the
// payload has memory of its own, else it may lie in s. The caller has bounded n
// by the size of the file.
func (r *Reader) load(off, n uint64, kind blockKind, s *scratch, keep bool) ([]byte, trailer, error) {
	// What will most likely be kept as it is read needs no copy.
	own := keep && (kind != kindData || r.foot.compression == NoCompression)
	var disk []byte
	if own {
		disk = make([]byte, n)
	} else {
		s.disk = grow(s.disk, int(n))
		disk = s.disk
	}
	if err := r.readAt(disk, off); err != nil {
		return nil, trailer{}, err
	}
	return r.unpack(disk, off, kind, s, keep, own)
}

// unpack verifies and unpacks a block that was read from off. With keep the
// payload has memory of its own, which disk is if own says so; else it lies in
// disk or in s.
func (r *Reader) unpack(disk []byte, off uint64, kind blockKind, s *scratch, keep, own bool) ([]byte, trailer, error) {
	payload, t, reason := checkBlock(disk, &r.foot.id, off, kind)
	if reason != "" {
		return nil, t, r.corrupt(off, reason, nil)
	}
	payload, err := r.unpacked(payload, t, off, s, keep, own)
	return payload, t, err
}

// unpacked is unpack of a payload that was verified.
func (r *Reader) unpacked(payload []byte, t trailer, off uint64, s *scratch, keep, own bool) ([]byte, error) {
	if t.comp == NoCompression {
		if keep && !own {
			payload = append(make([]byte, 0, len(payload)), payload...)
		}
		return payload, nil
	}
	var dst []byte
	if !keep {
		dst = s.raw
	}
	raw, err := decompress(t.comp, dst, payload, t.rawLen)
	if err != nil {
		return nil, r.corrupt(off, "block does not decompress", err)
	}
	if !keep && cap(raw) > cap(s.raw) {
		s.raw = raw
	}
	return raw, nil
}

// readAt fills b. The file had the right size when it was opened: an end before
// b is full is damage.
func (r *Reader) readAt(b []byte, off uint64) error {
	n, err := r.f.ReadAt(b, int64(off))
	eof := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch {
	case n == len(b) && (err == nil || eof):
		return nil
	case err == nil || eof:
		return r.corrupt(off+uint64(max(n, 0)), "segment ends too early", nil)
	}
	return fmt.Errorf("segment: read %s at offset %d: %w", r.name, off, err)
}

func (r *Reader) corrupt(off uint64, reason string, cause error) error {
	return &base.CorruptionError{File: r.name, Offset: int64(off), Reason: reason, Err: cause}
}

func (r *Reader) corruptBlock(off uint64) error {
	return r.corrupt(off, "data block verifies but does not decode", nil)
}

// scratch is memory for one block: as it is in the file, and unpacked.
type scratch struct{ disk, raw []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func getScratch() *scratch { return scratches.Get().(*scratch) }

// release gives the memory back; a nil scratch is none.
func (s *scratch) release() {
	if s == nil {
		return
	}
	if cap(s.disk) > maxKeptBuffer {
		s.disk = nil
	}
	if cap(s.raw) > maxKeptBuffer {
		s.raw = nil
	}
	scratches.Put(s)
}

// grow returns b with length n; what it held is lost.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
