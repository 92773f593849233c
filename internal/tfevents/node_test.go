package tfevents

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAnotherReader reads a file with npm's tfrecord and protobufjs.
func TestAnotherReader(t *testing.T) {
	modules := nodeModules(t)
	path := filepath.Join(t.TempDir(), "events")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewWriter(f, time.Unix(10, 0))
	if err != nil {
		t.Fatal(err)
	}
	for i, scalars := range [][]Scalar{{{"loss", 0.5}, {"eval_rewards/margins", -2}}, {}, {{"kl", 1e-3}}} {
		if err := w.Write(time.Unix(int64(20+i), 0), int64(1000*i), scalars); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("node", filepath.Join("testdata", "read_events.mjs"), modules, path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := []string{
		`{"version":"brain.Event:2","time":10}`,
		`{"time":20,"step":0,"tag":"loss","value":0.5}`,
		`{"time":20,"step":0,"tag":"eval_rewards/margins","value":-2}`,
		`{"time":22,"step":2000,"tag":"kl","value":0.0010000000474974513}`, // the float32 nearest to 1e-3
	}
	if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(out)), "\n")); diff != "" {
		t.Errorf("read otherwise (-want +got):\n%s", diff)
	}
}

// nodeModules finds a node_modules folder that holds tfrecord, or skips.
func nodeModules(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	built, err := filepath.Abs(filepath.Join("..", "..", "build", "node", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{os.Getenv("DPO_PIPE_NODE_MODULES"), built} {
		if _, err := os.Stat(filepath.Join(dir, "tfrecord", "package.json")); dir != "" && err == nil {
			return dir
		}
	}
	t.Skip("npm's tfrecord is not installed: run `make node`, or set DPO_PIPE_NODE_MODULES to a node_modules folder that holds it")
	return ""
}
