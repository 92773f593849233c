package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// environment is what the job files of these tests may name.
func environment(name string) (string, bool) {
	value, ok := map[string]string{"HOOK": "https://hook.example/k3y", "EPOCHS": "3", "EMPTY": "", "DIR": "other"}[name]
	return value, ok
}

// loaded reads a job file named job.yaml.
func loaded(t *testing.T, text string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return Load(path, environment)
}

// job puts a model and data, the first two lines, in front of a job file's text.
func job(text string) string { return "model: m\ndata: d.jsonl\n" + text }

// TestMistakes wants each mistake named with its place in the file, its key and what was wanted.
func TestMistakes(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string // each error, behind the folder
	}{
		{"empty", "", []string{"job.yaml: is empty, want a job"}},
		{"no YAML", "model: [", []string{"job.yaml: is no YAML: line 1: did not find expected node content"}},
		{"two documents", job("---\nmodel: m\n"), []string{`job.yaml:3:1: a second document begins, want one job`}},
		{"a list", "- model\n", []string{"job.yaml:1:1: is a list, want keys and their values"}},
		{"nothing but a model", "model: m\n", []string{"job.yaml: data is missing, want files, globs or folders of preference pairs"}},
		{"unknown section", job("trian:\n  beta: 1\n"), []string{"job.yaml:3:1: trian is no key, want train"}},
		{"unknown key", job("train:\n  bta: 1\n"), []string{"job.yaml:4:3: train.bta is no key, want beta"}},
		{"a flag's name", job("train:\n  label-smoothing: 0.1\n"), []string{"job.yaml:4:3: train.label-smoothing is no key, want label_smoothing"}},
		{"a key of another section", job("runs:\n  beta: 1\n"), []string{"job.yaml:4:3: runs.beta is no key, want one of path, keep"}},
		{"a key that the job sets", job("train:\n  cache: c\n"), []string{"job.yaml:4:3: train.cache is no key, want one of head, rank, "}},
		{"merge key", job("x: &x {beta: 1}\ntrain:\n  <<: *x\n"), []string{"job.yaml:3:1: x is no key, want one of name, model", "job.yaml:5:3: train.<< is no key"}},
		{"duplicate key", job("train:\n  beta: 1\n  lr: 1\n  beta: 2\n"), []string{"job.yaml:6:3: train.beta is there twice, first in line 4, want it once"}},
		{"duplicate section", job("runs: {path: a}\nruns: {path: b}\n"), []string{"job.yaml:4:1: runs is there twice, first in line 3, want it once"}},
		{"text for a number", job("train:\n  beta: high\n"), []string{`job.yaml:4:9: train.beta is "high", want a number`}},
		{"quoted number", job("train:\n  epochs: \"3\"\n"), []string{`job.yaml:4:11: train.epochs is "3", want a whole number without quotes`}},
		{"fraction for a count", job("train: {epochs: 1.5}\n"), []string{`job.yaml:3:17: train.epochs is "1.5", want a whole number`}},
		{"negative seed", job("train: {seed: -1}\n"), []string{`job.yaml:3:15: train.seed is "-1", want a whole number, 0 or more`}},
		{"memory without a size", job("cache: {memory: much}\n"), []string{`job.yaml:3:17: cache.memory is "much", want bytes, with k, m, g or t behind them (512m, 4g)`}},
		{"memory below 0", job("cache: {memory: -1g}\n"), []string{`job.yaml:3:17: cache.memory is "-1g", want bytes`}},
		{"no memory", job("cache: {memory: 0}\n"), []string{`job.yaml:3:9: cache.memory is 0, want 1 byte or more`}},
		{"yes for true", job("train: {wpo: yes}\n"), []string{`job.yaml:3:14: train.wpo is "yes", want true or false`}},
		{"no value", job("train:\n  beta:\n"), []string{"job.yaml:4:8: train.beta has no value, want a number"}},
		{"list for a word", job("train: {loss: [sigmoid]}\n"), []string{"job.yaml:3:15: train.loss is a list, want a text"}},
		{"word for a section", job("train: fast\n"), []string{`job.yaml:3:8: train is "fast", want keys and their values`}},
		{"out of range", job("train:\n  label_smoothing: 0.7\n  lr: 0\n"), []string{
			"job.yaml:4:3: train.label_smoothing is 0.7, want a number in [0, 0.5)", "job.yaml:5:3: train.lr is 0, want a number > 0",
		}},
		{"a range in another section", job("encoding: {max_length: 1}\nexport: {verify_pairs: 0}\n"), []string{
			"job.yaml:3:12: encoding.max_length is 1, want 2 or more tokens", "job.yaml:4:10: export.verify_pairs is 0, want 1 or more pairs",
		}},
		{"a weight below 0", "model: m\ndata:\n- a\n- {path: b, weight: -1}\n", []string{"job.yaml:4:13: data[1].weight is -1, want a number >= 0"}},
		{"no path", "model: m\ndata: [{weight: 2}]\n", []string{"job.yaml:2:1: data[0].path is missing, want a file, glob or folder"}},
		{"a header twice", job("notify:\n  webhook:\n    headers: {A: x, A: y}\n"), []string{"job.yaml:5:21: notify.webhook.headers.A is there twice, want it once"}},
		{"swept and set", job("train:\n  beta: 1\n  sweep: {beta: [1, 2]}\n"), []string{"job.yaml:4:3: train.beta is swept too, want one of both"}},
		{"swept for nothing", job("train:\n  sweep: {engine: [ort]}\n"), []string{`job.yaml:4:11: train.sweep.engine can't be swept: --sweep engine is "ort;", want another setting: one engine multiplies for all runs`}},
		{"swept to no number", job("train:\n  sweep: {beta: [0.1, much]}\n"), []string{`job.yaml:4:11: train.sweep.beta can't be swept: --sweep beta is "much", want a number`}},
		{"gates without held-out pairs", job("train: {eval_frac: 0}\ngates: {max_kl: 1}\n"), []string{"job.yaml:3:9: train.eval_frac is 0, want more: gates.max_kl judges held-out pairs"}},
		{"gates on training pairs", job("evaluation: {all: true}\npublish: {to: p}\n"), []string{"job.yaml:3:14: evaluation.all is true, want false: gates.published judges held-out pairs"}},
		{"no such comparison", job("gates: {published: equal}\n"), []string{`job.yaml:3:9: gates.published is "equal", want better or not_worse or off`}},
		{"unset variable", job("train:\n  beta: ${BETA}\n"), []string{"job.yaml:4:9: train.beta can't be read: the environment has no BETA; ${BETA:-default} would do without"}},
		{"no variable", job("publish: {to: \"${a b}\"}\n"), []string{`job.yaml:3:15: publish.to can't be read: "${a b}" names no variable, want ${NAME} or ${NAME:-default} ($${ for the characters ${)`}},
		{"an open variable", job("publish: {to: \"x${a\"}\n"), []string{"job.yaml:3:15: publish.to can't be read: ${ is not closed by }"}},
		{"a variable in a key", job("${DIR}: 1\n"), []string{"job.yaml:3:1: ${DIR} is no key, want one of name, model"}},
		{"a variable that is no number", job("train: {epochs: \"${DIR}\"}\n"), []string{`job.yaml:3:17: train.epochs is "other", want a whole number`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := loaded(t, tc.text)
			errs := eachError(err)
			if len(errs) != len(tc.want) {
				t.Fatalf("got %d errors, want %d: %v", len(errs), len(tc.want), err)
			}
			for i, one := range errs {
				_, text, _ := strings.Cut(one.Error(), "/job.yaml")
				if !strings.HasPrefix("job.yaml"+text, tc.want[i]) {
					t.Errorf("got  %q\nwant %q", "job.yaml"+text, tc.want[i])
				}
				if _, ok := errors.AsType[*KeyError](one); !ok {
					t.Errorf("%T is no *KeyError", one)
				}
			}
		})
	}
}

