package onnx

import (
	"fmt"
	"strings"
)

// RefusedError is a sound model file that this program can't work with.
type RefusedError struct {
	// Model is the file, or "" for a model that was not loaded from one.
	Model string
	// Reason says what was found and wanted.
	Reason string
	// Chain lists the operations seen from the logits backwards, where the
	// search for the head was given up.
	Chain []string
}

func (e *RefusedError) Error() string {
	var b strings.Builder
	b.WriteString("onnx: ")
	if e.Model != "" {
		fmt.Fprintf(&b, "model %q: ", e.Model)
	}
	b.WriteString(e.Reason)
	if len(e.Chain) > 0 {
		fmt.Fprintf(&b, " (operations from the logits backwards: %s)", strings.Join(e.Chain, ", "))
	}
	return b.String()
}

func (m *Model) refuse(format string, args ...any) *RefusedError {
	return &RefusedError{Model: m.path, Reason: fmt.Sprintf(format, args...)}
}
