// Package segment reads and writes one kind of file: an immutable, sorted set
// of versions in the order of base.Compare (key ascending, LSN descending), and
// beside them a set of range deletes. Either may be empty, not both.
//
// A Writer takes versions in that order, and range deletes in theirs, and writes
// the file front to back. A Reader answers Get, hands out iterators and the range
// deletes, and verifies. Get and iterators show all versions: what the range
// deletes hide, of this segment and of older ones, the caller leaves out. A
// segment is never changed after Finish; replacing it is the business of whoever
// keeps the list of live segments.
//
//	w, err := segment.NewWriter(f, id, segment.WriterOptions{})
//	err = w.Add(key, lsn, base.KindPut, value)   // in order
//	err = w.AddRangeDeletes(set)
//	meta, err := w.Finish()                      // writes the rest; f is still to be synced
//
//	r, err := segment.Open(f, name, id, segment.Options{Cache: c})
//	value, kind, at, found, err := r.Get(key, lsn)
//	set, err := r.RangeDeletes()                 // no I/O when there are none
//
// # What is trusted
//
// Nothing that was read. Every byte of the file lies under a checksum, and
// every checksum is bound to the segment's identity, the block's offset in the
// file and the block's kind, so that bytes which are damaged, stale, copied from
// another place or from another segment do not verify. Lengths are compared
// with the size of the file before anything is allocated. What does not hold is
// a *base.CorruptionError with file and offset; an I/O error is passed on with
// file and offset and is never taken for an end or an absence.
//
// # File
//
// All integers are little-endian; uvarint is that of encoding/binary. The parts
// follow each other without a gap, so that their lengths give their places:
//
//	+--------------+-----+--------------+---------------+-----+-------+---------+------------+--------+
//	| data block 0 | ... | data block n | filter page 0 | ... | index | range   | properties | footer |
//	|              |     |              |               |     |       | deletes |            |        |
//	+--------------+-----+--------------+---------------+-----+-------+---------+------------+--------+
//	0                                   dataLength            +filterLength, +indexLength, ...
//
// The block of range deletes is there when the segment has some. One that has
// nothing else has neither data, filter nor index.
//
// # Block
//
// A data block, a filter page, the index, the range deletes and the properties
// are each one block: a payload and a trailer of 16 bytes.
//
//	offset  size  field
//	0       n     payload, as the compression says
//	n       1     kind: 1 data, 2 filter, 3 index, 4 properties, 6 range deletes
//	              (5 is the footer)
//	n+1     1     compression: 1 none, 2 S2 block, 3 zstd frame (data blocks only)
//	n+2     1     1: a lone block, see there; else 0
//	n+3     1     zero
//	n+4     4     length of the payload when decompressed
//	n+8     8     checksum
//
// checksum = xxhash64(the block up to here) XOR xxhash64(binding), where binding
// is 40 bytes:
//
//	offset  size  field
//	0       16    store id
//	16      8     segment number
//	24      8     offset of the block in the file
//	32      8     kind
//
// # Data block
//
// Entries with prefix-compressed keys. Every 16th entry is a restart point: its
// key is whole, and its offset stands in the array at the end. The keys up to the
// next one share with it, not with each other, so that each is known from two
// places.
//
//	offset  size     field
//	0       8        base LSN: that of the first entry
//	8       ...      entries
//	...     4*r      offsets in the payload of the restart points, the first is 8
//	...     4        r, at least 1
//
// One entry:
//
//	field     type     meaning
//	shared    uvarint  leading bytes shared with the restart point; 0 at one
//	unshared  uvarint  bytes of key that follow
//	tag       uvarint  length of the value << 3 | kind (1 put, 2 delete)
//	lsn       uvarint  zigzag(LSN - base LSN), modulo 2^64
//	key       unshared bytes
//	value     as long as tag says
//
// A block is closed before an entry that might take it past the block size of
// the writer; an entry that is larger alone has a block of its own. A payload is
// at most 34 MiB, decompressed.
//
// A put that is larger than the block size is a lone block, unless it is the segment's
// first, or its key has more than a 32nd of the bytes: the block's separator in the index is the whole key, and the LSN, 8 bytes, stands between the payload
// and the trailer. So a merge knows the version without unpacking it, and takes the
// block over as it is: the hash does not depend on where it stands.
//
// # Filter
//
// A blocked Bloom filter over the distinct user keys, cut into pages so that one
// lookup reads one page. All pages have the same length, a multiple of 64 bytes
// and at most 4096; a line is 64 bytes. With h = xxhash64(key) and L = lines of
// all pages: line = high 64 bits of h*L, in page line / linesPerPage. The bits in
// the line: g = h * 0x9E3779B97F4A7C15; bit i, for i = 0 to 5, is
// (g >> (10+9i)) & 511, counted from the least bit of the line's first byte.
//
// # Index
//
// One entry for each data block. The separator of block i is above everything in
// block i-1 and at or below everything in block i; that of block 0 is empty. The
// offset of a block is the sum of the lengths before it.
//
//	field      type     meaning
//	count      4 bytes  data blocks, at least 1
//	then for each:
//	length     uvarint  of the block with its trailer
//	keyLength  uvarint
//	lsn        uvarint  MaxLSN - the separator's LSN
//	key        keyLength bytes
//
// # Range deletes
//
// Whole ranges, sorted by lower bound, those of one lower bound by LSN
// descending. They may overlap: cut at each other's ends, as a reader wants them,
// nested ones would take room by the square of their number.
//
//	field      type     meaning
//	count      4 bytes  range deletes, at least 1
//	then for each:
//	lower      uvarint  0: the lower bound before, 1: the upper bound before, else
//	                    2 + the length of the lower bound
//	key        lower-2 bytes, when it is not one of those before; may be empty
//	upper      uvarint  length of the upper bound
//	key        upper bytes; above the lower bound
//	lsn        uvarint  above 0 and below the highest number
//
// # Properties
//
//	offset  size  field
//	0       8     versions
//	8       8     tombstones among them
//	16      8     distinct user keys
//	24      8     lowest LSN of a version
//	32      8     highest LSN of a version
//	40      8     bytes of all keys
//	48      8     bytes of all values
//	56      8     bytes of all data payloads, decompressed
//	64      4     length of the smallest key
//	68      4     length of the largest key
//	72      ...   the smallest key, the largest key
//
// Without any version all of that is zero. With range deletes, of which the
// bounds of everything are made (Meta), it is
//
//	72      8     range deletes
//	80      8     lowest LSN of a range delete
//	88      8     highest LSN of a range delete
//	96      4     length of the lowest lower bound
//	100     4     length of the highest upper bound
//	104     ...   the smallest key, the largest key, the lowest lower bound, the
//	              highest upper bound
//
// # Footer
//
// 128 bytes at the very end. The first 24 bytes, the identity and the checksum
// keep their places in every later version, so that any program can tell a file
// that it does not understand from one that is damaged.
//
//	offset  size  field
//	0       8     magic: 89 'F' 'B' 'S' 'E' 'G' 0d 0a
//	8       4     format version, 1
//	12      4     required features: one that is unknown means do not read;
//	              bit 0: there are range deletes, bit 1: there are lone blocks
//	16      4     compatible features: unknown ones may be ignored
//	20      4     length of the footer, 128
//	24      16    store id
//	40      8     segment number
//	48      8     length of the file, footer included
//	56      8     length of all data blocks
//	64      8     length of all filter pages, 0 without a filter
//	72      8     length of the index block
//	80      8     length of the properties block
//	88      8     content hash: xxhash64 over the checksums of all blocks, in order
//	96      4     length of one filter page without its trailer
//	100     1     filter: 0 none, 1 blocked Bloom
//	101     1     compression that the writer was asked for (a hint)
//	102     2     zero
//	104     8     length of the block of range deletes, 0 without any
//	112     8     highest LSN of a version, 0 without any version, and 0 when
//	              there are no range deletes
//	120     8     checksum of the bytes before, bound as a block's
//
// Through the content hash the footer's checksum stands for the whole file: kept
// in the list of live segments (Meta.Hash) it tells an old file of the same name
// and number from the one that is meant.
package segment