// everything is a job file that sets keys of every kind, away from their defaults.
const everything = `
model: {path: m, file: b.onnx}
data:
  - a.jsonl
  - {path: /abs/*.parquet, weight: 0.5, limit: 100}
  - path: ${DIR}/c
reading:
  columns: {prompt: question}
encoding: {max_length: 99, chat_template: chat.jinja}
cache: {features: f32, memory: 123456789, prune: false, max_bad_frac: 1e-4}
train:
  epochs: "${EPOCHS}"
  lr: 1e-4
  rslora: true
  seed: 18446744073709551615
  sweep:
    loss: [ipo, "sigmoid:0.8,sft:0.2"]
    label_smoothing: [0, 0.1]
evaluation: {breakdown: true}
gates: {min_accuracy: 0.6, min_chosen_drift: -0.05, max_kl: 0, published: better}
publish: {to: "${NOWHERE:-place}$${x}", keep: 3}
runs: {path: r}
notify:
  webhook: {url: "${HOOK}", headers: {Authorization: "Bearer ${HOOK}", X-Key: s3cret}, only_failures: true}
  pushgateway: http://user:s3cret@push
runtime: {threads: 2}
`

func TestLoad(t *testing.T) {
	c, err := loaded(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(c.file)
	want := Default()
	want.Model = Model{filepath.Join(dir, "m"), "b.onnx"}
	want.Data = []Source{{filepath.Join(dir, "a.jsonl"), 1, 0}, {"/abs/*.parquet", 0.5, 100}, {filepath.Join(dir, "other/c"), 1, 0}}
	want.Reading.Columns.Prompt = "question"
	want.Encoding.MaxLength, want.Encoding.ChatTemplate = 99, filepath.Join(dir, "chat.jinja")
	want.Cache.Features, want.Cache.Memory, want.Cache.Prune, want.Cache.MaxBadFrac = "f32", 123456789, false, 1e-4
	want.Cache.Out = filepath.Join(dir, "cache")
	want.Train.Epochs, want.Train.LR, want.Train.RSLoRA, want.Train.Seed = 3, 1e-4, true, 1<<64-1
	want.Train.Sweep = Sweep{
		{Key: "loss", Values: []string{"ipo", "sigmoid:0.8,sft:0.2"}}, {Key: "label-smoothing", Values: []string{"0", "0.1"}},
	}
	want.Evaluation.Breakdown = true
	accuracy, drift, kl := 0.6, -0.05, 0.0
	want.Gates.MinAccuracy, want.Gates.MinChosenDrift, want.Gates.MaxKL, want.Gates.Published = &accuracy, &drift, &kl, Better
	want.Publish = Publish{filepath.Join(dir, "place${x}"), 3}
	want.Runs.Path = filepath.Join(dir, "r")
	want.Notify.Webhook = Webhook{
		URL:          Secret{"https://hook.example/k3y", "${HOOK}"},
		Headers:      Headers{"Authorization": {"Bearer https://hook.example/k3y", "Bearer ${HOOK}"}, "X-Key": {"s3cret", masked}},
		OnlyFailures: true,
	}
	want.Name = "job"
	want.Notify.Push = Secret{"http://user:s3cret@push", masked}
	want.Runtime.Threads = 2
	want.file, want.at = c.file, c.at
	if diff := cmp.Diff(want, c, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestSizes wants sizes read as the flag reads them, with and without a unit, and written as numbers.
func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"2g": 2 << 30, "1536": 1536, "\"64MiB\"": 64 << 20, "${SIZE:-3k}": 3 << 10} {
		c, err := loaded(t, job("cache:\n  memory: "+text+"\nreading:\n  max_row_bytes: "+text+"\n"))
		if err != nil || c.Cache.Memory != want || int64(c.Reading.MaxRowBytes) != want {
			t.Errorf("%s: got %d and %d (%v), want %d", text, c.Cache.Memory, c.Reading.MaxRowBytes, err, want)
		}
		var written bytes.Buffer
		if err := c.Write(&written); err != nil || !strings.Contains(written.String(), fmt.Sprintf("memory: %d\n", want)) {
			t.Errorf("%s: written (%v) as\n%s", text, err, &written)
		}
	}
}

// TestWriteAndLoad feeds a resolved config back: it is the same, but for a secret that was
// not kept.
func TestWriteAndLoad(t *testing.T) {
	for name, text := range map[string]string{"everything": everything, "defaults": job("")} {
		t.Run(name, func(t *testing.T) {
			c, err := loaded(t, text)
			if err != nil {
				t.Fatal(err)
			}
			var written bytes.Buffer
			if err := c.Write(&written); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(written.String(), "s3cret") || strings.Contains(written.String(), "k3y") {
				t.Errorf("a secret is written:\n%s", &written)
			}
			again, err := loaded(t, written.String())
			if err != nil {
				t.Fatalf("%v in\n%s", err, &written)
			}
			c.file, c.at, again.file, again.at = "", nil, "", nil
			if c.Notify.Push.written == masked {
				if lost := again.Notify.Lost(); !slices.Equal(lost, []string{"notify.pushgateway", "notify.webhook.headers.X-Key"}) {
					t.Errorf("lost are %v, want the secrets that were not kept", lost)
				}
				c.Notify.Push.value = ""
				c.Notify.Webhook.Headers["X-Key"] = Secret{"", masked}
			}
			if diff := cmp.Diff(c, again, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
				t.Errorf("(-written +read)\n%s", diff)
			}
		})
	}
}

// TestSecretsDoNotPrint tries every way that Go has of printing.
func TestSecretsDoNotPrint(t *testing.T) {
	c, err := loaded(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%v %+v %#v %s %q\n", c.Notify, c.Notify, c.Notify, c.Notify.Push, c.Notify.Webhook.URL)
	if err := json.NewEncoder(&out).Encode(c.Notify); err != nil {
		t.Fatal(err)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "secret", c.Notify.Push, "notify", c.Notify)
	}
	if s := out.String(); strings.Contains(s, "s3cret") || strings.Contains(s, "k3y") || !strings.Contains(s, masked) {
		t.Errorf("printed as\n%s", s)
	}
}

// TestMistakesTellNoSecret makes mistakes in and around secrets.
func TestMistakesTellNoSecret(t *testing.T) {
	for _, text := range []string{
		"notify: {webhook: {headers: s3cret}}\n", "notify: {webhook: {headers: [s3cret]}}\n", "notify: {webhook: [s3cret]}\n",
		"notify: {webhook: {url: [s3cret]}}\n", "notify: {pushgateway: {s3cret: x}}\n", "notify: {webhook: \"${HOOK s3cret\"}\n",
		"notify: {webhook: \"${NONE}s3cret\"}\n",
	} {
		if _, err := loaded(t, job(text)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want an error without the secret", text, err)
		}
	}
	if c, err := loaded(t, job("notify: {webhook: \"${HOOK}\"}\n")); err != nil || c.Notify.Webhook.URL.Reveal() != "https://hook.example/k3y" {
		t.Errorf("a word for the webhook: got %v", err)
	}
}

// TestAnyTextIsWrittenDown writes texts full of what begins a variable, which come back as they were.
func TestAnyTextIsWrittenDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Default()
		c.Model.Path, c.Data = "/m", []Source{{Path: "/d", Weight: 1}}
		c.Reading.Columns.Prompt = rapid.StringMatching(`[${}:\-A#'" \n]*`).Draw(t, "text")
		c.Train.LR = rapid.Float64Range(1e-300, 1e300).Draw(t, "lr")
		var written bytes.Buffer
		if err := c.Write(&written); err != nil {
			t.Fatal(err)
		}
		d := &decoder{getenv: environment, at: map[string]position{}}
		again := Default()
		d.decode(written.Bytes(), &again)
		if err := errors.Join(d.errs...); err != nil {
			t.Fatalf("%v in\n%s", err, &written)
		}
		if again.Reading.Columns.Prompt != c.Reading.Columns.Prompt || again.Train.LR != c.Train.LR {
			t.Fatalf("got %q and %v, want %q and %v", again.Reading.Columns.Prompt, again.Train.LR, c.Reading.Columns.Prompt, c.Train.LR)
		}
	})
}

