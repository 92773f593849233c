// Package models holds the policy heads: their parameters, forward and backward
// pass, optimizer, schedule and files. See [Engine] for who multiplies matrices.
//
// Shapes: N rows (tokens of completions), D hidden, V vocabulary, R rank.
package models
