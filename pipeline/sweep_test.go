package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/models"
)

func axesOf(t testing.TB, texts ...string) []SweepAxis {
	t.Helper()
	axes, err := ParseSweep(texts)
	must(t, err)
	return axes
}

func (w *world) sweepConfig(cache string) TrainConfig {
	cfg := w.trainConfig(cache)
	cfg.Out = w.path("sweep")
	return cfg
}

// timings are figures of a run that depend on the clock, and the length of the lines that hold them.
var timings = regexp.MustCompile(`\s*"(pairs_per_second|tokens_per_second|seconds|metrics_bytes|resumed_at_step)": ?[0-9.e+-]+,?|\s*"metrics_sha256": "[0-9a-f]+",?`)

// runFiles is all that a run folder says, less what depends on the clock and on its path.
// Links are in it by what they lead to.
func runFiles(t testing.TB, run string) map[string]string {
	t.Helper()
	files := tree(t, run)
	delete(files, eventsName)
	delete(files, ReportName)
	for name, text := range files {
		if filepath.Ext(name) != ".safetensors" {
			plain, err := checksum.Open([]byte(text))
			must(t, err)
			files[name] = timings.ReplaceAllString(strings.ReplaceAll(string(plain), run, "RUN"), "")
		}
	}
	for _, link := range []string{lastName, bestName} {
		target, err := os.Readlink(filepath.Join(run, link))
		must(t, err)
		files[link] = target
	}
	return files
}

// alone trains one combination of a sweep by itself.
func alone(t testing.TB, w *world, cfg TrainConfig) map[string]string {
	t.Helper()
	cfg.Out = w.path("alone-" + filepath.Base(cfg.Out))
	_, err := Train(context.Background(), cfg, gonumEngine, nil)
	must(t, err)
	return runFiles(t, cfg.Out)
}

// Every run of a sweep has the bytes it has alone: objectives that need the whole batch
// or not, heads of several ranks, runs that end sooner, stop early or read other batches.
func TestSweepEqualsRunsAlone(t *testing.T) {
	for name, texts := range map[string][]string{
		"objectives":   {"loss=sigmoid;aot;sigmoid:0.5,sft:2", "beta=0.1,0.4"},
		"ranks":        {"rank=1,4,7", "alpha=4"},
		"lengths":      {"epochs=1,3", "lr=0.01,0.02"},
		"steps":        {"max-steps=3,0,5"},
		"early stop":   {"early-stop=0,2", "rank=4,5"},
		"best":         {"best-metric=loss,kl,rewards/accuracies", "restore-best=true,false"},
		"other passes": {"seed=1,2", "batch-pairs=3,4"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.sweepConfig(w.cache(24))
			// A batch is several micro-batches, and some pairs are cut.
			cfg.MicroTokens, cfg.EvalEvery, cfg.KeepBest = 11, 2, 2
			if name == "early stop" {
				cfg.Epochs, cfg.LR, cfg.BestMetric = 6, 0.02, accuracyMetric // that comes to 1
			}
			axes := axesOf(t, texts...)
			r, err := Sweep(context.Background(), cfg, axes, gonumEngine, nil)
			must(t, err)
			other := cfg
			other.Out = w.path("other")
			plan, err := PlanSweep(other, axes)
			must(t, err)
			if len(plan.Runs) != len(r.Runs) || len(plan.Runs) < 3 {
				t.Fatalf("%d runs, planned are %d", len(r.Runs), len(plan.Runs))
			}
			stopped := 0
			for _, one := range r.Runs {
				i := slices.Index(plan.Runs, one.Name)
				sameTree(t, runFiles(t, filepath.Join(cfg.Out, one.Name)), alone(t, w, plan.cfgs[i]))
				stopped += int(count(one.Result.StoppedEarly))
			}
			if (name == "early stop") != (stopped > 0 && stopped < len(r.Runs)) {
				t.Errorf("%d of %d runs stopped early", stopped, len(r.Runs))
			}
		})
	}
}

// loadCounter counts engines that were opened and products with the frozen matrix.
type loadCounter struct{ opened, loads int }

type loadingEngine struct {
	models.Engine
	n *loadCounter
}

