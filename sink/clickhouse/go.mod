module github.com/forebaydb/forebay/sink/clickhouse

go 1.25.0

require github.com/forebaydb/forebay v0.0.0

replace github.com/forebaydb/forebay => ../..
