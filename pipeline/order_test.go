package pipeline

import (
	"testing"

	"pgregory.net/rapid"
)

func TestOrderIsAPermutation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(1, 3000).Draw(t, "n")
		o := newOrder(n, rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 9).Draw(t, "epoch"))
		seen := make([]bool, n)
		for i := range n {
			row := o.at(i)
			if row < 0 || row >= n {
				t.Fatalf("position %d of %d rows is row %d", i, n, row)
			}
			if seen[row] {
				t.Fatalf("row %d comes twice", row)
			}
			seen[row] = true
		}
	})
}

// The position of a row after a shuffle must say nothing about where it was: the
// rank correlation of n shuffled rows has standard deviation 1/sqrt(n-1).
func TestOrderShuffles(t *testing.T) {
	const n = 10000
	for epoch := range 5 {
		o := newOrder(n, 42, epoch)
		var sum float64
		const mean = (n - 1) / 2.0
		for i := range int64(n) {
			sum += (float64(i) - mean) * (float64(o.at(i)) - mean)
		}
		const variance = (n*n - 1) / 12.0
		if r := sum / n / variance; r > 0.05 || r < -0.05 {
			t.Errorf("epoch %d: correlation of position and row is %.3f, want |r| < 5 standard deviations (0.05)", epoch, r)
		}
	}
}

func TestOrderDependsOnSeedAndEpoch(t *testing.T) {
	same := func(a, b order) (count int) {
		for i := range int64(1000) {
			if a.at(i) == b.at(i) {
				count++
			}
		}
		return count
	}
	base := newOrder(1000, 1, 0)
	if got := same(base, newOrder(1000, 1, 0)); got != 1000 {
		t.Errorf("equal seeds agree at %d of 1000 positions", got)
	}
	// A random permutation shares one position with another on average.
	if got := same(base, newOrder(1000, 2, 0)); got > 10 {
		t.Errorf("another seed agrees at %d of 1000 positions", got)
	}
	if got := same(base, newOrder(1000, 1, 1)); got > 10 {
		t.Errorf("another epoch agrees at %d of 1000 positions", got)
	}
}
