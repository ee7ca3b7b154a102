//go:build !linux

package disk

import "errors"

// errNoFallocate: there is no such call here.
var errNoFallocate = errors.New("disk: no fallocate here")

func fallocate(string, int64) error { return errNoFallocate }
