package datasets

import (
	"fmt"
	"strings"
)

// A kind is the type of a cell, whatever the file's format calls it.
type kind uint8

const (
	absent kind = iota // the row has no such column
	null
	text
	number
	boolean
	list
	object
	invalid // text that is no sequence of Unicode characters
	other   // a type no column of preferences has; str names it
)

var kindNames = [...]string{"absent", "null", "text", "a number", "a boolean", "a list", "an object", "invalid text", "other"}

// A value is one cell of a row. It shares no memory with the file's buffers.
type value struct {
	kind  kind
	str   string   // text; a number's digits; the name of another type
	items []value  // elements of a list, fields of an object
	keys  []string // names of an object's fields
}

// String names the value's type for an error's detail.
func (v value) String() string {
	if v.kind == other {
		return v.str
	}
	return kindNames[v.kind]
}

// field returns an object's field, absent where there is none.
func (v value) field(name string) value {
	for i, key := range v.keys {
		if key == name {
			return v.items[i]
		}
	}
	return value{}
}

// A column is the role of a cell.
type column uint8

const (
	colPrompt column = iota
	colChosen
	colRejected
	colID
	colWeight
	colScoreChosen
	colScoreRejected
	colSource
	numColumns
)

// names returns the columns' names by role.
func (c Columns) names() [numColumns]string {
	return [numColumns]string{
		c.Prompt, c.Chosen, c.Rejected, c.ID, c.Weight, c.ScoreChosen, c.ScoreRejected, c.Source,
	}
}

// An index finds a column's role by its name.
type index map[string]column

// index checks the names and turns them round.
func (c Columns) index() (index, error) {
	x := index{}
	for role, name := range c.names() {
		if name == "" {
			if column(role) <= colRejected {
				return nil, fmt.Errorf("datasets: the %s column has no name", []string{"prompt", "chosen", "rejected"}[role])
			}
			continue
		}
		if _, twice := x[name]; twice {
			return nil, fmt.Errorf("datasets: column %q is named for two purposes", name)
		}
		x[name] = column(role)
	}
	return x, nil
}

// A row is what a file says about one pair.
type row struct {
	cells   [numColumns]value
	foreign int // 1 + index in foreignColumns of the first that the row has; 0 for none
}

// foreignColumns are the marks of layouts that are not read here. A row that has
// one of them and lacks what this package needs is refused by its layout's name;
// above all its completions are not split at the words they happen to share.
var foreignColumns = []struct{ name, layout string }{
	{"conversations", "ShareGPT"},
	{"conversation", "ShareGPT"},
	{"preferred_output", "OpenAI preference"},
	{"non_preferred_output", "OpenAI preference"},
	{"chosen_messages", "LLaMA-Factory"},
	{"rejected_messages", "LLaMA-Factory"},
	{"instruction", "instruction/input/output"},
	{"input", "instruction/input/output"},
	{"question", "question/answer"},
	{"query", "question/answer"},
	{"context", "context"},
	{"history", "dialogue history"},
	{"messages", "messages"},
}

// foreignRank returns 1 + the index of name in foreignColumns, or 0.
func foreignRank(name string) int {
	for i, f := range foreignColumns {
		if f.name == name {
			return i + 1
		}
	}
	return 0
}

// note records that the row has a column that is not read.
func (r *row) note(name string) {
	if rank := foreignRank(name); rank != 0 && (r.foreign == 0 || rank < r.foreign) {
		r.foreign = rank
	}
}

// isBlank reports whether s holds nothing but white space.
func isBlank(s string) bool { return strings.TrimSpace(s) == "" }
