package tokenizer

import "fmt"

// An UnsupportedError reports a tokenizer.json that asks for something this
// package does not do, such as a Unigram model.
type UnsupportedError struct {
	Part string // place in the file: "model", "pre_tokenizer", …
	Name string // what stands there
	Want string // what could stand there
}

// Error names the part, what it is and what is wanted instead.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("tokenizer: %s %q is not supported, want %s", e.Part, e.Name, e.Want)
}

// malformed returns an error about a part of tokenizer.json.
func malformed(part, format string, args ...any) error {
	return fmt.Errorf("tokenizer: "+part+": "+format, args...)
}
