//go:build cgo && linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/internal/demo"
)

// A fault is something that happens to a file; undo makes room for the sound one.
type fault struct {
	name     string
	do, undo func(path string) error
}

var faults = []fault{
	{"cut in half", func(path string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()/2)
	}, os.RemoveAll},
	{"bit flipped", func(path string) error {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[flipAt(path, data)] ^= 4
		return os.WriteFile(path, data, 0o666)
	}, os.RemoveAll},
	{"missing", os.Remove, os.RemoveAll},
	{"a folder", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o777)) }, os.RemoveAll},
	// Reading this file is an input/output error: no memory is mapped at offset 0.
	{"read error", func(path string) error { return syscall.Mount("/proc/self/mem", path, "", syscall.MS_BIND, "") }, func(path string) error {
		return errors.Join(syscall.Unmount(path, 0), os.RemoveAll(path))
	}},
}

// flipAt is where a bit is flipped: in the last digit of a text that is not its checksum, in
// the middle of other files.
func flipAt(path string, data []byte) int {
	switch filepath.Ext(path) {
	case ".json", ".yaml", ".jsonl":
		end := len(data)
		if at := bytes.LastIndex(data, []byte(`"sha256"`)); at > 0 {
			end = at
		}
		if at := bytes.LastIndexAny(data[:end], "0123456789"); at >= 0 {
			return at
		}
	}
	return len(data) / 2
}

// A stage is a command on the files of a world: those of writeWorld.
type stage struct {
	name string
	args string
	// out is what it writes, and reads the files it reads; both below the world.
	out   string
	reads []string
	// optional are those of reads without which a part of the result is left out.
	optional []string
	// unknown are those of reads in which nothing can tell a flipped bit: no hash of them is known.
	unknown []string
}

var stages = []stage{
	{
		name: "precompute-ref", args: "precompute-ref --model model --data pairs.jsonl --out new-cache --part-pairs 12", out: "new-cache",
		reads:   []string{"model/model.onnx", "model/model.onnx_data", "model/tokenizer.json", "model/tokenizer_config.json", "pairs.jsonl"},
		unknown: []string{"model/model.onnx", "model/model.onnx_data", "model/tokenizer.json", "model/tokenizer_config.json", "pairs.jsonl"},
	},
	{
		name: "resumed precompute-ref", args: "precompute-ref --model model --data pairs.jsonl --out part-cache --part-pairs 12", out: "part-cache",
		reads: []string{
			"model/model.onnx", "model/tokenizer.json", "pairs.jsonl",
			"part-cache/manifest.json", "part-cache/head.safetensors", "part-cache/part-00000.arrow", "part-cache/parts.jsonl",
		},
	},
	{
		name: "update", args: "precompute-ref --model model --data more.jsonl --out cache --part-pairs 12", out: "cache",
		reads: []string{
			"model/model.onnx", "model/tokenizer.json", "more.jsonl",
			"cache/manifest.json", "cache/head.safetensors", "cache/part-00000.arrow", "cache/part-00001.arrow",
		},
		unknown: []string{"more.jsonl"},
	},
	{
		name: "train", args: "train --cache cache --out new-run --eval-frac 0.3 --rank 2 --save-every 3 --batch-pairs 4 --resume --model model --data pairs.jsonl", out: "new-run",
		reads: []string{"model/model.onnx", "model/model.onnx_data", "pairs.jsonl", "cache/manifest.json", "cache/head.safetensors", "cache/part-00000.arrow"},
	},
	{
		name: "resumed train", args: "train --out part-run --resume", out: "part-run",
		reads: []string{
			"cache/manifest.json", "cache/head.safetensors", "cache/part-00000.arrow", "part-run/config.yaml", "part-run/metrics.jsonl",
			"part-run/last/adapter_model.safetensors", "part-run/last/adapter_config.json", "part-run/last/optimizer.safetensors",
			"part-run/last/trainer_state.json", "part-run/last/SHA256SUMS",
		},
	},
	{
		name: "eval", args: "eval --cache cache --checkpoint run/last --json",
		reads: []string{
			"cache/manifest.json", "cache/head.safetensors", "cache/part-00000.arrow",
			"run/last/adapter_model.safetensors", "run/last/adapter_config.json", "run/last/trainer_state.json", "run/last/SHA256SUMS",
		},
	},
	{
		name: "report", args: "report run", out: "run/report.html",
		reads: []string{
			"run/config.yaml", "run/metrics.jsonl", "run/evaluation.json", "run/completions.json", "run/last/trainer_state.json",
			"cache/manifest.json", "cache/part-00000.arrow",
		},
		optional: []string{"run/metrics.jsonl", "run/evaluation.json", "run/completions.json", "cache/manifest.json"},
	},
	{
		name: "export", args: "export --checkpoint run/last --model model --out new-policy", out: "new-policy",
		reads: []string{
			"model/model.onnx", "model/model.onnx_data", "model/tokenizer.json", "cache/manifest.json", "cache/part-00000.arrow",
			"run/last/adapter_model.safetensors", "run/last/adapter_config.json", "run/last/trainer_state.json", "run/last/SHA256SUMS",
		},
	},
	{
		name: "compare", args: "compare --model model --policy policy --prompt Customer: --max-tokens 6 --json",
		reads: []string{
			"model/model.onnx", "model/tokenizer.json", "policy/model.onnx", "policy/tokenizer.json", "policy/tokenizer_config.json", "policy/SHA256SUMS",
		},
		unknown: []string{"model/model.onnx", "model/tokenizer.json"},
	},
}

