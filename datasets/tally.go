package datasets

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// tallyPositions is how many rows of a reason a Tally remembers.
const tallyPositions = 3

// A Tally counts unusable rows by reason and keeps the first few of each. The
// zero Tally is empty and ready. It round-trips through JSON, and the same rows
// give the same bytes.
type Tally struct {
	Drops []Drop `json:"drops"` // in the order of [Reasons]; only reasons that occurred
}

// A Drop is one reason's share of a Tally.
type Drop struct {
	Reason Reason     `json:"reason"`
	Rows   int64      `json:"rows"`
	First  []Position `json:"first"`
}

// A Position is an unusable row.
type Position struct {
	File   string `json:"file"`
	Row    int64  `json:"row"` // 0-based within File
	Column string `json:"column,omitempty"`
	Detail string `json:"detail"`
}

// Add counts e.
func (t *Tally) Add(e *RowError) {
	d := t.drop(e.Reason)
	d.Rows++
	if len(d.First) < tallyPositions {
		d.First = append(d.First, Position{File: e.File, Row: e.Row, Column: e.Column, Detail: e.Detail})
	}
}

// Merge adds u, whose rows come behind t's.
func (t *Tally) Merge(u Tally) {
	for _, from := range u.Drops {
		d := t.drop(from.Reason)
		d.Rows += from.Rows
		d.First = append(d.First, from.First[:min(len(from.First), tallyPositions-len(d.First))]...)
	}
}

// Rows returns how many rows were counted.
func (t Tally) Rows() int64 {
	var n int64
	for _, d := range t.Drops {
		n += d.Rows
	}
	return n
}

// Count returns how many rows were counted for reason.
func (t Tally) Count(reason Reason) int64 {
	for _, d := range t.Drops {
		if d.Reason == reason {
			return d.Rows
		}
	}
	return 0
}

// drop returns the entry of reason, made in its place where there is none.
func (t *Tally) drop(reason Reason) *Drop {
	i, found := slices.BinarySearchFunc(t.Drops, reason, func(d Drop, want Reason) int { return compareReasons(d.Reason, want) })
	if !found {
		t.Drops = slices.Insert(t.Drops, i, Drop{Reason: reason})
	}
	return &t.Drops[i]
}

// MarshalJSON writes an empty list where nothing was counted: null would say that
// nobody had looked.
func (t Tally) MarshalJSON() ([]byte, error) {
	type plain Tally
	if t.Drops == nil {
		t.Drops = []Drop{}
	}
	// Whether <, > and & are escaped is for the encoder of the whole to say.
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(plain(t))
	return out.Bytes(), err
}

// compareReasons orders as Reasons does; reasons of other packages come last, by
// name.
func compareReasons(a, b Reason) int {
	all := Reasons()
	i, j := slices.Index(all, a), slices.Index(all, b)
	switch {
	case i < 0 && j < 0:
		return strings.Compare(string(a), string(b))
	case i < 0:
		return 1
	case j < 0:
		return -1
	}
	return i - j
}
