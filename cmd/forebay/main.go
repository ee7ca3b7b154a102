// Command forebay is the tool of the Forebay storage engine.
package main

import "github.com/spf13/cobra"

func main() { (&cobra.Command{Use: "forebay"}).Execute() }
