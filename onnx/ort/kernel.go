//go:build cgo

package ort

// #cgo CFLAGS: -O3
// #include "kernel.h"
import "C"

import (
	"unsafe"

	"github.com/dpo-pipe/dpo-pipe/models"
)

// The kernel writes models.TileSums.
const _ = -uint(unsafe.Sizeof(models.TileSums{}) ^ C.sizeof_tile_sums)

// maxCols is the most tokens that a tile may have.
const maxCols = C.KERNEL_COLS

// scratchSize is the number of floats that the kernel needs for a tile.
func scratchSize(cols, r int) int { return int(C.kernel_scratch(C.int32_t(cols), C.int32_t(r))) }

// tile describes tile j of the loaded rows under the addition of the last Forward.
func (e *engine) tile(j int) (shape C.tile_shape, b, c *C.float) {
	lo, hi := e.span(j)
	add := &e.last.add
	shape = C.tile_shape{
		rows: C.int32_t(e.rows.N), n: C.int32_t(hi - lo), first: C.int32_t(lo), r: C.int32_t(rank(*add)),
		tiles: C.int32_t(e.tiles()), v: C.int64_t(e.vocab.V),
		scale: C.float(e.vocab.Scale), cap: C.float(e.vocab.Softcap),
	}
	if shape.r > 0 {
		b = floatsAt(add.B[lo*add.R:])
	}
	if add.C != nil {
		c = floatsAt(add.C[lo:])
	}
	return shape, b, c
}

// forwardTile takes the sums of tile j of every row.
func (e *engine) forwardTile(scratch []float32, j int) {
	s := &e.last
	shape, b, c := e.tile(j)
	C.kernel_forward(&shape, floatsAt(e.base[shape.first:]), floatsAt(s.add.U), b, c, idsAt(e.rows.Targets),
		(*C.tile_sums)(unsafe.Pointer(&s.sums[j])), floatsAt(s.logit), floatsAt(s.base), floatsAt(scratch))
}

// backwardTile adds tile j's part of the gradient.
func (e *engine) backwardTile(scratch []float32, j int, grad models.AdditionGrad) {
	s := &e.last
	shape, b, c := e.tile(j)
	var du, db, dc *C.float
	if grad.U != nil {
		du = floatsAt(e.partial[j*len(grad.U):])
	}
	if grad.B != nil && shape.r > 0 {
		db = floatsAt(grad.B[int(shape.first)*s.add.R:])
	}
	if grad.C != nil {
		dc = floatsAt(grad.C[shape.first:])
	}
	C.kernel_backward(&shape, floatsAt(e.base[shape.first:]), floatsAt(s.add.U), b, c, idsAt(e.rows.Targets),
		(*C.double)(unsafe.Pointer(unsafe.SliceData(e.scaled))), floatsAt(s.shift),
		(*C.double)(unsafe.Pointer(unsafe.SliceData(s.sum))), du, db, dc, floatsAt(scratch))
}

// widest bounds the vectors of the kernel, in floats. It is for tests: bodies narrower than
// the processor's own don't run otherwise.
func widest(floats int) { C.kernel_widest(C.int(floats)) }

func floatsAt(s []float32) *C.float { return (*C.float)(unsafe.Pointer(unsafe.SliceData(s))) }

func idsAt(s []int32) *C.int32_t { return (*C.int32_t)(unsafe.Pointer(unsafe.SliceData(s))) }
