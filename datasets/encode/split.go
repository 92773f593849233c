package encode

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/datasets"
	"github.com/dpo-pipe/dpo-pipe/datasets/tokenizer"
)

// pairTexts are the texts of a pair: prompt+chosen and prompt+rejected are what the model reads.
type pairTexts struct {
	prompt, chosen, rejected string
	opening                  string // the end of the rendered prompt, where answers lack it
	closed                   bool   // the template writes its own end of turn: no EOS is added
	movable                  bool   // the boundary is our own: it may move to a token's
}

// texts renders a pair.
func (e *Encoder) texts(p datasets.Pair) (pairTexts, error) {
	if !p.Prompt.IsChat() && !p.Chosen.IsChat() && !p.Rejected.IsChat() {
		return pairTexts{prompt: p.Prompt.Plain, chosen: p.Chosen.Plain, rejected: p.Rejected.Plain, movable: p.PromptImplicit}, nil
	}
	if len(p.Prompt.Messages) == 0 || len(p.Chosen.Messages) == 0 || len(p.Rejected.Messages) == 0 {
		return pairTexts{}, p.RowError("", datasets.WrongType, "some of prompt, chosen and rejected are messages, some are not")
	}
	prompt, err := e.render(p.Prompt.Messages, true)
	if err != nil {
		return pairTexts{}, rowError(&p, "prompt", err)
	}
	chosen, err := e.render(slices.Concat(p.Prompt.Messages, p.Chosen.Messages), false)
	if err != nil {
		return pairTexts{}, rowError(&p, "chosen", err)
	}
	rejected, err := e.render(slices.Concat(p.Prompt.Messages, p.Rejected.Messages), false)
	if err != nil {
		return pairTexts{}, rowError(&p, "rejected", err)
	}
	n := len(prompt)
	if !strings.HasPrefix(chosen, prompt) || !strings.HasPrefix(rejected, prompt) {
		if n, err = e.turnBoundary(p, prompt, chosen, rejected); err != nil {
			return pairTexts{}, rowError(&p, "prompt", err)
		}
	}
	return pairTexts{
		prompt: prompt[:n], chosen: chosen[n:], rejected: rejected[n:], opening: prompt[n:], closed: e.template != nil,
	}, nil
}

var errNoBoundary = errors.New("the chat template renders the prompt differently once an answer follows, so its end can't be told")

// turnBoundary finds the end of the prompt where the opening of the assistant's turn is not how answers begin, as with
// templates that open a turn with <think>: what all three texts share, if that is the whole conversation before it.
// A completion by another role begins behind that conversation.
func (e *Encoder) turnBoundary(p datasets.Pair, prompt, chosen, rejected string) (int, error) {
	closed, err := e.render(p.Prompt.Messages, false)
	if err != nil {
		return 0, err
	}
	n := min(shared(prompt, chosen), shared(prompt, rejected))
	if !strings.HasPrefix(prompt, closed) || n < len(closed) || n == 0 {
		return 0, errNoBoundary
	}
	if p.Chosen.Messages[0].Role != "assistant" || p.Rejected.Messages[0].Role != "assistant" {
		return len(closed), nil
	}
	return n, nil
}

// shared is the length of the longest beginning that s and t share, in whole characters.
func shared(s, t string) int {
	for i, r := range s {
		if !strings.HasPrefix(t[min(i, len(t)):], string(r)) {
			return i
		}
	}
	return len(s)
}

// rowError makes an error of rendering one of the row, except where it is the run's.
func rowError(p *datasets.Pair, column string, err error) error {
	if _, ok := errors.AsType[*NoTemplateError](err); ok {
		return err
	}
	return p.RowError(column, datasets.BadTemplate, strings.TrimPrefix(err.Error(), "encode: "))
}

// render renders messages with the template, or as "role: content" lines where none is asked for.
func (e *Encoder) render(messages []datasets.Message, generate bool) (string, error) {
	if e.template != nil {
		return e.template.render(messages, generate)
	}
	if e.opt.ChatTemplate != "none" {
		return "", &NoTemplateError{Looked: e.config.Looked}
	}
	lines := make([]string, 0, len(messages)+1)
	for _, m := range messages {
		lines = append(lines, m.Role+": "+m.Content)
	}
	if generate {
		lines = append(lines, "assistant:")
	}
	return strings.Join(lines, "\n"), nil
}

