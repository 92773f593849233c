package job

import (
	"cmp"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// Config is a job file. Paths in the file are relative to its folder; [Load] makes them absolute.
type Config struct {
	Name       string                    `yaml:"name,omitempty" about:"what notifications call the job; empty is the job file's name without its ending"`
	Model      Model                     `yaml:"model" about:"the model to align"`
	Data       []Source                  `yaml:"data" about:"preference pairs: paths, or mappings of path, weight and limit"`
	Reading    datasets.Options          `yaml:"reading" about:"how rows are read"`
	Encoding   encode.Options            `yaml:"encoding" about:"how text becomes tokens"`
	Cache      pipeline.PrecomputeConfig `yaml:"cache" about:"the reference pass and its cache"`
	Train      Train                     `yaml:"train" about:"training"`
	Evaluation Evaluation                `yaml:"evaluation" about:"the scoring of held-out pairs"`
	Gates      Gates                     `yaml:"gates" about:"what a policy must be to be published"`
	Export     pipeline.ExportConfig     `yaml:"export" about:"the policy's model folder"`
	Publish    Publish                   `yaml:"publish" about:"where policies go that meet the gates"`
	Runs       Runs                      `yaml:"runs" about:"the record of each run"`
	Notify     Notify                    `yaml:"notify" about:"who is told of a run's end"`
	Runtime    Runtime                   `yaml:"runtime" about:"ONNX Runtime"`

	file string              // where it was read from
	at   map[string]position // of the keys that the file gives

	// Of a config that is located: what the cache is called in records, and where that of the
	// evaluation's pairs is; "" for what follows from Cache.Out.
	cacheName, pairsCache string
}

// Model says which model is aligned.
type Model struct {
	Path string `yaml:"path" about:"model folder or .onnx file"`
	File string `yaml:"file,omitempty" about:"the .onnx file to take in the folder"`
}

// Source is one entry of the data: files, and how they count beside the others.
type Source struct {
	Path string `yaml:"path" about:"a file, glob or folder"`
	// Weight multiplies the weight that each pair has in the loss. It costs no other pass.
	Weight float64 `yaml:"weight" about:"multiplies the weight of each pair in the loss"`
	Limit  int64   `yaml:"limit,omitempty" about:"reads only the first rows; 0 reads all"`
}

// Train is how a head is trained, or many where Sweep has axes.
type Train struct {
	pipeline.TrainConfig `yaml:",inline"`
	Sweep                Sweep `yaml:"sweep,omitempty" about:"settings and their values: a head is trained for each combination and the best goes on"`
}

// Evaluation is how the pairs are scored.
type Evaluation struct {
	pipeline.EvalConfig `yaml:",inline"`

	// Pairs are a set that training never sees; without one the held-out pairs of the data are
	// scored, whose labels are as good as the data's.
	Pairs     []Source `yaml:"pairs,omitempty" about:"pairs to score instead of held-out ones: a trusted set, of prompts that are not in the data"`
	Breakdown bool     `yaml:"breakdown" about:"reads the data again to tell accuracy by source and score gap"`
}

// Gates are what is asked of a policy. A nil bound asks nothing.
type Gates struct {
	Accuracy       string   `yaml:"accuracy_metric" about:"the accuracy that is judged"`
	MinAccuracy    *float64 `yaml:"min_accuracy,omitempty" about:"least accuracy on held-out pairs"`
	MinAccuracyLow *float64 `yaml:"min_accuracy_low,omitempty" about:"least lower end of its 95 % interval"`
	MaxKL          *float64 `yaml:"max_kl,omitempty" about:"most KL from the reference, nats a token"`
	MinChosenDrift *float64 `yaml:"min_chosen_drift,omitempty" about:"least drift of a chosen token's log-prob, nats; below 0 it fell"`
	MinMargin      *float64 `yaml:"min_margin,omitempty" about:"least mean reward margin"`
	MinNewPairs    int64    `yaml:"min_new_pairs" about:"pairs computed since the last published run, below which there is no training"`
	Published      string   `yaml:"published" about:"what the policy must be beside the published one, on the same pairs: better, not_worse or off"`
	P              float64  `yaml:"p" about:"two accuracies differ where McNemar's exact test gives less"`
}

// Publish says where policies go.
type Publish struct {
	To   string `yaml:"to,omitempty" about:"place with versions and a link current; empty publishes nothing"`
	Keep int    `yaml:"keep" about:"newest versions that stay; 0 keeps all"`
}

// Runs says where runs are recorded.
type Runs struct {
	Path string `yaml:"path" about:"folder or URL of the runs"`
	Keep int    `yaml:"keep" about:"newest runs whose checkpoints and policies stay; 0 keeps all. Records stay always"`
}

// Notify says who is told of a run's end.
type Notify struct {
	Textfile string  `yaml:"textfile,omitempty" about:"Prometheus textfile to write, NAME.prom"`
	Push     Secret  `yaml:"pushgateway,omitempty" about:"URL of a Prometheus Pushgateway"`
	Webhook  Webhook `yaml:"webhook" about:"who gets the result as JSON"`
}

// Webhook is an address that is told.
type Webhook struct {
	URL          Secret  `yaml:"url,omitempty" about:"URL to post to"`
	Headers      Headers `yaml:"headers,omitempty" about:"headers of the request and their values"`
	OnlyFailures bool    `yaml:"only_failures" about:"tells of failures alone"`
}

// Runtime says which library runs the graphs, and on what.
type Runtime struct {
	Library  string `yaml:"ort_lib,omitempty" about:"the ONNX Runtime library"`
	Provider string `yaml:"provider" about:"execution provider"`
	Threads  int    `yaml:"threads" about:"threads inside one operation; 0 is every core"`
}

// What gates.published can be.
const (
	Better   = "better"
	NotWorse = "not_worse"
	Off      = "off"
)

// Default holds the defaults of a job file; those of the stages are the stages' own.
func Default() Config {
	c := Config{
		Reading: datasets.DefaultOptions(), Encoding: encode.DefaultOptions(), Cache: pipeline.DefaultPrecomputeConfig(),
		Train:      Train{TrainConfig: pipeline.DefaultTrainConfig()},
		Evaluation: Evaluation{EvalConfig: pipeline.EvalConfig{Engine: pipeline.DefaultExportConfig().Engine}},
		Gates:      Gates{Accuracy: "rewards/accuracies", Published: NotWorse, P: 0.05},
		Export:     pipeline.DefaultExportConfig(),
		Runs:       Runs{Path: "runs"},
		Runtime:    Runtime{Provider: "cpu"},
	}
	c.Cache.Out = "cache"
	// The cache of a job follows its data.
	c.Cache.Prune = true
	return c
}

// precompute is the config of the reference pass.
func (c *Config) precompute() pipeline.PrecomputeConfig {
	p := c.Cache
	p.Model, p.ModelFile, p.Reading, p.Encode = c.Model.Path, c.Model.File, c.Reading, c.Encoding
	p.Data, p.Reading.Mix = mixed(c.Data)
	return p
}

// precomputePairs is the config of the reference pass over the pairs of the evaluation.
func (c *Config) precomputePairs() pipeline.PrecomputeConfig {
	p := c.precompute()
	p.Data, p.Reading.Mix = mixed(c.Evaluation.Pairs)
	p.Out, p.Limit = cmp.Or(c.pairsCache, PairsCache(c.Cache.Out)), 0
	return p
}

// PairsCache is the cache of the evaluation's pairs, by the path of that of the data.
func PairsCache(cache string) string { return cache + "-evaluation" }

// LocatePairsCache says where on this machine the cache of the evaluation's pairs is.
func (c *Config) LocatePairsCache(folder string) { c.pairsCache = folder }

// CheckData refuses paths that name no data file, before any work is done.
func (c *Config) CheckData() error {
	for _, data := range [][]Source{c.Data, c.Evaluation.Pairs} {
		if len(data) == 0 {
			continue
		}
		paths, _ := mixed(data)
		r, err := datasets.Open(paths, c.Reading)
		if err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

// mixed tells paths and shares of data apart.
func mixed(data []Source) (paths []string, mix []datasets.Share) {
	for _, s := range data {
		paths, mix = append(paths, s.Path), append(mix, datasets.Share{Weight: s.Weight, Limit: s.Limit})
	}
	return paths, mix
}

// train is the config of training in folder out. It goes on with what is there.
func (c *Config) train(out string) pipeline.TrainConfig {
	t := c.Train.TrainConfig
	t.Cache, t.Out, t.Resume = c.Cache.Out, out, true
	if c.cacheName != "" {
		t.Cache, t.Folders = c.cacheName, map[string][]string{c.cacheName: {c.Cache.Out}}
	}
	if c.Cache.Features == refcache.None {
		t.Model, t.ModelFile = c.Model.Path, c.Model.File
	}
	return t
}

// evaluate is the config of scoring a checkpoint, beside another unless that is "".
func (c *Config) evaluate(checkpoint, against string) pipeline.EvalConfig {
	e := c.Evaluation.EvalConfig
	from := c.precompute()
	if len(c.Evaluation.Pairs) > 0 {
		from, e.All = c.precomputePairs(), true
	}
	e.Cache, e.Checkpoint, e.Against = from.Out, checkpoint, against
	if c.Evaluation.Breakdown {
		e.Data, e.Mix = from.Data, from.Reading.Mix
	}
	return e
}

// export is the config of writing the policy of a checkpoint into folder out.
func (c *Config) export(checkpoint, out string) pipeline.ExportConfig {
	x := c.Export
	x.Checkpoint, x.Model, x.ModelFile, x.Out, x.Cache = checkpoint, c.Model.Path, c.Model.File, out, c.Cache.Out
	return x
}

// scores reports whether there are pairs to score.
func (c *Config) scores() bool {
	return c.Train.EvalFrac > 0 || c.Evaluation.All || len(c.Evaluation.Pairs) > 0
}

// locate makes paths absolute that are relative to the job file's folder.
func (c *Config) locate(dir string) {
	paths := []*string{&c.Model.Path, &c.Cache.Out, &c.Publish.To, &c.Runs.Path, &c.Notify.Textfile, &c.Runtime.Library}
	for _, data := range [][]Source{c.Data, c.Evaluation.Pairs} {
		for i := range data {
			paths = append(paths, &data[i].Path)
		}
	}
	if t := &c.Encoding.ChatTemplate; *t != "auto" && *t != "none" {
		paths = append(paths, t)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) && !strings.Contains(*p, "://") {
			*p = filepath.Join(dir, *p)
		}
	}
}
