package pipeline

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readReport checks that a report is well formed and needs nothing from elsewhere, and
// returns its bytes and text.
func readReport(t *testing.T, run string) (page, text string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(run, ReportName))
	must(t, err)
	page = string(data)
	dec := xml.NewDecoder(strings.NewReader(page))
	dec.Entity = xml.HTMLEntity
	var b strings.Builder
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		switch token := token.(type) {
		case xml.CharData:
			b.Write(token)
		case xml.StartElement:
			switch token.Name.Local {
			case "script", "link", "img", "iframe", "object", "image", "use":
				t.Errorf("the report has an element %q", token.Name.Local)
			}
			for _, a := range token.Attr {
				inFrame(t, token.Name.Local, a)
				if name := a.Name.Local; name == "href" || name == "src" || name == "style" || strings.HasPrefix(name, "on") {
					t.Errorf("%s has an attribute %s=%q", token.Name.Local, name, a.Value)
				}
			}
		}
	}
	for _, bad := range []string{"://", "url(", "@import", "NaN", "Inf"} {
		if strings.Contains(page, bad) {
			t.Errorf("the report holds %q", bad)
		}
	}
	return page, b.String()
}

// inFrame wants the parts of a plot within its frame of 360 by 216.
func inFrame(t *testing.T, element string, a xml.Attr) {
	t.Helper()
	if !slices.Contains([]string{"rect", "circle", "line", "text", "polyline"}, element) {
		return
	}
	wide := []string{"x", "x1", "x2", "cx", "width"}
	if !slices.Contains(append(wide, "y", "y1", "y2", "cy", "height", "points"), a.Name.Local) {
		return
	}
	for i, field := range strings.FieldsFunc(a.Value, func(r rune) bool { return r == ' ' || r == ',' }) {
		limit := 216.0
		if slices.Contains(wide, a.Name.Local) || a.Name.Local == "points" && i%2 == 0 {
			limit = 360
		}
		if v, err := strconv.ParseFloat(field, 64); err != nil || !(v >= 0 && v <= limit) {
			t.Errorf("%s has %s=%q, want numbers from 0 to %g", element, a.Name.Local, a.Value, limit)
		}
	}
}

func TestReportShowsTheRun(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	cfg.EvalEvery = 2
	r, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	page, text := readReport(t, cfg.Out)
	must(t, eachMetrics(filepath.Join(cfg.Out, metricsName), func(line Values) error {
		for _, v := range line[2:] { // behind step and epoch
			if !strings.Contains(text, v.Name) {
				t.Errorf("the report lacks %q", v.Name)
			}
		}
		return nil
	}))
	for _, want := range []string{
		"pairs kept", "chosen tokens", "prefers-color-scheme: dark", "<rect", "--rank 4", "--lr 0.01", "--engine gonum",
		figure(r.After.Get("rewards/margins")), "batch_pairs",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if strings.Contains(page, "--beta") {
		t.Error("the command repeats a default")
	}
}

func TestReportCountsDroppedRows(t *testing.T) {
	w := newWorld(t)
	cfg := w.precomputeConfig(w.pairs("pairs.jsonl", 12))
	w.write("bad.jsonl", `{"prompt": "q:", "chosen": " same", "rejected": " same"}`+"\n")
	cfg.Data, cfg.MaxBadFrac = append(cfg.Data, w.path("bad.jsonl")), 1
	_, err := Precompute(context.Background(), cfg, w.rt, nil)
	must(t, err)
	d, err := describePairs(context.Background(), cfg.Out, nil)
	must(t, err)
	if len(d.Drops) != 1 || d.Drops[0].Rows != 1 || d.Looked != 12 {
		t.Fatalf("drops are %v of %d pairs, want one of 12", d.Drops, d.Looked)
	}
	train := w.trainConfig(cfg.Out)
	must(t, createRun(train))
	must(t, os.WriteFile(filepath.Join(train.Out, metricsName), nil, 0o666))
	must(t, WriteReport(context.Background(), train.Out))
	if _, text := readReport(t, train.Out); !strings.Contains(text, "dropped: "+string(d.Drops[0].Reason)) {
		t.Error("the report lacks the dropped row")
	}
}

func TestReportOfAnInterruptedRun(t *testing.T) {
	w := newWorld(t)
	cfg := w.trainConfig(w.cache(20))
	cfg.EvalFrac = 0
	interrupt(t, cfg, 2, false)
	if _, text := readReport(t, cfg.Out); strings.Contains(text, "Held-out pairs") || !strings.Contains(text, "2 steps.") {
		t.Errorf("report is %s", text)
	}
}

// A run of one's own making: hostile texts, figures that are none, and no cache.
func TestReportOfAnything(t *testing.T) {
	for _, c := range []struct{ name, metrics string }{
		{"nothing", ""},
		{"one point", `{"step":1,"epoch":1,"loss":0.5}` + "\n"},
		{"no finite value", `{"step":1,"loss":null,"eval_loss":null}` + "\n"},
		{"extremes", `{"step":1,"loss":1e308}` + "\n" + `{"step":2,"loss":-1e308,"kl":5e-324}` + "\n"},
		{"hostile", `{"step":1,"<script>alert(1)</script>":1,"eval_\"><img src=x>":2}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := DefaultTrainConfig()
			cfg.Out = filepath.Join(t.TempDir(), "<b onclick=x>&")
			cfg.Cache, cfg.Data = "/nowhere/<script>", []string{"it's </pre><script>", "a b"}
			must(t, createRun(cfg))
			must(t, os.WriteFile(filepath.Join(cfg.Out, metricsName), []byte(c.metrics), 0o666))
			must(t, WriteReport(context.Background(), cfg.Out))
			_, text := readReport(t, cfg.Out)
			for _, want := range []string{`--data 'it'\''s </pre><script>'`, "--data 'a b'", "<b onclick=x>&"} {
				if !strings.Contains(text, want) {
					t.Errorf("the report lacks %q", want)
				}
			}
		})
	}
}

func TestTicksAreRound(t *testing.T) {
	for _, c := range []struct {
		low, high float64
		want      string
	}{
		{0, 1, "0 0.2 0.4 0.6 0.8 1"}, {0, 100, "0 20 40 60 80 100"}, {-3, 4, "-2 0 2 4"}, {0.61, 0.69, "0.62 0.64 0.66 0.68"}, {7, 7, "4 6 8 10"}, {0, 0, "0 0.2 0.4 0.6 0.8 1"},
	} {
		var got []string
		for _, k := range (extent{c.low, c.high}).axis(0, 1).ticks() {
			got = append(got, k.Text)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("ticks of %g to %g are %s, want %s", c.low, c.high, s, c.want)
		}
	}
}

func TestThinKeepsTheMean(t *testing.T) {
	var points []xy
	for i := range 4 * maxPoints {
		points = append(points, xy{float64(i), float64(i % 4)}, xy{float64(i), math.NaN()})
	}
	got := thin(points)
	if len(got) != maxPoints || got[0] != (xy{1.5, 1.5}) {
		t.Errorf("%d points, the first %v, want %d and {1.5 1.5}", len(got), got[0], maxPoints)
	}
}
