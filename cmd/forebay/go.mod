module github.com/forebaydb/forebay/cmd/forebay

go 1.25.0

require (
	github.com/creack/pty v1.1.24
	github.com/forebaydb/forebay v0.0.0
	github.com/forebaydb/forebay/bench v0.0.0
	github.com/peterh/liner v1.2.2
	github.com/spf13/cobra v1.10.2
	github.com/spf13/pflag v1.0.10
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/mattn/go-runewidth v0.0.16 // indirect
	github.com/rivo/uniseg v0.2.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace github.com/forebaydb/forebay => ../..

replace github.com/forebaydb/forebay/bench => ../../bench