func (e loadingEngine) Load(ctx context.Context, rows models.Rows) error {
	e.n.loads++
	return e.Engine.Load(ctx, rows)
}

func (n *loadCounter) open(_ string, v *models.Vocabulary) (models.Engine, error) {
	n.opened++
	return loadingEngine{models.NewGonum(v), n}, nil
}

// The frozen product is taken once for all runs, by one engine.
func TestSweepSharesTheProduct(t *testing.T) {
	w := newWorld(t)
	cfg := w.sweepConfig(w.cache(24))
	cfg.EvalEvery = 2
	var many, one loadCounter
	_, err := Sweep(context.Background(), cfg, axesOf(t, "beta=0.1,0.2", "rank=2,3", "lr=0.01,0.02"), Engines{Head: many.open}, nil)
	must(t, err)
	cfg.Out = w.path("run")
	_, err = Train(context.Background(), cfg, Engines{Head: one.open}, nil)
	must(t, err)
	if many != one || one.opened != 1 {
		t.Errorf("eight runs opened %d engines and took %d products, one run %d and %d", many.opened, many.loads, one.opened, one.loads)
	}
}

// killedSweep runs a sweep until it is cancelled or dies in a backward pass.
func killedSweep(t *testing.T, cfg TrainConfig, axes []SweepAxis, at int64, kill bool) (ended bool) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	open := func(_ string, v *models.Vocabulary) (models.Engine, error) {
		return &countingEngine{Engine: models.NewGonum(v), at: at, do: func() error {
			if kill {
				return errKilled
			}
			cancel(errKilled)
			return nil
		}}, nil
	}
	_, err := Sweep(ctx, cfg, axes, Engines{Head: open}, nil)
	if err != nil && !errors.Is(err, errKilled) {
		t.Fatalf("error is %v, want that of the interruption", err)
	}
	return err == nil
}

// Stopped or killed anywhere, a sweep ends in the same bytes; also where a run's folder is
// lost, so that the others are ahead of it.
func TestSweepResumesInTheSameBytes(t *testing.T) {
	w := newWorld(t)
	cfg := w.sweepConfig(w.cache(20))
	cfg.EvalEvery, cfg.Keep = 2, 1 // a stop's own checkpoint does not stay
	axes := axesOf(t, "loss=sigmoid;aot", "epochs=1,2", "seed=1,2")
	whole, err := Sweep(context.Background(), cfg, axes, gonumEngine, nil)
	must(t, err)
	want := map[string]map[string]string{}
	for _, one := range whole.Runs {
		want[one.Name] = runFiles(t, filepath.Join(cfg.Out, one.Name))
	}
	again := cfg
	again.Resume = true
	for at := int64(1); ; at += 7 {
		again.Out = w.path(fmt.Sprint("sweep-", at))
		kill := at%2 == 1
		ended := killedSweep(t, again, axes, at, kill)
		if lost := filepath.Join(again.Out, whole.Runs[at%8].Name); at%3 == 0 {
			must(t, os.RemoveAll(lost))
		}
		r, err := Sweep(context.Background(), again, axes, gonumEngine, nil)
		must(t, err)
		for i, one := range r.Runs {
			if one.Name != whole.Runs[i].Name || one.Front != whole.Runs[i].Front {
				t.Errorf("interrupted in pass %d, rank %d is %s, want %s", at, i+1, one.Name, whole.Runs[i].Name)
			}
			got, want := runFiles(t, filepath.Join(again.Out, one.Name)), maps.Clone(want[one.Name])
			if !kill && !ended {
				// Stopping closes the window of the metrics.
				delete(got, metricsName)
				delete(want, metricsName)
			}
			sameTree(t, got, want)
		}
		if t.Failed() || ended {
			return
		}
	}
}