// world is a folder in which every stage has what it reads, and what each makes of it.
type world struct {
	t        *testing.T
	dir      string
	pristine map[string]string // files and, with a leading @, links
	results  map[string]map[string]string
}

// newWorld makes a model with external data, data, a cache and a run, each of the two also
// as a kill leaves it, and a policy.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), results: map[string]map[string]string{}}
	w.must(demo.WriteTo(w.dir))
	w.must(externalise(filepath.Join(w.dir, "model")))
	for name, n := range map[string]string{"pairs.jsonl": "24", "more.jsonl": "36"} {
		w.must(fewPairs(filepath.Join(w.dir, demo.DataFile), filepath.Join(w.dir, name), n))
	}
	w.must(os.Remove(filepath.Join(w.dir, demo.DataFile)))
	t.Chdir(w.dir)
	for _, args := range []string{
		"precompute-ref --model model --data pairs.jsonl --out cache --part-pairs 12",
		"train --cache cache --out run --eval-frac 0.3 --rank 2 --save-every 2 --batch-pairs 4 --keep 100 --epochs 2",
		"train --cache cache --out part-run --eval-frac 0.3 --rank 2 --save-every 2 --batch-pairs 4 --keep 100 --epochs 2",
		"export --checkpoint run/last --model model --out policy",
		"compare --model model --policy policy --held-out run --limit 1 --max-tokens 6 --report run",
	} {
		if code, _, stderr := w.run(args); code != exitDone {
			t.Fatalf("%s: %s", args, stderr)
		}
	}
	w.must(unfinish("cache", "part-cache", 12))
	w.must(interruptRun("part-run", 4))
	w.pristine = w.snapshot(".")
	for _, s := range stages {
		w.reset()
		code, stdout, stderr := w.run(s.args)
		if code != exitDone {
			t.Fatalf("%s: %s", s.name, stderr)
		}
		w.results[s.name] = w.result(s, stdout)
	}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// run runs the program in this process.
func (w *world) run(args string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), append([]string{"dpo-pipe"}, strings.Fields(args)...), &out, &errs)
	return code, out.String(), errs.String()
}

// snapshot reads all that is below dir.
func (w *world) snapshot(dir string) map[string]string {
	w.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Type()&fs.ModeSymlink != 0:
			all["@"+path], err = os.Readlink(path)
		case d.Type().IsRegular():
			var data []byte
			data, err = os.ReadFile(path)
			all[path] = string(data)
		}
		return err
	})
	if !errors.Is(err, fs.ErrNotExist) {
		w.must(err)
	}
	return all
}

// reset puts the world back as it was.
func (w *world) reset() {
	w.t.Helper()
	entries, err := os.ReadDir(".")
	w.must(err)
	for _, e := range entries {
		w.must(os.RemoveAll(e.Name()))
	}
	for name, content := range w.pristine {
		link, isLink := strings.CutPrefix(name, "@")
		w.must(os.MkdirAll(filepath.Dir(link), 0o777))
		if isLink {
			w.must(os.Symlink(content, link))
		} else {
			w.must(os.WriteFile(name, []byte(content), 0o666))
		}
	}
}

// result is what a stage gave: its output, less what the clock moves.
func (w *world) result(s stage, stdout string) map[string]string {
	w.t.Helper()
	if s.out == "" {
		return map[string]string{"stdout": stdout}
	}
	files := w.snapshot(s.out)
	maps.DeleteFunc(files, func(name, _ string) bool {
		return slices.Contains([]string{
			"config.yaml", "metrics.jsonl", "summary.json", "trainer_state.json", "events.out.tfevents.dpo-pipe", lockName, "SHA256SUMS",
		}, filepath.Base(name)) || s.out != "run/report.html" && filepath.Base(name) == "report.html"
	})
	return files
}

// What comes of a fault.
const (
	sameResult = "same result"
	otherInput = "another input"
	partOfIt   = "part left out"
)

// faultsVariable, set to all, makes TestFaultyFiles try every fault with every file, which takes
// minutes; else each file has one of them.
const faultsVariable = "DPO_PIPE_FAULTS"

