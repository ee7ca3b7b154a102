package workload

import (
	"fmt"

	"github.com/forebaydb/forebay/bench/engines"
)

// longKey is the length in bytes of the keys of the cells of long keys.
const longKey = 1024

func valueCells() []Cell {
	var out []Cell
	fill := func(name, about string, d dataset) {
		for _, l := range []engines.Level{engines.Buffered, engines.Written} {
			out = append(out, Cell{
				Name:  suffix("fillrandom", name, l),
				About: "put new records in a random order, " + about + ", 1 goroutine",
				Level: l, Needs: keysFit(d),
				run: func(t *trial) error {
					err := t.puts(puts{goroutines: 1, batch: 1, data: d})
					for i := range t.results {
						t.results[i].Value, t.results[i].Unit = t.results[i].MBPerS, "MB/s"
					}
					return err
				},
			})
		}
	}
	read := func(name, about string, d dataset, share int64) {
		out = append(out, Cell{
			Name:  suffix("readrandom", name),
			About: fmt.Sprintf("get random records, %s, 1 goroutine", about),
			Any:   true, Needs: keysFit(d),
			Load: func(s Scale) load { return load{max(s.Records/share, 16), d.keySize, d.valueSize} },
			run:  func(t *trial) error { return t.gets(1, uniform, false) },
		})
	}
	fill("16B", "values of 16 bytes", dataset{KeySize, 16})
	// Loads of about twice to four times the size of the plain one.
	for _, v := range []struct {
		name  string
		size  int
		share int64
	}{{"1K", 1 << 10, 4}, {"16K", 16 << 10, 40}, {"64K", 64 << 10, 160}} {
		d := dataset{KeySize, v.size}
		fill(v.name, fmt.Sprintf("values of %d bytes", v.size), d)
		read(v.name, fmt.Sprintf("values of %d bytes", v.size), d, v.share)
	}
	d := dataset{longKey, plain.valueSize}
	fill("key1K", "keys of 1,024 bytes", d)
	read("key1K", "keys of 1,024 bytes", d, 4)
	return out
}

// keysFit leaves engines out that have no keys so long.
func keysFit(d dataset) func(e *engines.Engine) string {
	return func(e *engines.Engine) string {
		if e.MaxKey > 0 && d.keySize > e.MaxKey {
			return fmt.Sprintf("its keys have %d bytes at most", e.MaxKey)
		}
		return ""
	}
}