// Where the runs behind end before they come to those ahead, no product is taken in vain.
func TestSweepPassesOverStepsThatNoRunNeeds(t *testing.T) {
	w := newWorld(t)
	cfg := w.stoppingConfig()
	axes := axesOf(t, "early-stop=0,2")
	whole, err := Sweep(context.Background(), cfg, axes, gonumEngine, nil)
	must(t, err)
	steps := map[string]int64{}
	for _, one := range whole.Runs {
		steps[one.Name] = one.Result.Steps
	}
	short, long := steps["early-stop=2"], steps["early-stop=0"]
	again := cfg
	again.Out, again.Resume = w.path("again"), true
	ahead := short + (long-short)/2
	if ahead <= short+1 {
		t.Fatalf("one run ends at step %d of %d: nothing is tested", short, long)
	}
	killedSweep(t, again, axes, short+ahead, false)
	must(t, os.RemoveAll(filepath.Join(again.Out, "early-stop=2")))
	var n loadCounter
	r, err := Sweep(context.Background(), again, axes, Engines{Head: n.open}, nil)
	must(t, err)
	for _, one := range r.Runs {
		sameTree(t, checkpointFiles(t, filepath.Join(again.Out, one.Name)), checkpointFiles(t, filepath.Join(cfg.Out, one.Name)))
	}
	cfg.EarlyStop, cfg.Out = 2, w.path("short")
	var first loadCounter
	_, err = Train(context.Background(), cfg, Engines{Head: first.open}, nil)
	must(t, err)
	if rest := int64(n.loads - first.loads); rest > 2*(long-ahead) {
		t.Errorf("%d products behind those of the shorter run, for %d steps and their evaluations", rest, long-ahead)
	}
}

// A configuration that diverges ends alone. The rate of the first step is 0, that of the
// second sends the head past every float32, and the gradient of the third is none.
func TestSweepGoesOnWithoutARunThatDiverges(t *testing.T) {
	w := newWorld(t)
	cfg := w.sweepConfig(w.cache(24))
	axes := axesOf(t, "lr=0.01,1e38,0.02")
	r, err := Sweep(context.Background(), cfg, axes, gonumEngine, nil)
	must(t, err)
	if last := r.Runs[2]; last.Settings["lr"] != "1e+38" || !strings.Contains(last.Failed, "pipeline: step 3: ") || last.Front {
		t.Errorf("the run that diverges is %+v", last)
	}
	for _, one := range r.Runs[:2] {
		if one.Failed != "" || one.Result == nil || one.Result.Steps == 0 {
			t.Errorf("another run is %+v", one)
		}
	}
	cfg.Out = w.path("all")
	if _, err := Sweep(context.Background(), cfg, axesOf(t, "lr=1e38,1e39"), gonumEngine, nil); err == nil || !strings.Contains(err.Error(), "lr=1e+39: pipeline: step 3") {
		t.Errorf("where all diverge, the error is %v", err)
	}
}

func TestParseSweep(t *testing.T) {
	axes := axesOf(t, "beta=0.05,1e-1", "loss=sigmoid;sigmoid:0.8,sft:0.2", "wpo=true", "schedule=cosine,linear", "rank=4")
	want := []SweepAxis{
		{"beta", []string{"0.05", "0.1"}},
		{"loss", []string{"sigmoid", "sigmoid:0.8,sft:0.2"}},
		{"wpo", []string{"true"}},
		{"schedule", []string{"cosine", "linear"}},
		{"rank", []string{"4"}},
	}
	if !reflect.DeepEqual(axes, want) {
		t.Errorf("axes are %v, want %v", axes, want)
	}
	if one := axesOf(t, "loss=sigmoid:0.8,sft:0.2;"); len(one[0].Values) != 1 {
		t.Errorf("one mix is %v", one)
	}
	for text, message := range map[string]string{
		"engine=gonum":           "one engine multiplies for all runs",
		"eval-frac=0.1,0.2":      "do not compare",
		"colour=red":             "a KEY of head, rank",
		"":                       "a KEY of head, rank",
		"beta":                   `--sweep beta is "", want a number`,
		"beta=0.1,,0.2":          `--sweep beta is "", want a number`,
		"beta=0.1,x":             `--sweep beta is "x", want a number`,
		"rank=1.5":               "want a whole number",
		"seed=-1":                "want a whole number, 0 or more",
		"wpo=perhaps":            "want true or false",
		"loss=":                  `--sweep loss is "", want a value`,
		"lr=1e-3,0.001":          `--sweep lr is "0.001", want each value once`,
		"loss=sigmoid:1,sft:0.1": "separated by ;",
	} {
		if _, err := ParseSweep([]string{text}); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("--sweep %s: error is %v, want one with %q", text, err, message)
		}
	}
	if _, err := ParseSweep([]string{"lr=1", "beta=1", "lr=2"}); err == nil || !strings.Contains(err.Error(), "all its values in one --sweep") {
		t.Errorf("one setting twice: error is %v", err)
	}
}

