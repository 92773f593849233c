package pipeline

import (
	"context"

	"github.com/dpo-pipe/dpo-pipe/models"
	"github.com/dpo-pipe/dpo-pipe/onnx"
)

// A Runtime executes ONNX graphs. Package onnx/ort has the one that runs them in
// ONNX Runtime; tests of this package use a fake.
type Runtime interface {
	// Identity names what can move a number: provider and library version. It
	// becomes part of a cache's identity.
	Identity() map[string]string
	// OpenBackbone opens a graph that onnx.Model.Backbone made, with the inputs
	// that io describes.
	OpenBackbone(m *onnx.Model, io *onnx.IO) (Backbone, error)
	// OpenEngine opens a head engine on the frozen head v.
	OpenEngine(v *models.Vocabulary) (models.Engine, error)
	// OpenLanguageModel opens a whole model file, to be run up to its logits.
	OpenLanguageModel(path string) (LanguageModel, error)
}

// A Backbone is the frozen transformer up to the hidden states that feed the LM
// head.
type Backbone interface {
	// Traits says which runs may follow others and how many batches to run at once.
	Traits() models.Traits
	// Run runs a batch and fills in Hidden, and Cache where it is to be kept, of every run. A run's
	// result must not depend on its batch mates, nor on how what precedes it was cut into
	// runs, beyond float rounding. It is safe for concurrent use.
	Run(ctx context.Context, batch []*models.Run) error
	// Close frees what the backbone holds.
	Close() error
}

// A LanguageModel is a whole ONNX model that is run for its logits.
type LanguageModel interface {
	// Logps returns log p(seq[t] | seq[:t]) for t ≥ from, nats, float64.
	Logps(ctx context.Context, seq []int32, from int) ([]float64, error)
	// Generate continues prompt and returns the new tokens.
	Generate(ctx context.Context, prompt []int32, g Generation) ([]int32, error)
	// Close frees what the model holds.
	Close() error
}

// Generation says how a prompt is continued.
type Generation struct {
	// Limit is the most tokens.
	Limit int
	// Stop ends the text; the token met is the last of the result.
	Stop []int32
	// Choose picks a token from logits [V].
	Choose func(logits []float32) int32
}
