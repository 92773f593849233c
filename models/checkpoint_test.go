package models

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sample returns a head with every weight different, and its optimizer after a step.
func sample(t testing.TB) (*LoRA, *AdamW) {
	h := NewLoRA(3, 5, 2, 4, 1)
	for i := range h.B {
		h.B[i] = float32(i) / 8
	}
	o := NewAdamW(h.Params())
	for k, p := range h.Params() {
		for i := range p.Grad {
			p.Grad[i] = float32(i+k) - 2
		}
	}
	o.Step(0.01)
	return h, o
}

// save writes a sample checkpoint and returns its folder.
func save(t testing.TB) (string, *LoRA, *AdamW) {
	t.Helper()
	dir := t.TempDir()
	h, o := sample(t)
	if err := errors.Join(WriteAdapter(dir, h, "base"), WriteOptimizer(dir, o)); err != nil {
		t.Fatal(err)
	}
	return dir, h, o
}

func TestCheckpointRoundTrip(t *testing.T) {
	dir, h, o := save(t)
	head, config, err := ReadAdapter(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := head.(*LoRA)
	if diff := cmp.Diff([]any{got.D, got.V, got.R, got.Alpha, got.RSLoRA, got.A, got.B},
		[]any{h.D, h.V, h.R, h.Alpha, h.RSLoRA, h.A, h.B}); diff != "" {
		t.Error(diff)
	}
	if config.BaseModel != "base" {
		t.Errorf("base model is %q", config.BaseModel)
	}
	again := NewAdamW(got.Params())
	if err := ReadOptimizer(dir, again); err != nil {
		t.Fatal(err)
	}
	// Going on from the files ends in the same bits as going on from memory.
	for _, p := range [][]Param{h.Params(), got.Params()} {
		for i := range p[0].Grad {
			p[0].Grad[i] = 0.125
		}
	}
	copy(got.Params()[1].Grad, h.Params()[1].Grad)
	o.Step(0.3)
	again.Step(0.3)
	if again.Steps() != 2 || !slices.Equal(got.A, h.A) || !slices.Equal(got.B, h.B) {
		t.Errorf("after step %d the resumed head differs", again.Steps())
	}
}

func TestCheckpointBytesAreDeterministic(t *testing.T) {
	one, _, _ := save(t)
	two, _, _ := save(t)
	for _, name := range []string{AdapterWeightsFile, AdapterConfigFile, OptimizerFile} {
		a, err := os.ReadFile(filepath.Join(one, name))
		b, err2 := os.ReadFile(filepath.Join(two, name))
		if err != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs between two runs (%v, %v)", name, err, err2)
		}
	}
}

