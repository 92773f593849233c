package models

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/nlpodyssey/safetensors"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// The files of a checkpoint. The first two make it a PEFT adapter folder;
// names and layouts never change.
const (
	AdapterWeightsFile = "adapter_model.safetensors"
	AdapterConfigFile  = "adapter_config.json"
	OptimizerFile      = "optimizer.safetensors"

	peftPrefix = "base_model.model.lm_head."
	headModule = "lm_head"
)

// AdapterConfig is adapter_config.json, with PEFT's names. Fields that this program
// always writes the same are checked when an adapter is read: another
// value would change what the weights mean.
type AdapterConfig struct {
	AlphaPattern      map[string]any `json:"alpha_pattern"`
	AutoMapping       any            `json:"auto_mapping"`
	BaseModel         string         `json:"base_model_name_or_path"`
	Bias              string         `json:"bias"`
	FanInFanOut       bool           `json:"fan_in_fan_out"`
	InferenceMode     bool           `json:"inference_mode"`
	InitLoRAWeights   any            `json:"init_lora_weights"`
	LayersPattern     any            `json:"layers_pattern"`
	LayersToTransform any            `json:"layers_to_transform"`
	Alpha             float64        `json:"lora_alpha"`
	LoRABias          bool           `json:"lora_bias,omitempty"`
	Dropout           float64        `json:"lora_dropout"`
	ModulesToSave     []string       `json:"modules_to_save"`
	PeftType          string         `json:"peft_type"`
	R                 int            `json:"r"`
	RankPattern       map[string]any `json:"rank_pattern"`
	Revision          any            `json:"revision"`
	TargetModules     any            `json:"target_modules"`
	TaskType          string         `json:"task_type"`
	DoRA              bool           `json:"use_dora,omitempty"`
	RSLoRA            bool           `json:"use_rslora"`
}

