package onnxtest

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// WriteDir writes model.onnx and config.json to a folder that exists, and
// model.onnx_data where the weights are external.
func (d *Decoder) WriteDir(dir string) error {
	m := d.ONNX()
	if d.External {
		if err := externalise(m, dir, "model.onnx_data"); err != nil {
			return err
		}
	}
	b, err := m.Marshal()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), b, 0o666); err != nil {
		return err
	}
	config, err := json.MarshalIndent(d.config(), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), append(config, '\n'), 0o666)
}

// config has the names a Llama's config.json has.
func (d *Decoder) config() map[string]any {
	return map[string]any{
		"model_type": "llama", "architectures": []string{"LlamaForCausalLM"},
		"vocab_size": d.V, "hidden_size": d.D, "intermediate_size": d.FF, "num_hidden_layers": d.Layers,
		"num_attention_heads": d.Heads, "num_key_value_heads": d.KVHeads, "head_dim": d.headDim(),
		"rms_norm_eps": normEps, "rope_theta": ropeTheta, "max_position_embeddings": 2048,
		"tie_word_embeddings": d.Form == Tied || d.Form == Gemm || d.Form == CastTied,
		"bos_token_id":        0, "eos_token_id": 1,
	}
}

// externalise moves every matrix to one data file.
func externalise(m *onnx.Model, dir, location string) error {
	var data []byte
	for _, t := range m.Graph.Initializers {
		if len(t.Dims) < 2 {
			continue
		}
		b, err := t.Bytes()
		if err != nil {
			return err
		}
		t.External = &onnx.External{Location: location, Offset: int64(len(data)), Length: int64(len(b))}
		data = append(data, b...)
	}
	return os.WriteFile(filepath.Join(dir, location), data, 0o666)
}
