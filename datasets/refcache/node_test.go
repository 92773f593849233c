package refcache

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// nodeModules finds a node_modules folder that holds apache-arrow, or skips.
func nodeModules(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed")
	}
	built, err := filepath.Abs(filepath.Join("..", "..", "build", "node", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{os.Getenv("DPO_PIPE_NODE_MODULES"), built}
	if out, err := exec.Command("npm", "root", "--global").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "apache-arrow", "package.json")); dir != "" && err == nil {
			return dir
		}
	}
	t.Skip("npm's apache-arrow is not installed: run `make node`, or set DPO_PIPE_NODE_MODULES to a node_modules folder that holds it")
	return ""
}

type nodeRow struct {
	ID               string    `json:"pair_id"`
	Prompt           []int32   `json:"prompt_ids"`
	Chosen           []int32   `json:"chosen_ids"`
	Rejected         []int32   `json:"rejected_ids"`
	ChosenLogps      []float32 `json:"chosen_ref_logps"`
	RejectedLogps    []float32 `json:"rejected_ref_logps"`
	ChosenFeatures   []float32 `json:"chosen_features"`
	RejectedFeatures []float32 `json:"rejected_features"`
	Weight           float32   `json:"weight"`
	PromptKey        string    `json:"prompt_key"`
}

// TestAnotherArrowReadsTheSame reads a part with npm's apache-arrow, which shares no code with Go's.
func TestAnotherArrowReadsTheSame(t *testing.T) {
	t.Parallel()
	modules := nodeModules(t)
	for _, dt := range []DType{F16, BF16, F32, None} {
		const d, n = 5, maxBatchRows + 3
		rows := testRows(0, n, d, dt)
		part := filepath.Join(writeCache(t, rows, n, d, dt), partName(0))
		cmd := exec.Command("node", filepath.Join("testdata", "read_cache.mjs"), modules, part)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(bytes.TrimSpace(out), []byte{'\n'})
		t.Logf("%s", lines[0])
		if len(lines) != n+1 {
			t.Fatalf("node read %d rows, want %d", len(lines)-1, n)
		}
		for i, line := range lines[1:] {
			var got nodeRow
			if err := json.Unmarshal(line, &got); err != nil {
				t.Fatal(err)
			}
			r := rows[i]
			want := nodeRow{
				r.ID.String(), r.Prompt, r.Chosen, r.Rejected, r.ChosenRefLogps, r.RejectedRefLogps,
				r.ChosenFeatures, r.RejectedFeatures, r.Weight, hex.EncodeToString(r.PromptKey[:]),
			}
			if diff := cmp.Diff(want, got, sameRow); diff != "" {
				t.Fatalf("%s row %d (-want +got):\n%s", dt, i, diff)
			}
		}
	}
}