// split encodes the texts of a pair and finds the boundary of prompt and completion among the ids.
func (e *Encoder) split(p *datasets.Pair, t pairTexts, out *Pair) error {
	var err error
	if out.Prompt, err = e.tok.Encode(t.prompt); err != nil {
		return invalid(p, "prompt", err)
	}
	chosen, err := e.tok.Encode(t.prompt + t.chosen)
	if err != nil {
		return invalid(p, "chosen", err)
	}
	rejected, err := e.tok.Encode(t.prompt + t.rejected)
	if err != nil {
		return invalid(p, "rejected", err)
	}
	begins := hasPrefix(chosen, out.Prompt) && hasPrefix(rejected, out.Prompt)
	if !begins && t.movable {
		n, err := e.tokenBoundary(t, chosen, rejected)
		if err != nil {
			return err
		}
		if n > 0 {
			out.Prompt, begins = chosen[:n:n], true
		}
	}
	if out.Chosen, err = e.completion(out, chosen, t.chosen); err != nil {
		return invalid(p, "chosen", err)
	}
	if out.Rejected, err = e.completion(out, rejected, t.rejected); err != nil {
		return invalid(p, "rejected", err)
	}
	if len(out.Chosen) == 0 {
		return p.RowError("chosen", datasets.EmptyCompletion, "completion has no tokens")
	}
	if len(out.Rejected) == 0 {
		return p.RowError("rejected", datasets.EmptyCompletion, "completion has no tokens")
	}
	if !t.closed {
		out.Chosen, out.Rejected = e.close(out.Chosen), e.close(out.Rejected)
	}
	return nil
}

// invalid makes an error of the tokenizer one of the row, except where another run might read the row.
func invalid(p *datasets.Pair, column string, err error) error {
	if _, ok := errors.AsType[*tokenizer.TimeoutError](err); ok {
		return fmt.Errorf("encode: %s row %d: column %q: %w", p.File, p.FileRow, column, err)
	}
	return p.RowError(column, datasets.InvalidText, err.Error())
}

// completion is what of full stands behind the prompt's ids, or the text encoded apart where the prompt's ids are not
// how full begins.
func (e *Encoder) completion(out *Pair, full []int32, text string) ([]int32, error) {
	if hasPrefix(full, out.Prompt) {
		return full[len(out.Prompt):len(full):len(full)], nil
	}
	out.Apart = true
	if e.dummy {
		for _, anchor := range []string{"\n", "a", "."} {
			if ids, ok, err := e.behind(anchor, text); ok || err != nil {
				return ids, err
			}
		}
	}
	return e.tok.Encode(text)
}

// behind encodes text as it is encoded behind anchor: tokenizers of the SentencePiece kind put a space in front of
// every text they are given, which must not appear between a prompt and its completion.
func (e *Encoder) behind(anchor, text string) (ids []int32, ok bool, err error) {
	before, err := e.tok.Encode(anchor)
	if err != nil {
		return nil, false, err
	}
	all, err := e.tok.Encode(anchor + text)
	if err != nil || !hasPrefix(all, before) {
		return nil, false, err
	}
	return all[len(before):], true, nil
}

// tokenBoundary counts the ids that prompt+chosen and prompt+rejected share and that end inside the prompt: where a
// prompt was split off by us, the boundary moves back to the last place that is a token's in both.
func (e *Encoder) tokenBoundary(t pairTexts, chosen, rejected []int32) (int, error) {
	_, offsets, err := e.tok.EncodeOffsets(t.prompt + t.chosen)
	if err != nil {
		return 0, fmt.Errorf("encode: %w", err)
	}
	n := 0
	for n < len(chosen) && n < len(rejected) && chosen[n] == rejected[n] && offsets[n][1] <= len(t.prompt) {
		n++
	}
	return min(n, len(chosen)-1, len(rejected)-1), nil
}

// close appends EOS unless the completion ends with it.
func (e *Encoder) close(ids []int32) []int32 {
	if ids[len(ids)-1] == e.eos[0] {
		return ids
	}
	return append(ids, e.eos[0])
}

func hasPrefix(ids, prefix []int32) bool {
	return len(ids) >= len(prefix) && slices.Equal(ids[:len(prefix)], prefix)
}