// TestAdapterBytes reads the file by its specification rather than with a library.
func TestAdapterBytes(t *testing.T) {
	dir, h, _ := save(t)
	data, err := os.ReadFile(filepath.Join(dir, AdapterWeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(data)
	if n%8 != 0 {
		t.Errorf("header of %d bytes leaves the tensors unaligned", n)
	}
	want := `{"__metadata__":{"format":"pt"},` +
		`"base_model.model.lm_head.lora_A.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},` +
		`"base_model.model.lm_head.lora_B.weight":{"dtype":"F32","shape":[5,2],"data_offsets":[24,64]}}`
	if got := strings.TrimRight(string(data[8:8+n]), " "); got != want {
		t.Errorf("header is\n%s\nwant\n%s", got, want)
	}
	body := data[8+n:]
	for i, want := range append(slices.Clone(h.A), h.B...) {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(body[4*i:])); got != want {
			t.Errorf("value %d is %v, want %v", i, got, want)
		}
	}
}

func TestAdapterConfigIsPEFTs(t *testing.T) {
	dir, _, _ := save(t)
	data, err := os.ReadFile(filepath.Join(dir, AdapterConfigFile))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base",
		"r": 2.0, "lora_alpha": 4.0, "lora_dropout": 0.0, "target_modules": []any{"lm_head"},
		"bias": "none", "use_rslora": false, "fan_in_fan_out": false, "inference_mode": true,
		"init_lora_weights": true, "modules_to_save": nil, "layers_to_transform": nil, "layers_pattern": nil,
		"rank_pattern": map[string]any{}, "alpha_pattern": map[string]any{}, "revision": nil, "auto_mapping": nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadAdapterRefusesWhatItCannotHonour(t *testing.T) {
	for name, spoil := range map[string]string{
		"other adapter":      `"peft_type": "LORA"->"peft_type": "IA3"`,
		"other module":       "\"lm_head\"->\"q_proj\"",
		"two modules":        "\"lm_head\"->\"lm_head\", \"q_proj\"",
		"bias":               `"bias": "none"->"bias": "all"`,
		"transposed":         `"fan_in_fan_out": false->"fan_in_fan_out": true`,
		"dora":               `"r": 2,->"r": 2, "use_dora": true,`,
		"bias in the branch": `"r": 2,->"r": 2, "lora_bias": true,`,
		"rank 0":             `"r": 2,->"r": 0,`,
		"rank of one module": `"rank_pattern": {}->"rank_pattern": {"lm_head": 4}`,
		"whole module":       `"modules_to_save": null->"modules_to_save": ["embed_tokens"]`,
		"no alpha":           `"lora_alpha": 4->"lora_alpha": 0`,
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, _ := save(t)
			path := filepath.Join(dir, AdapterConfigFile)
			from, to, _ := strings.Cut(spoil, "->")
			replace(t, path, from, to)
			refused(t, dir, ErrUnsupported, path)
		})
	}
	t.Run("a string as target", func(t *testing.T) {
		dir, _, _ := save(t)
		replace(t, filepath.Join(dir, AdapterConfigFile), "[\n    \"lm_head\"\n  ]", `"lm_head"`)
		if _, _, err := ReadAdapter(dir); err != nil {
			t.Error(err)
		}
	})
}

// replace edits a file, which must hold the old text.
func replace(t *testing.T, path, from, to string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(from)) {
		t.Fatalf("%s holds no %q", path, from)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte(from), []byte(to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// refused checks that the adapter in dir is refused because of one file.
func refused(t *testing.T, dir string, kind error, path string) {
	t.Helper()
	h, config, err := ReadAdapter(dir)
	var c *CheckpointError
	if !errors.As(err, &c) || !errors.Is(err, kind) || c.Path != path {
		t.Errorf("error is %v, want %v in %s", err, kind, path)
	}
	if h != nil || config.R != 0 {
		t.Error("a refused adapter is returned")
	}
}

func TestReadAdapterRefusesOtherTensors(t *testing.T) {
	const a, b = peftPrefix + "lora_A.weight", peftPrefix + "lora_B.weight"
	nan := float32(math.NaN())
	two := func(x tensor, y tensor) []tensor { return []tensor{x, y} }
	goodA, goodB := tensor{a, []int{2, 1}, []float32{1, 2}, nil}, tensor{b, []int{1, 2}, []float32{1, 2}, nil}
	for name, test := range map[string]struct {
		tensors []tensor
		kind    error
	}{
		"no B":         {[]tensor{goodA}, ErrMismatch},
		"other rank A": {two(tensor{a, []int{1, 2}, []float32{1, 2}, nil}, goodB), ErrMismatch},
		"other rank B": {two(goodA, tensor{b, []int{2, 1}, []float32{1, 2}, nil}), ErrMismatch},
		"one axis":     {two(goodA, tensor{b, []int{2}, []float32{1, 2}, nil}), ErrMismatch},
		"empty":        {two(goodA, tensor{b, []int{0, 2}, nil, nil}), ErrMismatch},
		"int64":        {two(goodA, tensor{b, []int{1, 2}, nil, []int64{1, 2}}), ErrMismatch},
		"NaN":          {two(goodA, tensor{b, []int{1, 2}, []float32{1, nan}, nil}), ErrCorrupt},
		"unknown":      {append(two(goodA, goodB), tensor{"x", []int{1}, []float32{1}, nil}), ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, _ := save(t)
			path := filepath.Join(dir, AdapterWeightsFile)
			if err := writeTensors(path, test.tensors); err != nil {
				t.Fatal(err)
			}
			refused(t, dir, test.kind, path)
		})
	}
}

// TestReadAdapterWidens: weights stored half wide are read as the numbers they are. The
// bytes are written out by hand: 1, -2, the least subnormal of float16, and 1.5.
func TestReadAdapterWidens(t *testing.T) {
	for dtype, c := range map[string]struct {
		bytes string
		a, b  []float32
	}{
		"F16":  {"\x00\x3c\x00\xc0\x01\x00\x00\x3e", []float32{1, -2}, []float32{0x1p-24, 1.5}},
		"BF16": {"\x80\x3f\x00\xc0\x80\x00\xc0\x3f", []float32{1, -2}, []float32{0x1p-126, 1.5}},
	} {
		t.Run(dtype, func(t *testing.T) {
			dir := t.TempDir()
			if err := WriteAdapter(dir, NewLoRA(1, 1, 2, 4, 0), "m"); err != nil {
				t.Fatal(err)
			}
			head := fmt.Sprintf(`{"base_model.model.lm_head.lora_A.weight":{"dtype":%q,"shape":[2,1],"data_offsets":[0,4]},`+
				`"base_model.model.lm_head.lora_B.weight":{"dtype":%q,"shape":[1,2],"data_offsets":[4,8]}}`, dtype, dtype)
			file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head+c.bytes...)
			if err := os.WriteFile(filepath.Join(dir, AdapterWeightsFile), file, 0o600); err != nil {
				t.Fatal(err)
			}
			policy, _, err := ReadAdapter(dir)
			if err != nil {
				t.Fatal(err)
			}
			h := policy.(*LoRA)
			if !slices.Equal(h.A, c.a) || !slices.Equal(h.B, c.b) {
				t.Errorf("A %v, B %v, want %v, %v", h.A, h.B, c.a, c.b)
			}
		})
	}
}

