package main

import (
	"bytes"
	"testing"
)

// TestTypingShowsNoEscapes: what a model makes up does not reach the terminal as a command.
func TestTypingShowsNoEscapes(t *testing.T) {
	var out bytes.Buffer
	write := typing(&out)
	write("prompt", "a\x1b[2Jb")
	write("reference", " c\x07")
	write("reference", "d\ne")
	write("reference", "")
	want := "\n   a␛[2Jb\n     reference  c␇d\n                e\n"
	if got := out.String(); got != want {
		t.Errorf("typed %q, want %q", got, want)
	}
}
