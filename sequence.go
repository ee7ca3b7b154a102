package forebay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/internal/batch"
	"github.com/forebaydb/forebay/internal/keyspace"
	"github.com/forebaydb/forebay/wal"
)

// Sequence is a named list of items that grows at its end alone. Items have offsets
// from 0 on, without gaps, in the order of the commits that append them. An item is
// written once: it lies in the log, whose files are kept as long as sequences have
// more than a little in them (Options.SettleShare), and memtables and segments have an index of it alone. It shares
// log, batches and transactions with all keyspaces, and its name is one of theirs. It
// is a handle, which any number of goroutines may use.
type Sequence struct {
	db   *DB
	ks   *Keyspace
	next atomic.Uint64 // the offset of the next item; the log's leader alone changes it
}

// Item is one item of a sequence. Its bytes live for one step of an iteration and must
// not be changed.
type Item struct {
	Offset uint64
	// LSN of the commit that appended it.
	LSN   uint64
	Value []byte
}

// sequencePrefix is what the names of the keyspaces of sequences begin with.
const sequencePrefix = keyspace.SequencePrefix

// sequences are the handles of a store's sequences, by the ids of their keyspaces.
type sequences struct {
	mu   sync.RWMutex // a leaf
	byID map[uint64]*Sequence
	// trims is held by who takes items out and then tells the log what it need not
	// keep for them: nobody may count in between.
	trims sync.Mutex
	// settling counts how often it was asked for to settle what is left of nearly dead log
	// files, since a goroutine does it.
	settling atomic.Int64
}

