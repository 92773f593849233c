package pipeline

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling says how a token is chosen from logits.
type Sampling struct {
	// Temperature divides the logits; 0 is greedy.
	Temperature float64 `json:"temperature" yaml:"temperature"`
	// TopK keeps the K most probable tokens, 0 all; TopP of those the fewest whose
	// probabilities reach P, 1 all.
	TopK int     `json:"top_k" yaml:"top_k"`
	TopP float64 `json:"top_p" yaml:"top_p"`
	Seed uint64  `json:"seed" yaml:"seed"`
}

// DefaultSampling is greedy.
func DefaultSampling() Sampling { return Sampling{TopP: 1, Seed: 42} }

func (s Sampling) validate(k *check) {
	k.that(s.Temperature >= 0 && finite(s.Temperature), "--temperature", s.Temperature, "0 (greedy) or more")
	k.that(s.TopK >= 0, "--top-k", s.TopK, "0 (all tokens) or more")
	k.that(s.TopP > 0 && s.TopP <= 1, "--top-p", s.TopP, "a share in (0, 1]")
}

// sampleStream keeps the numbers drawn for completions apart from other uses of a seed.
const sampleStream = 0x73616d706c65 // "sample"

// sampler draws tokens; equal samplers draw equal tokens from equal logits.
type sampler struct {
	Sampling
	rng    *rand.Rand
	tokens []candidate
}

type candidate struct {
	id   int32
	prob float64 // up to a common factor
}

// newSampler starts the stream of one completion.
func newSampler(s Sampling, completion int) *sampler {
	return &sampler{Sampling: s, rng: rand.New(rand.NewPCG(s.Seed, sampleStream+uint64(completion)))}
}

// choose returns the next token for logits [V].
func (s *sampler) choose(logits []float32) int32 {
	if s.Temperature == 0 {
		return argmax(logits)
	}
	kept := s.keep(logits)
	var total float64
	for _, c := range kept {
		total += c.prob
	}
	left := s.rng.Float64() * total
	for _, c := range kept {
		if left -= c.prob; left < 0 {
			return c.id
		}
	}
	return kept[0].id // rounding: the draw was the very end
}

// keep lists the tokens that top-k and top-p leave, the most probable first,
// equals by id.
func (s *sampler) keep(logits []float32) []candidate {
	top := float64(logits[argmax(logits)])
	s.tokens = s.tokens[:0]
	for id, z := range logits {
		s.tokens = append(s.tokens, candidate{int32(id), math.Exp((float64(z) - top) / s.Temperature)})
	}
	if s.TopK == 0 && s.TopP == 1 {
		return s.tokens
	}
	slices.SortStableFunc(s.tokens, func(a, b candidate) int { return cmp.Compare(b.prob, a.prob) })
	kept := s.tokens
	if s.TopK > 0 {
		kept = kept[:min(s.TopK, len(kept))]
	}
	var total, sum float64
	for _, c := range kept {
		total += c.prob
	}
	for i, c := range kept {
		if sum += c.prob; sum >= s.TopP*total {
			return kept[:i+1]
		}
	}
	return kept
}

// argmax returns the greatest logit's token, the lowest id among equals.
func argmax(logits []float32) int32 {
	best := 0
	for i, z := range logits {
		if z > logits[best] {
			best = i
		}
	}
	return int32(best)
}
