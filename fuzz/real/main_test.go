package real

import (
	"context"
	"fmt"
	"os"
	"testing"
)

// asChild makes the test binary the child that a campaign starts.
const asChild = "FOREBAY_REAL_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) == "" {
		os.Setenv(asChild, "1")
		os.Exit(m.Run())
	}
	if err := Child(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
