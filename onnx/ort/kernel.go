//go:build cgo

package ort

// #cgo CFLAGS: -O3
// #include "kernel.h"
import "C"

import (
	"context"
	"sync/atomic"
	"unsafe"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// The kernel writes models.TileSums.
const _ = -uint(unsafe.Sizeof(models.TileSums{}) ^ C.sizeof_tile_sums)

// maxCols is the most tokens that a tile may have.
const maxCols = C.KERNEL_COLS

// shape describes the loaded rows under the addition of the last Forward.
func (e *engine) shape() *C.head_shape {
	return &C.head_shape{
		rows: C.int32_t(e.rows.N), cols: C.int32_t(e.cols), r: C.int32_t(rank(e.last.add)), v: C.int32_t(e.vocab.V),
		scale: C.float(e.vocab.Scale), cap: C.float(e.vocab.Softcap),
	}
}

// forwardTiles takes the sums of every row and tile.
func (e *engine) forwardTiles(ctx context.Context) error {
	s, shape := &e.last, e.shape()
	return e.each(ctx, shape, func(next *C.int32_t, scratch *C.float) {
		C.kernel_forward(shape, next, floatsAt(e.base), floatsAt(s.add.U), floatsAt(s.add.B), floatsAt(s.add.C), idsAt(e.rows.Targets),
			(*C.tile_sums)(unsafe.Pointer(unsafe.SliceData(s.sums))), floatsAt(s.logit), floatsAt(s.base), scratch)
	})
}

// backwardTiles adds the gradient, that of U as shares of tiles.
func (e *engine) backwardTiles(ctx context.Context, grad models.AdditionGrad) error {
	s, shape := &e.last, e.shape()
	var du *C.float
	if grad.U != nil {
		du = floatsAt(e.partial)
	}
	return e.each(ctx, shape, func(next *C.int32_t, scratch *C.float) {
		C.kernel_backward(shape, next, floatsAt(e.base), floatsAt(s.add.U), floatsAt(s.add.B), floatsAt(s.add.C), idsAt(e.rows.Targets),
			doublesAt(e.scaled), floatsAt(s.shift), doublesAt(s.sum), du, floatsAt(grad.B), floatsAt(grad.C), scratch)
	})
}

// each runs a kernel on all cores, each with scratch memory of its own, until the tiles are through or ctx ends. A core stays
// in C: the Go runtime takes a call of a fifth of a millisecond, which a tile is, for a blocked one and starts a thread that looks
// for work on the same cores.
func (e *engine) each(ctx context.Context, shape *C.head_shape, do func(next *C.int32_t, scratch *C.float)) error {
	workers, size := models.Workers(e.tiles()), int(C.kernel_scratch(shape))
	e.scratch = grow(e.scratch, workers)
	for w := range e.scratch {
		e.scratch[w] = grow(e.scratch[w], size)
	}
	var next atomic.Int32
	const none = 1 << 30 // beyond the last tile
	stop := context.AfterFunc(ctx, func() { next.Store(none) })
	defer stop()
	return models.Each(ctx, workers, func(worker, _ int) {
		do((*C.int32_t)(unsafe.Pointer(&next)), floatsAt(e.scratch[worker]))
	})
}

// widest bounds the vectors of the kernel, in floats. It is for tests: bodies narrower than
// the processor's own don't run otherwise.
func widest(floats int) { C.kernel_widest(C.int(floats)) }

func floatsAt(s []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(s))) }

func doublesAt(s []float64) *C.double { return (*C.double)(unsafe.Pointer(unsafe.SliceData(s))) }

func idsAt(s []int32) *C.int32_t { return (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(s))) }
