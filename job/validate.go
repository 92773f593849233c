package job

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/pipeline"
)

// validate reports every setting that can't be used, where it stands in the file.
func (c *Config) validate() error {
	k := keyCheck{c: c}
	k.that(c.Model.Path != "", "model.path", "is missing, want a model folder or .onnx file")
	k.that(len(c.Data) > 0, "data", "is missing, want files, globs or folders of preference pairs")
	k.sources("data", c.Data)
	k.sources("evaluation.pairs", c.Evaluation.Pairs)
	k.that(c.Runs.Path != "", "runs.path", "is empty, want a folder")
	k.that(c.Runs.Keep >= 0, "runs.keep", "is %d, want 0 (all) or more runs", c.Runs.Keep)
	k.that(c.Publish.Keep >= 0, "publish.keep", "is %d, want 0 (all) or more versions", c.Publish.Keep)
	k.that(c.Runtime.Threads >= 0, "runtime.threads", "is %d, want 0 (every core) or more", c.Runtime.Threads)
	k.that(c.Reading.MaxRowBytes > 0, "reading.max_row_bytes", "is %d, want 1 or more", c.Reading.MaxRowBytes)
	if c.Model.Path != "" && len(c.Data) > 0 {
		k.stage("precompute-ref", c.precompute().Validate())
	}
	k.training()
	k.stage("eval", c.evaluate("checkpoint", "").Validate())
	export := c.export("checkpoint", "")
	export.Model, export.Out = "model", "/dev/null/policy" // where nothing can be
	k.stage("export", export.Validate())
	k.gates()
	return errors.Join(k.errs...)
}

func (k *keyCheck) sources(key string, data []Source) {
	for i, s := range data {
		path := fmt.Sprintf("%s[%d]", key, i)
		k.that(s.Path != "", path+".path", "is missing, want a file, glob or folder")
		k.that(s.Weight >= 0 && !math.IsInf(s.Weight, 0), path+".weight", "is %v, want a number >= 0", s.Weight)
		k.that(s.Limit >= 0, path+".limit", "is %d, want 0 (all) or more rows", s.Limit)
	}
}

// keyCheck collects mistakes.
type keyCheck struct {
	c    *Config
	errs []error
}

func (k *keyCheck) that(ok bool, key, format string, args ...any) {
	if !ok {
		at := k.c.where(key)
		k.errs = append(k.errs, &KeyError{k.c.file, at.line, at.column, key, fmt.Sprintf(format, args...)})
	}
}

// where is the position of a key, or of the section around it; zero where the file has neither.
func (c *Config) where(key string) position {
	for {
		if at, ok := c.at[key]; ok {
			return at
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return position{}
		}
		key = key[:i]
	}
}

// stage takes over what a stage finds wrong in its config, under the names of keys.
func (k *keyCheck) stage(command string, err error) {
	for _, one := range eachError(err) {
		wrong, ok := errors.AsType[*pipeline.FieldError](one)
		if !ok {
			k.errs = append(k.errs, one)
			continue
		}
		key := k.c.keyOf(command, wrong.Field)
		text := (&pipeline.FieldError{Field: key, Value: wrong.Value, Want: wrong.Want}).Error()
		k.that(false, key, "%s", strings.TrimPrefix(text, key+" "))
	}
}

// keyOf is the key of a flag as the stages write it: --beta, --sweep beta.
func (c *Config) keyOf(command, field string) string {
	flag, swept, _ := strings.Cut(strings.TrimPrefix(field, "--"), " ")
	key := FlagKey(command, flag)
	if swept != "" {
		key = join(key, strings.ReplaceAll(swept, "-", "_"))
	}
	return key
}

func (k *keyCheck) training() {
	c := k.c
	if len(c.Train.Sweep) == 0 {
		k.stage("train", c.train("run").Validate())
		return
	}
	for _, axis := range c.Train.Sweep {
		key := "train." + strings.ReplaceAll(axis.Key, "-", "_")
		_, given := c.at[key]
		k.that(!given, key, "is swept too, want one of both")
	}
}

func (k *keyCheck) gates() {
	g := &k.c.Gates
	for _, key := range []string{"gates.accuracy_metric", "gates.published"} {
		value := map[string]string{"gates.accuracy_metric": g.Accuracy, "gates.published": g.Published}[key]
		k.that(slices.Contains(choices[key], value), key, "is %q, want %s", value, strings.Join(choices[key], " or "))
	}
	k.that(g.MinNewPairs >= 0, "gates.min_new_pairs", "is %d, want 0 or more pairs", g.MinNewPairs)
	k.that(g.P > 0 && g.P < 1, "gates.p", "is %v, want a probability between 0 and 1", g.P)
	for _, b := range g.bounds() {
		if b.bound == nil {
			continue
		}
		k.that(!math.IsNaN(*b.bound) && !math.IsInf(*b.bound, 0), b.key, "is %v, want a number", *b.bound)
		k.judges(b.key)
	}
	if k.c.compares() {
		k.judges("gates.published")
	}
}

// judges wants pairs for a gate that training does not see.
func (k *keyCheck) judges(gate string) {
	if len(k.c.Evaluation.Pairs) > 0 {
		return
	}
	k.that(k.c.Train.EvalFrac > 0, "train.eval_frac", "is 0, want more: %s judges held-out pairs", gate)
	k.that(!k.c.Evaluation.All, "evaluation.all", "is true, want false: %s judges held-out pairs", gate)
}
