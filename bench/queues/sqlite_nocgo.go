//go:build !cgo

package main

import (
	"fmt"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver
)

const (
	sqliteDriver = "sqlite"
	sqliteModule = "modernc.org/sqlite"
)

func sqliteURL(dir string) string {
	return fmt.Sprintf("file:%s?_pragma=journal_mode(wal)&_pragma=synchronous(full)&_pragma=busy_timeout(60000)&_txlock=immediate&_pragma=cache_size(-262144)",
		filepath.ToSlash(filepath.Join(dir, "queue.db")))
}