// WriteAdapter writes the head to folder dir as a PEFT adapter of the base model, a name or
// a path. Equal heads give equal bytes. PEFT itself knows the kind "lora" only.
func WriteAdapter(dir string, h Head, baseModel string) error {
	config := AdapterConfig{
		PeftType: KindOf(h.Kind()).peft, TaskType: "CAUSAL_LM", BaseModel: baseModel, InferenceMode: true,
		TargetModules: []string{headModule}, Bias: "none", InitLoRAWeights: true,
		RankPattern: map[string]any{}, AlphaPattern: map[string]any{},
	}
	switch h := h.(type) {
	case *LoRA:
		config.R, config.Alpha, config.RSLoRA = h.R, h.Alpha, h.RSLoRA
	case *Adapter:
		config.R, config.Alpha, config.RSLoRA = h.R, h.Alpha, h.Stabilised
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return fmt.Errorf("models: adapter config: %w", err)
	}
	if err := writeTensors(filepath.Join(dir, AdapterWeightsFile), tensorsOf(h)); err != nil {
		return err
	}
	return atomicfile.WriteFile(filepath.Join(dir, AdapterConfigFile), func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// tensorsOf returns the weights as a checkpoint keeps them.
func tensorsOf(h Head) []tensor {
	var list []tensor
	for _, p := range h.Params() {
		list = append(list, tensor{name: p.Name, shape: p.Shape, floats: p.Value})
	}
	return list
}

// ReadAdapter reads a PEFT adapter folder whose only target is the LM head, with weights in
// float32, float16 or bfloat16. A
// file that can't be used is a [*CheckpointError].
func ReadAdapter(dir string) (Head, AdapterConfig, error) {
	path := filepath.Join(dir, AdapterConfigFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, AdapterConfig{}, readError(path, err)
	}
	var config AdapterConfig
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, AdapterConfig{}, &CheckpointError{path, ErrCorrupt, err.Error()}
	}
	if detail := config.unsupported(); detail != "" {
		return nil, AdapterConfig{}, &CheckpointError{path, ErrUnsupported, detail}
	}
	file, err := readTensors(filepath.Join(dir, AdapterWeightsFile))
	if err != nil {
		return nil, AdapterConfig{}, err
	}
	h, err := file.head(config)
	if err != nil {
		return nil, AdapterConfig{}, err
	}
	return h, config, nil
}

// unsupported names the first field that makes the adapter something else than
// a plain LoRA on the LM head, or returns "".
func (c *AdapterConfig) unsupported() string {
	target, _ := c.TargetModules.(string)
	if list, ok := c.TargetModules.([]any); ok && len(list) == 1 {
		target, _ = list[0].(string)
	}
	for _, field := range []struct {
		name string
		have any
		ok   bool
		want string
	}{
		{"peft_type", c.PeftType, c.kind() != nil, `"LORA", or a kind of dpo-pipe's own`},
		{"target_modules", c.TargetModules, target == headModule, `["lm_head"]`},
		{"task_type", c.TaskType, c.TaskType == "CAUSAL_LM" || c.TaskType == "", `"CAUSAL_LM"`},
		{"r", c.R, c.R >= 1 || !c.ranked(), "1 or more"},
		{"lora_alpha", c.Alpha, c.Alpha != 0 || !c.ranked(), "a number other than 0"},
		{"bias", c.Bias, c.Bias == "none" || c.Bias == "", `"none"`},
		{"fan_in_fan_out", c.FanInFanOut, !c.FanInFanOut, "false"},
		{"lora_bias", c.LoRABias, !c.LoRABias, "false"},
		{"use_dora", c.DoRA, !c.DoRA, "false"},
		{"modules_to_save", c.ModulesToSave, len(c.ModulesToSave) == 0, "none"},
		{"rank_pattern", c.RankPattern, len(c.RankPattern) == 0, "none"},
		{"alpha_pattern", c.AlphaPattern, len(c.AlphaPattern) == 0, "none"},
	} {
		if !field.ok {
			return fmt.Sprintf("%s is %#v, want %s", field.name, field.have, field.want)
		}
	}
	return ""
}

// kind is that of the head; nil where it is none of ours.
func (c *AdapterConfig) kind() *Kind {
	for i := range Kinds {
		if Kinds[i].peft == c.PeftType {
			return &Kinds[i]
		}
	}
	return nil
}

func (c *AdapterConfig) ranked() bool { return c.kind() != nil && c.kind().Ranked }

// head returns the head whose weights the file holds and config describes. The sizes that
// config does not have are those of the first tensors.
func (f *tensorFile) head(config AdapterConfig) (Head, error) {
	o := HeadOptions{Kind: config.kind().Name, V: 1, D: 1, R: config.R, Alpha: config.Alpha, Stabilised: config.RSLoRA}
	if err := f.sizes(&o); err != nil {
		return nil, err
	}
	h := NewHead(o)
	var names []string
	for _, p := range h.Params() {
		names = append(names, p.Name)
	}
	if err := f.only(names...); err != nil {
		return nil, err
	}
	for _, p := range h.Params() {
		x, _, err := f.floats(p.Name, math.Inf(-1), p.Shape...)
		if err != nil {
			return nil, err
		}
		copy(p.Value, x)
	}
	return h, nil
}

// sizes reads V and D off the tensors of a head; the shapes that they don't decide are
// checked with the rest.
func (f *tensorFile) sizes(o *HeadOptions) error {
	size := func(name string, axis int, shape ...int) (int, error) {
		t, err := f.view(peftPrefix+name, floatTypes, shape...)
		if err != nil {
			return 0, err
		}
		return int(t.Shape()[axis]), nil
	}
	var err error
	switch o.Kind {
	case "lora":
		if o.D, err = size("lora_A.weight", 1, o.R, -1); err == nil {
			o.V, err = size("lora_B.weight", 0, -1, o.R)
		}
	case "bias":
		o.V, err = size("logit_bias", 0, -1)
	case "adapter":
		o.D, err = size("adapter_A.weight", 1, o.R, -1)
	}
	return err
}

// names of an optimizer's tensors, PyTorch's: a mean, a mean square per parameter, and the step.
const (
	meanPrefix   = "exp_avg."
	squarePrefix = "exp_avg_sq."
	stepName     = "step"
)

// WriteOptimizer writes the optimizer's state to folder dir.
func WriteOptimizer(dir string, o *AdamW) error {
	tensors := []tensor{{name: stepName, shape: []int{}, ints: []int64{o.steps}}}
	for k, p := range o.params {
		tensors = append(tensors,
			tensor{name: meanPrefix + p.Name, shape: p.Shape, floats: o.moments[k].m},
			tensor{name: squarePrefix + p.Name, shape: p.Shape, floats: o.moments[k].v})
	}
	return writeTensors(filepath.Join(dir, OptimizerFile), tensors)
}

// ReadOptimizer replaces the state of o, which is for the same parameters, by
// what WriteOptimizer wrote to dir. A file that can't be used is a [*CheckpointError], and o stays
// as it was.
func ReadOptimizer(dir string, o *AdamW) error {
	file, err := readTensors(filepath.Join(dir, OptimizerFile))
	if err != nil {
		return err
	}
	step, err := file.view(stepName, []safetensors.DType{safetensors.I64})
	if err != nil {
		return err
	}
	steps := int64(binary.LittleEndian.Uint64(step.Data()))
	if steps < 0 {
		return file.fail(ErrCorrupt, "step is %d, want 0 or more", steps)
	}
	names := []string{stepName}
	var read []moments
	for _, p := range o.params {
		names = append(names, meanPrefix+p.Name, squarePrefix+p.Name)
		m, _, err := file.floats(meanPrefix+p.Name, math.Inf(-1), p.Shape...)
		if err != nil {
			return err
		}
		v, _, err := file.floats(squarePrefix+p.Name, 0, p.Shape...)
		if err != nil {
			return err
		}
		read = append(read, moments{m, v})
	}
	if err := file.only(names...); err != nil {
		return err
	}
	o.steps, o.moments = steps, read
	return nil
}
