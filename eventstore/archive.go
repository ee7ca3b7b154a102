package eventstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"maps"

	"github.com/forebaydb/forebay"
)

// ArchiveInfo says what an archive holds.
type ArchiveInfo struct {
	// Store is the name of the store.
	Store string
	// The archive has the events from offset First to before Next.
	First, Next uint64
	Events      uint64
	// Sum is the SHA-256 of the archive but for its last 32 bytes, which are the sum.
	Sum Hash
}

// An archive is a file header, then records, then an end. Numbers are uvarint.
//
//	"FBEVENTS" format (1 byte: 1), name of the store (string), first offset
//	1, offset, length, the item as it is in the topic        for each event
//	0, next offset, number of events, SHA-256 of all before (32 bytes)
const (
	archiveMagic  = "FBEVENTS"
	archiveFormat = 1
	recordEvent   = 1
	recordEnd     = 0
)

// Archive writes the events before an offset, from the first one that is there, to w, as
// one archive, which VerifyArchive and ReadArchive read. It takes as many as are durable,
// and those of one commit together. Sealed payloads stay sealed: Forget is for archives,
// too, and who reads one needs the keys of the store. To have w durable is the caller's;
// then Retain, with ArchiveInfo.Next as Before, takes them out.
func (s *Store) Archive(ctx context.Context, w io.Writer, before uint64) (info ArchiveInfo, err error) {
	info.Store = s.name
	if info.First, err = s.First(); err != nil {
		return info, err
	}
	info.Next = info.First
	end := info.First
	if err := s.db.Sync(ctx); err != nil {
		return info, err
	}
	for a, err := range s.seq.Appends(info.First) {
		if err != nil {
			return info, err
		}
		if a.Offset+a.Items > before {
			break
		}
		end = a.Offset + a.Items
	}
	sum := sha256.New()
	buf := bufio.NewWriter(io.MultiWriter(w, sum))
	head := append([]byte(archiveMagic), archiveFormat)
	head = binary.AppendUvarint(appendString(head, s.name), info.First)
	if _, err := buf.Write(head); err != nil {
		return info, err
	}
	if end > info.First {
		var rec []byte
		if err := s.items(ctx, info.First, s.seq.Read, func(it forebay.Item, _ *names) (bool, error) {
			if it.Offset >= end {
				return false, nil
			}
			rec = binary.AppendUvarint(append(rec[:0], recordEvent), it.Offset)
			rec = binary.AppendUvarint(rec, uint64(len(it.Value)))
			rec = append(rec, it.Value...)
			info.Events++
			info.Next = it.Offset + 1
			_, err := buf.Write(rec)
			return err == nil && info.Next < end, err
		}); err != nil {
			return info, err
		}
	}
	foot := binary.AppendUvarint([]byte{recordEnd}, info.Next)
	foot = binary.AppendUvarint(foot, info.Events)
	if _, err := buf.Write(foot); err != nil {
		return info, err
	}
	if err := buf.Flush(); err != nil {
		return info, err
	}
	sum.Sum(info.Sum[:0])
	_, err = w.Write(info.Sum[:])
	return info, err
}

// StreamHead is how far a stream is known: its last version, and the hash of that event.
type StreamHead struct {
	Version uint64
	Hash    Hash
}

// VerifyArchive reads an archive to its end and looks that nothing in it was changed: by
// its sum, and by the chain of each stream's hashes. heads, if not nil, is where streams
// stood before, and is brought forward unless there is an error: for archives of one store,
// one after the other,
// begin with an empty map; then events that are missing between them are found, and at
// the end heads compares with StreamInfo (First-1 and Prev) of what the store still has.
// Without it a stream's first event in the archive is taken as it is. What is wrong is
// ErrDamaged; other errors are r's.
func VerifyArchive(r io.Reader, heads map[string]StreamHead) (ArchiveInfo, error) {
	now := map[string]StreamHead{} // of this archive
	a := archiveReader{sum: sha256.New(), r: bufio.NewReader(r)}
	var n names
	for it, err := range a.items() {
		if err != nil {
			return a.info, err
		}
		raw := it.Value[topicTime:]
		ev, _, err := decode(raw, it.Offset, 0, &n)
		if err != nil {
			return a.info, err
		}
		h, known := now[ev.Stream]
		if !known && heads != nil {
			h, known = heads[ev.Stream], true
		}
		if known && (ev.Version != h.Version+1 || ev.Prev != h.Hash) {
			return a.info, failedAt(ev, fmt.Errorf("%w: it does not follow version %d of its stream", ErrDamaged, h.Version))
		}
		now[ev.Stream] = StreamHead{ev.Version, hashOf(raw)}
	}
	if heads != nil {
		maps.Copy(heads, now)
	}
	return a.info, nil
}

