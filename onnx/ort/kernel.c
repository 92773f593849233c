//go:build cgo

#include "kernel.h"

#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
// A stage is compiled by itself: inlined into one function they run out of registers.
#define STAGE static __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 8")
// KEEP stops the compiler from working out ahead what depends on x.
#define KEEP(x) __asm__("" : "+r"(x))

// A logit that no softmax sees.
#define HIDDEN -3e38f

// Rows are worked through in groups of GROUP, and backward in blocks of groups with gradients. Sums of float32 over
// rows or tokens are as long as a block and then go to the gradient: short chains of additions lose less.
enum { GROUP = 6, BLOCK_GROUPS = 10, BLOCK = GROUP * BLOCK_GROUPS };

// Floats from one row of logits to the next: rows that are a power of two apart would share few lines of the
// cache.
enum { APART = KERNEL_COLS + 16 };

INLINE int least(int a, int b) { return a < b ? a : b; }

INLINE int padded(int32_t n) { return (n + KERNEL_PAD - 1) / KERNEL_PAD * KERNEL_PAD; }

// A tile: tokens first to first + n of every row, each of which has tiles of them. v is the stride of base.
typedef struct {
	int32_t rows, n, first, r, tiles;
	int64_t v;
	float scale, cap;
} tile_shape;

// taken sets t to the next tile, or reports that none is left.
static int taken(const head_shape *s, int32_t *next, tile_shape *t) {
	const int32_t tiles = (s->v + s->cols - 1) / s->cols, j = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
	if (j >= tiles) return 0;
	*t = (tile_shape){s->rows, least(s->cols, s->v - j * s->cols), j * s->cols, s->r, tiles, s->v, s->scale, s->cap};
	return 1;
}

// silent says that no row has a gradient, as those of tokens that both completions of a pair
// begin with under most objectives.
INLINE int silent(const double *coef, int rows) {
	for (int i = 0; i < rows; i++)
		if (coef[i] != 0) return 0;
	return 1;
}

// The memory of a thread, for one tile at a time. stride is the number of its tokens and wide that of ranks, both rounded up.
typedef struct {
	float *panels;  // B, [stride/PANEL,R,PANEL]
	float *c;       // scale c, [stride]
	float *u;       // scale u of a group, [R,GROUP]
	float *added;   // what the head adds to a group's logits, [GROUP,APART]
	float *z;       // logits, then their gradient, [BLOCK,APART]
	float *max;     // the greatest logit of each row of a group
	float *b, *ub;  // B, and u of a block, in panels of ranks
	float *du, *dc; // gradients of a block, [BLOCK,wide] and [stride]
	float *best;    // the greatest logits of the rows in the tiles that this thread took, [N]
} scratch_space;

// divided lays the parts out in memory and returns how many floats they take.
static int64_t divided(float *memory, int32_t rows, int32_t n, int32_t r, scratch_space *x) {
	const int64_t stride = padded(n), wide = (r + 15) / 16 * 16, sizes[] = {
		rows, stride * r, stride, GROUP * r, GROUP * APART, BLOCK * APART, GROUP, stride * wide, BLOCK * wide, BLOCK * wide, stride,
	}; // in the order of parts
	float **parts[] = {&x->best, &x->panels, &x->c, &x->u, &x->added, &x->z, &x->max, &x->b, &x->ub, &x->du, &x->dc};
	int64_t all = 0;
	for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
		*parts[i] = memory + all;
		all += (sizes[i] + 15) / 16 * 16;
	}
	return all;
}

int64_t kernel_scratch(const head_shape *s) {
	scratch_space x;
	return divided(0, s->rows, s->cols, s->r, &x);
}

// transposed writes 4 rows of 4 floats as columns. Rows are floats apart.
INLINE void transposed(const float *from, int64_t apart, float *to, int64_t wide) {
#ifdef __SSE__
	__m128 row[4];
	for (int i = 0; i < 4; i++) row[i] = _mm_loadu_ps(from + i * apart);
	_MM_TRANSPOSE4_PS(row[0], row[1], row[2], row[3]);
	for (int i = 0; i < 4; i++) _mm_storeu_ps(to + i * wide, row[i]);
#else
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++) to[j * wide + i] = from[i * apart + j];
#endif
}

