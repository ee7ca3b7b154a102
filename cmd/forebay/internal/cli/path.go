package cli

import (
	"path/filepath"
	"strings"
)

// Inside says whether dir is tree or lies in it.
func Inside(dir, tree string) bool {
	abs := func(name string) string {
		name, err := filepath.Abs(name)
		if err != nil {
			return ""
		}
		if real, err := filepath.EvalSymlinks(name); err == nil {
			return real
		}
		// What does not exist yet lies where its parent does.
		if real, err := filepath.EvalSymlinks(filepath.Dir(name)); err == nil {
			return filepath.Join(real, filepath.Base(name))
		}
		return name
	}
	rel, err := filepath.Rel(abs(tree), abs(dir))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
