package encode

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Config is what a model directory says about text, beside tokenizer.json.
type Config struct {
	// Special are the special tokens by the name a chat template knows them by: bos_token, eos_token, pad_token, …
	Special map[string]string

	// EOSIDs are the end tokens of generation_config.json, config.json and genai_config.json, in that order.
	EOSIDs []int32

	// AddBOS is add_bos_token of tokenizer_config.json; nil where it is not there. It counts only where
	// tokenizer.json's post-processor adds nothing in front.
	AddBOS *bool

	// ChatTemplate is the default chat template, "" where there is none. TemplateFile is where it was found.
	ChatTemplate, TemplateFile string

	// Looked lists the folders files were looked for in.
	Looked []string
}

// modelDir looks for the files of a model in a folder and then in the one above it: hubs keep onnx/model.onnx below
// the tokenizer.
type modelDir struct{ folders []string }

func openModelDir(dir string) (modelDir, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return modelDir{}, err
	}
	if info, err := os.Stat(abs); err != nil {
		return modelDir{}, err
	} else if !info.IsDir() {
		abs = filepath.Dir(abs) // a model file: its folder
	}
	return modelDir{[]string{abs, filepath.Dir(abs)}}, nil
}

// read returns the first file of that name and its path, or no path where there is none.
func (d modelDir) read(name string) (data []byte, path string, err error) {
	for _, folder := range d.folders {
		path := filepath.Join(folder, name)
		data, err := os.ReadFile(path)
		if err == nil {
			return data, path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
	}
	return nil, "", nil
}

// readJSON decodes a file into v; a file that is not there leaves v as it is.
func (d modelDir) readJSON(name string, v any) (path string, err error) {
	data, path, err := d.read(name)
	if err != nil || path == "" {
		return "", err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return "", fmt.Errorf("encode: %s: %w", path, err)
	}
	return path, nil
}

// config reads tokenizer_config.json, special_tokens_map.json, chat_template.jinja, generation_config.json, config.json
// and genai_config.json. Files may be missing.
func (d modelDir) config() (Config, error) {
	c := Config{Special: map[string]string{}, Looked: d.folders}
	var tokens map[string]json.RawMessage
	path, err := d.readJSON("tokenizer_config.json", &tokens)
	if err != nil {
		return c, err
	}
	c.specialTokens(tokens)
	if err := c.tokenizerConfig(tokens, path); err != nil {
		return c, err
	}
	var special map[string]json.RawMessage
	if _, err := d.readJSON("special_tokens_map.json", &special); err != nil {
		return c, err
	}
	c.specialTokens(special)
	template, path, err := d.read("chat_template.jinja")
	if err != nil {
		return c, err
	}
	if path != "" {
		c.ChatTemplate, c.TemplateFile = string(template), path
	}
	return c, d.endTokens(&c)
}

// specialTokens collects the "…_token" entries not known yet: a string, or an object with its content.
func (c *Config) specialTokens(tokens map[string]json.RawMessage) {
	for name, raw := range tokens {
		if !strings.HasSuffix(name, "_token") || c.Special[name] != "" {
			continue
		}
		var object struct{ Content string }
		if json.Unmarshal(raw, &object.Content) == nil || json.Unmarshal(raw, &object) == nil {
			if object.Content != "" {
				c.Special[name] = object.Content
			}
		}
	}
}

func (c *Config) tokenizerConfig(conf map[string]json.RawMessage, path string) error {
	if raw := conf["add_bos_token"]; raw != nil {
		if err := json.Unmarshal(raw, &c.AddBOS); err != nil {
			return fmt.Errorf("encode: %s: add_bos_token: %w", path, err)
		}
	}
	raw := conf["chat_template"]
	if raw == nil || json.Unmarshal(raw, &c.ChatTemplate) == nil {
		if c.ChatTemplate != "" {
			c.TemplateFile = path
		}
		return nil
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &named); err != nil {
		return fmt.Errorf("encode: %s: chat_template is neither a string nor a list of named templates", path)
	}
	var names []string
	for _, t := range named {
		if t.Name == "default" {
			c.ChatTemplate, c.TemplateFile = t.Template, path
			return nil
		}
		names = append(names, t.Name)
	}
	return fmt.Errorf("encode: %s: chat_template has the names %q, want \"default\" among them", path, names)
}

// endTokens reads eos_token_id, an integer or a list, of every file that may have one.
func (d modelDir) endTokens(c *Config) error {
	type eos struct {
		ID json.RawMessage `json:"eos_token_id"`
	}
	for _, name := range []string{"generation_config.json", "config.json", "genai_config.json"} {
		var conf struct {
			eos
			Model eos
		}
		path, err := d.readJSON(name, &conf)
		if err != nil {
			return err
		}
		raw := conf.ID
		if name == "genai_config.json" {
			raw = conf.Model.ID
		}
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		var ids []int32
		if raw[0] != '[' {
			raw = append(append([]byte{'['}, raw...), ']')
		}
		if err := json.Unmarshal(raw, &ids); err != nil {
			return fmt.Errorf("encode: %s: eos_token_id is neither an integer nor a list of integers", path)
		}
		for _, id := range ids {
			if !slices.Contains(c.EOSIDs, id) {
				c.EOSIDs = append(c.EOSIDs, id)
			}
		}
	}
	return nil
}
