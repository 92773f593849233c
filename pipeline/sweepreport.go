package pipeline

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
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
	// Label is the rank, or empty where it would run into another dot's.
	Label string
	Front bool
	at    xy // in the plot
}

// The room that a label takes in the plot.
const labelWidth, labelHeight = 12.0, 9.0

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
	p.Plot = plot{Title: accuracyMetric + " against " + klMetric}
	var points []xy
	xs, ys := newSpan(), newSpan()
	for i := range runs {
		at := xy{runs[i].Get(klMetric), runs[i].Get(accuracyMetric)}
		points = append(points, at)
		if finite(at.x) && finite(at.y) {
			xs.add(at.x)
			ys.add(at.y)
		}
	}
	if p.Plot.Empty = xs.low > xs.high; p.Plot.Empty {
		return
	}
	if ys.low == ys.high { // a share, which is nowhere outside of 0 and 1
		ys = extent{max(0, ys.low-0.1), min(1, ys.high+0.1)}
	}
	x, y := xs.axis(plotLeft+10, plotRight-10), ys.axis(plotBottom-8, plotTop+8)
	var front []xy
	for i, at := range points {
		if !finite(at.x) || !finite(at.y) {
			continue
		}
		p.Dots = append(p.Dots, sweepDot{
			X: x.at(at.x), Y: y.at(at.y), Label: strconv.Itoa(i + 1), Front: runs[i].Front, at: xy{x.position(at.x), y.position(at.y)},
			Title: fmt.Sprintf("%d: %s, %s %s, %s %s", i+1, runs[i].Name, klMetric, figure(at.x), accuracyMetric, figure(at.y)),
		})
		if runs[i].Front {
			front = append(front, at)
		}
	}
	thinLabels(p.Dots)
	// What is drawn later lies on top.
	slices.SortStableFunc(p.Dots, func(a, b sweepDot) int { return cmp.Compare(drawn(a), drawn(b)) })
	p.Plot.XTicks, p.Plot.YTicks = x.ticks(), y.ticks()
	p.Plot.Lines = []plotLine{{Points: frontPoints(front, x, y)}}
}

// drawn is the turn of a dot: those of the front are last.
func drawn(d sweepDot) int {
	if d.Front {
		return 1
	}
	return 0
}

// thinLabels takes the labels away that would run into another: those of the front stay before
// others, and the better rank before the worse.
func thinLabels(dots []sweepDot) {
	var kept []xy
	crowded := func(at xy) bool {
		return slices.ContainsFunc(kept, func(o xy) bool {
			return math.Abs(o.x-at.x) < labelWidth && math.Abs(o.y-at.y) < labelHeight
		})
	}
	for _, front := range []bool{true, false} {
		for i := range dots {
			switch d := &dots[i]; {
			case d.Front != front:
			case crowded(d.at):
				d.Label = ""
			default:
				kept = append(kept, d.at)
			}
		}
	}
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
