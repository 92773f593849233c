package encode

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// goldenTemplates is a file of testdata/golden.py: what Jinja2 makes of templates.
type goldenTemplates struct {
	Jinja2 string
	Tokens map[string]string
	Cases  []struct {
		Template, Conversation string
		Messages               []datasets.Message
		Generate               bool
		Text                   *string
		Error                  string
	}
}

func readTemplate(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Ext(path) != ".json" {
		return string(data)
	}
	var conf struct {
		ChatTemplate string `json:"chat_template"`
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		t.Fatal(err)
	}
	return conf.ChatTemplate
}

func checkGolden(t *testing.T, file, dir string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var golden goldenTemplates
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	templates := map[string]*chatTemplate{}
	for _, c := range golden.Cases {
		tmpl := templates[c.Template]
		if tmpl == nil {
			path := c.Template
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			if tmpl, err = newTemplate(readTemplate(t, path), golden.Tokens, DefaultDate); err != nil {
				t.Fatalf("%s: %v", c.Template, err)
			}
			templates[c.Template] = tmpl
		}
		got, err := tmpl.render(c.Messages, c.Generate)
		switch {
		case c.Text == nil && err == nil:
			t.Errorf("%s, %s, generate=%t: got %q, want an error: %s", c.Template, c.Conversation, c.Generate, got, c.Error)
		case c.Text != nil && err != nil:
			t.Errorf("%s, %s, generate=%t: %v", c.Template, c.Conversation, c.Generate, err)
		case c.Text != nil && got != *c.Text:
			t.Errorf("%s, %s, generate=%t:\n got %q\nwant %q", c.Template, c.Conversation, c.Generate, got, *c.Text)
		}
	}
	t.Logf("%d renderings of %d templates agree with Jinja2 %s", len(golden.Cases), len(templates), golden.Jinja2)
}

func TestGoldenTemplates(t *testing.T) {
	checkGolden(t, filepath.Join("testdata", "templates.json"), "testdata")
}

// The published templates can't be copied here: Jinja2 itself is asked, where it is installed.
func TestPublishedTemplates(t *testing.T) {
	var paths []string
	for _, name := range []string{
		"smollm2-instruct/tokenizer_config.json", "qwen2.5-instruct/tokenizer_config.json",
		"qwen2.5-instruct/chat_template.jinja", "mistral-7b-instruct-v0.3/tokenizer_config.json",
	} {
		path, err := filepath.Abs(filepath.Join("..", "..", "..", "shared", "tokenizers", name))
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			t.Skipf("shared tokenizers are not here: %v", err)
		}
		paths = append(paths, path)
	}
	if err := exec.Command("python3", "-c", "import jinja2").Run(); err != nil {
		t.Skip("python3 with jinja2 is not here")
	}
	out := filepath.Join(t.TempDir(), "golden.json")
	cmd := exec.Command("python3", append([]string{filepath.Join("testdata", "golden.py"), out}, paths...)...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, msg)
	}
	checkGolden(t, out, "")
}