// TestReadRefusesEveryTruncation cuts every file at every byte.
func TestReadRefusesEveryTruncation(t *testing.T) {
	dir, h, _ := save(t)
	for _, name := range []string{AdapterWeightsFile, AdapterConfigFile, OptimizerFile} {
		path := filepath.Join(dir, name)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(data) - 1 { // the config's last byte is a line end
			if err := os.WriteFile(path, data[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := ReadAdapter(dir)
			if name == OptimizerFile {
				err = ReadOptimizer(dir, NewAdamW(h.Params()))
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s cut to %d of %d bytes: error is %v", name, n, len(data), err)
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadMissingFiles(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := ReadAdapter(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("adapter of an empty folder: %v", err)
	}
	if err := ReadOptimizer(dir, NewAdamW(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("optimizer of an empty folder: %v", err)
	}
}

func TestReadOptimizerRefusesAndKeepsItsState(t *testing.T) {
	dir, h, o := save(t)
	path := filepath.Join(dir, OptimizerFile)
	name := h.Params()[0].Name
	state := func() []tensor {
		list := []tensor{{stepName, []int{}, nil, []int64{3}}}
		for k, p := range h.Params() {
			list = append(list,
				tensor{meanPrefix + p.Name, p.Shape, o.moments[k].m, nil},
				tensor{squarePrefix + p.Name, p.Shape, o.moments[k].v, nil})
		}
		return list
	}
	for what, test := range map[string]struct {
		spoil func([]tensor) []tensor
		kind  error
	}{
		"negative step":   {func(l []tensor) []tensor { l[0].ints = []int64{-1}; return l }, ErrCorrupt},
		"no step":         {func(l []tensor) []tensor { return l[1:] }, ErrMismatch},
		"negative square": {func(l []tensor) []tensor { l[2].floats = []float32{0, 0, 0, 0, 0, -1}; return l }, ErrCorrupt},
		"other shape":     {func(l []tensor) []tensor { l[1].shape = []int{3, 2}; return l }, ErrMismatch},
		"extra":           {func(l []tensor) []tensor { return append(l, tensor{"x", []int{1}, []float32{1}, nil}) }, ErrUnsupported},
	} {
		if err := writeTensors(path, test.spoil(state())); err != nil {
			t.Fatal(err)
		}
		before := o.moments[0].m[0]
		if err := ReadOptimizer(dir, o); !errors.Is(err, test.kind) {
			t.Errorf("%s (%s): error is %v, want %v", what, name, err, test.kind)
		}
		if o.steps != 1 || o.moments[0].m[0] != before {
			t.Errorf("%s: a refused file changed the optimizer", what)
		}
	}
}

// kindSamples has a head of each kind with weights that are not zero.
func kindSamples() (heads []Head) {
	for _, k := range Kinds {
		h := NewHead(HeadOptions{Kind: k.Name, V: 5, D: 3, R: 2, Alpha: 4, Stabilised: k.Ranked, Seed: 1})
		for _, p := range h.Params() {
			for i := range p.Value {
				p.Value[i] = float32(i)/8 - 0.25
			}
		}
		heads = append(heads, h)
	}
	return heads
}

// TestAdapterOfEveryKind: what is written is what is read, and nothing else.
func TestAdapterOfEveryKind(t *testing.T) {
	for _, h := range kindSamples() {
		t.Run(h.Kind(), func(t *testing.T) {
			dir := t.TempDir()
			if err := WriteAdapter(dir, h, "m"); err != nil {
				t.Fatal(err)
			}
			got, _, err := ReadAdapter(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got.Kind() != h.Kind() || !equalHeads(got, h) {
				t.Errorf("read back it is %#v, want %#v", got, h)
			}
			gotV, gotD := got.Shape()
			if v, d := h.Shape(); gotV != v || gotD != d {
				t.Errorf("shape is [%d,%d], want [%d,%d]", gotV, gotD, v, d)
			}
			scaled, ok := h.(interface{ Scale() float64 })
			if want := 4 / math.Sqrt(2); ok && (scaled.Scale() != want || got.(interface{ Scale() float64 }).Scale() != want) {
				t.Errorf("scale is %v, read back %v, want 4/√2", scaled.Scale(), got.(interface{ Scale() float64 }).Scale())
			}
			if err := writeTensors(filepath.Join(dir, AdapterWeightsFile), append(tensorsOf(h), tensor{"x", []int{1}, []float32{1}, nil})); err != nil {
				t.Fatal(err)
			}
			refused(t, dir, ErrUnsupported, filepath.Join(dir, AdapterWeightsFile))
		})
	}
}

func equalHeads(a, b Head) bool {
	return slices.EqualFunc(a.Params(), b.Params(), func(x, y Param) bool {
		return x.Name == y.Name && slices.Equal(x.Shape, y.Shape) && slices.Equal(x.Value, y.Value)
	})
}

func TestAssignWantsTheSameHead(t *testing.T) {
	heads := kindSamples()
	for i, src := range heads {
		for j, dst := range kindSamples() {
			if err := Assign(dst, src); (err == nil) != (i == j) {
				t.Errorf("%s from %s: error is %v", dst.Kind(), src.Kind(), err)
			}
		}
	}
	small := NewLoRA(3, 5, 1, 4, 1)
	before := slices.Clone(small.A)
	if err := Assign(small, heads[0]); err == nil || !strings.Contains(err.Error(), "[2 3]") || !slices.Equal(small.A, before) {
		t.Errorf("rank 1 from rank 2: error is %v, want one with both shapes and nothing copied", err)
	}
}

// FuzzAdapterWeights: any weights file is refused with a typed error, or read and written back as the
// same values.
func FuzzAdapterWeights(f *testing.F) {
	for i, h := range kindSamples() {
		var good bytes.Buffer
		if err := encodeTensors(&good, tensorsOf(h)); err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), good.Bytes())
		f.Add(uint8(i), good.Bytes()[:40])
	}
	read := func(kind uint8, data []byte) (Head, error) {
		file, err := parseTensors("fuzz", data)
		if err != nil {
			return nil, err
		}
		return file.head(AdapterConfig{PeftType: Kinds[int(kind)%len(Kinds)].peft, R: 2, Alpha: 4})
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		h, err := read(kind, data)
		if err != nil {
			var c *CheckpointError
			if !errors.As(err, &c) || h != nil {
				t.Fatalf("error is %v, head %v", err, h)
			}
			return
		}
		var out bytes.Buffer
		if err := encodeTensors(&out, tensorsOf(h)); err != nil {
			t.Fatal(err)
		}
		again, err := read(kind, out.Bytes())
		if err != nil || !equalHeads(again, h) {
			t.Fatalf("written back it differs: %v", err)
		}
	})
}
