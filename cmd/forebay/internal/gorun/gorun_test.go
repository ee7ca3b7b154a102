package gorun

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSourceTree: the sources around the working directory are found, and nothing
// where there are none.
func TestSourceTree(t *testing.T) {
	tree := sourceTree("bench", "forebay-bench")
	require.NotEmpty(t, tree)
	_, err := os.Stat(filepath.Join(tree, "go.work"))
	require.NoError(t, err)
	require.Equal(t, tree, sourceTree("peers", "forebay-peers"))
	require.Empty(t, sourceTree("bench", "no-such-command"))
	t.Chdir(t.TempDir())
	require.Empty(t, sourceTree("bench", "forebay-bench"))
}