// ReadArchive iterates over the events of an archive of this store, with payloads that
// are opened and brought up as by All; they have no LSN. That the archive is whole is
// known at its end: an error comes as the last pair. Verify it first.
func (s *Store) ReadArchive(ctx context.Context, r io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		a := archiveReader{sum: sha256.New(), r: bufio.NewReader(r)}
		var n names
		for it, err := range a.items() {
			var ev Event
			if err == nil {
				err = ctx.Err()
			}
			if err == nil {
				ev, err = s.event(it.Value[topicTime:], it.Offset, 0, &n)
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			if !yield(ev, nil) {
				return
			}
		}
	}
}

// archiveReader reads an archive, and sums what it reads.
type archiveReader struct {
	r    *bufio.Reader
	err  error // of r, where it was read by the byte
	sum  hash.Hash
	info ArchiveInfo
}

// ReadByte is io.ByteReader.
func (a *archiveReader) ReadByte() (byte, error) {
	b, err := a.r.ReadByte()
	if err == nil {
		a.sum.Write([]byte{b})
	}
	a.err = err
	return b, err
}

// bytes reads n bytes into buf. What is not there is not allocated for.
func (a *archiveReader) bytes(buf *bytes.Buffer, n uint64) error {
	buf.Reset()
	if n > forebay.MaxValueSize {
		return fmt.Errorf("%w: archive: %d bytes in one piece", ErrDamaged, n)
	}
	if _, err := io.CopyN(buf, a.r, int64(n)); err != nil {
		return err
	}
	a.sum.Write(buf.Bytes())
	return nil
}

func (a *archiveReader) damaged(why string) error {
	return fmt.Errorf("%w: archive behind offset %d: %s", ErrDamaged, a.info.Next, why)
}

// items iterates over the items of the archive.
func (a *archiveReader) items() iter.Seq2[forebay.Item, error] {
	return func(yield func(forebay.Item, error) bool) {
		err := a.read(func(it forebay.Item) bool { return yield(it, nil) })
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = a.damaged("it ends early")
		}
		if err != nil {
			yield(forebay.Item{}, err)
		}
	}
}

func (a *archiveReader) uvarint() (uint64, error) {
	v, err := binary.ReadUvarint(a)
	if err != nil && a.err == nil {
		return 0, a.damaged("a number: " + err.Error())
	}
	return v, err
}

func (a *archiveReader) read(yield func(forebay.Item) bool) error {
	var buf bytes.Buffer
	if err := a.bytes(&buf, uint64(len(archiveMagic)+1)); err != nil {
		return err
	}
	if buf.String() != archiveMagic+string(rune(archiveFormat)) {
		return a.damaged("it is none, or of another format")
	}
	n, err := a.uvarint()
	if err != nil {
		return err
	}
	if n > maxString {
		return a.damaged("name of its store")
	}
	if err := a.bytes(&buf, n); err != nil {
		return err
	}
	a.info.Store = buf.String()
	if a.info.First, err = a.uvarint(); err != nil {
		return err
	}
	a.info.Next = a.info.First
	for {
		kind, err := a.ReadByte()
		if err != nil {
			return err
		}
		if kind == recordEnd {
			return a.end(&buf)
		}
		if kind != recordEvent {
			return a.damaged(fmt.Sprintf("record of kind %d", kind))
		}
		offset, err := a.uvarint()
		if err != nil {
			return err
		}
		n, err := a.uvarint()
		if err != nil {
			return err
		}
		if offset < a.info.Next || n < topicTime {
			return a.damaged("a record's head")
		}
		if err := a.bytes(&buf, n); err != nil {
			return err
		}
		a.info.Next = offset + 1
		a.info.Events++
		if !yield(forebay.Item{Offset: offset, Value: buf.Bytes()}) {
			return nil
		}
	}
}

// end reads what comes behind the last record.
func (a *archiveReader) end(buf *bytes.Buffer) error {
	next, err := a.uvarint()
	if err != nil {
		return err
	}
	events, err := a.uvarint()
	if err != nil {
		return err
	}
	if next != a.info.Next || events != a.info.Events {
		return a.damaged("its end says another number of events")
	}
	a.sum.Sum(a.info.Sum[:0])
	if err := a.bytes(buf, uint64(len(a.info.Sum))); err != nil {
		return err
	}
	if !bytes.Equal(buf.Bytes(), a.info.Sum[:]) {
		return a.damaged("its sum")
	}
	if _, err := a.r.ReadByte(); err == nil {
		return a.damaged("there is something behind its end")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
