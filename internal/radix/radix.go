// Package radix sorts versions by eight bytes of their keys, which decide nearly
// every comparison: what is sorted is a number beside each version, and no key is
// looked at.
package radix

import (
	"slices"
	"sync"
)

// Item is what is sorted: eight bytes of a key, as base.Head gives them, and what tells
// the version.
type Item struct{ Head, At uint64 }

// counts is how often each value of each byte of the heads is there; the lowest
// byte comes first.
type counts [8][256]int

func (c *counts) of(items []Item) {
	for i := range items {
		h := items[i].Head
		for b := range c {
			c[b][byte(h>>(8*b))]++
		}
	}
}

// Sort sorts items by their heads, and keeps the order of those with the same. spare
// is memory for it, as long as items or nil. The results are the sorted items and
// what is spare then: one or the other is items.
func Sort(items, spare []Item) (sorted, rest []Item) {
	spare = slices.Grow(spare[:0], len(items))[:len(items)]
	var c counts
	c.of(items)
	return c.sort(items, spare)
}

// sort takes the lowest byte first, each in one pass that keeps the order of what is
// equal. Bytes that are the same in all heads cost nothing.
func (c *counts) sort(from, to []Item) (sorted, rest []Item) {
	for b := range c {
		at := &c[b]
		if len(from) == 0 || at[byte(from[0].Head>>(8*b))] == len(from) {
			continue
		}
		sum := 0
		for i, n := range at {
			at[i] = sum
			sum += n
		}
		for _, it := range from {
			i := &at[byte(it.Head>>(8*b))]
			to[*i] = it
			*i++
		}
		from, to = to, from
	}
	return from, to
}

// twoMin is how many items are worth a second goroutine.
const twoMin = 1 << 14

// SortTwo is Sort by two goroutines: one sorts the lower items, the other the higher.
func SortTwo(items, spare []Item) (sorted, rest []Item) {
	if len(items) < twoMin {
		return Sort(items, spare)
	}
	spare = slices.Grow(spare[:0], len(items))[:len(items)]
	var c, other counts
	var counted sync.WaitGroup
	counted.Go(func() { other.of(items[:len(items)/2]) })
	c.of(items[len(items)/2:])
	counted.Wait()
	for b := range c {
		for v := range c[b] {
			c[b][v] += other[b][v]
		}
	}
	// The highest byte that is not the same in all heads is cut near its middle.
	top := 7
	for top > 0 && c[top][byte(items[0].Head>>(8*top))] == len(items) {
		top--
	}
	mid, value := 0, 0
	for ; value < 256 && mid+c[top][value]/2 < len(items)/2; value++ {
		mid += c[top][value]
	}
	low, high := spare[:0:mid], spare[mid:mid]
	for _, it := range items {
		if int(byte(it.Head>>(8*top))) < value {
			low = append(low, it)
		} else {
			high = append(high, it)
		}
	}
	half := func(from, to []Item) {
		if sorted, _ := Sort(from, to); len(sorted) > 0 && &sorted[0] != &to[0] {
			copy(to, sorted)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { half(low, items[:mid:mid]) })
	half(high, items[mid:])
	wg.Wait()
	return items, spare
}

// Ties calls fn for each run of two or more items of one head.
func Ties(items []Item, fn func(same []Item)) {
	for len(items) > 0 {
		n := 1
		for n < len(items) && items[n].Head == items[0].Head {
			n++
		}
		if n > 1 {
			fn(items[:n])
		}
		items = items[n:]
	}
}
