package pipeline

import (
	"context"
	"io"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/internal/atomicfile"
)

// completionsName is the file in a run folder that holds the completions its report
// shows. It is on disk and doesn't change.
const completionsName = "completions.json"

// completions are prompts that reference and policy completed, and how.
type completions struct {
	Model        string       `json:"model"`
	Policy       string       `json:"policy"`
	ChatTemplate string       `json:"chat_template"`
	MaxTokens    int          `json:"max_tokens"`
	Sampling     Sampling     `json:"sampling"`
	Comparisons  []Comparison `json:"comparisons"`
}

// writeCompletions puts comparisons into the run folder cfg.Report in place of those before,
// and writes its report again.
func writeCompletions(ctx context.Context, cfg CompareConfig, all []Comparison) error {
	c := completions{cfg.Model, cfg.Policy, cfg.ChatTemplate, cfg.MaxTokens, cfg.Sampling, all}
	err := atomicfile.WriteFile(filepath.Join(cfg.Report, completionsName), func(w io.Writer) error { return writeJSON(w, c) })
	if err != nil {
		return err
	}
	return WriteReport(ctx, cfg.Report)
}

// shownCompletions is how many completions of a run its report shows.
const shownCompletions = 20

// readCompletions reads those that the report of a run shows; nil where there are none.
func readCompletions(run string) (*completions, error) {
	c, err := readJSON[completions](filepath.Join(run, completionsName))
	if err != nil || c == nil || len(c.Comparisons) == 0 {
		return nil, err
	}
	return c, nil
}

// Shown are the first comparisons, each character of which can be seen.
func (c *completions) Shown() (shown []Comparison) {
	said := func(text string) string { return strings.TrimLeft(Visible(text), " \n") }
	for _, one := range c.Comparisons[:min(len(c.Comparisons), shownCompletions)] {
		shown = append(shown, Comparison{Prompt: Visible(one.Prompt), Reference: said(one.Reference), Policy: said(one.Policy)})
	}
	return shown
}

// More is how many comparisons Shown leaves out.
func (c *completions) More() int { return max(0, len(c.Comparisons)-shownCompletions) }

// Visible puts Unicode's pictures of control characters in their place, which a model
// can write and neither a page nor a terminal should take from it.
func Visible(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r < ' ':
			return '␀' + r
		case r == 0x7f:
			return '␡'
		case 0x80 <= r && r < 0xa0, r == 0xfffe, r == 0xffff:
			return 0xfffd
		}
		return r
	}, text)
}
