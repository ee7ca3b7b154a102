package commit

// Goroutine returns a name of the calling goroutine that no other has while it
// lives. It costs about a microsecond.
func Goroutine() string { return goroutine() }
