//go:build cgo

package main

import (
	"fmt"
	"path/filepath"

	_ "github.com/mattn/go-sqlite3" // the driver
)

const (
	sqliteDriver = "sqlite3"
	sqliteModule = "github.com/mattn/go-sqlite3"
)

func sqliteURL(dir string) string {
	return fmt.Sprintf("file:%s?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=60000&_txlock=immediate&_cache_size=-262144",
		filepath.ToSlash(filepath.Join(dir, "queue.db")))
}
