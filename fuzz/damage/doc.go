// Package damage changes the files of a store behind an engine's back, one
// damage at a time, opens each, and says what came of it. It is about disks that
// rot, lose writes or give back old ones, and about people who copy files; package
// fuzz is about crashes.
//
//	rep, err := damage.Run(ctx, damage.Forebay{}, damage.Config{})
//	fmt.Print(rep)
//
// An engine is a Subject (subject.go): it builds stores of known acknowledged
// batches, and reads a damaged copy in every way. A store (store.go) is its files,
// the same files at an earlier time, and the batches. fault.go has the damages:
// each is a line of text, as it is printed, and makes the same damage again.
// enumerate.go lists them all for a store: every bit, every sector, every file.
//
// Each damage gets a verdict (verdict.go):
//
//	harmless   all is there
//	detected   an error that names the damaged file, or another file
//	prefix     the state after an earlier batch, and nothing in the undamaged bytes
//	           could tell: everything that was written later is damaged, too. For
//	           single bits that is the window of docs/recovery.md, and the report
//	           says how many they are
//	refused    an error where a crash alone could have made the same bytes
//	no file    an error that does not say where
//	panic      a panic, or no end
//	silent     anything else: contents that the store never had, or should not
//	           have gone back to. Each comes with the line that makes it again
//
// What could tell is judged by bytes: a Store knows what was written after which
// batch (Store.Writes). The state after n batches is a legal prefix only if each
// write is damaged that came after batch n+1, and that of batch n+1 itself.
//
// The engine is behind a small interface; forebay.go is the only file that knows
// Forebay.
package damage
