package datasets

import "github.com/apache/arrow/go/v17/arrow/memory"

// Columns names the columns that are read. An empty optional name (ID, Weight,
// ScoreChosen, ScoreRejected, Source) turns that column off. A row may lack any
// optional column and the prompt.
type Columns struct {
	Prompt   string `json:"prompt" yaml:"prompt"`
	Chosen   string `json:"chosen" yaml:"chosen"`
	Rejected string `json:"rejected" yaml:"rejected"`

	ID            string `json:"id" yaml:"id"`                         // string or integer
	Weight        string `json:"weight" yaml:"weight"`                 // number ≥ 0
	ScoreChosen   string `json:"score_chosen" yaml:"score_chosen"`     // number
	ScoreRejected string `json:"score_rejected" yaml:"score_rejected"` // number
	Source        string `json:"source" yaml:"source"`                 // string; any other type reads as ""
}

// DefaultColumns returns the names most data sets use.
func DefaultColumns() Columns {
	return Columns{
		Prompt: "prompt", Chosen: "chosen", Rejected: "rejected",
		ID: "id", Weight: "weight", ScoreChosen: "score_chosen", ScoreRejected: "score_rejected", Source: "source",
	}
}

// Options says how rows are read. Start from [DefaultOptions].
type Options struct {
	Columns Columns `json:"columns" yaml:"columns"`

	// MaxRowBytes is the size of the largest JSON row that is read. A longer
	// line of a JSONL file is an unusable row, a longer element of an array ends
	// the reading.
	MaxRowBytes int `json:"max_row_bytes" yaml:"max_row_bytes"`

	// PromptsAlone reads rows with neither completion too: their pairs have a prompt only.
	PromptsAlone bool `json:"prompts_alone,omitempty" yaml:"-"`

	// Mix says, path by path, how much of each is read and what its pairs weigh; nil is
	// all of every path, weights as they are.
	Mix []Share `json:"mix,omitempty" yaml:"-"`

	alloc memory.Allocator // of Arrow and Parquet, set by tests; nil for Go's
}

// A Share is what one of several paths contributes.
type Share struct {
	// Weight multiplies the weight of each pair, finite and >= 0.
	Weight float64 `json:"weight"`
	// Limit ends the path after so many rows, usable or not; 0 means all.
	Limit int64 `json:"limit"`
}

// whole is a path that is read as if there were no mix.
var whole = Share{Weight: 1}

// DefaultOptions returns the default columns and a limit of 64 MiB a row.
func DefaultOptions() Options {
	return Options{Columns: DefaultColumns(), MaxRowBytes: 64 << 20}
}
