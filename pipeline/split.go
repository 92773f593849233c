package pipeline

import (
	"encoding/binary"
	"math"
)

// split decides which pairs are held out of training, by the key of their prompt
// alone: one prompt is never on both sides, the decision needs no memory, and it
// is the same for every seed, run and machine.
type split struct {
	threshold uint64
}

// newSplit holds out about frac of the prompts, frac in [0,1).
func newSplit(frac float64) split {
	return split{threshold: uint64(frac * math.MaxUint64)}
}

// heldOut reports whether pairs with this prompt are held out. A key is 128 bits
// of a SHA-256, so any of them are as good as drawn at random.
func (s split) heldOut(prompt [16]byte) bool {
	return binary.LittleEndian.Uint64(prompt[:]) < s.threshold
}

// everyPair picks all of a cache.
func everyPair([16]byte) bool { return true }