// FuzzLoad wants an error with its place, never a crash, for whatever a job file holds.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{
		everything, job(""), job("x: &x [*x]\n"), job("train: &t {sweep: {beta: &b [0.1, 0.2], lr: *b}}\n"), "model: &m {path: *m}\n", job("data: &d [*d]\n"),
		job("notify: {webhook: {headers: {A: &a x, B: *a}}}\n"), job("? [a]\n: b\n"), job("train: !!binary aGk=\n"), "--- !x {}\n", "\xff\xfe",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Default()
		d := &decoder{file: "job.yaml", getenv: environment, at: map[string]position{}}
		d.decode([]byte(text), &c)
		for _, err := range d.errs {
			if _, ok := errors.AsType[*KeyError](err); !ok {
				t.Errorf("%T is no *KeyError", err)
			}
		}
		if len(d.errs) > 0 {
			return
		}
		c.at = d.at
		if err := errors.Join(c.validate(), c.Write(io.Discard)); err != nil {
			_ = err.Error()
		}
	})
}

// TestKeysAreOfTheStages wants a key for every setting of the stages' configs, or the section
// that has it instead.
func TestKeysAreOfTheStages(t *testing.T) {
	keys := map[string]bool{}
	for _, key := range Keys() {
		keys[key] = true
	}
	for key := range elsewhere {
		if keys[key] {
			t.Errorf("%s is a key and set elsewhere", key)
		}
	}
	for section, config := range map[string]any{
		"cache": pipeline.PrecomputeConfig{}, "train": pipeline.TrainConfig{}, "evaluation": pipeline.EvalConfig{}, "export": pipeline.ExportConfig{},
	} {
		for i := range reflect.TypeOf(config).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(config).Field(i).Tag.Get("yaml"), ",")
			if key := section + "." + name; name != "-" && !keys[key] && !elsewhere[key] {
				t.Errorf("%s is no key", key)
			}
		}
	}
}

func TestLoadRuns(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct{ text, want string }{
		"a variable is missing": {"model: ${MODEL}\ndata: d\nruns: {path: r}\n", filepath.Join(dir, "r")},
		"default":               {"model: m\ntrain: {beta: high}\n", filepath.Join(dir, "runs")},
		"runs by a variable":    {"runs: {path: \"${DIR}\"}\n", filepath.Join(dir, "other")},
		"not by this":           {"runs: {path: \"${RUNS}\"}\n", ""},
		"no YAML":               {"model: [\n", ""},
	} {
		path := filepath.Join(dir, "job.yaml")
		if err := os.WriteFile(path, []byte(tc.text), 0o666); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadRuns(path, environment); got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: got %q and %v, want %q", name, got, err, tc.want)
		}
	}
}
