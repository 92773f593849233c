package encode

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadConfig(t *testing.T) {
	yes := true
	for _, c := range []struct {
		name, sub string
		files     map[string]string
		want      Config
	}{
		{"strings", "", map[string]string{
			"tokenizer_config.json": `{"bos_token": "<s>", "eos_token": "</s>", "pad_token": null, "add_bos_token": true, "chat_template": "T"}`,
		}, Config{Special: map[string]string{"bos_token": "<s>", "eos_token": "</s>"}, AddBOS: &yes, ChatTemplate: "T", TemplateFile: "tokenizer_config.json"}},
		{"objects, and the map fills what is missing", "", map[string]string{
			"tokenizer_config.json":   `{"eos_token": {"content": "</s>", "lstrip": false}}`,
			"special_tokens_map.json": `{"eos_token": "other", "bos_token": {"content": "<s>"}, "additional_special_tokens": ["<x>"]}`,
		}, Config{Special: map[string]string{"bos_token": "<s>", "eos_token": "</s>"}}},
		{"named templates", "", map[string]string{
			"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}`,
		}, Config{ChatTemplate: "D", TemplateFile: "tokenizer_config.json"}},
		{"the template file wins", "", map[string]string{
			"tokenizer_config.json": `{"chat_template": "T"}`, "chat_template.jinja": "J",
		}, Config{ChatTemplate: "J", TemplateFile: "chat_template.jinja"}},
		{"end tokens in order, once", "", map[string]string{
			"generation_config.json": `{"eos_token_id": [5, 3]}`, "config.json": `{"eos_token_id": 3}`, "genai_config.json": `{"model": {"eos_token_id": [9]}}`,
		}, Config{EOSIDs: []int32{5, 3, 9}}},
		{"the folder above", "onnx", map[string]string{
			"onnx/model.onnx": "", "onnx/config.json": `{"eos_token_id": 1}`, "config.json": `{"eos_token_id": 2}`, "tokenizer_config.json": `{"eos_token": "e"}`,
		}, Config{Special: map[string]string{"eos_token": "e"}, EOSIDs: []int32{1}}},
		{"a model file stands for its folder", "onnx/model.onnx", map[string]string{
			"onnx/model.onnx": "", "config.json": `{"eos_token_id": null}`, "generation_config.json": `{"eos_token_id": 2}`,
		}, Config{EOSIDs: []int32{2}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := writeFiles(t, c.files)
			got, err := readConfig(t, filepath.Join(dir, c.sub))
			if err != nil {
				t.Fatal(err)
			}
			if got.TemplateFile != "" {
				got.TemplateFile = filepath.Base(got.TemplateFile)
			}
			if c.want.Special == nil {
				c.want.Special = map[string]string{}
			}
			if !slices.Contains(got.Looked, dir) {
				t.Errorf("looked in %q, want %q among them", got.Looked, dir)
			}
			got.Looked = nil
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
		})
	}
}

// readConfig reads the configuration of a model directory.
func readConfig(t *testing.T, dir string) (Config, error) {
	t.Helper()
	d, err := openModelDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d.config()
}

func TestReadConfigRefuses(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"want \"default\" among them":   {"tokenizer_config.json": `{"chat_template": [{"name": "rag", "template": "R"}]}`},
		"neither a string nor a list":   {"tokenizer_config.json": `{"chat_template": 3}`},
		"neither an integer nor a list": {"config.json": `{"eos_token_id": "x"}`},
		"tokenizer_config.json":         {"tokenizer_config.json": `{`},
		"add_bos_token":                 {"tokenizer_config.json": `{"add_bos_token": 3}`},
	} {
		_, err := readConfig(t, writeFiles(t, files))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func TestEndTokens(t *testing.T) {
	tok := testTokenizer(t, "", "")
	no := Config{Looked: []string{"/some/model"}}
	if _, err := New(tok, no, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "/some/model") || !strings.Contains(err.Error(), "generation_config.json") {
		t.Errorf("no EOS: got %v", err)
	}
	if _, err := New(tok, Config{Special: map[string]string{"eos_token": "<nope>"}}, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "<nope>") {
		t.Errorf("unknown EOS: got %v", err)
	}
	e, err := New(tok, Config{Special: map[string]string{"eos_token": "</s>"}, EOSIDs: []int32{idEnd, idEOS, 9999}}, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int32{idEOS, idEnd}, e.EOS()); diff != "" {
		t.Error(diff)
	}
}

func TestOpenTemplateFile(t *testing.T) {
	dir := writeFiles(t, map[string]string{"mine.jinja": chatML, "conf.json": `{"chat_template": "X` + strings.ReplaceAll(chatML, "\n", `\n`) + `"}`, "empty": " \n"})
	for name, want := range map[string]string{"mine.jinja": "<|im_start|>", "conf.json": "X<|im_start|>", "empty": "", "missing": ""} {
		opt := DefaultOptions()
		opt.ChatTemplate = filepath.Join(dir, name)
		e, err := New(testTokenizer(t, "", ""), Config{Special: testSpecial}, opt)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: got %v, want an error that names it", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if text, _ := e.template.render(nil, false); text != "" && !strings.HasPrefix(want, text) {
			t.Errorf("%s: rendered %q", name, text)
		}
		if e.template == nil {
			t.Errorf("%s: no template", name)
		}
	}
}
