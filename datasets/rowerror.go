package datasets

import "fmt"

// A Reason is the kind of fault that makes a row unusable. The text is part of
// reports and of the reference cache's manifest and never changes.
type Reason string

// The reasons, in the order of reports.
const (
	Malformed            Reason = "malformed"             // not a JSON object, or a key that occurs twice
	UnknownLayout        Reason = "unknown_layout"        // the columns of a layout that is not read here
	MissingColumn        Reason = "missing_column"        // the row has no such column
	NullValue            Reason = "null_value"            // the column is null
	WrongType            Reason = "wrong_type"            // neither text nor messages; a weight that is no number; …
	InvalidText          Reason = "invalid_text"          // not UTF-8, or half a surrogate pair
	InvalidNumber        Reason = "invalid_number"        // a weight or score that is not finite, a negative weight
	NoPrompt             Reason = "no_prompt"             // an empty prompt, or no beginning that both completions share
	PromptMismatch       Reason = "prompt_mismatch"       // completions that open with other turns than the prompt's
	EmptyCompletion      Reason = "empty_completion"      // a completion without any character but white space
	IdenticalCompletions Reason = "identical_completions" // chosen equals rejected: no preference
	BadTemplate          Reason = "bad_template"          // the chat template can't render the row
	PromptTooLong        Reason = "prompt_too_long"       // the prompt leaves no room for a completion
	TooLarge             Reason = "too_large"             // a line over the size limit
)

// Reasons lists every reason in the order of reports.
func Reasons() []Reason {
	return []Reason{
		Malformed, UnknownLayout, MissingColumn, NullValue, WrongType, InvalidText, InvalidNumber,
		NoPrompt, PromptMismatch, EmptyCompletion, IdenticalCompletions, BadTemplate, PromptTooLong, TooLarge,
	}
}

// A RowError says why one row can't be used. Reading goes on behind it.
type RowError struct {
	File   string // as opened
	Row    int64  // 0-based within File
	Column string // as the data names it; "" where no column is to blame
	Reason Reason
	Detail string // what was found and what was wanted
}

// Error implements error: where, what it is, what was wanted.
func (e *RowError) Error() string {
	where := fmt.Sprintf("datasets: %s row %d", e.File, e.Row)
	if e.Column != "" {
		where += fmt.Sprintf(": column %q", e.Column)
	}
	return where + ": " + e.Detail
}
