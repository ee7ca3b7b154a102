package eventstore_test

import "os"

// long says whether long runs are wanted.
func long() bool { return os.Getenv("FOREBAY_LONG") == "1" }
