package pipeline

import "math/bits"

// order is a pseudo-random permutation of [0,n) that takes no memory: a Feistel
// network over the smallest even number of bits that holds n, walked until the
// value falls into range (Black and Rogaway, "Ciphers with Arbitrary Finite
// Domains", CT-RSA 2002). A shuffle of any data set then costs nothing to
// store, and a resumed run needs only a position in it.
type order struct {
	n    uint64
	half uint // bits of one half
	keys [feistelRounds]uint64
}

// feistelRounds is past the four at which a Feistel network with random round functions
// can't be told from a random permutation (Luby and Rackoff, 1988).
const feistelRounds = 6

// newOrder makes the permutation of n rows for one epoch of a seeded run.
func newOrder(n int64, seed uint64, epoch int) order {
	o := order{n: uint64(n)}
	width := bits.Len64(uint64(max(n-1, 1)))
	o.half = uint(width+1) / 2
	state := mix(seed) ^ mix(uint64(epoch)+0x9e3779b97f4a7c15)
	for i := range o.keys {
		state = mix(state + uint64(i) + 1)
		o.keys[i] = state
	}
	return o
}

// at returns the row at position i of the permutation.
func (o order) at(i int64) int64 {
	x := uint64(i)
	for {
		x = o.round(x)
		if x < o.n {
			return int64(x)
		}
	}
}

func (o order) round(x uint64) uint64 {
	mask := uint64(1)<<o.half - 1
	left, right := x>>o.half, x&mask
	for _, key := range o.keys {
		left, right = right, left^(mix(right^key)&mask)
	}
	return left<<o.half | right
}

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
