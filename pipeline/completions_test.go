package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What compare keeps for a run is in its report, also when that is written again.
func TestReportShowsCompletions(t *testing.T) {
	w := newWorld(t)
	run := w.trained()
	if page, _ := readReport(t, run.Out); strings.Contains(page, "<h2>Completions</h2>") {
		t.Error("a report without completions has a section of them")
	}
	w.rt.says = "\n a <b> & \"c\""
	cfg := w.compareConfig()
	cfg.Run, cfg.Limit, cfg.Report = run.Out, 2, run.Out
	all, err := Compare(context.Background(), cfg, w.rt, nil)
	must(t, err)
	for range 2 {
		page, text := readReport(t, run.Out)
		if n := strings.Count(page, `dir="auto">a &lt;b&gt; &amp; &#34;c&#34;</div>`); n != 4 {
			t.Errorf("%d completions, want 2 of each model", n)
		}
		for _, c := range all {
			if !strings.Contains(page, `dir="auto">`+c.Prompt+"</div>") {
				t.Errorf("the report lacks the prompt %q", c.Prompt)
			}
		}
		if !strings.Contains(text, "Always the likeliest token, at most 60 tokens.") {
			t.Error("the report does not say how the completions came about")
		}
		must(t, WriteReport(context.Background(), run.Out))
	}
}

// Completions are what a model makes up: markup, control characters, any number of them.
func TestReportOfHostileCompletions(t *testing.T) {
	w := newWorld(t)
	run := w.trained()
	cfg := w.compareConfig()
	cfg.Report, cfg.Sampling.Temperature = run.Out, 0.5
	var all []Comparison
	for i := range shownCompletions + 3 {
		all = append(all, Comparison{
			Prompt:    fmt.Sprintf("prompt-%d </div></body><script>alert(1)</script>", i),
			Reference: "\x00\x1b[31m\x7f\u0085\ufffe", Policy: "{{.Name}} \u202eabc\r\n\tdef https" + ":",
		})
	}
	must(t, writeCompletions(context.Background(), cfg, all))
	page, text := readReport(t, run.Out)
	for _, want := range []string{
		"prompt-0 </div></body><script>", "␀␛[31m␡\ufffd\ufffd", "{{.Name}}", "␍\n\tdef", "3 more are in completions.json.", "Sampled at temperature 0.5",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if n := strings.Count(page, "prompt-"); n != shownCompletions {
		t.Errorf("%d comparisons are shown, want %d", n, shownCompletions)
	}
}

func TestCompletionsOfNoRun(t *testing.T) {
	w := newWorld(t)
	cfg := w.compareConfig("p")
	cfg.Report = w.path("model")
	if _, err := Compare(context.Background(), cfg, w.rt, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want one about the settings of a run", err)
	}
	if len(w.rt.prompts) > 0 || exists(w.path("model/"+completionsName)) {
		t.Error("the models were asked, or the folder written to")
	}
}

func TestReportRefusesDamagedCompletions(t *testing.T) {
	w := newWorld(t)
	run := w.trained()
	path := filepath.Join(run.Out, completionsName)
	must(t, os.WriteFile(path, []byte(`{"comparisons": [{"prompt": "a`), 0o666))
	if err := WriteReport(context.Background(), run.Out); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error is %v, want one that names %s", err, path)
	}
	must(t, os.WriteFile(path, []byte(`{"comparisons": []}`), 0o666))
	must(t, WriteReport(context.Background(), run.Out))
	if page, _ := readReport(t, run.Out); strings.Contains(page, "<h2>Completions</h2>") {
		t.Error("no completions have a section")
	}
}
