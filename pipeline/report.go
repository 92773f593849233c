package pipeline

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// ReportName is the file in a run folder that WriteReport writes.
const ReportName = "report.html"

//go:embed report.html
var reportText string

var reportTemplate = template.Must(template.New(ReportName).Parse(reportText))

// reportPage is what report.html shows. The template escapes every text in it.
type reportPage struct {
	Name, Command string
	Steps         int64
	Settings      [][2]string
	Held          []heldFigure
	Alarms        []Alarm
	Plots         []plot
	Data          *reportData // nil where the cache is gone
}

// reportData describes the pairs of a cache.
type reportData struct {
	Counts    refcache.Counts
	Drops     []datasets.Drop
	Histogram []plot
	// Looked is how many pairs the histograms are of.
	Looked int
}

// heldFigure is a metric of the held-out pairs before the first step and at the last evaluation.
type heldFigure struct{ Name, Before, After string }

// WriteReport writes report.html into a run folder, from its settings and metrics
// and the ids in its cache: one file that needs no other. A cache that is gone, not
// finished, or of other data meanwhile leaves its part out.
func WriteReport(ctx context.Context, run string) error {
	page, err := newReport(ctx, run)
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(run, ReportName), func(w io.Writer) error {
		return reportTemplate.Execute(w, page)
	})
}

func newReport(ctx context.Context, run string) (*reportPage, error) {
	cfg, err := LoadRunConfig(run)
	if err != nil {
		return nil, err
	}
	p := &reportPage{Name: filepath.Base(run)}
	if abs, err := filepath.Abs(run); err == nil {
		p.Name = filepath.Base(abs)
	}
	if err := p.describe(cfg); err != nil {
		return nil, err
	}
	var c curves
	if err := eachMetrics(filepath.Join(run, metricsName), c.add); err != nil {
		return nil, err
	}
	p.Steps, p.Plots = int64(c.last), c.plots()
	p.hold(&c)
	state, err := readState(filepath.Join(run, lastName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p.Data, err = describePairs(ctx, cfg.Cache, state.Identity)
	return p, err
}

// describe lists the settings, and the command that gives them again.
func (p *reportPage) describe(cfg TrainConfig) error {
	var have, defaults yaml.Node
	if err := errors.Join(have.Encode(cfg), defaults.Encode(DefaultTrainConfig())); err != nil {
		return fmt.Errorf("pipeline: report settings: %w", err)
	}
	usual := map[string]string{}
	for i := 0; i+1 < len(defaults.Content); i += 2 {
		usual[defaults.Content[i].Value] = defaults.Content[i+1].Value
	}
	command := []string{"dpo-pipe train"}
	for i := 0; i+1 < len(have.Content); i += 2 {
		key, value := have.Content[i].Value, have.Content[i+1]
		flag := "--" + strings.ReplaceAll(key, "_", "-")
		if value.Kind == yaml.SequenceNode {
			for _, item := range value.Content {
				p.Settings = append(p.Settings, [2]string{key, item.Value})
				command = append(command, flag+" "+shellQuote(item.Value))
			}
			continue
		}
		p.Settings = append(p.Settings, [2]string{key, value.Value})
		switch {
		case value.Value == usual[key]:
		case value.Tag == "!!bool":
			command = append(command, flag+"="+value.Value)
		default:
			command = append(command, flag+" "+shellQuote(value.Value))
		}
	}
	p.Command = strings.Join(command, " ")
	return nil
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:=,+", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// hold lists the held-out metrics of the first and the newest evaluation.
func (p *reportPage) hold(c *curves) {
	var after Values
	for _, name := range c.names {
		held, is := strings.CutPrefix(name, evalPrefix)
		if !is {
			continue
		}
		points := c.of[name]
		row := heldFigure{Name: held, Before: heldText(points[0].y), After: "–"}
		if len(points) > 1 {
			last := points[len(points)-1].y
			row.After = heldText(last)
			after = append(after, Value{held, last})
		}
		p.Held = append(p.Held, row)
	}
	p.Alarms = alarms(after)
}

// heldText is a held-out figure, in which float rounding reads as 0.
func heldText(v float64) string {
	const rounding = 1e-7 // of log-ratios of the untrained head, nats a token
	if math.Abs(v) < rounding {
		return "0"
	}
	return figure(v)
}

// maxLooked bounds the pairs whose lengths are looked at: they are spread evenly
// over the cache.
const maxLooked = 20_000

// describePairs looks at the cache in dir, if it is still that of identity.
func describePairs(ctx context.Context, dir string, identity map[string]string) (*reportData, error) {
	cache, err := refcache.Open(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, refcache.ErrNotCache) || errors.Is(err, refcache.ErrIncomplete) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	if cache.Manifest().Check(identity) != nil {
		return nil, nil
	}
	d := &reportData{Counts: cache.Manifest().Counts}
	d.Drops = d.Counts.Dropped.Drops
	var lengths [3][]float64
	var row refcache.Row
	step := max(1, (cache.Len()+maxLooked-1)/maxLooked)
	for i := int64(0); i < cache.Len(); i += step {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if err := cache.Ids(i, &row); err != nil {
			return nil, err
		}
		for k, ids := range [][]int32{row.Prompt, row.Chosen, row.Rejected} {
			lengths[k] = append(lengths[k], float64(len(ids)))
		}
	}
	d.Looked = len(lengths[0])
	// One scale for all three, so that they compare.
	longest := slices.Max(append(slices.Concat(lengths[:]...), 1))
	for k, title := range []string{"prompt tokens", "chosen tokens", "rejected tokens"} {
		d.Histogram = append(d.Histogram, histogram(title, lengths[k], longest))
	}
	return d, nil
}
