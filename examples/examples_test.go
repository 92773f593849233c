// Package examples checks the files that show how dpo-pipe is deployed. It is a module of its
// own, so that the product does not carry what reads them.
package examples

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/robfig/cron/v3"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// decode reads a manifest into the type of its kind; unknown and doubled keys are errors.
func decode[T any](t *testing.T, text []byte) *T {
	t.Helper()
	v := new(T)
	if err := strict.UnmarshalStrict(text, v); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return v
}

// manifests are the Kubernetes objects of the examples.
type manifests struct {
	jobs    map[string]batch.JobSpec // by name, with those of CronJobs
	claims  []string
	configs []string
}

func readManifests(t *testing.T) manifests {
	t.Helper()
	m := manifests{jobs: map[string]batch.JobSpec{}}
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("manifests %v, %v", files, err)
	}
	for _, file := range files {
		docs := yaml.NewYAMLReader(bufio.NewReader(strings.NewReader(read(t, file))))
		for {
			text, err := docs.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			var kind struct{ Kind, APIVersion string }
			if err := strict.Unmarshal(text, &kind); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			switch kind.APIVersion + " " + kind.Kind {
			case "v1 PersistentVolumeClaim":
				m.claims = append(m.claims, decode[core.PersistentVolumeClaim](t, text).Name)
			case "v1 ConfigMap":
				m.configs = append(m.configs, decode[core.ConfigMap](t, text).Name)
			case "batch/v1 CronJob":
				c := decode[batch.CronJob](t, text)
				if _, err := cron.ParseStandard(c.Spec.Schedule); err != nil || c.Spec.ConcurrencyPolicy != batch.ForbidConcurrent {
					t.Errorf("%s: schedule %q, concurrency %q: %v", c.Name, c.Spec.Schedule, c.Spec.ConcurrencyPolicy, err)
				}
				m.jobs[c.Name] = c.Spec.JobTemplate.Spec
			case "batch/v1 Job":
				j := decode[batch.Job](t, text)
				m.jobs[j.Name] = j.Spec
			default:
				t.Errorf("%s: %+v is not checked", file, kind)
			}
		}
	}
	return m
}

// TestManifests wants manifests that an API server would take, as far as the types do not say.
func TestManifests(t *testing.T) {
	m := readManifests(t)
	for name, job := range m.jobs {
		pod := job.Template.Spec
		if pod.RestartPolicy != core.RestartPolicyNever || job.PodReplacementPolicy == nil || *job.PodReplacementPolicy != batch.Failed {
			t.Errorf("%s: a podFailurePolicy wants restartPolicy Never and podReplacementPolicy Failed", name)
		}
		volumes := map[string]bool{}
		for _, v := range pod.Volumes {
			volumes[v.Name] = true
			if c := v.PersistentVolumeClaim; c != nil && !slices.Contains(m.claims, c.ClaimName) {
				t.Errorf("%s: no claim %q", name, c.ClaimName)
			}
			if c := v.ConfigMap; c != nil && !slices.Contains(m.configs, c.Name) {
				t.Errorf("%s: no ConfigMap %q", name, c.Name)
			}
		}
		containers := map[string]bool{}
		for _, c := range pod.Containers {
			containers[c.Name] = true
			for _, at := range c.VolumeMounts {
				if !volumes[at.Name] {
					t.Errorf("%s: no volume %q", name, at.Name)
				}
			}
			shards := argument(c.Args, "--shards")
			if indexed := job.CompletionMode != nil && *job.CompletionMode == batch.IndexedCompletion; indexed && shards != strconv.Itoa(int(*job.Completions)) {
				t.Errorf("%s: %d completions for --shards %s", name, *job.Completions, shards)
			}
		}
		for i, rule := range job.PodFailurePolicy.Rules {
			if (rule.OnExitCodes == nil) == (len(rule.OnPodConditions) == 0) {
				t.Errorf("%s: rule %d wants either exit codes or conditions", name, i)
			}
			if codes := rule.OnExitCodes; codes != nil && (!containers[*codes.ContainerName] || !slices.IsSorted(codes.Values) || slices.Contains(codes.Values, 0)) {
				t.Errorf("%s: rule %d: codes %v of %q", name, i, codes.Values, *codes.ContainerName)
			}
		}
	}
	if a, b := argument(m.jobs["precompute-ref"].Template.Spec.Containers[0].Args, "--shards"), argument(m.jobs["join"].Template.Spec.Containers[0].Args, "--shards"); a != b {
		t.Errorf("%s shards are made and %s joined", a, b)
	}
}

