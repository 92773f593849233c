// Package encode turns a pair of texts into token ids: chat template, boundary of prompt and completion, BOS, EOS and
// truncation.
package encode
