//go:build race

package segment

// raceDetector is true in a build that is about ten times slower: tests without
// goroutines of their own then look at a sample.
const raceDetector = true
