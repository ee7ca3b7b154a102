// Package idem keeps idempotency keys: a request that is sent again, because its answer
// was lost, has its effect once, and gets the answer of the first time.
//
// A client gives each request a key of its own and sends it with every retry. Do runs the
// request in a transaction and stores its result in the same commit as its effects, so
// that there is no moment between the two at which a crash could part them. Who comes
// with the key later gets the stored result; who comes while it runs waits for it. The
// same key with another body is ErrMismatch.
//
// DoOutside is for effects outside of the store: a payment, a mail. Before it runs, a
// mark is made durable; behind it the result takes the mark's place. A crash between the
// two leaves the mark: whether the effect happened is unknown then, and nobody runs it
// again until somebody who has looked says so (Resolve, Forget), or the mark expires.
//
// Results are kept for a time and within a number of bytes, the oldest go first. Marks
// go by time alone, and never while their call runs. Times are of the clock on the wall,
// but never go back: one that is set back makes results live longer and changes no
// order; one that was ahead keeps what was stored meanwhile by as much longer; one that
// is ahead makes what is stored expire early, as it would by waiting.
//
// # What is stored
//
// In the keyspace "idem/" + name, numbers big endian:
//
//	'e' key          an entry: version 1, state (1 runs, 2 done, 3 failed), 8 bytes
//	                 stamp, 32 bytes SHA-256 of the fingerprint, then value and text,
//	                 each behind its length as a uvarint
//	't' stamp key    the index of results by time; the length of the entry, a uvarint
//	'm' stamp key    the index of marks by time; no value
//
// A stamp is nanoseconds since 1970, and above each one before it. Text is the owner of a mark, or what a failure says.
// Each commit that changes an entry changes its index.
//
// # Locks
//
// All handles of one name in one open store share a core: which calls run, the last
// stamp, how many bytes there are. A call is entered there before it looks at the store
// and taken out after its last commit; so a mark without a call is one whose process
// has ended, or which could not be removed. What takes marks away asks inside of its
// transaction, behind the read: who enters later has changed what it read, or sees what
// it did. Its mutex, that of the list of cores and the handle's are held for a few
// instructions each, and never together. A sweep has a token of the core, so there is
// one at a time. Nothing is locked while the caller's functions run, nor during I/O but
// for the first count, which the first Open does while others of the name wait.
package idem
