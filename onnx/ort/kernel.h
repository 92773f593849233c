//go:build cgo

// What a head does to the logits of one tile: n neighbouring tokens of the vocabulary, for
// every row of a micro-batch. The caller multiplies with the frozen matrix; here the
// low-rank part is added, the softmax is taken and differentiated without a matrix of
// probabilities ever being written. kernel.c picks the body for the processor.

#ifndef DPO_PIPE_KERNEL_H
#define DPO_PIPE_KERNEL_H

#include <stdint.h>

// The layout of models.TileSums.
typedef struct {
	float max;
	int32_t top;
	double sum, sum_sq, energy, shift;
} tile_sums;

// The shape of a tile. Vectors of a tile are padded to a multiple of KERNEL_PAD.
typedef struct {
	int32_t rows;    // N
	int32_t n;       // tokens of the tile, at most KERNEL_COLS
	int32_t first;   // id of the first of them
	int32_t r;       // rank of the addition, 0 for none
	int32_t tiles;   // tiles of a row
	int64_t v;       // tokens of the vocabulary: the stride of base
	float scale;     // factor of the addition
	float cap;       // softcap, 0 for none
} tile_shape;

enum { KERNEL_PAD = 32, KERNEL_COLS = 512 };

// Floats of scratch memory that a tile of n tokens needs.
int64_t kernel_scratch(int32_t n, int32_t r);

// kernel_forward takes the sums of every row of a tile.
//   base   [N,V] frozen logits before the softcap, from the tile's first token on
//   u      [N,R]
//   b      [n,R] rows of B, or NULL
//   c      [n] or NULL
//   sums   the tile's place among those of row 0; rows are tiles apart
//   logit, frozen  [N]: the target's logit with and without the addition, set where it is in the tile
void kernel_forward(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, tile_sums *sums, float *logit, float *frozen, float *scratch);

// kernel_backward adds a tile's part of the gradient, with dz = coef (onehot - softmax).
//   coef   [N] Scale · dL/dlogp
//   shift  [N] greatest logit of the row, sum [N] of exp(z - shift)
//   du     [N,R] written: the tile's share of dL/dU, or NULL
//   db     [n,R] added to, or NULL
//   dc     [n] added to, or NULL
void kernel_backward(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, const double *coef, const float *shift, const double *sum,
	float *du, float *db, float *dc, float *scratch);

// kernel_widest bounds the width of vectors, in floats: 16, 8 or 4. Tests go through all.
void kernel_widest(int floats);

#endif
