package pipeline

import (
	"context"
	"embed"
	"errors"
	"html/template"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// ReportName is the file in a run folder that WriteReport writes.
const ReportName = "report.html"

// reportFiles are the templates of a report: page.html, one for each section, and what
// they share, style.html and plot.html.
//
//go:embed report/*.html
var reportFiles embed.FS

var reportTemplates = template.Must(template.ParseFS(reportFiles, "report/*.html"))

// reportPage is what page.html shows. The templates escape every text in it.
type reportPage struct {
	Name, Command string
	Steps         int64
	Settings      [][2]string
	Held          *heldOut // nil where no pair was held out
	Alarms        []Alarm
	Completions   *completions // nil where none were kept
	Plots         []plot
	Data          *reportData // nil where the cache is gone
}

// WriteReport writes report.html into a run folder, from its settings and metrics,
// its newest evaluation, its completions and the ids in its cache: one file that needs no other.
// What is not there, not finished, or of other data meanwhile leaves its part out.
func WriteReport(ctx context.Context, run string) error { return writeReport(ctx, run, nil) }

// writeReport is WriteReport of a run some of whose inputs are of a store (see
// TrainConfig.Folders).
func writeReport(ctx context.Context, run string, folders map[string][]string) error {
	page, err := newReport(ctx, run, folders)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(run, ReportName), func(w io.Writer) error {
		return reportTemplates.ExecuteTemplate(w, "page.html", page)
	})
}

func newReport(ctx context.Context, run string, folders map[string][]string) (*reportPage, error) {
	cfg, err := LoadRunConfig(run)
	if err != nil {
		return nil, err
	}
	cfg.Folders = folders
	p := &reportPage{Name: filepath.Base(run)}
	if abs, err := filepath.Abs(run); err == nil {
		p.Name = filepath.Base(abs)
	}
	if err := p.describe(cfg); err != nil {
		return nil, err
	}
	state, err := readState(filepath.Join(run, lastName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		if err := errors.Join(sameRun(cfg, state.Config), checkMetrics(filepath.Join(run, metricsName), state)); err != nil {
			return nil, err
		}
	}
	var c curves
	if err := eachMetrics(filepath.Join(run, metricsName), c.add); err != nil {
		return nil, err
	}
	p.Steps, p.Plots = int64(c.last), c.plots()
	e, err := readEvaluation(run)
	if err != nil {
		return nil, err
	}
	p.Held, p.Alarms = newHeldOut(&c, e)
	if p.Completions, err = readCompletions(run); err != nil {
		return nil, err
	}
	p.Data, err = describePairs(ctx, cfg.here(cfg.Cache), state.Identity)
	return p, err
}
