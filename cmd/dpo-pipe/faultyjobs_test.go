//go:build cgo && linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/internal/checksum"
	"github.com/dpo-pipe/dpo-pipe/job"
)

const (
	shardPass  = "precompute-ref --model model --data more.jsonl --part-pairs 12 --shards 2"
	firstShard = "/shards/shard-00000-of-00002"
)

var shardStages = []stage{
	{
		name: "resumed shard", args: shardPass + " --out part-split --shard 0", out: "part-split" + firstShard,
		reads: []string{
			"model/model.onnx", "model/tokenizer.json", "more.jsonl", "part-split" + firstShard + "/manifest.json",
			"part-split" + firstShard + "/head.safetensors", "part-split" + firstShard + "/part-00000.arrow", "part-split" + firstShard + "/parts.jsonl",
		},
	},
	{
		name: "shard again", args: shardPass + " --out split --shard 0", out: "split" + firstShard,
		reads: []string{
			"split" + firstShard + "/manifest.json", "split" + firstShard + "/head.safetensors",
			"split" + firstShard + "/part-00000.arrow", "split" + firstShard + "/parts.jsonl",
		},
	},
	{
		name: "join", args: "precompute-ref --out split --join", out: "split",
		reads: []string{
			"split" + firstShard + "/manifest.json", "split" + firstShard + "/head.safetensors", "split" + firstShard + "/part-00000.arrow",
			"split/shards/shard-00001-of-00002/manifest.json", "split/shards/shard-00001-of-00002/part-00001.arrow",
		},
	},
}

// newShardsWorld makes two shards, and one of them as a kill leaves it.
func newShardsWorld(t *testing.T) *world {
	t.Helper()
	return makeWorld(t, shardStages, func(w *world) {
		w.do("precompute-ref --model model --data more.jsonl --out whole --part-pairs 12")
		w.must(unfinish("whole", "part-split", 12, &refcache.Shard{Index: 0, Of: 2}))
		w.must(os.RemoveAll("whole"))
		w.do(shardPass + " --out split --shard 0")
		w.do(shardPass + " --out split --shard 1")
	})
}

// faultyJob is the job of these stages; its data are named in it.
const faultyJob = `
model: ../model
data: ../%s
cache: {part_pairs: 12}
train: {beta: 0.5, lr: 0.01, rank: 2, epochs: 2, batch_pairs: 4, save_every: 2, eval_frac: 0.3}
gates: {min_accuracy: 0.1}
publish: {to: policies}
`

var jobStages = []stage{
	{
		name: "run", args: "run job/job.yaml --json", out: "job", result: jobResult,
		reads: []string{
			"model/tokenizer.json", "more.jsonl", "job/job.yaml", "job/cache/manifest.json", "job/cache/head.safetensors", "job/cache/part-00000.arrow",
			"job/runs/.lock", "job/runs/FIRST/result.json", "job/runs/FIRST/identities.json", "job/runs/FIRST/config.yaml",
			"job/policies/current", "job/policies/versions/FIRST/version.json", "job/policies/versions/FIRST/adapter/adapter_model.safetensors",
			"job/policies/versions/FIRST/adapter/adapter_config.json", "job/policies/versions/FIRST/adapter/trainer_state.json",
			"job/policies/versions/FIRST/model.onnx",
		},
		unknown: []string{"model/tokenizer.json", "more.jsonl", "job/job.yaml"},
	},
	{
		name: "resumed run", args: "run part-job/job.yaml --json", out: "part-job", result: jobResult,
		reads: []string{
			"part-job/cache/manifest.json", "part-job/cache/part-00000.arrow",
			"part-job/runs/SECOND/result.json", "part-job/runs/SECOND/identities.json", "part-job/runs/SECOND/config.yaml",
			"part-job/runs/SECOND/log.jsonl", "part-job/runs/SECOND/evaluation.json", "part-job/runs/SECOND/train/config.yaml",
			"part-job/runs/SECOND/train/last/adapter_model.safetensors", "part-job/runs/SECOND/train/last/SHA256SUMS",
			"part-job/runs/SECOND/policy/model.onnx", "part-job/runs/SECOND/policy/tokenizer.json",
			"part-job/runs/SECOND/policy/adapter/adapter_model.safetensors", "part-job/runs/SECOND/policy/SHA256SUMS",
			"part-job/runs/FIRST/result.json", "part-job/policies/current", "part-job/policies/versions/FIRST/version.json",
		},
	},
}

// newJobsWorld makes a job that has run once and whose data grew, and one that was killed in the run
// behind that, between making the policy and publishing it.
func newJobsWorld(t *testing.T) *world {
	t.Helper()
	return makeWorld(t, jobStages, func(w *world) {
		for _, dir := range []string{"job", "part-job"} {
			w.must(os.Mkdir(dir, 0o777))
			for _, data := range []string{"pairs.jsonl", "more.jsonl"} {
				w.must(os.WriteFile(dir+"/job.yaml", fmt.Appendf(nil, faultyJob, data), 0o666))
				if dir == "job" && data == "more.jsonl" {
					continue
				}
				w.do("run " + dir + "/job.yaml")
			}
			var runs []job.Result
			w.must(json.Unmarshal([]byte(w.do("runs "+dir+"/job.yaml --json")), &runs))
			for i, as := range []string{"FIRST", "SECOND"}[:len(runs)] {
				for _, below := range []string{"/runs/", "/policies/versions/"} {
					w.names = append(w.names, dir+below+as, dir+below+runs[i].ID)
				}
			}
			if len(runs) == 2 {
				w.must(unpublish(dir, runs))
			}
		}
		// What a killed process leaves.
		w.must(os.WriteFile("job/runs/.lock", []byte("process 4194304 on host elsewhere since 2026-01-02T03:04:05Z\n"), 0o666))
	})
}

// unpublish makes the second run of a job what a kill leaves of it before the policy is published.
func unpublish(dir string, runs []job.Result) error {
	r := runs[1]
	r.Status, r.Published, r.Finished, r.Seconds = job.Running, "", time.Time{}, 0
	r.Stages = r.Stages[:len(r.Stages)-1]
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "runs", r.ID, "result.json"), checksum.Seal(append(text, '\n')), 0o666),
		os.RemoveAll(filepath.Join(dir, "policies", "versions", r.ID)),
		relink(filepath.Join(dir, "policies", "current"), "versions/"+runs[0].ID))
}

// jobResult is what a run published and the figures of it.
func jobResult(w *world, stdout string) map[string]string {
	w.t.Helper()
	var r job.Result
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		return map[string]string{"stdout": stdout}
	}
	figures, err := json.Marshal([]any{r.Status, r.Pairs, r.HeldOut, r.Metrics, r.Intervals, r.Gates})
	w.must(err)
	files := map[string]string{"figures": string(figures)}
	if r.Status == job.Published {
		folder, err := filepath.EvalSymlinks(filepath.Join(filepath.Dir(r.Job), "policies", "current"))
		w.must(err)
		for name, content := range everything(w.t, folder) {
			files[name] = content
		}
		for _, name := range []string{"version.json", "SHA256SUMS", "adapter/trainer_state.json"} { // of when, and where
			delete(files, name)
		}
	}
	return files
}
