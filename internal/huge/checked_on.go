//go:build race

package huge

// Checked says that memory is of the heap and is spoiled when it is given back.
const Checked = true
