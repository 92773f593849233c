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

// Rows are worked through in groups of GROUP, and backward in blocks of groups with gradients. Sums of float32 over
// rows or tokens are as long as a block and then go to the gradient: short chains of additions lose less.
enum { GROUP = 6, BLOCK_GROUPS = 10, BLOCK = GROUP * BLOCK_GROUPS };

// Floats from one row of logits to the next: rows that are a power of two apart would share few lines of the
// cache.
enum { APART = KERNEL_COLS + 16 };

INLINE int least(int a, int b) { return a < b ? a : b; }

INLINE int padded(int32_t n) { return (n + KERNEL_PAD - 1) / KERNEL_PAD * KERNEL_PAD; }

// silent says that no row has a gradient, as those of tokens that both completions of a pair
// begin with under most objectives.
INLINE int silent(const double *coef, int rows) {
	for (int i = 0; i < rows; i++)
		if (coef[i] != 0) return 0;
	return 1;
}

// The memory of a tile. stride is the number of its tokens and wide that of ranks, both rounded up.
typedef struct {
	float *panels;  // scale B, [stride/PANEL,R,PANEL]
	float *c;       // scale c, [stride]
	float *u;       // of a group, [R,GROUP]
	float *added;   // what the head adds to a group's logits, [GROUP,APART]
	float *z;       // logits, then their gradient, [BLOCK,APART]
	float *b, *ub;  // B, and u of a block, in panels of ranks
	float *du, *dc; // gradients of a block, [BLOCK,wide] and [stride]
} scratch_space;

// divided lays the parts out in memory and returns how many floats they take.

static int64_t divided(float *memory, int32_t n, int32_t r, scratch_space *x) {
	const int64_t stride = padded(n), wide = padded(r), sizes[] = {
		stride * r, stride, GROUP * r, GROUP * APART, BLOCK * APART, stride * wide, BLOCK * wide, BLOCK * wide, stride,
	}; // in the order of parts
	float **parts[] = {&x->panels, &x->c, &x->u, &x->added, &x->z, &x->b, &x->ub, &x->du, &x->dc};
	int64_t all = 0;
	for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
		*parts[i] = memory + all;
		all += (sizes[i] + 15) / 16 * 16;
	}
	return all;
}

int64_t kernel_scratch(int32_t n, int32_t r) {
	scratch_space x;
	return divided(0, n, r, &x);
}

#define W 4
#define BODY(name) base_##name
#include "kernel_body.h"
#undef BODY
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
#define MAX _mm256_max_ps
#define BODY(name) avx2_##name
#include "kernel_body.h"
#undef BODY
#undef MAX
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
#define MAX _mm512_max_ps
#define BODY(name) avx512_##name
#include "kernel_body.h"
#undef BODY
#undef MAX
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

void kernel_forward(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, tile_sums *sums, float *logit, float *frozen, float *scratch) {
	DISPATCH(forward, s, base, u, b, c, targets, sums, logit, frozen, scratch);
}

void kernel_backward(const tile_shape *s, const float *base, const float *u, const float *b, const float *c,
	const int32_t *targets, const double *coef, const float *shift, const double *sum,
	float *du, float *db, float *dc, float *scratch) {
	DISPATCH(backward, s, base, u, b, c, targets, coef, shift, sum, du, db, dc, scratch);
}
