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

// A fault is something that happens to a file; lift, where it is not nil, takes away what lies over it.
type fault struct {
	name     string
	do, lift func(path string) error
}

var faults = []fault{
	{"cut in half", func(path string) error {
		if target, err := os.Readlink(path); err == nil {
			return relink(path, target[:len(target)/2])
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, info.Size()/2)
	}, nil},
	{"bit flipped", func(path string) error {
		if target, err := os.Readlink(path); err == nil {
			last := len(target) - 1
			return relink(path, target[:last]+string(target[last]^4))
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		data[flipAt(path, data)] ^= 4
		return os.WriteFile(path, data, 0o666)
	}, nil},
	{"missing", os.Remove, nil},
	{"a folder", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o777)) }, nil},
	// Reading this file is an input/output error: no memory is mapped at offset 0.
	{"read error", func(path string) error {
		if _, err := os.Readlink(path); err == nil {
			return errNoSuchFault
		}
		return syscall.Mount("/proc/self/mem", path, "", syscall.MS_BIND, "")
	}, func(path string) error { return syscall.Unmount(path, 0) }},
}

// errNoSuchFault is a fault that can't happen to a file of a kind.
var errNoSuchFault = errors.New("no such fault")

func relink(path, target string) error { return errors.Join(os.Remove(path), os.Symlink(target, path)) }

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

// A stage is a command on the files of a world.
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
	// result, where it is not nil, is what the stage gave, in place of the files at out.
	result func(w *world, stdout string) map[string]string
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
	stages   []stage
	names    []string // of files that the clock names, each behind how a stage names it
}

// newWorld makes a cache and a run, each of the two also as a kill leaves it, and a policy.
func newWorld(t *testing.T) *world {
	t.Helper()
	return makeWorld(t, stages, func(w *world) {
		w.do("precompute-ref --model model --data pairs.jsonl --out cache --part-pairs 12")
		w.do("train --cache cache --out run --eval-frac 0.3 --rank 2 --save-every 2 --batch-pairs 4 --keep 100 --epochs 2")
		w.do("train --cache cache --out part-run --eval-frac 0.3 --rank 2 --save-every 2 --batch-pairs 4 --keep 100 --epochs 2")
		w.do("export --checkpoint run/last --model model --out policy")
		w.do("compare --model model --policy policy --held-out run --limit 1 --max-tokens 6 --report run")
		w.must(unfinish("cache", "part-cache", 12, nil))
		w.must(interruptRun("part-run", 4))
	})
}

// makeWorld makes a model with external data, data, and what else is prepared for the stages.
func makeWorld(t *testing.T, stages []stage, prepare func(w *world)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), results: map[string]map[string]string{}, stages: stages}
	w.must(demo.WriteTo(w.dir))
	w.must(externalise(filepath.Join(w.dir, "model")))
	for name, n := range map[string]string{"pairs.jsonl": "24", "more.jsonl": "36"} {
		w.must(fewPairs(filepath.Join(w.dir, demo.DataFile), filepath.Join(w.dir, name), n))
	}
	w.must(os.Remove(filepath.Join(w.dir, demo.DataFile)))
	t.Chdir(w.dir)
	prepare(w)
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

// do runs a command that must go well.
func (w *world) do(args string) (stdout string) {
	w.t.Helper()
	code, stdout, stderr := w.run(args)
	if code != exitDone {
		w.t.Fatalf("%s: %s", args, stderr)
	}
	return stdout
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
	switch {
	case s.result != nil:
		return s.result(w, stdout)
	case s.out == "":
		return map[string]string{"stdout": stdout}
	}
	files := w.snapshot(s.out)
	maps.DeleteFunc(files, func(name, _ string) bool {
		return slices.Contains([]string{
			"config.yaml", "metrics.jsonl", "summary.json", "trainer_state.json", "events.out.tfevents.dpo-pipe", lockName, "SHA256SUMS",
			"parts.jsonl", // a log, of use while a shard can be damaged
		}, filepath.Base(name)) || s.out != "run/report.html" && filepath.Base(name) == "report.html"
	})
	return files
}

// What comes of a fault.
const (
	sameResult = "same result"
	toldResult = "same result, told"
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
	var lines [][]string
	for _, make := range []func(*testing.T) *world{newWorld, newShardsWorld, newJobsWorld} {
		lines = make(t).tryAll(lines)
	}
	checkTable(t, table, lines)
}

// tryAll adds a line to the table for each file that a stage reads.
func (w *world) tryAll(lines [][]string) [][]string {
	w.t.Helper()
	tried := faults
	last := tried[len(tried)-1]
	if err := last.do("pairs.jsonl"); err != nil {
		w.t.Logf("%s: left out: %v", last.name, err)
		tried = tried[:len(tried)-1]
	} else {
		w.must(last.lift("pairs.jsonl"))
	}
	all := os.Getenv(faultsVariable) == "all"
	for _, s := range w.stages {
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
	return lines
}

// try lets a fault happen to a file of a stage, and says what comes of it.
func (w *world) try(s stage, file string, f fault) string {
	w.t.Helper()
	w.reset()
	unknown, optional := slices.Contains(s.unknown, file), slices.Contains(s.optional, file)
	file = strings.NewReplacer(w.names...).Replace(file)
	err := f.do(file)
	if errors.Is(err, errNoSuchFault) {
		return "-"
	}
	w.must(err)
	code, stdout, stderr := w.run(s.args)
	if f.lift != nil {
		w.must(f.lift(file))
	}
	var got map[string]string
	if code == exitDone {
		got = w.result(s, stdout)
	}
	where := fmt.Sprintf("%s, %s %s", s.name, file, f.name)
	switch {
	case code == exitDone && maps.Equal(got, w.results[s.name]) && warns(stderr, file):
		return toldResult
	case code == exitDone && maps.Equal(got, w.results[s.name]):
		return sameResult
	case code == exitDone && unknown:
		return otherInput
	case code == exitDone && optional && (f.name == "missing" || f.name == "cut in half"):
		return partOfIt
	case code == exitDone:
		w.t.Errorf("%s: another result and no error: %s", where, differing(got, w.results[s.name]))
		return "wrong"
	case code < exitFailed || code > exitData || !says(stderr, file):
		w.t.Errorf("%s: exit code %d, want 1 to 4 and what is wrong: %s", where, code, stderr)
	}
	if s.out != "" {
		w.mend(file)
		if code, stdout, stderr := w.run(s.args); code != exitDone || !maps.Equal(w.result(s, stdout), w.results[s.name]) {
			w.t.Errorf("%s: mended, exit code %d, differs: %s: %s", where, code, differing(w.result(s, stdout), w.results[s.name]), stderr)
		}
	}
	return fmt.Sprintf("error, %d", code)
}

// mend puts a file, or a link, back as it was.
func (w *world) mend(file string) {
	w.t.Helper()
	w.must(os.RemoveAll(file))
	if target, ok := w.pristine["@"+file]; ok {
		w.must(os.Symlink(target, file))
		return
	}
	w.must(os.WriteFile(file, []byte(w.pristine[w.place(file)]), 0o666))
}

// warns reports whether a line of a log warns of the file.
func warns(log, file string) bool {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, filepath.Base(file)) {
			return true
		}
	}
	return false
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
