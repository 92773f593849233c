package pipeline

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// describe lists the settings, and the command that gives them again.
func (p *reportPage) describe(cfg TrainConfig) error {
	var have, defaults yaml.Node
	if err := errors.Join(have.Encode(cfg), defaults.Encode(DefaultTrainConfig())); err != nil {
		return fmt.Errorf("pipeline: report settings: %w", err)
	}
	usual := map[string]string{}
	for i := 0; i+1 < len(defaults.Content); i += 2 {
		usual[defaults.Content[i].Value] = defaults.Content[i+1].Value
	}
	command := []string{"dpo-pipe train"}
	for i := 0; i+1 < len(have.Content); i += 2 {
		key, value := have.Content[i].Value, have.Content[i+1]
		flag := "--" + strings.ReplaceAll(key, "_", "-")
		if value.Kind == yaml.SequenceNode {
			for _, item := range value.Content {
				p.Settings = append(p.Settings, [2]string{key, item.Value})
				command = append(command, flag+" "+shellQuote(item.Value))
			}
			continue
		}
		p.Settings = append(p.Settings, [2]string{key, value.Value})
		switch {
		case value.Value == usual[key]:
		case value.Tag == "!!bool":
			command = append(command, flag+"="+value.Value)
		default:
			command = append(command, flag+" "+shellQuote(value.Value))
		}
	}
	p.Command = strings.Join(command, " ")
	return nil
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-:=,+", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
