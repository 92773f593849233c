package main

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
)

// edge is how many bytes at either end of a file are changed more often than those
// between: headers and footers are there.
const edge = 600

// mutants makes broken files out of sound ones. The same seeds and number give the
// same file.
type mutants struct{ seeds [][]byte }

// make returns mutant number i, which differs from every seed.
func (m mutants) make(i int) []byte {
	for try := uint64(0); ; try++ {
		rng := rand.New(rand.NewPCG(uint64(i), try))
		seed := m.seeds[rng.IntN(len(m.seeds))]
		b := bytes.Clone(seed)
		for range 1 + rng.IntN(3) {
			b = m.change(rng, b)
		}
		if !slices.ContainsFunc(m.seeds, func(s []byte) bool { return bytes.Equal(s, b) }) {
			return b
		}
	}
}

// oddNumbers are those that lengths, counts and offsets go wrong at.
var oddNumbers = []uint64{0, 1, 2, 7, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 1 << 20, 1 << 30, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 40, 1<<63 - 1, 1 << 63, 1<<64 - 1}

// change makes one change.
func (m mutants) change(rng *rand.Rand, b []byte) []byte {
	if len(b) == 0 {
		return []byte{byte(rng.Uint32())}
	}
	at, n := place(rng, len(b)), 1+rng.IntN(1<<rng.IntN(10))
	end := min(len(b), at+n)
	switch rng.IntN(12) {
	case 0, 1, 2: // a bit
		b[at] ^= 1 << rng.IntN(8)
	case 3: // a byte
		b[at] = byte(rng.Uint32())
	case 4: // a binary number
		x := binary.LittleEndian.AppendUint64(nil, oddNumbers[rng.IntN(len(oddNumbers))])
		copy(b[at:], x[:1<<rng.IntN(4)])
	case 5: // the digits of a number
		b = slices.Replace(b, at, end, []byte([]string{"-1", "0", "1e999", "99999999999999999999", "2147483648", "NaN", "null"}[rng.IntN(7)])...)
	case 6: // cut short
		b = b[:at]
	case 7: // something missing
		b = slices.Delete(b, at, end)
	case 8: // something twice
		b = slices.Insert(b, end, bytes.Clone(b[at:end])...)
	case 9: // something very often: nesting, long lists
		b = slices.Insert(b, end, bytes.Repeat(b[at:min(end, at+8)], 1<<rng.IntN(14))...)
	case 10: // noise
		noise := make([]byte, end-at)
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		copy(b[at:], noise)
	case 11: // goes on as another file
		other := m.seeds[rng.IntN(len(m.seeds))]
		b = append(b[:at], other[min(len(other), at):]...)
	}
	return b
}

// place chooses an offset, half the time near an end.
func place(rng *rand.Rand, n int) int {
	switch rng.IntN(4) {
	case 0:
		return rng.IntN(min(n, edge))
	case 1:
		return n - 1 - rng.IntN(min(n, edge))
	}
	return rng.IntN(n)
}

func TestMutantsDifferAndRepeat(t *testing.T) {
	m := mutants{[][]byte{[]byte(`{"a": [1, 2]}`), []byte("x"), {}}}
	seen := map[string]bool{}
	for i := range 500 {
		b := m.make(i)
		if !bytes.Equal(b, m.make(i)) {
			t.Fatalf("mutant %d is not the same twice", i)
		}
		for _, s := range m.seeds {
			if bytes.Equal(b, s) {
				t.Fatalf("mutant %d is a seed", i)
			}
		}
		seen[string(b)] = true
	}
	if len(seen) < 250 {
		t.Errorf("%d different mutants of 500", len(seen))
	}
}
