//go:build !unix

package main

import "time"

var began = time.Now()

// processor returns the time since the process began.
func processor() time.Duration { return time.Since(began) }
