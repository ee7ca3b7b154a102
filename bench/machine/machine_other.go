//go:build !linux

package machine

func (m *Info) system() {}

// disk finds nothing: only Linux tells through files.
func (m *Info) disk(string) {}
