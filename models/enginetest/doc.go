// Package enginetest holds the tests that every [models.Engine] must pass.
//
// [Run] compares an engine with a plain float64 computation that shares no code
// with any engine: every result of a forward pass directly, every gradient with central
// differences. [Pairs] trains heads through the engine, and [Golden] compares the loss,
// gradients and a training run with numbers that another implementation produced.
package enginetest
