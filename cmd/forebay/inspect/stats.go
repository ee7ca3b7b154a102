package inspect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/forebaydb/forebay/internal/base"
	"github.com/forebaydb/forebay/wal/frame"
)

func (t *tool) statsCommand() *cobra.Command {
	var asJSON bool
	var logDir string
	c := &cobra.Command{
		Use:   "stats DIR|FILE",
		Short: "Count what is in log files: frames, records, marks, and bytes by purpose",
		Long: `Counts the frames of each log file that verify, their records, and what each
byte is for. The bytes by purpose add up to the size of the file.` + readsOnly,
		Example: `  forebay wal stats /tmp/s
  forebay wal stats /tmp/s --json | jq .total.bytes`,
		Args: one("a directory or a log file"),
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().StringVar(&logDir, "log-dir", "", "where the log files are, if not in DIR")
	c.RunE = run(func(_ *cobra.Command, w *bufio.Writer, path string) error {
		dir, err := t.isDir(path)
		if err != nil {
			return err
		}
		paths, status := []string{path}, func(string) string { return "" }
		if dir {
			s, err := t.load(path, logDir)
			if err != nil {
				return err
			}
			paths, status = nil, s.status
			for _, name := range s.logFiles() {
				paths = append(paths, filepath.Join(s.logDir, name))
			}
		}
		total := fileStats{File: "all files"}
		files := []fileStats{}
		for _, p := range paths {
			st, err := t.stats(p)
			if dir && errors.Is(err, fs.ErrNotExist) {
				continue // removed by a process that has the store open
			}
			if err != nil {
				return err
			}
			st.Status = status(st.File)
			files = append(files, *st)
			total.add(st)
		}
		if asJSON {
			return jsonLine(w, map[string]any{"files": files, "total": total})
		}
		for i := range files {
			files[i].print(w)
		}
		if len(files) != 1 {
			fmt.Fprintf(w, "%s\n", plural(len(files), "file"))
			total.print(w)
		}
		return nil
	})
	return c
}

// purposes of a byte, in the order in which they are told.
var purposes = []string{"file header", "frame headers and hashes", "links and indexes", "record lengths", "records", "packed records", "padding", "zeros behind the end", "other bytes behind the end"}

// fileStats is what one file, or all, hold.
type fileStats struct {
	File    string           `json:"file"`
	Status  string           `json:"status,omitempty"`
	Problem string           `json:"problem,omitempty"`
	Size    int64            `json:"size"`
	Epochs  []uint64         `json:"epochs"`
	First   base.LSN         `json:"first"` // 0: no record
	Last    base.LSN         `json:"last"`
	Durable base.LSN         `json:"durable"`
	Frames  int              `json:"frames"`
	Data    int              `json:"data_frames"`
	Marks   int              `json:"marks"`
	Records uint64           `json:"records"`
	Copied  uint64           `json:"copied_records"`
	Stored  int64            `json:"stored_bytes"` // payloads of data frames
	Raw     int64            `json:"raw_bytes"`    // the same, unpacked
	Bytes   map[string]int64 `json:"bytes"`
}

func (t *tool) stats(path string) (*fileStats, error) {
	m, err := t.openFramed(path)
	if err != nil {
		return nil, err
	}
	defer m.close()
	s := &fileStats{File: filepath.Base(path), Size: m.size, Bytes: map[string]int64{}, Epochs: []uint64{}}
	if _, err := frame.Layout(m.f, m.size, func(f frame.Field) error {
		s.Bytes[purpose(&f)] += f.Len
		return nil
	}); err != nil {
		return nil, err
	}
	if m.headErr != nil {
		s.Problem = m.headErr.Error()
		return s, nil
	}
	s.Epochs = append(s.Epochs, m.head.Epoch)
	e, err := m.walk(s.frame)
	if err != nil {
		return nil, err
	}
	s.Durable = e.Proof
	if e.Damaged {
		s.Problem = fmt.Sprintf("damaged at offset %d: %s", e.Offset, e.Reason)
	}
	return s, nil
}

func (s *fileStats) frame(fr *frame.Frame) error {
	s.Frames++
	switch fr.Kind {
	case frame.KindMark:
		s.Marks++
	case frame.KindData:
		s.Data++
		s.Records += uint64(fr.Count)
		s.Stored += int64(fr.Stored)
		s.Raw += int64(fr.Raw)
		if fr.Flags&frame.FlagCopy != 0 {
			s.Copied += uint64(fr.Count)
		}
		if s.First == 0 {
			s.First = fr.First
		}
		s.Last = fr.Next() - 1
	}
	return nil
}

// purpose says what a field is for.
func purpose(f *frame.Field) string {
	switch {
	case f.Part == frame.PartHeader:
		return "file header"
	case f.Name == frame.FieldZeros:
		return "zeros behind the end"
	case f.Part != frame.PartFrame:
		return "other bytes behind the end"
	case f.Name == "padding":
		return "padding"
	case f.Name == frame.FieldRecord:
		return "records"
	case f.Name == "record length" || f.Name == "keep-count":
		return "record lengths"
	case strings.HasPrefix(f.Name, "payload"):
		return "packed records"
	case strings.HasPrefix(f.Name, "link:") || strings.HasPrefix(f.Name, "index:"):
		return "links and indexes"
	}
	return "frame headers and hashes"
}

func (s *fileStats) add(f *fileStats) {
	s.Size += f.Size
	for _, e := range f.Epochs {
		if len(s.Epochs) == 0 || s.Epochs[len(s.Epochs)-1] != e {
			s.Epochs = append(s.Epochs, e)
		}
	}
	if s.First == 0 || f.First != 0 && f.First < s.First {
		s.First = f.First
	}
	s.Last, s.Durable = max(s.Last, f.Last), max(s.Durable, f.Durable)
	s.Frames += f.Frames
	s.Data += f.Data
	s.Marks += f.Marks
	s.Records += f.Records
	s.Copied += f.Copied
	s.Stored += f.Stored
	s.Raw += f.Raw
	if s.Bytes == nil {
		s.Bytes = map[string]int64{}
	}
	for k, n := range f.Bytes {
		s.Bytes[k] += n
	}
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func (s *fileStats) print(w io.Writer) {
	head := s.File
	if s.Status != "" {
		head += ": " + s.Status
	}
	fmt.Fprintln(w, head)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-28s%s\n", name, fmt.Sprintf(format, args...))
	}
	if s.Problem != "" {
		line("PROBLEM", "%s", s.Problem)
	}
	span := "none"
	if s.First != 0 {
		span = fmt.Sprintf("%d-%d", s.First, s.Last)
	}
	line("size", "%12d", s.Size)
	line("epochs", "%12s", strings.Trim(fmt.Sprint(s.Epochs), "[]"))
	line("LSNs", "%12s", span)
	line("durable LSN proven here", "%12d", s.Durable)
	line("frames", "%12d", s.Frames)
	line("records", "%12d", s.Records)
	line("copied by an open", "%12d", s.Copied)
	line("records a data frame", "%12s", ratio(float64(s.Records), float64(s.Data)))
	line("marks", "%12d", s.Marks)
	line("compression, raw/stored", "%12s", ratio(float64(s.Raw), float64(s.Stored)))
	fmt.Fprintln(w, "  bytes")
	for _, p := range purposes {
		if n := s.Bytes[p]; n > 0 {
			fmt.Fprintf(w, "    %-26s%12d  %5.1f%%\n", p, n, 100*float64(n)/float64(s.Size))
		}
	}
	fmt.Fprintln(w)
}
