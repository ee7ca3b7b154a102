package merge

import "github.com/forebaydb/forebay/internal/base"

// UpTo returns an iterator over the versions of it at or below lsn. A table that
// still gets versions shows so what it had at one moment. The others are passed
// one by one: there should be few. The result owns it.
func UpTo(it base.Iterator, lsn base.LSN) base.Iterator { return &upTo{it, lsn} }

type upTo struct {
	base.Iterator
	lsn base.LSN
}

func (u *upTo) First() bool { return u.forward(u.Iterator.First()) }
func (u *upTo) Last() bool  { return u.backward(u.Iterator.Last()) }
func (u *upTo) Next() bool  { return u.forward(u.Iterator.Next()) }
func (u *upTo) Prev() bool  { return u.backward(u.Iterator.Prev()) }

func (u *upTo) SeekGE(key []byte, lsn base.LSN) bool { return u.forward(u.Iterator.SeekGE(key, lsn)) }
func (u *upTo) SeekLT(key []byte, lsn base.LSN) bool { return u.backward(u.Iterator.SeekLT(key, lsn)) }

func (u *upTo) forward(ok bool) bool {
	for ok && u.LSN() > u.lsn {
		ok = u.Iterator.Next()
	}
	return ok
}

func (u *upTo) backward(ok bool) bool {
	for ok && u.LSN() > u.lsn {
		ok = u.Iterator.Prev()
	}
	return ok
}
