package datasets

import (
	"encoding/hex"
	"slices"
)

// An ID names a pair: 128 bits of the SHA-256 of its id column's text, or of its
// content where there is no id. Rows of the reference cache are joined by it.
type ID [16]byte

// String returns the ID in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// A Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant", "tool", … as the data says
	Content string // parts of type text are joined without a separator
}

// A Text is a prompt or a completion in one of two forms: plain text, or
// messages. Messages is nil exactly if the text is plain.
type Text struct {
	Plain    string
	Messages []Message
}

// IsChat reports whether t is a list of messages.
func (t Text) IsChat() bool { return t.Messages != nil }

// Empty reports whether t has no character: no text, or no message with content.
func (t Text) Empty() bool {
	return t.Plain == "" && !slices.ContainsFunc(t.Messages, func(m Message) bool { return m.Content != "" })
}

// Equal reports whether t and u have the same form and content.
func (t Text) Equal(u Text) bool {
	return t.Plain == u.Plain && t.IsChat() == u.IsChat() && slices.Equal(t.Messages, u.Messages)
}

// A Pair is one preference. Prompt, Chosen and Rejected are all plain or all
// chat. The completions of a chat hold only the messages behind the prompt's.
// No field shares memory with the reader or with another pair.
type Pair struct {
	ID      ID
	Row     int64  // 0-based over all files in input order; unusable rows count
	FileRow int64  // 0-based within File
	File    string // as opened

	Prompt, Chosen, Rejected Text

	// PromptImplicit says that the row had no prompt: it was split from the
	// beginning that chosen and rejected share.
	PromptImplicit bool

	Weight                     float32  // finite, ≥ 0; 1 unless the data gives one
	ScoreChosen, ScoreRejected *float64 // finite; nil where the data gives none
	Source                     string   // where the pair came from, "" where the data doesn't say
}

// RowError returns an error that refuses p: callers behind the reader (encoding,
// scoring) count rows they can't use in the same way.
func (p *Pair) RowError(column string, reason Reason, detail string) *RowError {
	return &RowError{File: p.File, Row: p.FileRow, Column: column, Reason: reason, Detail: detail}
}
