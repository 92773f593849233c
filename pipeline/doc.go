// Package pipeline holds the stages of dpo-pipe: [Precompute] (data and model →
// reference cache), [Train] (cache → checkpoint), [Evaluate] (held-out metrics)
// and [Export] (checkpoint and model → policy directory), with [Inspect] to look
// at whatever they wrote.
//
// A stage takes a context, a config that it validates whole, and what it runs
// on; it reports through [Progress], returns a result, and prints nothing. The
// interfaces it consumes are stated here ([Runtime], [Backbone], [LanguageModel]
// and models.Engine), so that this package needs no C library.
//
// Shapes: N pairs, T tokens, V vocabulary, D hidden, R rank.
package pipeline
