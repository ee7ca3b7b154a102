package memtable

import "github.com/forebaydb/forebay/internal/base"

type iter struct {
	t *Table
	n uint32
	e entry
}

// NewIter returns an iterator over all versions.
func (t *Table) NewIter() base.Iterator { return &iter{t: t} }

func (i *iter) stand(n uint32) bool {
	i.n, i.e = n, nil
	if n == 0 {
		return false
	}
	i.e = i.t.arena.at(i.t.index.node(n)[wordAddr].Load())
	return true
}

func (i *iter) First() bool { return i.stand(i.t.index.head[0].Load()) }
func (i *iter) Last() bool  { return i.stand(i.t.index.tail.Load()) }
func (i *iter) SeekGE(key []byte, lsn base.LSN) bool {
	var s [maxHeight]uint32
	n, _ := i.t.index.find(&i.t.arena, key, lsn, &s)
	return i.stand(n)
}
func (i *iter) SeekLT(key []byte, lsn base.LSN) bool {
	var s [maxHeight]uint32
	i.t.index.find(&i.t.arena, key, lsn, &s)
	return i.stand(s[0])
}
func (i *iter) Next() bool {
	return i.n != 0 && i.stand(i.t.index.next(i.n, 0))
}
func (i *iter) Prev() bool {
	return i.n != 0 && i.stand(i.t.index.node(i.n)[wordPrev].Load())
}
func (i *iter) Valid() bool     { return i.e != nil }
func (i *iter) Key() []byte     { return i.e.key() }
func (i *iter) LSN() base.LSN   { return i.e.lsn() }
func (i *iter) Kind() base.Kind { return i.e.kind() }
func (i *iter) Value() []byte   { return i.e.value() }
func (i *iter) Err() error      { return nil }
func (i *iter) Close() error    { return nil }
