package report

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/bench/workload"
)

// Command is `forebay-bench report`.
func Command() *cobra.Command {
	var in, out string
	var table bool
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write docs/benchmarks.md and its plots from the results of run",
		Long: `Write the document and its plots from JSON lines as forebay-bench run prints them.
Lines of several runs are put together; the machine is that of the last. Runs with
and without --quick are not mixed. Plots go into a directory beside the document
that is called as the document, without .md.`,
		Example: `  forebay bench report --in results.jsonl
  forebay bench report --in results.jsonl --out docs/benchmarks.md
  forebay bench report --in results.jsonl --table`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := os.Open(in)
			if err != nil {
				return err
			}
			defer f.Close()
			if table {
				m, results, err := read(f)
				if err != nil {
					return err
				}
				return workload.WriteTable(cmd.OutOrStdout(), m, results)
			}
			return Write(out, f)
		},
	}
	cmd.Flags().StringVar(&in, "in", "", "JSON lines of forebay bench run")
	cmd.Flags().StringVar(&out, "out", filepath.Join("docs", "benchmarks.md"), "the document")
	cmd.Flags().BoolVar(&table, "table", false, "print the table of run, and write nothing")
	// It fails for a flag alone that does not stand above.
	_ = cmd.MarkFlagRequired("in")
	return cmd
}

func read(in io.Reader) (workload.Machine, []workload.Result, error) {
	m, results, err := workload.Read(in)
	if err != nil {
		return m, nil, err
	}
	if len(results) == 0 {
		return m, nil, errors.New("there are no results")
	}
	for _, r := range results {
		if r.Quick != results[0].Quick {
			return m, nil, errors.New("results of --quick and others are not put together: sort them out by the field quick")
		}
	}
	return m, results, nil
}

// Write writes the document and, into the directory of its name without .md, its
// plots.
func Write(path string, in io.Reader) (err error) {
	m, results, err := read(in)
	if err != nil {
		return err
	}
	ext := filepath.Ext(path)
	if ext == "" {
		return fmt.Errorf("the document %q has no extension: its plots would have its name", path)
	}
	pictures, err := drawAll(path[:len(path)-len(ext)], m, results)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return markdown(f, m, results, pictures)
}
