package datasets

import (
	"fmt"
	"slices"
	"strings"
)

// pairOf turns one row into p, whose position is set. It looks at nothing but
// the row.
func pairOf(r *row, names [numColumns]string, p *Pair) *RowError {
	var re *RowError
	if p.Chosen, re = completionOf(r, colChosen, names); re != nil {
		return re
	}
	if p.Rejected, re = completionOf(r, colRejected, names); re != nil {
		return re
	}
	if p.Chosen.IsChat() != p.Rejected.IsChat() {
		return refuse(names[colRejected], WrongType, "is %s but column %q is %s, want one form",
			form(p.Rejected), names[colChosen], form(p.Chosen))
	}
	if re = checkCompletions(p, names); re != nil {
		return re
	}
	if re = setPrompt(r, names, p); re != nil {
		return re
	}
	if p.Prompt.blank() {
		return refuse(names[colPrompt], NoPrompt, "is empty")
	}
	if re = checkCompletions(p, names); re != nil {
		return re
	}
	return setExtras(r, names, p)
}

// promptOf turns a row without completions into p, which then has a prompt only.
func promptOf(r *row, names [numColumns]string, p *Pair) (re *RowError) {
	switch cell := r.cells[colPrompt]; {
	case cell.kind == absent && r.foreign != 0:
		return foreignError(r)
	case cell.kind == absent:
		return refuse(names[colPrompt], MissingColumn, "is missing")
	case cell.kind == null:
		return refuse(names[colPrompt], NullValue, "is null, want text or a list of messages")
	}
	if p.Prompt, re = textOf(r.cells[colPrompt], names[colPrompt]); re != nil {
		return re
	}
	if p.Prompt.blank() {
		return refuse(names[colPrompt], NoPrompt, "is empty")
	}
	return setExtras(r, names, p)
}

// completionOf reads the chosen or rejected cell as it stands.
func completionOf(r *row, role column, names [numColumns]string) (Text, *RowError) {
	switch cell := r.cells[role]; cell.kind {
	case absent:
		if r.foreign != 0 {
			return Text{}, foreignError(r)
		}
		return Text{}, refuse(names[role], MissingColumn, "is missing")
	case null:
		return Text{}, refuse(names[role], NullValue, "is null, want text or a list of messages")
	case object:
		if r.foreign != 0 {
			return Text{}, foreignError(r)
		}
		fallthrough
	default:
		return textOf(cell, names[role])
	}
}

// foreignError refuses a row of a layout that is not read.
func foreignError(r *row) *RowError {
	f := foreignColumns[r.foreign-1]
	return refuse(f.name, UnknownLayout, "belongs to the %s layout, want prompt, chosen and rejected (or their names)", f.layout)
}

func form(t Text) string {
	if t.IsChat() {
		return "a list of messages"
	}
	return "text"
}

// checkCompletions refuses completions that say nothing or the same.
func checkCompletions(p *Pair, names [numColumns]string) *RowError {
	switch {
	case p.Chosen.blank():
		return refuse(names[colChosen], EmptyCompletion, "is empty")
	case p.Rejected.blank():
		return refuse(names[colRejected], EmptyCompletion, "is empty")
	case p.Chosen.Equal(p.Rejected):
		return refuse(names[colRejected], IdenticalCompletions, "equals column %q", names[colChosen])
	}
	return nil
}

// setPrompt finds the prompt and takes off the completions what repeats it.
//
// A null prompt of text is a fault, where an absent one is a layout: cutting at
// the shared words would make something up. Shared turns of a chat are beyond
// doubt, so there a null is as good as an absent prompt, which Parquet and Arrow
// can't tell apart.
func setPrompt(r *row, names [numColumns]string, p *Pair) *RowError {
	cell := r.cells[colPrompt]
	missing := cell.kind == absent || cell.kind == null
	switch {
	case missing && p.Chosen.IsChat():
		return splitShared(p, names)
	case cell.kind == null:
		return refuse(names[colPrompt], NullValue, "is null, want text or a list of messages")
	case cell.kind == absent && r.foreign != 0:
		return foreignError(r)
	case missing:
		return splitWords(p, names)
	}
	var re *RowError
	if p.Prompt, re = textOf(cell, names[colPrompt]); re != nil || p.Prompt.blank() {
		return re
	}
	switch {
	case p.Chosen.IsChat():
		return stripPrompt(p, names)
	case p.Prompt.IsChat():
		p.Chosen = assistant(p.Chosen)
		p.Rejected = assistant(p.Rejected)
	}
	return nil
}

