package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// logEvery is the time between progress lines in a log file; a terminal shows
// every change on one line.
const logEvery = 5 * time.Second

// progress shows how far a stage is: one line that is drawn again on a
// terminal, a new line every few seconds elsewhere.
type progress struct {
	w     io.Writer
	tty   bool
	last  time.Time
	width int
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, tty: ok && term.IsTerminal(int(f.Fd())), last: time.Now()}
}

// report is a pipeline.Reporter.
func (p *progress) report(r pipeline.Progress) {
	every := logEvery
	if p.tty {
		every = 100 * time.Millisecond
	}
	if time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	line := progressLine(r)
	if !p.tty {
		fmt.Fprintln(p.w, line)
		return
	}
	fmt.Fprintf(p.w, "\r%s%s", line, strings.Repeat(" ", max(0, p.width-len(line))))
	p.width = len(line)
}

// end leaves the terminal on a fresh line.
func (p *progress) end() {
	if p.tty && p.width > 0 {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", p.width))
		p.width = 0
	}
}

// progressLine renders one report, for example
//
//	precompute-ref  1,024/2,500 pairs (41 %)  12.3 pairs/s  left 2m0s
func progressLine(r pipeline.Progress) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s", r.Stage, thousands(r.Done))
	if r.Total > 0 {
		fmt.Fprintf(&b, "/%s %s (%d %%)", thousands(r.Total), r.Unit, 100*r.Done/r.Total)
	} else {
		fmt.Fprintf(&b, " %s", r.Unit)
	}
	if rate := r.Rate(); rate > 0 {
		fmt.Fprintf(&b, "  %.3g %s/s", rate, r.Unit)
	}
	if r.Tokens > 0 && r.Elapsed > 0 {
		fmt.Fprintf(&b, "  %s tokens/s", thousands(int64(float64(r.Tokens)/r.Elapsed.Seconds())))
	}
	if r.Note != "" {
		fmt.Fprintf(&b, "  %s", r.Note)
	}
	if left := r.Left(); left > 0 {
		fmt.Fprintf(&b, "  left %s", left.Round(time.Second))
	}
	return b.String()
}

// thousands groups digits: 1234567 is 1,234,567.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
