//go:build cgo

// What a head does to the logits of a micro-batch, one tile after another: neighbouring tokens of the vocabulary, for
// every row. The caller multiplies with the frozen matrix; here the
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

// The shape of a head and the rows it scores. Tiles have cols tokens, the last one what is left.
typedef struct {
	int32_t rows;    // N
	int32_t cols;    // at most KERNEL_COLS
	int32_t r;       // rank of the addition, 0 for none
	int32_t v;       // V
	float scale;     // factor of the addition
	float cap;       // softcap, 0 for none
} head_shape;

// Vectors of a tile are padded to a multiple of KERNEL_PAD.
enum { KERNEL_PAD = 64, KERNEL_COLS = 512 };

// Floats of scratch memory that a thread needs.
int64_t kernel_scratch(const head_shape *s);

// Both kernels take one tile after another until none is left. *next is the first that no thread has taken: the threads that
// share the work share it.

// kernel_forward takes the sums of every row and tile.
//   base   [N,V] frozen logits before the softcap
//   u      [N,R]
//   b      [V,R] or NULL
//   c      [V] or NULL
//   sums   [N,tiles]; top is right in the tile with the row's greatest logit and may not be in others
//   logit, frozen  [N]: the target's logit with and without the addition
void kernel_forward(const head_shape *s, int32_t *next, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, tile_sums *sums, float *logit, float *frozen, float *scratch);

// kernel_backward takes the gradient, with dz = coef (onehot - softmax).
//   coef   [N] Scale · dL/dlogp
//   shift  [N] greatest logit of the row, sum [N] of exp(z - shift)
//   du     [tiles,N,R] written: each tile's share of dL/dU, or NULL
//   db     [V,R] added to, or NULL
//   dc     [V] added to, or NULL
void kernel_backward(const head_shape *s, int32_t *next, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, const double *coef, const float *shift, const double *sum,
	float *du, float *db, float *dc, float *scratch);

// kernel_widest bounds the width of vectors, in floats: 16, 8 or 4. Tests go through all.
void kernel_widest(int floats);

#endif
