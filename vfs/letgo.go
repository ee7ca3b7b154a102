package vfs

// goer is a File of which the system can be told that a part will not be read soon.
type goer interface {
	LetGo(off, n int64)
}

// LetGo tells the system that n bytes at off, which are durable, will not be read
// soon, so that it need not keep them in memory. They can be read as before. Where
// the file or the system has nothing of the kind, nothing happens.
func LetGo(f File, off, n int64) {
	if g, ok := f.(goer); ok && n > 0 {
		g.LetGo(off, n)
	}
}

// LetGo is for LetGo. It is no call that is counted or fails.
func (f *injFile) LetGo(off, n int64) { LetGo(f.f, off, n) }

// LetGo is for LetGo. It is no call that is reported.
func (f *recFile) LetGo(off, n int64) { LetGo(f.f, off, n) }
