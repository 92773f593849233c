package models

import "github.com/viterin/vek/vek32"

// WithoutVectors runs do as on a machine without AVX2.
func WithoutVectors(do func()) {
	was := accelerated
	defer func() {
		accelerated = was
		vek32.SetAcceleration(was)
	}()
	accelerated = false
	vek32.SetAcceleration(false)
	do()
}
