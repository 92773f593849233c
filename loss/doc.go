// Package loss holds preference objectives, their derivatives and preference
// metrics: float64 arithmetic on the log-probs of N pairs and nothing else.
//
// # Symbols
//
// All log-probs are nats. For a pair, s_c and s_r are the policy's log-probs of
// the chosen and the rejected completion, summed over tokens; ρ_c and ρ_r the
// reference's; n_c and n_r the numbers of tokens; u = s - ρ a log-ratio; c and r
// the scores of the two log-ratios ([Divergence], the log-ratio itself by
// default); Δ = c - r; β [Options.Beta]; ε [Options.LabelSmoothing]; w the
// pair's weight.
//
// # The way through
//
//	Parse          "sigmoid:0.8,sft:1" → Objective
//	Objective.Set  token log-probs of a pair → one row of Pairs (sums)
//	Objective.Terms  Pairs, Totals → Terms: losses and ∂L/∂s_c, ∂L/∂s_r
//	Objective.Coefs  one row of Terms → ∂L/∂p_t for each token
//	Metrics.Add    sums over a logging window
//
// The loss L is that of the whole optimizer batch: the mean over its pairs,
// weighted where pairs carry weights. An objective that is [Objective.Separable]
// may be evaluated in micro-batches of any size given the [Totals] of the batch;
// the sum of the parts is the whole.
//
// Every objective is one entry of the table in table.go, which the tests
// iterate over.
package loss
