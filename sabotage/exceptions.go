package main

import (
	"fmt"
	"slices"
	"strings"
)

// exceptions are the switches that nothing need find, by file, function and text,
// with the reason in one line: what stands behind the check, or why no state that
// a hunt can make needs it.
var exceptions = map[string]string{}

// fitExceptions checks that each exception still is of a site.
func fitExceptions(sites []site) error {
	var stray []string
	for name := range exceptions {
		if !slices.ContainsFunc(sites, func(s site) bool { return s.name() == name }) {
			stray = append(stray, name)
		}
	}
	if len(stray) > 0 {
		slices.Sort(stray)
		return fmt.Errorf("exceptions of what is not in the code any more:\n  %s", strings.Join(stray, "\n  "))
	}
	return nil
}
