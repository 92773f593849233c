package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// shardFlags split a pass. Schedulers number their tasks in the environment; --shards is
// never taken from there: an array may well be one of whole passes over other data.
func shardFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "shards", Usage: "split the pass among `N` processes; with --dry-run, count what each would run", DefaultText: "one process for all"},
		&cli.IntFlag{Name: "shard", Usage: "which `INDEX` of them this one is, from 0", DefaultText: "from the scheduler: Kubernetes, Slurm, AWS Batch, Cloud Run, Google Batch"},
		&cli.BoolFlag{Name: "join", Usage: "make the cache in --out of its shards"},
		&cli.BoolFlag{Name: "keep-shards", Usage: "with --join, leave the shards there"},
	}
}

// scheduler says where a kind of job has the number of a task, and how many there are.
type scheduler struct {
	name         string
	index, first string // first is the variable with the smallest index, 0 where there is none
	count        string // "" where it is not told
}

var schedulers = []scheduler{
	{name: "Kubernetes", index: "JOB_COMPLETION_INDEX"},
	{name: "Slurm", index: "SLURM_ARRAY_TASK_ID", first: "SLURM_ARRAY_TASK_MIN", count: "SLURM_ARRAY_TASK_COUNT"},
	{name: "AWS Batch", index: "AWS_BATCH_JOB_ARRAY_INDEX", count: "AWS_BATCH_JOB_ARRAY_SIZE"},
	{name: "Cloud Run", index: "CLOUD_RUN_TASK_INDEX", count: "CLOUD_RUN_TASK_COUNT"},
	{name: "Google Batch", index: "BATCH_TASK_INDEX", count: "BATCH_TASK_COUNT"},
}

// shardFrom is the index of this process: that of --shard, or else the scheduler's.
func shardFrom(c *cli.Context, getenv func(string) string) (int, error) {
	if c.IsSet("shard") {
		return c.Int("shard"), nil
	}
	var from *scheduler
	index := 0
	for i := range schedulers {
		s := &schedulers[i]
		if getenv(s.index) == "" {
			continue
		}
		n, err := s.shard(getenv, c.Int("shards"))
		if err != nil {
			return 0, err
		}
		if from != nil && n != index {
			return 0, &usageErr{fmt.Errorf("this is shard %d for %s (%s) and shard %d for %s (%s): say which with --shard",
				index, from.name, from.index, n, s.name, s.index)}
		}
		from, index = s, n
	}
	if from == nil {
		return 0, &usageErr{fmt.Errorf("--shards %d, but no scheduler's environment says which of them this is: say so with --shard", c.Int("shards"))}
	}
	return index, nil
}

// shard is the index of this process among shards.
func (s *scheduler) shard(getenv func(string) string, shards int) (int, error) {
	number := func(name string, otherwise int) (int, error) {
		text := getenv(name)
		if name == "" || text == "" {
			return otherwise, nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, &usageErr{fmt.Errorf("%s is %q, want a number", name, text)}
		}
		return n, nil
	}
	index, err := number(s.index, 0)
	if err != nil {
		return 0, err
	}
	first, err := number(s.first, 0)
	if err != nil {
		return 0, err
	}
	count, err := number(s.count, shards)
	if err != nil {
		return 0, err
	}
	want := fmt.Sprintf("0 to %d", shards-1)
	switch {
	case count == shards: // all of them, wherever the numbers begin
		index -= first
	case s.first == "":
		return 0, &usageErr{fmt.Errorf("%s runs %d tasks (%s) for --shards %d: want as many tasks as shards", s.name, count, s.count, shards)}
	case count > shards:
		want += fmt.Sprintf(", and no more tasks than shards: there are %d (%s)", count, s.count)
	}
	if index < 0 || index >= shards || count > shards {
		return 0, &usageErr{fmt.Errorf("%s is %s, which is no shard of --shards %d: want %s", s.index, getenv(s.index), shards, want)}
	}
	return index, nil
}

// shardsFrom fills in what --shards and --shard say. A dry run counts all shards.
func shardsFrom(c *cli.Context, cfg *pipeline.PrecomputeConfig) (err error) {
	if !c.IsSet("shards") {
		if c.IsSet("shard") {
			return &usageErr{fmt.Errorf("--shard %d of how many? --shards says", c.Int("shard"))}
		}
		return nil
	}
	if cfg.Shards = c.Int("shards"); cfg.Shards < 1 {
		return &pipeline.FieldError{Field: "--shards", Value: cfg.Shards, Want: "1 or more"}
	}
	if !c.Bool("dry-run") {
		cfg.Shard, err = shardFrom(c, os.Getenv)
	}
	return err
}

// joining is what precompute-ref --join is doing.
const joining = "join"

func (a *app) join(c *cli.Context) error {
	for _, name := range []string{"shard", "dry-run", "prune"} {
		if c.IsSet(name) {
			return &usageErr{fmt.Errorf("--join takes no --%s", name)}
		}
	}
	a.doing = joining
	cfg := pipeline.JoinConfig{
		Out: c.String("out"), Shards: c.Int("shards"), KeepShards: c.Bool("keep-shards"),
		Model: c.String("model"), ModelFile: c.String("model-file"), Data: c.StringSlice(dataFlag),
	}
	out, err := a.joinPlaces(c, &cfg)
	if err != nil {
		return err
	}
	defer out.close()
	p := newProgress(a.stderr)
	result, err := pipeline.Join(c.Context, cfg, p.report)
	p.end()
	if out != nil {
		err = out.joined(c.Context, cfg.KeepShards, result, err)
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return a.printJSON(result)
	}
	if result.Shards == 0 {
		fmt.Fprintf(a.stdout, "nothing left to do: %s holds its %s pairs\n", result.Cache, thousands(result.Counts.Kept))
		return nil
	}
	fmt.Fprintf(a.stdout, "joined %d shards: %s pairs of %s rows in %s (%.1f s, %d parts)\n", result.Shards,
		thousands(result.Counts.Kept), thousands(result.Counts.Read), result.Cache, result.Seconds, result.Parts)
	printDropped(a.stdout, result.Counts)
	return nil
}
