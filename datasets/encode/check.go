package encode

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dpo-pipe/dpo-pipe/datasets"
)

// check tries the template on small conversations: every content must be in the text, once the earlier before the
// later, and the end of the prompt must be found. dated says that the text depends on the date.
func (t *chatTemplate) check() (dated bool, err error) {
	turns := []datasets.Message{
		{Role: "user", Content: "first canary question"},
		{Role: "assistant", Content: "first canary answer"},
		{Role: "user", Content: "second canary question"},
		{Role: "assistant", Content: "second canary answer"},
	}
	for n := 2; n <= len(turns); n += 2 {
		_, spent, err := t.renderSpent(turns[:n], false)
		if err != nil {
			if n > 2 { // a template may take one turn only: that is the row's error
				break
			}
			return false, err
		}
		dated = dated || spent.usedDate
		if err := t.checkTurn(turns[:n]); err != nil {
			return false, err
		}
	}
	return dated, nil
}

// checkTurn splits the last answer off as an encoder would.
func (t *chatTemplate) checkTurn(turns []datasets.Message) error {
	last := len(turns) - 1
	text, err := t.render(turns, false)
	if err != nil {
		return err
	}
	rest := text
	for _, m := range turns {
		_, after, ok := strings.Cut(rest, m.Content)
		if !ok {
			return fmt.Errorf("encode: chat template drops or reorders messages: %q is missing in %q", m.Content, text)
		}
		rest = after
	}
	e := &Encoder{template: t}
	answer := datasets.Text{Messages: turns[last:]}
	texts, err := e.texts(datasets.Pair{Prompt: datasets.Text{Messages: turns[:last]}, Chosen: answer, Rejected: answer})
	if row, ok := errors.AsType[*datasets.RowError](err); ok {
		return fmt.Errorf("encode: chat template: %s", row.Detail)
	}
	if err != nil {
		return err
	}
	if !strings.Contains(texts.prompt, turns[last-1].Content) || !strings.Contains(texts.chosen, turns[last].Content) {
		return fmt.Errorf("encode: chat template: the end of the prompt can't be told in %q", text)
	}
	return nil
}