func assistant(t Text) Text {
	return Text{Messages: []Message{{Role: "assistant", Content: t.Plain}}}
}

// splitShared makes the turns that both conversations open with the prompt.
func splitShared(p *Pair, names [numColumns]string) *RowError {
	p.PromptImplicit = true
	n := sharedTurns(p.Chosen.Messages, p.Rejected.Messages)
	if n == 0 {
		return refuse(names[colChosen], NoPrompt, "shares no first turn with column %q, and there is no prompt", names[colRejected])
	}
	p.Prompt = Text{Messages: p.Chosen.Messages[:n:n]}
	p.Chosen.Messages = p.Chosen.Messages[n:]
	p.Rejected.Messages = p.Rejected.Messages[n:]
	return checkAnswers(p, names)
}

// stripPrompt makes the prompt messages and takes them off the completions that
// repeat them, with whatever further turns the two share.
func stripPrompt(p *Pair, names [numColumns]string) *RowError {
	prompt, chosen, repeatedChosen := repeated(p.Prompt, p.Chosen.Messages)
	other, rejected, repeatedRejected := repeated(p.Prompt, p.Rejected.Messages)
	if !slices.Equal(prompt, other) {
		return refuse(names[colRejected], PromptMismatch, "opens with other turns than column %q", names[colChosen])
	}
	if repeatedChosen && repeatedRejected {
		n := sharedTurns(chosen, rejected)
		prompt = append(slices.Clip(prompt), chosen[:n]...)
		chosen, rejected = chosen[n:], rejected[n:]
	}
	p.Prompt = Text{Messages: prompt}
	p.Chosen.Messages, p.Rejected.Messages = chosen, rejected
	return checkAnswers(p, names)
}

// repeated cuts turns behind the prompt, if they open with it. A prompt of text
// is a user's message, before which the turns may have a system's.
func repeated(prompt Text, turns []Message) (head, rest []Message, found bool) {
	if prompt.IsChat() {
		n := len(prompt.Messages)
		if n <= len(turns) && slices.Equal(prompt.Messages, turns[:n]) {
			return turns[:n:n], turns[n:], true
		}
		return prompt.Messages, turns, false
	}
	for i, m := range turns {
		if m.Role == "user" && strings.TrimSpace(m.Content) == strings.TrimSpace(prompt.Plain) {
			return turns[: i+1 : i+1], turns[i+1:], true
		}
		if m.Role != "system" {
			break
		}
	}
	return []Message{{Role: "user", Content: prompt.Plain}}, turns, false
}

// sharedTurns returns how many messages a and b open with in common.
func sharedTurns(a, b []Message) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// checkAnswers refuses completions that are no answer to the prompt: none, where
// one conversation ends in what both share, or a turn of the asking side, where
// the two were asked different things and can't be compared.
func checkAnswers(p *Pair, names [numColumns]string) *RowError {
	for _, c := range []struct {
		name  string
		turns []Message
	}{{names[colChosen], p.Chosen.Messages}, {names[colRejected], p.Rejected.Messages}} {
		if len(c.turns) == 0 {
			return refuse(c.name, EmptyCompletion, "has no turn behind the prompt")
		}
		if role := c.turns[0].Role; role == "user" || role == "system" {
			return refuse(c.name, PromptMismatch, "goes on behind the prompt with a turn of %q, want an answer", role)
		}
	}
	return nil
}

// layoutName describes the layout of a row that was read as p.
func layoutName(r *row, p *Pair) string {
	prompt := "no prompt (shared beginning)"
	if !p.PromptImplicit {
		prompt = map[kind]string{text: "prompt text", list: "prompt messages"}[r.cells[colPrompt].kind]
	}
	completions := "text"
	if r.cells[colChosen].kind == list {
		completions = "messages"
	}
	return fmt.Sprintf("%s, chosen and rejected %s", prompt, completions)
}
