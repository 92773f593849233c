//go:build cgo

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
	"github.com/dpo-pipe/dpo-pipe/store"
	"github.com/dpo-pipe/dpo-pipe/store/storetest"
)

// storeServer starts an S3 server with the bucket bkt in this process, for this test and the
// commands that it runs. refuse, unless nil, says which requests are not allowed.
func storeServer(t *testing.T, refuse func(*http.Request) bool) {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("bkt"); err != nil {
		t.Fatal(err)
	}
	fake := gofakes3.New(backend).Server()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse != nil && refuse(r) {
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte("<Error><Code>AccessDenied</Code><Message>read only</Message></Error>"))
			return
		}
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": web.URL, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
		"AWS_EC2_METADATA_DISABLED": "true", "DPO_PIPE_STORE_CACHE": t.TempDir(),
	} {
		t.Setenv(name, value)
	}
}

// must runs the program, which must succeed, and returns what it printed.
func must(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, code := runs(t, dir, args...)
	if code != 0 {
		t.Fatalf("%q exits with %d:\n%s", args, code, out)
	}
	return out
}

// runs runs the program and returns what it printed, errors included, and its exit code.
func runs(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	out, err := command(context.Background(), t, dir, args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// fetched is what is at a URL, by a cache of its own.
func fetched(t *testing.T, url string) string {
	t.Helper()
	paths, err := store.Fetch(context.Background(), url, store.FetchOptions{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return paths[0]
}

// sameFiles compares two folders byte by byte, but for files that skip names.
func sameFiles(t *testing.T, want, got string, skip ...string) {
	t.Helper()
	read := func(root string) map[string][]byte {
		all := map[string][]byte{}
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || slices.Contains(skip, d.Name()) {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			all[name], err = os.ReadFile(path)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	a, b := read(want), read(got)
	if len(a) == 0 {
		t.Fatalf("%s holds no file to compare", want)
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s: %s has %d bytes, in %s %d others", got, name, len(b[name]), want, len(a[name]))
		}
	}
	if len(a) != len(b) {
		t.Errorf("%s holds %d files, %s %d", got, len(b), want, len(a))
	}
}

// runTimes are files of a run that hold paths or times.
var runTimes = []string{"config.yaml", "summary.json", "report.html", "trainer_state.json", "metrics.jsonl", "evaluation.json"}

// eachStore runs a test in a bucket of a server in this process, and of servers that others wrote.
// at is the URL of a key.
func eachStore(t *testing.T, test func(t *testing.T, at func(key string) string)) {
	t.Run("server in process", func(t *testing.T) {
		storeServer(t, nil)
		test(t, func(key string) string { return "s3://bkt/" + key })
	})
	storetest.Each(t, []string{"bkt"}, func(t *testing.T, s *storetest.Server) {
		t.Setenv("DPO_PIPE_STORE_CACHE", t.TempDir())
		test(t, func(key string) string { return s.At("bkt/" + key) })
	})
}

// TestStores does a whole job on URLs, and the same on paths; the results are the same.
func TestStores(t *testing.T) { eachStore(t, jobOnURLs) }

func jobOnURLs(t *testing.T, at func(key string) string) {
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o777); err != nil {
		t.Fatal(err)
	}
	all, one, two := filepath.Join(dir, demo.DataFile), filepath.Join(data, "1.jsonl"), filepath.Join(data, "2.jsonl")
	if err := fewPairs(all, one, "60"); err != nil {
		t.Fatal(err)
	}
	push := func(folder, url string) {
		t.Helper()
		if err := store.Push(context.Background(), folder, url, store.PushOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	push(filepath.Join(dir, demo.ModelDir), at("model"))
	push(data, at("data"))

	precompute := []string{"precompute-ref", "--part-pairs", "30", "--threads", "1"}
	here := append(slices.Clone(precompute), "--model", demo.ModelDir, "--data", "data/*.jsonl", "--out", "cache")
	there := append(slices.Clone(precompute), "--model", at("model"), "--data", at("data/*.jsonl"), "--out", at("caches/demo"))
	must(t, dir, here...)
	if out := must(t, dir, there...); !strings.Contains(out, "in "+at("caches/demo")+" (") {
		t.Errorf("the result does not name the URL:\n%s", out)
	}
	sameFiles(t, filepath.Join(dir, "cache"), fetched(t, at("caches/demo")))

	train := []string{"train", "--epochs", "1", "--eval-frac", "0.3", "--engine", "gonum", "--rank", "4", "--save-every", "2"}
	must(t, dir, append(slices.Clone(train), "--cache", "cache", "--out", "run")...)
	out := must(t, dir, append(slices.Clone(train), "--cache", at("caches/demo"), "--out", at("runs/1"))...)
	if !strings.Contains(out, "checkpoint "+at("runs/1/last")) {
		t.Errorf("the result does not name the URL:\n%s", out)
	}
	sameFiles(t, filepath.Join(dir, "run"), fetched(t, at("runs/1")), append(slices.Clone(runTimes), eventFiles(t, filepath.Join(dir, "run"), fetched(t, at("runs/1")))...)...)
	if config, err := os.ReadFile(filepath.Join(fetched(t, at("runs/1")), "config.yaml")); err != nil || !strings.Contains(string(config), "cache: "+at("caches/demo")+"\n") {
		t.Errorf("the settings name another cache: %v\n%s", err, config)
	}

	must(t, dir, "export", "--checkpoint", "run/best", "--model", demo.ModelDir, "--out", "policy")
	// Another machine has nothing but the URLs, the run's settings those of the cache.
	t.Setenv("DPO_PIPE_STORE_CACHE", t.TempDir())
	must(t, dir, "export", "--checkpoint", at("runs/1/best"), "--model", at("model/model.onnx"), "--out", at("policies/1"))
	sameFiles(t, filepath.Join(dir, "policy"), fetched(t, at("policies/1")), "trainer_state.json", "SHA256SUMS") // which names cache and run, and its sum
	if out, code := runs(t, dir, "export", "--checkpoint", at("runs/1/best"), "--model", at("model"), "--out", at("policies/1")); code != exitUsage || !strings.Contains(out, at("policies/1")) {
		t.Errorf("over a policy: exit %d\n%s", code, out)
	}

	var eval struct {
		Cache      string `json:"cache"`
		Checkpoint string `json:"checkpoint"`
	}
	stdout, err := command(context.Background(), t, dir, "eval", "--cache", at("caches/demo"), "--checkpoint", at("runs/1/last"), "--engine", "gonum", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(stdout, &eval); err != nil || eval.Cache != at("caches/demo") {
		t.Errorf("eval names cache %q, %v", eval.Cache, err)
	}
	for url, kind := range map[string]string{at("caches/demo"): "reference cache", at("runs/1"): "run", at("runs/1/best"): "checkpoint", at("policies/1"): "model", at("data/1.jsonl"): "data"} {
		if out := must(t, dir, "inspect", url); !strings.Contains(out, ": "+kind+"\n") {
			t.Errorf("inspect %s:\n%s", url, out)
		}
	}
	must(t, dir, "compare", "--model", at("model"), "--policy", at("policies/1"), "--held-out", at("runs/1"), "--limit", "1", "--max-tokens", "3")

	reportsOnURLs(t, dir, at)

	// On another machine again, pairs are added: the new ones are run, on what is in the store.
	t.Setenv("DPO_PIPE_STORE_CACHE", t.TempDir())
	if err := fewPairs(all, two, "75"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	push(data, at("more"))
	there[slices.Index(there, at("data/*.jsonl"))] = at("more/2.jsonl")
	if out := must(t, dir, there...); !strings.Contains(out, "60 pairs reused, 15 computed, 0 dropped") {
		t.Errorf("the update:\n%s", out)
	}
	must(t, dir, here...)
	sameFiles(t, filepath.Join(dir, "cache"), fetched(t, at("caches/demo")))
}

// reportsOnURLs writes into a run in a store.
func reportsOnURLs(t *testing.T, dir string, at func(key string) string) {
	t.Helper()
	const mark = "marks the completions"
	run, model, policy := at("runs/1"), at("model"), at("policies/1")
	reported := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(fetched(t, run), "report.html"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	whole := fetched(t, run)
	must(t, dir, "compare", "--model", model, "--policy", policy, "--prompt", mark, "--max-tokens", "3", "--report", run)
	if !strings.Contains(reported(), mark) {
		t.Error("compare --report left the report as it was")
	}
	sameFiles(t, whole, fetched(t, run), "report.html", "completions.json")
	if out := must(t, dir, "report", run); out != "report "+run+"/report.html\n" {
		t.Errorf("report says %q", out)
	}
	if !strings.Contains(reported(), mark) {
		t.Error("report lost the completions")
	}
	none := at("runs/none")
	for _, args := range [][]string{
		{"report", none},
		{"compare", "--model", model, "--policy", policy, "--prompt", mark, "--report", none},
	} {
		if out, code := runs(t, dir, args...); code != exitUsage || !strings.Contains(out, "want a finished run or sweep") {
			t.Errorf("%s: exit %d\n%s", args[0], code, out)
		}
	}
}

// eventFiles are the names of TensorBoard's files, which hold times.
func eventFiles(t *testing.T, dirs ...string) (names []string) {
	t.Helper()
	for _, dir := range dirs {
		found, err := filepath.Glob(filepath.Join(dir, "events.*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

func TestStoresThatRefuse(t *testing.T) {
	storeServer(t, func(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead })
	dir := t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(dir, "few.jsonl"), "4"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, data, out string
		code            int
		want            string
	}{
		{"data that is not there", "s3://bkt/none.jsonl", "cache", exitUsage, "s3://bkt/none.jsonl"},
		{"pattern without a match", "s3://bkt/none/*.jsonl", "cache", exitUsage, "s3://bkt/none/*.jsonl"},
		{"no bucket", "s3://nobody/x.jsonl", "cache", exitUsage, "s3://nobody/x.jsonl"},
		{"read-only credentials", "few.jsonl", "s3://bkt/cache", exitEnvironment, "s3://bkt/cache/"},
		{"a store that is not built in", "azblob://c/x.jsonl", "cache", exitFailed, "-tags azure"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, code := runs(t, dir, "precompute-ref", "--model", demo.ModelDir, "--data", tc.data, "--out", tc.out)
			if code != tc.code || !strings.Contains(out, tc.want) {
				t.Errorf("exit %d, want %d and an error about %s:\n%s", code, tc.code, tc.want, out)
			}
		})
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	if out, code := runs(t, dir, "inspect", "s3://bkt/x"); code != exitEnvironment || !strings.Contains(out, "want a store that can be reached") {
		t.Errorf("no server: exit %d\n%s", code, out)
	}
}

func TestWhatIsFetchedOfAModel(t *testing.T) {
	names := []string{
		"config.json", "model.safetensors", "onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data",
		"onnx/model_q4.onnx_data_1", "adapter/adapter_model.safetensors", "tokenizer.json",
	}
	for _, tc := range []struct {
		file string
		want []string
	}{
		{"", []string{"config.json", "onnx/model.onnx", "onnx/model.onnx_data", "adapter/adapter_model.safetensors", "tokenizer.json"}},
		{"model_q4.onnx", []string{
			"config.json", "onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "onnx/model_q4.onnx_data_1", "adapter/adapter_model.safetensors", "tokenizer.json",
		}},
		// What names none is refused when the model is opened; everything is there to say so.
		{"other.onnx", slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "model.safetensors" })},
	} {
		if diff := cmp.Diff(tc.want, modelFiles(tc.file)(names)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tc.file, diff)
		}
	}
}

// TestJobOnURLs runs a job whose model, data and place are in a store, twice with pairs
// added, and goes back.
func TestJobOnURLs(t *testing.T) { eachStore(t, publishOnURLs) }

func publishOnURLs(t *testing.T, at func(key string) string) {
	dir, data := t.TempDir(), t.TempDir()
	if err := demo.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	push := func(folder, url string) {
		t.Helper()
		if err := store.Push(context.Background(), folder, url, store.PushOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	pairs := func(n string) {
		t.Helper()
		if err := fewPairs(filepath.Join(dir, demo.DataFile), filepath.Join(data, "pairs.jsonl"), n); err != nil {
			t.Fatal(err)
		}
		push(data, at("data"))
	}
	push(filepath.Join(dir, demo.ModelDir), at("model"))
	pairs("80")
	text := "model: " + at("model") + "\ndata: " + at("data/*.jsonl") + `
cache: {part_pairs: 16}
train: {beta: 0.5, epochs: 2, eval_frac: 0.2}
publish: {to: '` + at("policies") + `'}
`
	if err := os.WriteFile(filepath.Join(dir, "job.yaml"), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if out := must(t, dir, "run", "job.yaml"); !strings.Contains(out, ": published") {
		t.Fatalf("the first run:\n%s", out)
	}
	first := must(t, dir, "inspect", at("policies/current"))
	if !strings.Contains(first, ": model\n") {
		t.Errorf("the published policy:\n%s", first)
	}
	if out := must(t, dir, "run", "job.yaml"); !strings.Contains(out, ": unchanged") {
		t.Errorf("the same again:\n%s", out)
	}
	record := filepath.Join(dir, "again.yaml")
	configs, err := filepath.Glob(filepath.Join(dir, "runs", "*", "config.yaml"))
	if err != nil || len(configs) == 0 {
		t.Fatalf("records of runs: %v %v", configs, err)
	}
	config, err := os.ReadFile(configs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{at("model"), at("data/*.jsonl"), at("policies")} {
		if !strings.Contains(string(config), want) {
			t.Errorf("config.yaml of a run does not name %s:\n%s", want, config)
		}
	}
	if err := os.WriteFile(record, config, 0o666); err != nil {
		t.Fatal(err)
	}
	if out := must(t, dir, "run", "again.yaml"); !strings.Contains(out, ": unchanged") {
		t.Errorf("the record of a run, repeated:\n%s", out)
	}
	pairs("100")
	out := must(t, dir, "run", "job.yaml")
	for _, want := range []string{": published", "80 reused, 20 computed", "the published policy", "is current, before it"} {
		if !strings.Contains(out, want) {
			t.Errorf("with 20 pairs more, %q is not said:\n%s", want, out)
		}
	}
	if out := must(t, dir, "rollback", at("policies")); !strings.HasPrefix(out, "rolled back "+at("policies")+" from ") {
		t.Errorf("rollback:\n%s", out)
	}
	if again := must(t, dir, "inspect", at("policies/current")); again != first {
		t.Errorf("behind the rollback:\n%s\nwant what was published first:\n%s", again, first)
	}
	for key, more := range map[string]string{
		"notify.textfile": "notify: {textfile: 's3://bkt/job.prom'}", "runs.path": "runs: {path: 'http://bkt/runs'}",
	} {
		if err := os.WriteFile(filepath.Join(dir, "far.yaml"), []byte(text+more+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		if out, code := runs(t, dir, "run", "far.yaml"); code != exitUsage || !strings.Contains(out, key) {
			t.Errorf("%s: exit %d\n%s", more, code, out)
		}
	}
}