func argument(args []string, flag string) string {
	i := slices.Index(args, flag)
	if i < 0 || i+1 == len(args) {
		return ""
	}
	return args[i+1]
}

// TestExitCodes holds every example against the table of docs/deploy.md: what shall not be
// started again the same night is not, what shall be is.
func TestExitCodes(t *testing.T) {
	again := regexp.MustCompile(`(?m)^\| (\d+) \|.*\| (again|not again|next time)[^|]*\|$`).FindAllStringSubmatch(read(t, "../docs/deploy.md"), -1)
	var stays []int
	for _, row := range again {
		code, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		if row[2] != "again" {
			stays = append(stays, code)
		}
	}
	if len(again) < 7 || len(stays) == len(again) {
		t.Fatalf("the table says %v", again)
	}
	fails := func(job string) (codes []int) {
		for _, rule := range readManifests(t).jobs[job].PodFailurePolicy.Rules {
			if rule.Action == batch.PodFailurePolicyActionFailJob {
				for _, code := range rule.OnExitCodes.Values {
					codes = append(codes, int(code))
				}
			}
		}
		return codes
	}
	for _, name := range []string{"dpo-pipe", "dpo-pipe-bucket"} {
		if got := fails(name); !slices.Equal(got, stays) {
			t.Errorf("the pods of CronJob %s are not started again after %v, want %v", name, got, stays)
		}
	}
	for _, code := range fails("precompute-ref") {
		if !slices.Contains(stays, code) {
			t.Errorf("shards are not started again after %d, and shall be", code)
		}
	}
	service := read(t, "systemd/dpo-pipe.service")
	var systemd []int
	for _, key := range []string{"RestartPreventExitStatus", "SuccessExitStatus"} {
		line := regexp.MustCompile(`(?m)^` + key + `=([0-9 ]+)$`).FindStringSubmatch(service)
		for _, word := range strings.Fields(line[1]) {
			code, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			if code != 130 { // systemd's own SIGTERM: it is to stay stopped
				systemd = append(systemd, code)
			}
		}
	}
	if slices.Sort(systemd); !slices.Equal(systemd, stays) {
		t.Errorf("the service is not started again after %v, want %v", systemd, stays)
	}
}

// TestUnits has systemd read the units, with a command that is there.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for _, name := range []string{"dpo-pipe.service", "dpo-pipe.timer"} {
		text := read(t, filepath.Join("systemd", name))
		if name == "dpo-pipe.service" && !strings.Contains(text, "ExecStart=/usr/local/bin/dpo-pipe ") {
			t.Error("the service does not run /usr/local/bin/dpo-pipe")
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Replace(text, "=/usr/local/bin/dpo-pipe ", "=/bin/true ", 1)), 0o666); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

// TestCron reads the table as cron does: settings, and lines of five fields, user and command.
func TestCron(t *testing.T) {
	setting, lines := regexp.MustCompile(`^[A-Z_]+=`), 0
	for line := range strings.Lines(read(t, "cron/dpo-pipe")) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' || setting.MatchString(line) {
			continue
		}
		lines++
		fields := strings.SplitN(line, " ", 7)
		if len(fields) != 7 {
			t.Fatalf("%q has %d fields, want 7", line, len(fields))
		}
		if _, err := cron.ParseStandard(strings.Join(fields[:5], " ")); err != nil {
			t.Error(err)
		}
		if strings.Contains(fields[6], "%") { // a new line, to cron
			t.Errorf("command %q holds a %%", fields[6])
		}
		if out, err := exec.Command("sh", "-n", "-c", fields[6]).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	if lines != 1 {
		t.Errorf("%d lines, want 1", lines)
	}
}

// TestContainerfile reads the file as BuildKit does; what it copies from the clone is there.
func TestContainerfile(t *testing.T) {
	result, err := parser.Parse(strings.NewReader(read(t, "Containerfile")))
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(result.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	copies := 0
	for i, stage := range stages {
		for _, command := range stage.Commands {
			c, ok := command.(*instructions.CopyCommand)
			if !ok {
				continue
			}
			copies++
			if c.From != "" {
				if at, ok := instructions.HasStage(stages, c.From); !ok || at >= i {
					t.Errorf("%s: no earlier stage %q", c, c.From)
				}
				continue
			}
			for _, path := range c.SourcePaths {
				if _, err := os.Stat(filepath.Join("..", path)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if len(stages) != 3 || copies != 5 {
		t.Errorf("%d stages with %d copies, want 3 with 5", len(stages), copies)
	}
}
