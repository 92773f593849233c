package pipeline

import (
	"strings"
	"testing"
)

func TestDecodeYAMLRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"unknown key":  {"beta: 1\nbeat: 2\n", "line 2"},
		"key twice":    {"beta: 1\nrank: 2\nbeta: 2\n", `line 3 column 1: key "beta" is there twice`},
		"many twice":   {strings.Repeat("beta: 1\n", 900), "twice"},
		"many keys":    {strings.Repeat("beta: 1\n", 100_000), "more than 1000 keys"},
		"deep":         {strings.Repeat("[", 200) + strings.Repeat("]", 200), "nested more than 32 deep"},
		"alias":        {"data: &a [x]\nhead: *a\n", "line 2 column 7: an alias"},
		"two":          {"beta: 1\n---\nbeta: 2\n", "one YAML document"},
		"large":        {"# " + strings.Repeat("x", maxYAMLBytes), "want at most 1048576"},
		"another type": {"beta: [1]\n", "line 1"},
	} {
		cfg := DefaultTrainConfig()
		if err := decodeYAML([]byte(c.text), &cfg); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error is %.200v, want %q", name, err, c.says)
		}
	}
	cfg := DefaultTrainConfig()
	if err := decodeYAML([]byte("beta: 0.5\n"), &cfg); err != nil || cfg.Beta != 0.5 || cfg.Rank != DefaultTrainConfig().Rank {
		t.Errorf("got beta %v, rank %d, %v", cfg.Beta, cfg.Rank, err)
	}
}
