package pipeline

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/encode"
	"github.com/dpo-pipe/dpo-pipe/datasets/refcache"
)

// promptIDs is a prompt to be completed, as text and as the model reads it.
type promptIDs struct {
	text string
	ids  []int32
}

// prompts gathers those of the command line, of a file and of a run, in this order.
func (c CompareConfig) prompts(ctx context.Context, enc *encode.Encoder) ([]promptIDs, error) {
	var all []promptIDs
	for _, text := range c.Prompts {
		ids, err := enc.Prompt(asked(text, enc))
		if err != nil {
			return nil, err
		}
		all = append(all, promptIDs{text, ids})
	}
	if c.File != "" {
		read := c.dataPrompts
		if filepath.Ext(c.File) == ".txt" {
			read = c.linePrompts
		}
		more, err := read(ctx, enc)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	if c.Run != "" {
		more, err := c.heldOutPrompts(enc)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

// asked is a prompt of text: a user's message to a model that has a chat template.
func asked(text string, enc *encode.Encoder) datasets.Text {
	if !enc.HasChatTemplate() {
		return datasets.Text{Plain: text}
	}
	return datasets.Text{Messages: []datasets.Message{{Role: "user", Content: text}}}
}

// maxPromptLine is the longest line of a prompt file, in bytes.
const maxPromptLine = 1 << 20

// linePrompts reads one prompt a line.
func (c CompareConfig) linePrompts(_ context.Context, enc *encode.Encoder) ([]promptIDs, error) {
	f, err := os.Open(c.File)
	if err != nil {
		return nil, fmt.Errorf("pipeline: prompts: %w", err)
	}
	defer f.Close()
	var all []promptIDs
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxPromptLine)
	for len(all) < c.Limit && lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		ids, err := enc.Prompt(asked(lines.Text(), enc))
		if err != nil {
			return nil, fmt.Errorf("pipeline: prompt %q of %s: %w", lines.Text(), c.File, err)
		}
		all = append(all, promptIDs{lines.Text(), ids})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("pipeline: prompts of %s: %w", c.File, err)
	}
	return all, c.some(all, nil)
}

// some refuses a file without prompts; bad is its first row that can't be used, if any.
func (c CompareConfig) some(all []promptIDs, bad *datasets.RowError) error {
	switch {
	case len(all) > 0:
		return nil
	case bad != nil:
		return bad
	}
	return &FieldError{"--prompts", c.File, "a file that holds prompts"}
}

// dataPrompts takes the prompts of a data file, each once: of preference pairs, as
// precompute-ref reads them, or alone.
func (c CompareConfig) dataPrompts(ctx context.Context, enc *encode.Encoder) ([]promptIDs, error) {
	c.Reading.PromptsAlone = true
	r, err := datasets.Open([]string{c.File}, c.Reading)
	if err != nil {
		return nil, &DataError{err}
	}
	defer r.Close()
	var all []promptIDs
	var first *datasets.RowError
	seen := map[string]bool{}
	for len(all) < c.Limit {
		pair, err := r.Next(ctx)
		var bad *datasets.RowError
		switch {
		case errors.Is(err, io.EOF):
			return all, c.some(all, first)
		case errors.As(err, &bad):
			first = cmp.Or(first, bad)
			continue
		case err != nil:
			return nil, &DataError{err}
		}
		prompt := pair.Prompt
		if pair.Chosen.Empty() && !prompt.IsChat() {
			prompt = asked(prompt.Plain, enc)
		}
		ids, err := enc.Prompt(prompt)
		if err != nil {
			return nil, fmt.Errorf("pipeline: prompt of %s row %d: %w", pair.File, pair.FileRow, err)
		}
		if text := enc.Decode(ids); !seen[text] {
			seen[text] = true
			all = append(all, promptIDs{text, ids})
		}
	}
	return all, nil
}

// heldOutPrompts takes prompts that a run held out from its cache, each once.
func (c CompareConfig) heldOutPrompts(enc *encode.Encoder) ([]promptIDs, error) {
	run, err := LoadRunConfig(c.Run)
	if err != nil {
		return nil, err
	}
	if c.Cache != "" {
		run.Cache = c.Cache
	}
	cache, err := refcache.Open(run.Cache)
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	var all []promptIDs
	seen := map[[16]byte]bool{}
	var row refcache.Row
	for i := int64(0); i < cache.Len() && len(all) < c.Limit; i++ {
		key, err := cache.Key(i)
		if err != nil {
			return nil, err
		}
		if seen[key] || !newSplit(run.EvalFrac).heldOut(key) {
			continue
		}
		seen[key] = true
		if err := cache.Ids(i, &row); err != nil {
			return nil, err
		}
		all = append(all, promptIDs{enc.Decode(row.Prompt), append([]int32(nil), row.Prompt...)})
	}
	if len(all) == 0 {
		return nil, &FieldError{"--held-out", c.Run, fmt.Sprintf("a run that holds prompts out (its --eval-frac is %g)", run.EvalFrac)}
	}
	return all, nil
}
