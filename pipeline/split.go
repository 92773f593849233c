package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
)

// split decides which pairs are held out of training. It looks at the prompt's
// token ids alone, so one prompt is never on both sides, the decision needs no
// memory, and it is the same for every seed, run and machine.
type split struct {
	threshold uint64
}

// splitSalt keeps the split apart from any other hash of the prompt ids.
const splitSalt = "dpo-pipe held-out split 1\x00"

// newSplit holds out about frac of the prompts, frac in [0,1).
func newSplit(frac float64) split {
	return split{threshold: uint64(frac * math.MaxUint64)}
}

// heldOut reports whether pairs with this prompt are held out.
func (s split) heldOut(prompt []int32) bool {
	if s.threshold == 0 {
		return false
	}
	h := sha256.New()
	h.Write([]byte(splitSalt))
	var buf [4]byte
	for _, id := range prompt {
		binary.LittleEndian.PutUint32(buf[:], uint32(id))
		h.Write(buf[:])
	}
	var sum [sha256.Size]byte
	return binary.LittleEndian.Uint64(h.Sum(sum[:0])) < s.threshold
}
