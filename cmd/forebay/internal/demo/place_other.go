//go:build !linux

package demo

func inMemory(string) bool { return false }
