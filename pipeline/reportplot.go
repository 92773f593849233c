package pipeline

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A plot is what the template draws as SVG; positions are in units of its viewBox.
type plot struct {
	Title  string
	Lines  []plotLine
	Bars   []plotBar
	XTicks []tick
	YTicks []tick
	// Counts stand below the bars, where these are not counts themselves.
	Counts []tick
	Empty  bool
}

// plotLine is a curve; Color is its class, by metric, and Held says that it is of held-out pairs.
type plotLine struct {
	Name, Points, Last string
	Color              int
	Held               bool
	Dots               []xyText
}

type (
	plotBar struct{ X, Y, Width, Height, Title string }
	xyText  struct{ X, Y string }
	tick    struct{ At, Text string }
)

// The frame of a plot within its viewBox of 360 by 200; the template draws to the same figures.
const (
	plotLeft, plotRight = 52.0, 350.0
	plotTop, plotBottom = 10.0, 174.0
)

type series struct {
	name   string
	points []xy
	held   bool
}

// lines draws curves over steps.
func lines(title string, all []series) plot {
	p := plot{Title: title}
	xs, ys := newSpan(), newSpan()
	for i := range all {
		all[i].points = thin(all[i].points)
		for _, q := range all[i].points {
			xs.add(q.x)
			ys.add(q.y)
		}
	}
	p.Empty = xs.low > xs.high
	x, y := xs.axis(plotLeft, plotRight), ys.axis(plotBottom, plotTop)
	color := -1
	for i, s := range all {
		if i == 0 || !s.held || strings.TrimPrefix(s.name, evalPrefix) != all[i-1].name {
			color++
		}
		l := plotLine{Name: s.name, Held: s.held, Color: color, Last: "no finite value"}
		var points []string
		for _, q := range s.points {
			points = append(points, x.at(q.x)+","+y.at(q.y))
			if s.held || len(s.points) == 1 {
				l.Dots = append(l.Dots, xyText{x.at(q.x), y.at(q.y)})
			}
		}
		if n := len(s.points); n > 0 {
			l.Last = figure(s.points[n-1].y)
		}
		l.Points = strings.Join(points, " ")
		p.Lines = append(p.Lines, l)
	}
	if !p.Empty {
		p.XTicks, p.YTicks = x.ticks(), y.ticks()
	}
	return p
}

// histogramBars is how many bars a histogram has at most.
const histogramBars = 24

// histogram counts values from 0 to longest.
func histogram(title string, values []float64, longest float64) plot {
	width := math.Max(1, math.Ceil((longest+1)/histogramBars))
	counts := make([]float64, int(longest/width)+1)
	ys := newSpan()
	ys.add(0)
	ys.add(1)
	for _, v := range values {
		i := int(v / width)
		counts[i]++
		ys.add(counts[i])
	}
	x := axis{low: 0, high: width * float64(len(counts)), from: plotLeft, to: plotRight}
	y := ys.axis(plotBottom, plotTop)
	p := plot{Title: title, XTicks: x.ticks(), YTicks: y.ticks(), Empty: len(values) == 0}
	for i, n := range counts {
		if n == 0 {
			continue
		}
		from := float64(i) * width
		span := fmt.Sprintf("%g", from)
		if width > 1 {
			span = fmt.Sprintf("%g–%g", from, from+width-1)
		}
		left, top := x.position(from), y.position(n)
		p.Bars = append(p.Bars, plotBar{
			X: fixed1(left), Y: fixed1(top), Width: fixed1(math.Max(1, x.position(from+width)-left-1)), Height: fixed1(plotBottom - top),
			Title: fmt.Sprintf("%s tokens: %g pairs", span, n),
		})
	}
	return p
}

// shareAxis is that of shares, upwards.
var shareAxis = axis{0, 1, plotBottom, plotTop}

// addShare adds the bar of a share of so many pairs, with their number below.
func (p *plot) addShare(left, right, share float64, pairs int, what string) {
	top := shareAxis.position(share)
	p.Bars = append(p.Bars, plotBar{
		X: fixed1(left), Y: fixed1(top), Width: fixed1(right - left - 2), Height: fixed1(plotBottom - top),
		Title: fmt.Sprintf("%s: %s of %d pairs", what, figure(share), pairs),
	})
	p.Counts = append(p.Counts, tick{fixed1((left + right) / 2), fewDigits(pairs)})
}

// fewDigits is a number of pairs in at most four places and a letter.
func fewDigits(n int) string {
	switch {
	case n >= 10_000_000:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 10_000:
		return fmt.Sprintf("%dk", n/1000)
	}
	return strconv.Itoa(n)
}

// extent is the range of values.
type extent struct{ low, high float64 }

func newSpan() extent { return extent{math.Inf(1), math.Inf(-1)} }

func (s *extent) add(v float64) { s.low, s.high = math.Min(s.low, v), math.Max(s.high, v) }

// axis maps the range, widened where it is a point, to from..to.
func (s extent) axis(from, to float64) axis {
	switch {
	case s.low != s.high:
	case s.low == 0:
		s.high = 1
	default:
		by := math.Max(math.Abs(s.low)/2, 1e-300) // half of the least number is none
		s.low, s.high = s.low-by, s.high+by
	}
	return axis{s.low, s.high, from, to}
}

type axis struct{ low, high, from, to float64 }

// position halves before it subtracts, so that no range overflows.
func (a axis) position(v float64) float64 {
	return a.from + (a.to-a.from)*((v/2-a.low/2)/(a.high/2-a.low/2))
}

func (a axis) at(v float64) string { return fixed1(a.position(v)) }

// ticks are multiples of 1, 2 or 5 times a power of ten, at most six.
func (a axis) ticks() (out []tick) {
	rough := (a.high/2 - a.low/2) / 2.5
	step := math.Pow(10, math.Floor(math.Log10(rough)))
	for _, m := range []float64{1, 2, 5, 10} {
		if step*m >= rough {
			step *= m
			break
		}
	}
	first := math.Ceil(a.low / step)
	for i := range 7 {
		v := (first + float64(i)) * step
		if !(v <= a.high+step*1e-9) {
			break
		}
		out = append(out, tick{a.at(v), figure(v)})
	}
	return out
}

func fixed1(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }

// figure is a number for people: four digits, or those before the point.
func figure(v float64) string {
	if !finite(v) {
		return "not finite"
	}
	if abs := math.Abs(v); abs >= 1e4 && abs < 1e7 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
