//go:build !linux

package workload

import "os"

func copyTree(to, from string) error { return os.CopyFS(to, os.DirFS(from)) }