// pack lays B of the tile out in panels of tokens, [stride/panel,R,panel], filled up with zeros, and scale c behind one another.
STAGE void pack(const tile_shape *s, const float *b, const float *c, int panel, float *panels, float *ct) {
	const int rank = s->r, n = s->n, stride = padded(n);
	for (int k = 0; k < stride; k += 4) {
		float *to = panels + (int64_t)(k / panel) * panel * rank + k % panel;
		int r = 0;
		if (k + 4 <= n)
			for (; r + 4 <= rank; r += 4) transposed(b + (int64_t)k * rank + r, rank, to + r * panel, panel);
		for (; r < rank; r++)
			for (int j = 0; j < 4; j++) to[r * panel + j] = k + j < n ? b[(int64_t)(k + j) * rank + r] : 0;
	}
	for (int k = 0; k < stride; k++) ct[k] = c && k < n ? s->scale * c[k] : 0;
}

// ABREAST is how many vectors of exponentials are worked out side by side.
#define W 4
#define ABREAST 2
#define BODY(name) base_##name
#include "kernel_body.h"
#undef BODY
#undef ABREAST
#undef W

#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE 1

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define W 8
#define ABREAST 2
#define MAX _mm256_max_ps
#define BODY(name) avx2_##name
#include "kernel_body.h"
#undef BODY
#undef MAX
#undef ABREAST
#undef W
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq")
#endif
#define W 16
#define ABREAST 4
#define MAX _mm512_max_ps
#define BODY(name) avx512_##name
#include "kernel_body.h"
#undef BODY
#undef MAX
#undef ABREAST
#undef W
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

static int widest = 16;

void kernel_widest(int floats) { widest = floats; }

// DISPATCH calls the widest body that the processor has and kernel_widest lets it.
#ifdef WIDE
#define DISPATCH(name, ...) \
	if (widest >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) \
		avx512_##name(__VA_ARGS__); \
	else if (widest >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) \
		avx2_##name(__VA_ARGS__); \
	else \
		base_##name(__VA_ARGS__)
#else
#define DISPATCH(name, ...) base_##name(__VA_ARGS__)
#endif

// flush makes numbers next to zero zero, which no sum here misses, and returns what restore puts back. Gradients of pairs that
// are learnt, times small probabilities, are of these, and Intel's processors take a hundred times as long for them.
static unsigned flush(void) {
#ifdef __SSE__
	const unsigned was = _mm_getcsr();
	_mm_setcsr(was | 0x8040);
	return was;
#else
	return 0;
#endif
}

static void restore(unsigned was) {
#ifdef __SSE__
	_mm_setcsr(was);
#else
	(void)was;
#endif
}

void kernel_forward(const head_shape *s, int32_t *next, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, tile_sums *sums, float *logit, float *frozen, float *scratch) {
	scratch_space x;
	divided(scratch, s->rows, s->cols, s->r, &x);
	for (int i = 0; i < s->rows; i++) x.best[i] = HIDDEN;
	const unsigned was = flush();
	for (tile_shape t; taken(s, next, &t);) {
		DISPATCH(forward, &t, base + t.first, u, b ? b + (int64_t)t.first * s->r : 0, c ? c + t.first : 0,
			targets, sums + t.first / s->cols, logit, frozen, &x);
	}
	restore(was);
}

void kernel_backward(const head_shape *s, int32_t *next, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, const double *coef, const float *shift, const double *sum,
	float *du, float *db, float *dc, float *scratch) {
	scratch_space x;
	divided(scratch, s->rows, s->cols, s->r, &x);
	const unsigned was = flush();
	for (tile_shape t; taken(s, next, &t);) {
		const int64_t at = (int64_t)t.first * s->r;
		DISPATCH(backward, &t, base + t.first, u, b ? b + at : 0, c ? c + t.first : 0, targets, coef, shift, sum,
			du ? du + (int64_t)(t.first / s->cols) * s->rows * s->r : 0, db ? db + at : 0, dc ? dc + t.first : 0, &x);
	}
	restore(was);
}