// Every setting of train can be swept, or there is a reason.
func TestEverySettingIsSweptOrNot(t *testing.T) {
	for i := range reflect.TypeFor[TrainConfig]().NumField() {
		tag, _, _ := strings.Cut(reflect.TypeFor[TrainConfig]().Field(i).Tag.Get("yaml"), ",")
		key := strings.ReplaceAll(tag, "_", "-")
		if _, shared := sharedKeys[key]; key != "-" && shared == slices.Contains(sweepKeys, key) {
			t.Errorf("%s is in both or none of sweepKeys and sharedKeys", key)
		}
	}
	for _, key := range sweepKeys {
		fieldOf(new(TrainConfig), key) // panics where there is none
	}
}

func TestPlanSweep(t *testing.T) {
	w := newWorld(t)
	cfg := w.sweepConfig(w.path("cache"))
	plan, err := PlanSweep(cfg, axesOf(t, "seed=7,8", "loss=ipo;sigmoid:0.8,sft:1e-2", "lr=1e-5"))
	must(t, err)
	want := []string{
		"seed=7,loss=ipo,lr=1e-05", "seed=7,loss=sigmoid-0.8+sft-1e-2,lr=1e-05",
		"seed=8,loss=ipo,lr=1e-05", "seed=8,loss=sigmoid-0.8+sft-1e-2,lr=1e-05",
	}
	if !slices.Equal(plan.Runs, want) || plan.Passes != 2 {
		t.Errorf("runs are %q in %d passes, want %q in 2", plan.Runs, plan.Passes, want)
	}
	if c := plan.cfgs[3]; c.Seed != 8 || c.Loss != "sigmoid:0.8,sft:1e-2" || c.LR != 1e-5 || c.Out != filepath.Join(cfg.Out, want[3]) {
		t.Errorf("the last run is %+v", c)
	}
	for _, field := range []string{"--cache", "--out"} {
		nowhere := cfg
		if field == "--out" {
			nowhere.Out = ""
		} else {
			nowhere.Cache = ""
		}
		_, err := PlanSweep(nowhere, axesOf(t, "beta=1,2"))
		refusesField(t, err, field)
	}
	for name, tt := range map[string]struct {
		texts   []string
		message string
	}{
		"out of range":   {[]string{"beta=0.1,-1"}, "sweep beta=-1: --beta is -1"},
		"contradiction":  {[]string{"loss=sigmoid,ipo", "label-smoothing=0,0.1"}, "sweep loss=ipo,label-smoothing=0.1: --loss"},
		"no metric":      {[]string{"best-metric=loss,fun"}, "sweep best-metric=fun: --best-metric"},
		"nothing to see": {[]string{"early-stop=0,1"}, "sweep early-stop=1: --eval-every"},
		"too many": {[]string{
			"beta=1,2,3,4,5,6,7", "lr=1,2,3,4,5,6,7", "rank=1,2,3,4,5,6,7",
		}, "at most 256 runs"},
	} {
		if _, err := PlanSweep(cfg, axesOf(t, tt.texts...)); err == nil || !strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: error is %v, want one with %q", name, err, tt.message)
		}
	}
}