func (s *sequences) get(id uint64) *Sequence {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

// Sequence returns the sequence with a name of 1 to 245 bytes, and makes it, by a
// commit at the default level, when there is none. A store that is open for reading
// only returns ErrNoKeyspace then.
func (db *DB) Sequence(name string) (*Sequence, error) {
	if name == "" || len(sequencePrefix+name) > keyspace.MaxName {
		return nil, fmt.Errorf("forebay: name of a sequence: %w", keyspace.ErrName)
	}
	ks, err := db.keyspace(sequencePrefix + name)
	if err != nil {
		return nil, err
	}
	if s := db.seqs.get(ks.id); s != nil {
		return s, nil
	}
	// Nobody appends to it without a handle: what there is was replayed, or settled.
	s := &Sequence{db: db, ks: ks}
	_, next, err := s.Bounds()
	if err != nil {
		return nil, err
	}
	s.next.Store(next)
	db.seqs.mu.Lock()
	defer db.seqs.mu.Unlock()
	if had := db.seqs.byID[ks.id]; had != nil {
		return had, nil
	}
	if db.seqs.byID == nil {
		db.seqs.byID = map[uint64]*Sequence{}
	}
	db.seqs.byID[ks.id] = s
	return s, nil
}

// sequenceOf returns the name of the sequence whose index is in a keyspace.
func sequenceOf(keyspace string) (name string, ok bool) {
	return strings.CutPrefix(keyspace, sequencePrefix)
}

// Sequences returns the names of all sequences, sorted.
func (db *DB) Sequences() ([]string, error) {
	out, err := names(db, sequencePrefix, true)
	for i := range out {
		out[i], _ = sequenceOf(out[i])
	}
	return out, err
}

// DropSequence removes a sequence with all its items, by a durable commit: the log files
// in which they are go at once. ErrNoKeyspace: there is none with the name.
func (db *DB) DropSequence(name string) error {
	if db.readOnly {
		return ErrReadOnly
	}
	db.seqs.trims.Lock()
	defer db.seqs.trims.Unlock()
	if _, err := lookUp(db, sequencePrefix+name); err != nil {
		return err
	}
	s, err := db.Sequence(name)
	if err != nil {
		return err
	}
	gone := kept{log: db.log} // what is appended until it is dropped, the next open gives back
	if err := s.entries(func(e *batch.Entry) bool {
		gone.add(e)
		return true
	}); err != nil {
		return err
	}
	if err := db.dropKeyspace(sequencePrefix+name, Durable); err != nil {
		return err
	}
	db.seqs.mu.Lock()
	delete(db.seqs.byID, s.ks.id)
	db.seqs.mu.Unlock()
	return gone.giveBack()
}

// Place is for commit.Table.
func (t memtables) Place(record []byte) {
	batch.Place(record, func(key []byte, n int) uint64 {
		id, _, _ := keyspace.Cut(key)
		s := t.db.seqs.get(id) // who appends has a handle
		first := s.next.Load()
		s.next.Store(first + uint64(n))
		return first
	})
}

// Append appends an item, which is copied, at the default level, and returns its
// offset. Errors: *LimitError, and those of Apply.
func (s *Sequence) Append(item []byte) (offset uint64, err error) {
	var b Batch
	if err := b.Append(s, item); err != nil {
		return 0, err
	}
	if err := s.db.Apply(&b, s.db.opts.DefaultLevel); err != nil {
		return 0, err
	}
	offset, _ = b.Appended(s)
	return offset, nil
}

// Next returns the offset that the next item will have which the log puts into its
// order: behind those of commits under way, which reads may not see yet.
func (s *Sequence) Next() uint64 { return s.next.Load() }

// Append adds an item to the end of a sequence when the batch is committed, behind the
// items that the batch appends to it already. It is copied. Errors: *LimitError; the
// batch is then as it was.
func (b *Batch) Append(s *Sequence, item []byte) error {
	return b.b.AppendItem(b.use(s.ks), item)
}

// Bounds returns the offset of the first item that is there, and the one that the next
// item will have, as reads see the sequence now.
func (s *Sequence) Bounds() (first, next uint64, err error) {
	it := s.ks.NewIterator(nil)
	defer it.Close()
	if !it.First() {
		return 0, 0, it.Err()
	}
	e, err := s.entry(it)
	if err != nil {
		return 0, 0, err
	}
	first = e.Offset
	if e.Size == 0 {
		first = e.End()
	}
	if !it.Last() {
		return 0, 0, it.Err()
	}
	e, err = s.entry(it)
	return first, e.End(), err
}

// entry reads the index entry on which it stands.
func (s *Sequence) entry(it *Iterator) (batch.Entry, error) {
	e, ok := batch.DecodeIndexEntry(it.Key(), it.Value(), it.LSN())
	if !ok {
		return e, fmt.Errorf("forebay: an entry of the index of sequence %q does not decode", s.Name())
	}
	return e, nil
}

// Trim takes the items before an offset out of the sequence, by a durable commit: as
// many as there are in whole appends. The log files in which nothing is left that
// anybody needs go.
func (s *Sequence) Trim(before uint64) error {
	db := s.db
	if db.readOnly {
		return ErrReadOnly
	}
	db.seqs.trims.Lock()
	defer db.seqs.trims.Unlock()
	gone := kept{log: db.log}
	var end uint64
	some, all := false, true
	if err := s.entries(func(e *batch.Entry) bool {
		if all = e.End() <= before; !all {
			return false
		}
		end = e.End()
		some = some || e.Size > 0
		gone.add(e)
		return true
	}); err != nil || !some {
		return err
	}
	b := db.NewBatch()
	w := b.In(s.ks)
	if all { // an entry of nothing says where the sequence goes on
		end--
	}
	if err := w.DeleteRange(nil, batch.IndexKey(nil, nil, end)); err != nil {
		return err
	}
	if all {
		if err := w.Put(batch.IndexKey(nil, nil, end), batch.EntryOfNothing()); err != nil {
			return err
		}
	}
	if err := db.Apply(b, Durable); err != nil {
		return err
	}
	err := gone.giveBack()
	db.settleRemainsSoon()
	return err
}

// entries calls each for the entries of the index until it returns false.
func (s *Sequence) entries(each func(e *batch.Entry) bool) error {
	it := s.ks.NewIterator(nil)
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		e, err := s.entry(it)
		if err != nil {
			return err
		}
		if !each(&e) {
			return nil
		}
	}
	return it.Err()
}

// kept is what appends have in the files of a log: bytes by the first LSN of a file.
type kept struct {
	log   *wal.Log
	files []wal.FileInfo
	sums  map[uint64]uint64
}

// add adds what an entry of an index has in the log.
func (k *kept) add(e *batch.Entry) {
	if e.Size == 0 || e.Settled != nil {
		return
	}
	i := fileOf(k.files, e.LSN)
	if i < 0 { // it may be of a file that came since
		k.files = k.log.Files()
		i = fileOf(k.files, e.LSN)
	}
	if i < 0 {
		return
	}
	if k.sums == nil {
		k.sums = map[uint64]uint64{}
	}
	k.sums[k.files[i].First] += e.Size
}

