package models

import (
	"math"
	"testing"
)

// expTolerance is the relative error of a float32 exponential: the result's
// half unit in the last place, and the kernel's own 8e-8.
const expTolerance = 2e-7

func TestExpRowEveryLengthAndArgument(t *testing.T) {
	for n := 1; n <= 3*lanes+1; n++ {
		for from := float32(0); from > expFloor; from -= 0.37 {
			x := make([]float32, n, roundUp(n, lanes))
			arg := make([]float32, n)
			for i := range x {
				arg[i] = max(from-float32(i)*0.011, expFloor)
				x[i] = arg[i]
			}
			expRow(x[:cap(x)], n)
			for i, got := range x {
				want := math.Exp(float64(arg[i]))
				if !(math.Abs(float64(got)-want) <= expTolerance*want) {
					t.Fatalf("length %d, place %d: exp(%v) is %v, want %v", n, i, arg[i], got, want)
				}
			}
		}
	}
}

func TestShiftRowSeesNaN(t *testing.T) {
	nan := float32(math.NaN())
	for n := 1; n <= 2*lanes+1; n++ {
		for bad := range n {
			z, dst, wide := make([]float32, n), make([]float32, n), make([]float64, n)
			for i := range z {
				z[i] = -50 * float32(i)
			}
			if !shiftRow(dst, z, 0, wide) {
				t.Fatalf("length %d: finite row is called NaN", n)
			}
			for i, x := range dst {
				if want := max(z[i], expFloor); x != want {
					t.Fatalf("length %d: place %d is %v, want %v", n, i, x, want)
				}
			}
			z[bad] = nan
			if shiftRow(dst, z, 0, wide) {
				t.Fatalf("length %d: NaN at %d is not seen", n, bad)
			}
		}
	}
}

func TestTranspose(t *testing.T) {
	dst := []float32{9, 9, 9, 9, 9, 9}
	transpose(dst, 3, []float32{1, 2, 3, 4}, 2, 2)
	want := []float32{1, 3, 9, 2, 4, 9}
	for i := range want {
		if dst[i] != want[i] {
			t.Fatalf("transposed is %v, want %v", dst, want)
		}
	}
}