func TestSweepRefuses(t *testing.T) {
	w := newWorld(t)
	cfg := w.sweepConfig(w.cache(12))
	axes := axesOf(t, "beta=0.1,0.2")
	must(t, os.Mkdir(cfg.Out, 0o777))
	must(t, os.WriteFile(filepath.Join(cfg.Out, "mine.txt"), nil, 0o666))
	var field *FieldError
	if _, err := Sweep(context.Background(), cfg, axes, gonumEngine, nil); !errors.As(err, &field) || field.Field != "--out" {
		t.Errorf("a folder of something else: error is %v", err)
	}
	must(t, os.RemoveAll(cfg.Out))
	shifted := func(_ string, v *models.Vocabulary) (models.Engine, error) {
		return shiftedEngine{models.NewGonum(v)}, nil
	}
	var fresh *FreshHeadError
	if _, err := Sweep(context.Background(), cfg, axes, Engines{Head: shifted}, nil); !errors.As(err, &fresh) || exists(cfg.Out) {
		t.Errorf("heads that are not the reference: error is %v, a folder %v", err, exists(cfg.Out))
	}
	_, err := Sweep(context.Background(), cfg, axes, gonumEngine, nil)
	must(t, err)
	var there *RunExistsError
	if _, err := Sweep(context.Background(), cfg, axes, gonumEngine, nil); !errors.As(err, &there) {
		t.Errorf("over an earlier sweep: error is %v", err)
	}
	again := cfg
	again.Resume = true
	var settings *SettingsError
	if _, err := Sweep(context.Background(), again, axesOf(t, "beta=0.1,0.3"), gonumEngine, nil); !errors.As(err, &settings) {
		t.Errorf("resumed with other values: error is %v", err)
	}
	other := again
	other.LR = 0.5
	if _, err := Sweep(context.Background(), other, axes, gonumEngine, nil); !errors.As(err, &settings) || !strings.Contains(settings.Have, "lr:") {
		t.Errorf("resumed with another rate: error is %v", err)
	}
	if _, err := Train(context.Background(), again, gonumEngine, nil); !errors.As(err, &field) || !strings.Contains(err.Error(), "holds a sweep") {
		t.Errorf("one run in the folder of a sweep: error is %v", err)
	}
	have, haveAxes, err := LoadSweep(cfg.Out)
	must(t, err)
	if !reflect.DeepEqual(haveAxes, axes) || have.LR != cfg.LR || !have.Resume || have.Out != cfg.Out {
		t.Errorf("the sweep says of itself %+v %v", have, haveAxes)
	}
}

// A sweep is told apart, and its links and files work as a run's do.
func TestSweepFolder(t *testing.T) {
	w := newWorld(t)
	cfg := w.sweepConfig(w.cache(24))
	cfg.Epochs = 3
	r, err := Sweep(context.Background(), cfg, axesOf(t, "lr=0.0001,0.02"), gonumEngine, nil)
	must(t, err)
	if r.Best != "lr=0.02" || r.Metric != "loss" {
		t.Errorf("best by %s is %s, want the run that learns", r.Metric, r.Best)
	}
	e, err := Evaluate(context.Background(), EvalConfig{Cache: cfg.Cache, Checkpoint: r.Checkpoint, Engine: "gonum"}, gonumEngine, nil)
	must(t, err)
	if got, want := e.Metrics.Get("loss"), r.Runs[0].Get("loss"); got != want {
		t.Errorf("eval of the best gives %g, the table says %g", got, want)
	}
	in, err := Inspect(context.Background(), cfg.Out, datasets.DefaultOptions(), 1)
	must(t, err)
	if in.Kind != "sweep" || !reflect.DeepEqual(in.Sweep.Runs, r.Runs) {
		t.Errorf("the folder is a %q of %+v, want a sweep of %+v", in.Kind, in.Sweep, r.Runs)
	}
	page, err := os.ReadFile(filepath.Join(cfg.Out, ReportName))
	must(t, err)
	must(t, os.Remove(filepath.Join(cfg.Out, ReportName)))
	must(t, WriteSweepReport(cfg.Out))
	second, err := os.ReadFile(filepath.Join(cfg.Out, ReportName))
	must(t, err)
	if string(page) != string(second) {
		t.Error("the report written again differs")
	}
	for _, text := range []string{`href="./lr=0.02/report.html"`, "Best by loss: <b>lr=0.02</b>", "2 runs", "<title>1: lr=0.02, kl "} {
		if !strings.Contains(string(page), text) {
			t.Errorf("the report lacks %q", text)
		}
	}
	if n := strings.Count(string(page), "<circle"); n != 2 {
		t.Errorf("the plot has %d dots, want 2", n)
	}
}
