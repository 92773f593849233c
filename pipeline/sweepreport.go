package pipeline

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// SweepColumns are the held-out metrics by which a sweep's runs are shown.
var SweepColumns = []string{"loss", accuracyMetric, "rewards/margins", "logps/accuracies", klMetric, "drift/chosen"}

//go:embed sweepreport.html
var sweepReportText string

var sweepReportTemplate = template.Must(template.New("sweep").Parse(sweepReportText))

// sweepPage is what the report of a sweep shows. The template escapes every text in it.
type sweepPage struct {
	Name, Metric, Best string
	Runs               []sweepRow
	Keys, Columns      []string
	Plot               plot
	// Dots are the runs by KL and accuracy; Plot.Lines holds their front.
	Dots []sweepDot
	// Apart says that losses were not ranked by, because they do not compare.
	Apart bool
}

type sweepRow struct {
	Rank              int
	Link              string
	Settings, Figures []string
	Steps             int64
	Front, Best       bool
	Failed            string
}

type sweepDot struct {
	X, Y, Title string
	Rank        int
	Front       bool
}

// writeReport writes report.html of a ranked sweep into its folder.
func (r *SweepResult) writeReport() error {
	page := sweepPage{
		Name: filepath.Base(r.Out), Metric: r.Metric, Best: r.Best, Columns: SweepColumns, Apart: r.Metric != r.Config.BestMetric,
	}
	if abs, err := filepath.Abs(r.Out); err == nil {
		page.Name = filepath.Base(abs)
	}
	for _, a := range r.Axes {
		page.Keys = append(page.Keys, a.Key)
	}
	for i := range r.Runs {
		page.Runs = append(page.Runs, r.row(i))
	}
	page.scatter(r.Runs)
	return atomicfile.WriteFile(filepath.Join(r.Out, ReportName), func(w io.Writer) error {
		return sweepReportTemplate.Execute(w, page)
	})
}

func (r *SweepResult) row(i int) sweepRow {
	one := &r.Runs[i]
	row := sweepRow{
		Rank: i + 1, Front: one.Front, Best: one.Name == r.Best, Failed: one.Failed,
	}
	if isFile(filepath.Join(r.Out, one.Name, ReportName)) {
		row.Link = (&url.URL{Path: "./" + one.Name + "/" + ReportName}).String()
	}
	for _, a := range r.Axes {
		row.Settings = append(row.Settings, one.Settings[a.Key])
	}
	for _, name := range SweepColumns {
		text := "–"
		if v := one.Get(name); finite(v) {
			text = heldText(v)
		}
		row.Figures = append(row.Figures, text)
	}
	if one.Result != nil {
		row.Steps = one.Result.Steps
	}
	return row
}

// scatter puts every run with finite figures at its KL and accuracy, and joins the front.
func (p *sweepPage) scatter(runs []SweepRun) {
	xs, ys := newSpan(), newSpan()
	shown := func(r *SweepRun) bool { return finite(r.Get(klMetric)) && finite(r.Get(accuracyMetric)) }
	for i := range runs {
		if shown(&runs[i]) {
			xs.add(runs[i].Get(klMetric))
			ys.add(runs[i].Get(accuracyMetric))
		}
	}
	p.Plot = plot{Title: accuracyMetric + " against " + klMetric, Empty: xs.low > xs.high}
	if p.Plot.Empty {
		return
	}
	x, y := xs.axis(plotLeft+10, plotRight-10), ys.axis(plotBottom-8, plotTop+8)
	var front []xy
	for i := range runs {
		r := &runs[i]
		if !shown(r) {
			continue
		}
		at := xy{r.Get(klMetric), r.Get(accuracyMetric)}
		p.Dots = append(p.Dots, sweepDot{
			X: x.at(at.x), Y: y.at(at.y), Rank: i + 1, Front: r.Front,
			Title: fmt.Sprintf("%d: %s, %s %s, %s %s", i+1, r.Name, klMetric, figure(at.x), accuracyMetric, figure(at.y)),
		})
		if r.Front {
			front = append(front, at)
		}
	}
	p.Plot.XTicks, p.Plot.YTicks = x.ticks(), y.ticks()
	p.Plot.Lines = []plotLine{{Points: frontPoints(front, x, y)}}
}

// frontPoints goes along the front from the lowest KL up.
func frontPoints(front []xy, x, y axis) string {
	slices.SortFunc(front, func(a, b xy) int { return cmp.Compare(a.x, b.x) })
	points := make([]string, len(front))
	for i, q := range front {
		points[i] = x.at(q.x) + "," + y.at(q.y)
	}
	return strings.Join(points, " ")
}
