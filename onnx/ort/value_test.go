//go:build cgo

package ort

import (
	"math"
	"testing"
)

// TestGrowReallocatesRarely asks for one element more each time: by a quarter at least, memory
// grows to n in log(n)/log(1.25) allocations and the few that rounding down makes smaller.
func TestGrowReallocatesRarely(t *testing.T) {
	const n, rounding = 10_000, 5
	var s []byte
	allocations := 0
	for i := 1; i <= n; i++ {
		had := cap(s)
		if s = grow(s, i); len(s) != i {
			t.Fatalf("%d elements, want %d", len(s), i)
		}
		if cap(s) != had {
			allocations++
		}
	}
	if most := math.Log(n)/math.Log(1.25) + rounding; float64(allocations) > most {
		t.Errorf("%d allocations, want at most %.0f", allocations, most)
	}
	if s = grow(s, 1); len(s) != 1 || cap(s) < n {
		t.Errorf("shrunk to %d of %d elements, want 1 of %d or more", len(s), cap(s), n)
	}
}
