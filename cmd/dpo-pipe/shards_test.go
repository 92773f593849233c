package main

import (
	"errors"
	"flag"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// The variables are those that the schedulers document for the tasks of an array.
func TestShardFromTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		name   string
		env    string
		shards string
		want   int
		err    string
	}{
		{name: "Kubernetes", env: "JOB_COMPLETION_INDEX=3", shards: "8", want: 3},
		{name: "Kubernetes, the first", env: "JOB_COMPLETION_INDEX=0", shards: "8", want: 0},
		{name: "Kubernetes, more completions than shards", env: "JOB_COMPLETION_INDEX=8", shards: "8", err: "JOB_COMPLETION_INDEX is 8, which is no shard of --shards 8: want 0 to 7"},
		{name: "Slurm", env: "SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=7 SLURM_ARRAY_TASK_COUNT=8", shards: "8", want: 3},
		{name: "Slurm, from 1", env: "SLURM_ARRAY_TASK_ID=8 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=8 SLURM_ARRAY_TASK_COUNT=8", shards: "8", want: 7},
		{name: "Slurm, some once more", env: "SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_MIN=2 SLURM_ARRAY_TASK_MAX=5 SLURM_ARRAY_TASK_COUNT=2", shards: "8", want: 5},
		{name: "Slurm, one once more", env: "SLURM_ARRAY_TASK_ID=7 SLURM_ARRAY_TASK_MIN=7 SLURM_ARRAY_TASK_MAX=7 SLURM_ARRAY_TASK_COUNT=1", shards: "8", want: 7},
		{name: "Slurm, one too far", env: "SLURM_ARRAY_TASK_ID=8 SLURM_ARRAY_TASK_MIN=8 SLURM_ARRAY_TASK_MAX=8 SLURM_ARRAY_TASK_COUNT=1", shards: "8", err: "SLURM_ARRAY_TASK_ID is 8, which is no shard of --shards 8"},
		{name: "Slurm, more tasks than shards", env: "SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_COUNT=9", shards: "8", err: "no more tasks than shards: there are 9 (SLURM_ARRAY_TASK_COUNT)"},
		{name: "Slurm, with gaps", env: "SLURM_ARRAY_TASK_ID=14 SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=14 SLURM_ARRAY_TASK_COUNT=8", shards: "8", err: "SLURM_ARRAY_TASK_ID is 14, which is no shard of --shards 8"},
		{name: "AWS Batch", env: "AWS_BATCH_JOB_ARRAY_INDEX=3 AWS_BATCH_JOB_ARRAY_SIZE=8", shards: "8", want: 3},
		{name: "AWS Batch, no size", env: "AWS_BATCH_JOB_ARRAY_INDEX=7", shards: "8", want: 7},
		{name: "AWS Batch, other size", env: "AWS_BATCH_JOB_ARRAY_INDEX=3 AWS_BATCH_JOB_ARRAY_SIZE=4", shards: "8", err: "AWS Batch runs 4 tasks (AWS_BATCH_JOB_ARRAY_SIZE) for --shards 8: want as many tasks as shards"},
		{name: "Cloud Run", env: "CLOUD_RUN_TASK_INDEX=3 CLOUD_RUN_TASK_COUNT=8", shards: "8", want: 3},
		{name: "Cloud Run, other count", env: "CLOUD_RUN_TASK_INDEX=0 CLOUD_RUN_TASK_COUNT=1", shards: "8", err: "Cloud Run runs 1 tasks"},
		{name: "Google Batch", env: "BATCH_TASK_INDEX=7 BATCH_TASK_COUNT=8", shards: "8", want: 7},
		{name: "no number", env: "BATCH_TASK_INDEX=x", shards: "8", err: `BATCH_TASK_INDEX is "x", want a number`},
		{name: "no number of tasks", env: "BATCH_TASK_INDEX=1 BATCH_TASK_COUNT=y", shards: "8", err: `BATCH_TASK_COUNT is "y", want a number`},
		{name: "negative", env: "JOB_COMPLETION_INDEX=-1", shards: "8", err: "JOB_COMPLETION_INDEX is -1"},
		{name: "two that agree", env: "JOB_COMPLETION_INDEX=3 BATCH_TASK_INDEX=3 BATCH_TASK_COUNT=8", shards: "8", want: 3},
		{name: "two that don't", env: "JOB_COMPLETION_INDEX=3 BATCH_TASK_INDEX=4 BATCH_TASK_COUNT=8", shards: "8", err: "say which with --shard"},
		{name: "none", shards: "8", err: "no scheduler's environment says which of them this is"},
		{name: "the flag", shards: "8 --shard 2", want: 2},
		{name: "the flag, before two that don't agree", env: "JOB_COMPLETION_INDEX=3 BATCH_TASK_INDEX=4", shards: "8 --shard 2", want: 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := map[string]string{}
			for _, entry := range strings.Fields(tc.env) {
				name, value, _ := strings.Cut(entry, "=")
				env[name] = value
			}
			set := flag.NewFlagSet("", flag.ContinueOnError)
			for _, f := range shardFlags() {
				if err := f.Apply(set); err != nil {
					t.Fatal(err)
				}
			}
			if err := set.Parse(strings.Fields("--shards " + tc.shards)); err != nil {
				t.Fatal(err)
			}
			got, err := shardFrom(cli.NewContext(nil, set, nil), func(name string) string { return env[name] })
			if tc.err == "" && (err != nil || got != tc.want) {
				t.Errorf("got shard %d, %v, want %d", got, err, tc.want)
			}
			if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error is %v, want %q", err, tc.err)
			}
			if _, usage := errors.AsType[*usageErr](err); err != nil && !usage {
				t.Errorf("%v is not an error of usage", err)
			}
		})
	}
}