// giveBack tells the log that it need not keep them.
func (k *kept) giveBack() error {
	for first, bytes := range k.sums {
		if err := k.log.Unkeep(first, bytes); err != nil {
			return public(err)
		}
	}
	return nil
}

// fileOf returns which file has a record, -1 if none.
func fileOf(files []wal.FileInfo, lsn uint64) int {
	i := sort.Search(len(files), func(i int) bool { return files[i].Last >= lsn })
	if i < len(files) && files[i].First <= lsn {
		return i
	}
	return -1
}

// recountSoon has recount done in the background, if the log keeps anything.
func (db *DB) recountSoon() {
	if !slices.ContainsFunc(db.log.Files(), func(f wal.FileInfo) bool { return f.Keep > 0 }) {
		return
	}
	db.spawn(func() {
		if err := db.recount(); err != nil && !errors.Is(err, ErrClosed) {
			db.opts.Logger.Warn("log files that sequences do not need any more stay until the next open", "error", err)
		}
		db.settleRemainsSoon()
	})
}

// recount tells the log, behind an open, what was taken out of sequences: it knows
// again what its records said.
func (db *DB) recount() error {
	db.seqs.trims.Lock()
	defer db.seqs.trims.Unlock()
	files := db.log.Files()
	opened := db.rep.Last
	live := make([]uint64, len(files))
	all, err := db.Sequences()
	if err != nil {
		return err
	}
	for _, name := range all {
		s, err := db.Sequence(name)
		if err != nil {
			return err
		}
		if err := s.entries(func(e *batch.Entry) bool {
			if e.Size == 0 { // its LSN is that of a trim, and may be above those behind it
				return true
			}
			if i := fileOf(files, e.LSN); i >= 0 && e.Settled == nil {
				live[i] += e.Size
			}
			return e.LSN < opened && db.ctx.Err() == nil
		}); err != nil {
			return err
		}
		if db.ctx.Err() != nil { // a part says nothing
			return ErrClosed
		}
	}
	for i, f := range files {
		if f.Last <= opened && f.Keep > live[i] && f.First <= f.Last {
			if err := db.log.Unkeep(f.First, f.Keep-live[i]); err != nil {
				return public(err)
			}
		}
	}
	return nil
}

// Name returns the sequence's name.
func (s *Sequence) Name() string { return s.ks.name[len(sequencePrefix):] }

// Read iterates over the durable items from an offset on, in order, up to those that
// are durable when it comes to them. An error ends it and comes as the last pair:
// ErrNotFound when the item at from, or one that it came to, is not there any more,
// ErrReadOnly where the store is open for reading only, ctx's. Over items that a salvage
// could not read it goes on behind them: see Item.Offset.
func (s *Sequence) Read(ctx context.Context, from uint64) iter.Seq2[Item, error] {
	return s.read(ctx, from, false)
}

// Follow is Read that then waits for more, until ctx ends or the store is closed.
func (s *Sequence) Follow(ctx context.Context, from uint64) iter.Seq2[Item, error] {
	return s.read(ctx, from, true)
}

func (s *Sequence) read(ctx context.Context, from uint64, follow bool) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if err := s.each(ctx, from, follow, func(i Item) bool { return yield(i, nil) }); err != nil {
			yield(Item{}, err)
		}
	}
}

// Commit iterates over the items that the commit with an LSN appended, and makes them
// durable first if they are not. An error comes as the last pair: ErrNotFound when it
// appended none, or when they are not there any more; ctx's.
func (s *Sequence) Commit(ctx context.Context, lsn uint64) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		value, err := s.commitOf(ctx, lsn)
		if err != nil {
			yield(Item{}, err)
			return
		}
		offset := batch.FirstOffset(value)
		for items := batch.ItemsOf(value); items.Next(); offset++ {
			if !yield(Item{Offset: offset, LSN: lsn, Value: items.Item()}, nil) {
				return
			}
		}
	}
}