// TestFaultyFiles damages every file that a stage reads. The stage ends with an
// error that says where, and goes on to the very result of sound files once the file is mended; or it
// has that result at once. Only an input of which no hash is known may give another one, and
// a report leaves out what is not there. The outcomes are the table of docs/reliability.md.
func TestFaultyFiles(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes hundreds of runs of the command")
	}
	library(t)
	table, err := filepath.Abs(filepath.Join("..", "..", "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	tried := faults
	last := tried[len(tried)-1]
	if err := last.do("pairs.jsonl"); err != nil {
		t.Logf("%s: left out: %v", last.name, err)
		tried = tried[:len(tried)-1]
	} else {
		w.must(last.undo("pairs.jsonl"))
	}
	all := os.Getenv(faultsVariable) == "all"
	var lines [][]string
	for _, s := range stages {
		for _, file := range s.reads {
			cells := []string{s.name, file}
			for i, f := range tried {
				if !all && i != len(lines)%len(tried) {
					cells = append(cells, "") // not tried
					continue
				}
				cells = append(cells, w.try(s, file, f))
			}
			lines = append(lines, cells)
		}
	}
	checkTable(t, table, lines)
}

// try lets a fault happen to a file of a stage, and says what comes of it.
func (w *world) try(s stage, file string, f fault) string {
	w.t.Helper()
	w.reset()
	w.must(f.do(file))
	code, stdout, stderr := w.run(s.args)
	var got map[string]string
	if code == exitDone {
		got = w.result(s, stdout)
	}
	if err := f.undo(file); code != exitDone || s.out == "" { // a stage may have put a sound one there
		w.must(err)
	}
	where := fmt.Sprintf("%s, %s %s", s.name, file, f.name)
	switch {
	case code == exitDone && maps.Equal(got, w.results[s.name]):
		return sameResult
	case code == exitDone && slices.Contains(s.unknown, file):
		return otherInput
	case code == exitDone && slices.Contains(s.optional, file) && (f.name == "missing" || f.name == "cut in half"):
		return partOfIt
	case code == exitDone:
		w.t.Errorf("%s: another result and no error: %s", where, differing(got, w.results[s.name]))
		return "wrong"
	case code < exitFailed || code > exitData || !says(stderr, file):
		w.t.Errorf("%s: exit code %d, want 1 to 4 and what is wrong: %s", where, code, stderr)
	}
	if s.out != "" {
		w.must(os.WriteFile(file, []byte(w.pristine[w.place(file)]), 0o666))
		if code, stdout, stderr := w.run(s.args); code != exitDone || !maps.Equal(w.result(s, stdout), w.results[s.name]) {
			w.t.Errorf("%s: mended, exit code %d, differs: %s: %s", where, code, differing(w.result(s, stdout), w.results[s.name]), stderr)
		}
	}
	return fmt.Sprintf("error, %d", code)
}

// place is a file's name behind the links that lead to it.
func (w *world) place(file string) string {
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	w.must(err)
	return filepath.Join(dir, filepath.Base(file))
}

// says reports whether a message names the file, what it belongs to, or what of it is not as it was.
func says(message, file string) bool {
	if !strings.Contains(message, "dpo-pipe: error: ") {
		return false
	}
	for _, name := range []string{filepath.Base(file), "stale data", "stale model", "stale tokenizer", filepath.Dir(file) + `"`, "cache", "settings can't change"} {
		if strings.Contains(message, name) {
			return true
		}
	}
	return false
}

// differing names the files that are not those wanted.
func differing(got, want map[string]string) (names []string) {
	for name := range want {
		if got[name] != want[name] {
			names = append(names, name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Where the table stands in the document.
const (
	tableBegins = "<!-- written by TestFaultyFiles -->\n"
	tableEnds   = "<!-- end -->\n"
	// updateTable, set to 1, writes it.
	updateTable = "DPO_PIPE_UPDATE"
)

// checkTable compares outcomes with those in the document, but for those not tried.
func checkTable(t *testing.T, path string, lines [][]string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	old, after, found := strings.Cut(rest, tableEnds)
	if !ok || !found {
		t.Fatalf("%s has no table between %q and %q", path, tableBegins, tableEnds)
	}
	if os.Getenv(updateTable) == "1" {
		columns := []string{"stage", "file"}
		for _, f := range faults {
			columns = append(columns, f.name)
		}
		written := row(columns) + strings.Repeat("| --- ", len(columns)) + "|\n"
		for _, cells := range lines {
			written += row(cells)
		}
		if err := os.WriteFile(path, []byte(before+tableBegins+written+tableEnds+after), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, cells := range lines {
		_, rest, ok := strings.Cut(old, strings.TrimSuffix(row(cells[:2]), "\n"))
		line, _, _ := strings.Cut(rest, "\n")
		said := strings.Split(line, "|")
		for i, outcome := range cells[2:] {
			if outcome != "" && (!ok || i >= len(said) || strings.TrimSpace(said[i]) != outcome) {
				t.Errorf("%s does not say %q of %s, %s, %s (%s=1 and %s=all write the table)", path, outcome, cells[0], cells[1], faults[i].name, updateTable, faultsVariable)
			}
		}
	}
}

// row is a line of a table.
func row(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