// commitOf returns what a commit appended.
func (s *Sequence) commitOf(ctx context.Context, lsn uint64) ([]byte, error) {
	db := s.db
	none := fmt.Errorf("%w: items of commit %d in sequence %q", ErrNotFound, lsn, s.Name())
	switch {
	case db.readOnly:
		return nil, ErrReadOnly
	case db.shut.Load():
		return nil, ErrClosed
	case lsn == 0 || lsn > db.LastLSN():
		return nil, none
	case lsn > db.log.DurableLSN():
		if err := db.Sync(ctx); err != nil {
			return nil, err
		}
	}
	t, err := db.log.NewSkippingTail(Position{Epoch: db.log.EpochAt(lsn - 1), LSN: lsn - 1})
	if err != nil {
		return nil, public(err)
	}
	defer t.Close()
	pos, rec, ok, err := t.TryNext()
	switch {
	case err != nil:
		return nil, db.seen(public(err))
	case !ok || pos.LSN != lsn:
		value, err := s.settledOf(lsn)
		if err == nil && value == nil {
			err = none
		}
		return value, err
	}
	value, err := batch.Appended(rec, s.ks.prefix)
	if err != nil || value == nil {
		return nil, errors.Join(err, none)
	}
	if err := db.pipe.WaitVisible(ctx, lsn); err != nil {
		return nil, public(err)
	}
	// What is in the log may have been taken out of the sequence.
	it := s.ks.NewIterator(nil)
	defer it.Close()
	key := batch.IndexKey(nil, nil, batch.FirstOffset(value))
	if !it.SeekGE(key) || !bytes.Equal(it.Key(), key) {
		return nil, errors.Join(it.Err(), none)
	}
	switch e, err := s.entry(it); {
	case err != nil:
		return nil, err
	case e.LSN != lsn:
		return nil, none
	}
	return value, nil
}

// each calls yield for the items until it returns false.
func (s *Sequence) each(ctx context.Context, from uint64, follow bool, yield func(Item) bool) error {
	switch {
	case s.db.readOnly:
		return ErrReadOnly
	case s.db.shut.Load():
		return ErrClosed
	}
	next, on, err := s.settledFrom(from, false, yield)
	if err != nil || !on {
		return err
	}
	pos, err := s.seek(ctx, next)
	if err != nil {
		return err
	}
	t, err := s.db.log.NewSkippingTail(pos)
	if err != nil {
		return public(err)
	}
	defer t.Close()
	for {
		if s.db.shut.Load() {
			return ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		pos, rec, ok, err := t.TryNext()
		if err == nil && !ok { // what is left may have been settled, of files that are gone
			from := next
			if next, on, err = s.settledFrom(next, true, yield); err != nil || !on {
				return err
			}
			switch {
			case next > from:
				continue
			case !follow:
				return nil
			}
			pos, rec, err = t.Next(ctx)
		}
		if err != nil {
			return s.db.seen(public(err))
		}
		if !batch.HasAppends(rec) { // that is cheaper to see
			if s.dropsIt(rec) {
				return ErrKeyspaceDropped
			}
			continue
		}
		value, err := batch.Appended(rec, s.ks.prefix)
		if err != nil {
			return err
		}
		if value == nil {
			continue
		}
		if err := s.db.pipe.WaitVisible(ctx, pos.LSN); err != nil { // with what is in the same commit
			return public(err)
		}
		offset := batch.FirstOffset(value)
		if offset > next { // what is between may have been settled
			if next, on, err = s.settledFrom(next, true, yield); err != nil || !on {
				return err
			}
		}
		if offset > next { // it was trimmed meanwhile, or a salvage left a hole
			if first, _, err := s.Bounds(); err != nil || next < first {
				return errors.Join(err, s.gone(next))
			}
			next = offset
		}
		for items := batch.ItemsOf(value); items.Next(); offset++ {
			if offset < next {
				continue
			}
			next++
			if !yield(Item{Offset: offset, LSN: pos.LSN, Value: items.Item()}) {
				return nil
			}
		}
	}
}

// settledFrom calls yield for items from next on as long as the index has them itself.
// It returns the offset at which that ends, and whether yield wants more. Holes that a
// salvage left it passes over, but for one at next itself if over is false.
func (s *Sequence) settledFrom(next uint64, over bool, yield func(Item) bool) (uint64, bool, error) {
	it := s.ks.NewIterator(nil)
	defer it.Close()
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], next+1)
	for ok := next+1 != 0 && it.SeekLT(key[:]); ok; ok = it.Next() {
		e, err := s.entry(it)
		if err != nil {
			return next, false, err
		}
		if next < e.Offset || next >= e.End() {
			break
		}
		if e.Size == 0 && over {
			if first, _, err := s.Bounds(); err != nil || next < first { // it was trimmed
				return next, err == nil, err
			}
			next = e.End()
			continue
		}
		if e.Settled == nil {
			break
		}
		over = true
		offset := e.Offset
		for items := batch.ItemsOf(e.Settled); items.Next(); offset++ {
			if offset < next {
				continue
			}
			next++
			if !yield(Item{Offset: offset, LSN: e.LSN, Value: items.Item()}) {
				return next, false, nil
			}
		}
	}
	return next, true, it.Err()
}

// dropsIt says whether a record drops the sequence.
func (s *Sequence) dropsIt(rec []byte) bool {
	if kind, lo := batch.First(rec); kind != base.KindRangeDelete || !bytes.Equal(lo, s.ks.prefix) {
		return false
	}
	r, err := batch.Decode(rec)
	return err == nil && r.Next() && bytes.Compare(r.Value(), keyspace.End(s.ks.id)) >= 0
}

// seek returns a position before the commit that appended an item, or, behind the last
// one, the last that is durable.
func (s *Sequence) seek(ctx context.Context, from uint64) (Position, error) {
	db := s.db
	end := db.log.DurablePosition()
	// What is durable is in the index a moment later.
	if err := db.pipe.WaitVisible(ctx, end.LSN); err != nil {
		return Position{}, public(err)
	}
	it := s.ks.NewIterator(nil)
	defer it.Close()
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], from+1)
	if from+1 != 0 && it.SeekLT(key[:]) || from+1 == 0 && it.Last() {
		e, err := s.entry(it)
		switch {
		case err != nil:
			return Position{}, err
		case from < e.End() && e.Size == 0:
			return Position{}, s.gone(from)
		}
		if from < e.End() && e.LSN <= end.LSN {
			return Position{Epoch: db.log.EpochAt(e.LSN - 1), LSN: e.LSN - 1}, nil
		}
		return end, nil // it comes behind that
	}
	if err := it.Err(); err != nil {
		return Position{}, err
	}
	if it.First() {
		return Position{}, s.gone(from)
	}
	return end, it.Err()
}

func (s *Sequence) gone(offset uint64) error {
	return fmt.Errorf("%w: item %d of sequence %q", ErrNotFound, offset, s.Name())
}

// Append adds an item to the end of a sequence; see Batch.Append.
func (w Writer) Append(s *Sequence, item []byte) error { return w.b.Append(s, item) }

// AppendInfo is what the index says of one append: where its items are.
type AppendInfo struct {
	// Offset is of the first of Items items, LSN of the commit that appended them.
	Offset, Items, LSN uint64
	// Bytes is what they take in their record, where they are until they are settled.
	Bytes uint64
}

// Appends iterates over the index of a sequence, from the append that has the item at an
// offset on, as reads see it now. It reads no items. An error ends it and comes as the
// last pair.
func (s *Sequence) Appends(from uint64) iter.Seq2[AppendInfo, error] {
	return func(yield func(AppendInfo, error) bool) {
		it := s.ks.NewIterator(nil)
		defer it.Close()
		var key [8]byte
		binary.BigEndian.PutUint64(key[:], from)
		ok := it.SeekGE(key[:])
		if ok && bytes.Equal(it.Key(), key[:]) {
			// It begins there.
		} else if it.SeekLT(key[:]) {
			ok = true
		} else {
			ok = it.First()
		}
		for ; ok; ok = it.Next() {
			e, err := s.entry(it)
			if err != nil {
				yield(AppendInfo{}, err)
				return
			}
			if e.Size == 0 || e.End() <= from {
				continue
			}
			if !yield(AppendInfo{Offset: e.Offset, Items: e.Count, LSN: e.LSN, Bytes: e.Size}, nil) {
				return
			}
		}
		if err := it.Err(); err != nil {
			yield(AppendInfo{}, err)
		}
	}
}
